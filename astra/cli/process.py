"""What every long-running command needs: signals become an event, parents are not outlived."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final

import uvloop

from astra.constants import MIB

_PR_SET_PDEATHSIG: Final = 1
_M_TRIM_THRESHOLD: Final = -1  # glibc's malloc.h
_M_MMAP_THRESHOLD: Final = -3
_LARGEST_BUFFER: Final = 8 * MIB
_KEPT_FREE: Final = 32 * MIB
_FILES_WANTED: Final = 65_536


def end_with_parent(parent_pid: int) -> None:
    """SIGTERM for this process when its parent dies, so that a killed supervisor leaves
    nothing behind (Linux; elsewhere the parent has to stop it)."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent_pid:
        os.kill(os.getpid(), signal.SIGTERM)  # it died before we could say so


def reuse_freed_memory() -> None:
    """Chunk buffers come and go by the megabyte. glibc gives each one back to the kernel at once,
    and the next one costs 256 page faults; with this it keeps some for the next one."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:  # another libc has its own ways
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_BUFFER)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE)


def open_many_files() -> None:
    """As many connections and files at once as this system lets us: with its usual limit of 1024
    a thousand idle clients would keep everybody else out."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def run_until_signalled(
    main: Callable[[asyncio.Event], Coroutine[Any, Any, int]],
) -> int:
    """Runs `main(stop)` on uvloop and returns its exit status; SIGTERM and SIGINT set `stop`."""

    async def with_signals() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        return await main(stop)

    return uvloop.run(with_signals())
