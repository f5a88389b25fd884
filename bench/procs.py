"""What processes used: CPU time between two moments, and the most memory they ever held."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_USER, _SYSTEM = 11, 12  # fields of /proc/PID/stat behind the command's name


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """CPU seconds of one process."""

    user: float
    system: float

    @property
    def total(self) -> float:
        return self.user + self.system

    def minus(self, other: Cpu) -> Cpu:
        return Cpu(user=self.user - other.user, system=self.system - other.system)


def cpu_of(pid: int) -> Cpu:
    """CPU time of a process since it started; zero when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return Cpu(user=0, system=0)
    return Cpu(user=int(fields[_USER]) / _TICKS_PER_S, system=int(fields[_SYSTEM]) / _TICKS_PER_S)


class CpuMeter:
    """CPU time of named processes since the meter was made or last read."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before = self._now()

    def _now(self) -> dict[str, Cpu]:
        return {name: cpu_of(pid) for name, pid in self._pids.items()}

    def read(self) -> dict[str, Cpu]:
        """Seconds used since the last reading, by name."""
        now, before = self._now(), self._before
        self._before = now
        return {name: cpu.minus(before[name]) for name, cpu in now.items()}


def forget_peak(pid: int) -> None:
    """Lets `peak_rss` count from now on."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def peak_rss(pid: int) -> int:
    """The most resident memory, bytes: pages of mapped files count too."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return 0
