"""What this machine does at best: a bare server, one core's MD5, one fdatasync."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.bare import FILE_VARIABLE
from bench.transfer import Client
from tests.support.ports import free_port
from tests.support.services import ROOT
from tests.support.wait import wait_until

_START_S = 15.0
_STOP_S = 10.0
_MD5_PIECE = 1024 * 1024


@contextmanager
def bare_server(app: str, file: Path | None = None) -> Iterator[str]:
    """Runs `bench.bare:APP` on uvicorn, httptools and uvloop, one worker; yields HOST:PORT."""
    host = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "uvicorn", f"bench.bare:{app}", "--host", "127.0.0.1"]
    command += ["--port", host.rpartition(":")[2], "--http", "httptools", "--loop", "uvloop"]
    command += ["--no-access-log", "--log-level", "warning", "--lifespan", "off"]
    environ = {**os.environ, FILE_VARIABLE: str(file)}
    server = subprocess.Popen(command, cwd=ROOT, env=environ)
    try:
        wait_until(lambda: _answers(host), _START_S, f"{app} answers")
        yield host
    finally:
        server.terminate()
        server.wait(_STOP_S)


def _answers(host: str) -> bool:
    try:
        with Client(host) as client:
            return client.get("/").status == 200
    except OSError:
        return False


def md5_rate(size: int) -> float:
    """Bytes per second of MD5 on one core, from memory."""
    piece = os.urandom(_MD5_PIECE)
    digest = hashlib.md5(usedforsecurity=False)
    began = time.perf_counter()
    for _ in range(size // _MD5_PIECE):
        digest.update(piece)
    digest.digest()
    return size / (time.perf_counter() - began)


def fdatasync_seconds(directory: Path, count: int) -> list[float]:
    """How long each of `count` appends of 4 KiB with its fdatasync takes."""
    path, body, taken = directory / "fdatasync.probe", os.urandom(4096), []
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for _ in range(count):
            began = time.perf_counter()
            os.write(fd, body)
            os.fdatasync(fd)
            taken.append(time.perf_counter() - began)
    finally:
        os.close(fd)
        path.unlink()
    return taken


def warm_memory(size: int) -> float:
    """Touches memory once and gives it back; returns the seconds that took.

    A virtual machine gets its memory from the host page by page at the first touch, which makes
    the first write of a file ten times as slow as later ones. That is no property of a program.
    """
    flags = "mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE"
    code = f"import mmap; mmap.mmap(-1, {size}, {flags})"
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=False)
    return time.perf_counter() - began
