"""Waiting for a condition with a deadline: the only way tests wait for anything."""

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable

POLL_SECONDS = 0.02


def wait_until(
    predicate: Callable[[], object],
    timeout: float,
    what: str,
    *,
    poll: float = POLL_SECONDS,
) -> None:
    """Return once `predicate()` is true; AssertionError naming `what` after `timeout` seconds.

    The predicate is always tried at least once, and once more after the deadline, so that a
    slow machine is not taken for a broken program.
    """
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() > deadline
        if predicate():
            return
        if late:
            raise AssertionError(f"still not true after {timeout:g} s: {what}")
        time.sleep(poll)


async def wait_until_async(
    predicate: Callable[[], object] | Callable[[], Awaitable[object]],
    timeout: float,
    what: str,
    *,
    poll: float = POLL_SECONDS,
) -> None:
    """`wait_until` for the event loop; the predicate may be a coroutine function."""
    deadline = time.monotonic() + timeout
    while True:
        late = time.monotonic() > deadline
        answer = predicate()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        if late:
            raise AssertionError(f"still not true after {timeout:g} s: {what}")
        await asyncio.sleep(poll)
