"""Feeds a target, and fails on an error that is not declared, on a hang and on growing memory."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Final

import structlog

from tests.fuzz.storedtargets import BlobFiles, CacheEntries, Markers
from tests.fuzz.targets import (
    Documents,
    Footers,
    Notices,
    Proposals,
    RaftRows,
    Results,
    Snapshots,
    Target,
    Tokens,
)
from tests.fuzz.wiretargets import Frames, Impostors, Requests, Strangers
from tests.support.procs import resident_bytes

HANG_S: Final = 5.0
GROWTH_BYTES_MAX: Final = 64 << 20
_WARM_UP: Final = 500

TARGETS: Final[tuple[type[Target], ...]] = (
    Frames, Requests, Strangers, Impostors, Proposals, Results, Documents, Snapshots, Footers,
    BlobFiles, RaftRows, Markers, CacheEntries, Notices, Tokens,
)  # fmt: skip


class Failure(AssertionError):
    """The input that did it, and how to get it again."""


class _Hang(BaseException):
    """An input takes too long."""


def fuzz(target: type[Target], *, count: int, seed: int) -> int:
    """Raises Failure. Returns by how many bytes the process grew."""
    quiet = structlog.make_filtering_bound_logger(logging.CRITICAL)
    before = structlog.get_config()
    structlog.configure(wrapper_class=quiet, cache_logger_on_first_use=False)
    try:
        return asyncio.run(_fuzz(target, count, seed))
    finally:
        structlog.configure(**before)


async def _fuzz(kind: type[Target], count: int, seed: int) -> int:
    target = kind(random.Random(f"{seed}/{kind.name}"))
    try:
        return await _feed_all(target, count, seed)
    finally:
        target.close()


async def _feed_all(target: Target, count: int, seed: int) -> int:
    start = 0
    for number in range(count):
        if number == _WARM_UP:
            start = resident_bytes(os.getpid())
        data = target.make()
        try:
            with _alarm():
                target.feed(data)
        except (Exception, _Hang) as error:
            raise Failure(
                f"input {number} of seed {seed}: {type(error).__name__}: {error}\n"
                f"{data[:300].hex()}{'...' if len(data) > 300 else ''}"
            ) from error
        if number % 64 == 0:
            await asyncio.sleep(0)  # what was called soon
    grown = resident_bytes(os.getpid()) - start if start else 0
    if grown > GROWTH_BYTES_MAX:
        raise Failure(f"memory grew by {grown >> 20} MiB over {count} inputs")
    return grown


@contextmanager
def _alarm() -> Iterator[None]:
    def ring(_number: int, _frame: FrameType | None) -> None:
        raise _Hang(f"no end within {HANG_S:g} s")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, HANG_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
