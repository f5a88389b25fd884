"""Runs bodies: coroutines that await nothing but their view.

Rules of this file: no IO. The methods of a view never suspend, so a body runs to its end in
one go, on whatever thread drives it. The one exception is `change_thread`: a transaction that
has become long yields once, and its driver goes on with it in a worker thread, so that the
event loop is held up for a bounded number of statements. A coroutine may change threads
between two steps; it never runs on two at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Generator
from typing import Final, Generic, TypeVar

from astra.errors import InvariantBroken

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_CHANGE_THREAD: Final = object()


class Finished(Generic[T_co]):
    __slots__ = ("value",)

    def __init__(self, value: T_co) -> None:
        self.value: Final = value


class _ChangeThread:
    def __await__(self) -> Generator[object, None, None]:
        yield _CHANGE_THREAD


change_thread: Final = _ChangeThread()


def advance(steps: Generator[object, None, T]) -> Finished[T] | None:
    """Runs a body as far as it goes. None: it asks for another thread."""
    try:
        asked = next(steps)
    except StopIteration as done:
        return Finished(done.value)
    if asked is not _CHANGE_THREAD:
        steps.close()
        raise InvariantBroken("a metadata body awaited something other than its view")
    return None


def finish(steps: Generator[object, None, T]) -> T:
    """Runs a body to its end on this thread."""
    while (finished := advance(steps)) is None:
        pass
    return finished.value


def drive(body: Awaitable[T]) -> T:
    return finish(body.__await__())
