"""One server process that the harness starts, signals and watches."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.support.procs import Proc, family, seen
from tests.support.services import ROOT
from tests.support.wait import wait_until

_STOP_S: Final = 20.0  # 10 s are promised; a busy machine doubles them


class Server:
    """A process of the cluster; `surprises` says when it ended without being told to."""

    def __init__(self, name: str, arguments: Sequence[str], log: Path) -> None:
        self.name = name
        self.log = log
        self.environment: dict[str, str] = {}
        self.surprises: list[str] = []
        self._argv = [sys.executable, "-P", "-m", "astra.cli.main", *arguments]
        self._process: subprocess.Popen[bytes] | None = None
        self._is_wanted = False
        self._members: set[Proc] = set()

    def start(self) -> None:
        """Starts it, unless it runs."""
        if self.is_running():
            return
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**_clean(os.environ), **self.environment},
                cwd=ROOT,
                start_new_session=True,
            )
        self._is_wanted = True

    def is_running(self) -> bool:
        """True while the process lives; notes a death that nobody asked for."""
        if self._process is None:
            return False
        status = self._process.poll()
        if status is None:
            return True
        if self._is_wanted:
            self._is_wanted = False
            self.surprises.append(f"{self.name} ended by itself with status {status}")
        return False

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was never started"
        return self._process.pid

    def children(self) -> list[Proc]:
        """The processes that it started, now."""
        return [each for each in family(self.pid) if each.pid != self.pid]

    def signal(self, number: int) -> None:
        """To the process itself, if it runs."""
        if self.is_running():
            os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to it and to what it started; returns when they are gone."""
        if self.is_running():
            self._is_wanted = False
            members = family(self.pid)
            for member in members:
                member.signal(signal.SIGKILL)
            self._wait_for_end(members)

    def stop(self) -> int:
        """SIGTERM; its exit status. SIGKILL when it takes more than _STOP_S: then it is -9."""
        if not self.is_running():
            return 0
        self._is_wanted = False
        assert self._process is not None
        members = family(self.pid)
        self._process.send_signal(signal.SIGCONT)
        self._process.terminate()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            for member in members:
                member.signal(signal.SIGKILL)
        self._wait_for_end(members)
        return self._process.returncode

    def wait_for_exit(self, timeout: float) -> int | None:
        """The status with which it ends by itself, as a fault made it do; None: it lives on."""
        assert self._process is not None
        self._is_wanted = False
        try:
            return self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            self._is_wanted = True
            return None

    def _wait_for_end(self, members: set[Proc]) -> None:
        assert self._process is not None
        self._process.wait(_STOP_S)
        wait_until(
            lambda: not any(member.is_alive() for member in members), _STOP_S, f"{self.name} ended"
        )

    def tail(self, since: int = 0, lines: int = 40) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        text = self.log.read_bytes()[since:].decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:])


def living(pids: Sequence[int]) -> set[Proc]:
    """Those of the processes that live."""
    return {each for each in seen(pids) if each.is_alive()}


def run_for(seconds: float) -> None:
    """Lets a fault last: the only thing that is waited for is time."""
    time.sleep(seconds)


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    kept = {name: text for name, text in environment.items() if not name.startswith("ASTRA_")}
    return {**kept, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(ROOT)}
