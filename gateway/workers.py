"""The parent of the gateway's workers: owns the listening socket, replaces workers that die.

The socket stays open while a worker is replaced, so clients that connect meanwhile wait in its
backlog instead of being refused. When all stop it is closed first: who comes then is refused at
once, and goes elsewhere, instead of waiting for workers that take nobody any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import structlog

from astra.errors import ConfigError
from gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)

_BACKLOG: Final = 2048
_RESTART_S_FIRST: Final = 0.1
_RESTART_S_MAX: Final = 5.0
_HEALTHY_S: Final = 10.0


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError that says what to do when the port is in use."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
        listening.listen(_BACKLOG)
    except OSError as error:
        listening.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; "
            "stop what uses it, or choose another with --listen"
        ) from error
    listening.set_inheritable(True)
    return listening


class Workers:
    """Runs `settings.workers` processes of `command` on one socket until `stop` is set."""

    def __init__(
        self, settings: GatewaySettings, command: Sequence[str], listening: socket.socket
    ) -> None:
        self._settings = settings
        self._command = command
        self._listening = listening
        self._running: dict[int, asyncio.subprocess.Process] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Returns when every worker has ended after `stop`."""
        async with asyncio.TaskGroup() as group:
            for slot in range(self._settings.workers):
                group.create_task(self._keep(slot, stop))
            await stop.wait()
            self._listening.close()

    async def _keep(self, slot: int, stop: asyncio.Event) -> None:
        """One worker slot: starts it again whenever it ends, slower when it keeps failing."""
        delay = _RESTART_S_FIRST
        loop = asyncio.get_running_loop()
        while not stop.is_set():
            started = loop.time()
            worker = await asyncio.create_subprocess_exec(
                *self._command, pass_fds=(self._listening.fileno(),)
            )
            self._note(slot, worker)
            await self._until_ended(worker, stop)
            if stop.is_set():
                return
            log.warning("gateway worker ended", pid=worker.pid, status=worker.returncode)
            delay = _RESTART_S_FIRST if loop.time() - started > _HEALTHY_S else delay
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await stop.wait()
            delay = min(delay * 2, _RESTART_S_MAX)

    async def _until_ended(self, worker: asyncio.subprocess.Process, stop: asyncio.Event) -> None:
        ended = asyncio.ensure_future(worker.wait())
        stopped = asyncio.ensure_future(stop.wait())
        await asyncio.wait({ended, stopped}, return_when=asyncio.FIRST_COMPLETED)
        stopped.cancel()
        if not ended.done():
            worker.send_signal(signal.SIGTERM)
            await asyncio.wait({ended}, timeout=self._settings.stop_timeout_s)
        if not ended.done():
            log.warning("gateway worker does not stop: killed", pid=worker.pid)
            worker.kill()
        await ended

    def _note(self, slot: int, worker: asyncio.subprocess.Process) -> None:
        """Writes down who runs, for `astra status`."""
        self._running[slot] = worker
        if self._settings.data_dir is not None:
            pids = [process.pid for process in self._running.values()]
            write_gateway_state(self._settings.data_dir, os.getpid(), pids)


def write_gateway_state(data_dir: Path, pid: int, workers: Sequence[int]) -> None:
    """Atomically replaces gateway.json in the data directory."""
    path = data_dir / "gateway.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps({"pid": pid, "workers": list(workers)}))
    temporary.replace(path)
