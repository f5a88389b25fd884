"""Keeps child processes running, and stops them in order."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

_RESTART_S_FIRST: Final = 0.2
_RESTART_S_MAX: Final = 10.0
_HEALTHY_S: Final = 10.0


class Child:
    """One process that is started again whenever it ends, slower when it keeps ending."""

    def __init__(
        self, name: str, command: Sequence[str], log_file: Path, say: Callable[[str], None]
    ) -> None:
        self.name = name
        self._command = command
        self._log_file = log_file
        self._say = say
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        process = self._process
        return process.pid if process is not None and process.returncode is None else None

    async def start(self) -> None:
        await self._spawn()
        self._keeper = asyncio.get_running_loop().create_task(self._keep())

    async def _spawn(self) -> asyncio.subprocess.Process:
        with self._log_file.open("ab") as log:
            # A session of its own: Ctrl-C reaches us alone, and we stop the children in order.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=child_environment(),
            )  # fmt: skip
        return self._process

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay = _RESTART_S_FIRST
        process = self._process
        while process is not None:
            started = loop.time()
            status = await process.wait()
            if self._stopping.is_set():
                return
            self._say(f"{self.name} ended ({_describe(status)}); log: {self._log_file}")
            delay = _RESTART_S_FIRST if loop.time() - started > _HEALTHY_S else delay
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay):
                    await self._stopping.wait()
                    return
            delay = min(delay * 2, _RESTART_S_MAX)
            process = await self._spawn()

    async def stop(self, timeout_s: float) -> None:
        """SIGTERM, and SIGKILL when that does not help in time."""
        self._stopping.set()
        process = self._process
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(timeout_s):
                    await process.wait()
            except TimeoutError:
                self._say(f"{self.name} does not stop: killed")
                process.kill()
                await process.wait()
        if self._keeper is not None:
            await self._keeper


def _describe(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def child_environment() -> dict[str, str]:
    """Without the root keys: nobody needs them in an environment (SECURITY S50)."""
    return {name: value for name, value in os.environ.items() if "ASTRA_ROOT_" not in name}
