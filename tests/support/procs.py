"""Processes of a cluster, recognised by pid and start time: a reused pid is a stranger."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_STATE, _PARENT, _SESSION, _STARTED = 0, 1, 3, 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Proc:
    """One process as it was seen; `started` in clock ticks since boot."""

    pid: int
    started: str

    def is_alive(self) -> bool:
        """True while this very process runs; a zombie is dead."""
        fields = _stat(self.pid)
        return bool(fields) and fields[_STATE] not in "ZX" and fields[_STARTED] == self.started

    def signal(self, number: int) -> None:
        """Send a signal; nothing happens when the process is gone."""
        if self.is_alive():
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                pass  # It ended between the look and the signal.


def seen(pids: Iterable[int]) -> set[Proc]:
    """The living processes with these pids."""
    stats = {pid: _stat(pid) for pid in pids}
    return {Proc(pid=pid, started=fields[_STARTED]) for pid, fields in stats.items() if fields}


def family(root: int) -> set[Proc]:
    """The process, its descendants and the members of its session, those that live now."""
    stats = {int(e.name): _stat(int(e.name)) for e in Path("/proc").iterdir() if e.name.isdigit()}
    members = {root}
    grown = True
    while grown:
        more = {
            pid
            for pid, fields in stats.items()
            if fields and (int(fields[_PARENT]) in members or int(fields[_SESSION]) == root)
        }
        grown = not more <= members
        members |= more
    return {
        Proc(pid=pid, started=stats[pid][_STARTED])
        for pid in members
        if stats.get(pid) and stats[pid][_STATE] not in "ZX"
    }


def resident_bytes(pid: int) -> int:
    """Resident memory of a process now; 0 when it is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on; empty when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []
