"""Start, recognise and stop server processes by their recorded pid.

Rules: a pid is only ever signalled together with its start time (a reused pid is a stranger);
servers run in their own session, so that Ctrl-C in a terminal does not reach them; nobody
waits by sleeping for a guessed time, always for a condition with a deadline.
"""

from __future__ import annotations

import os
import pwd
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02


class ServiceError(Exception):
    """A server could not be started or stopped; the text is for the person at the terminal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """A process this tool started. `started` is its start time in clock ticks since boot."""

    pid: int
    started: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """The system user that the servers run as."""

    name: str
    uid: int
    gid: int


def service_account() -> Account | None:
    """The user to drop to when root (PostgreSQL refuses root); None: stay who we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name=name, uid=entry.pw_uid, gid=entry.pw_gid)
    raise ServiceError("no user 'postgres' to run the servers as: apt-get install postgresql")


def _stat_fields(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on (index 0), empty when there is no process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def is_alive(process: Process) -> bool:
    """True while this very process runs; a zombie is dead."""
    fields = _stat_fields(process.pid)
    return bool(fields) and fields[0] not in "ZX" and int(fields[19]) == process.started


def is_zombie(pid: int) -> bool:
    """True when the process is dead and its parent has not asked for its exit code yet."""
    return _stat_fields(pid)[:1] == ["Z"]


def identify(pid: int) -> Process:
    """The process with this pid as it is now; `started` 0 (never alive) when it is gone."""
    fields = _stat_fields(pid)
    return Process(pid=pid, started=int(fields[19]) if fields else 0)


def descendants(root: Process) -> list[Process]:
    """All living children, grandchildren and so on of a living process."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            fields = _stat_fields(int(entry.name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[Process] = []
    queue = list(children.get(root.pid, [])) if is_alive(root) else []
    while queue:
        pid = queue.pop()
        found.append(identify(pid))
        queue.extend(children.get(pid, []))
    return found


def spawn(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    log: Path,
    cwd: Path,
    account: Account | None,
) -> Process:
    """Start a server in a session of its own, output appended to `log`."""
    with log.open("ab") as output:
        child = subprocess.Popen(
            [str(part) for part in argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd=cwd,
            start_new_session=True,
            user=account.uid if account else None,
            group=account.gid if account else None,
            extra_groups=[] if account else None,
        )
    return identify(child.pid)


def run(
    argv: Sequence[str | Path],
    *,
    env: Mapping[str, str],
    cwd: Path,
    account: Account | None,
    stdin: str = "",
    timeout: float = 60,
) -> str:
    """Run a tool to its end and return its output; ServiceError with its words when it fails."""
    done = subprocess.run(
        [str(part) for part in argv],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=dict(env),
        cwd=cwd,
        check=False,
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
    )
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip()[-2000:]
        raise ServiceError(f"{Path(argv[0]).name} failed ({done.returncode}): {words}")
    return done.stdout


def wait_until(predicate: Callable[[], bool], *, timeout: float, what: str) -> None:
    """Return once the predicate is true; ServiceError after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not predicate():
        if time.monotonic() > deadline:
            raise ServiceError(f"timed out after {timeout:g} s waiting for {what}")
        time.sleep(POLL_SECONDS)


def wait_ready(
    process: Process, probe: Callable[[], bool], *, timeout: float, name: str, log: Path
) -> None:
    """Return once the server answers its probe; fail at once when it has died instead."""

    def ready_or_dead() -> bool:
        return not is_alive(process) or probe()

    try:
        wait_until(ready_or_dead, timeout=timeout, what=f"{name} to answer")
    except ServiceError as late:
        raise ServiceError(f"{late}\n{tail(log)}") from late
    if not is_alive(process):
        raise ServiceError(f"{name} did not start:\n{tail(log)}")


def tail(log: Path, lines: int = 15) -> str:
    """The last lines of a log, for an error message."""
    try:
        text = log.read_text(errors="replace")
    except OSError:
        return f"(no log at {log})"
    return "\n".join(text.splitlines()[-lines:])


def _signal(process: Process, number: int) -> None:
    if is_alive(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            pass  # It ended between the look and the signal: what was wanted.


def stop(process: Process, *, number: int, timeout: float) -> None:
    """Ask to stop, wait, and kill whatever of its family is left after `timeout` seconds."""
    family = [process, *descendants(process)]
    _signal(process, number)
    try:
        wait_until(
            lambda: not any(map(is_alive, family)), timeout=timeout, what=f"pid {process.pid}"
        )
    except ServiceError:
        kill(process, family)


def kill(process: Process, family: Sequence[Process] = ()) -> None:
    """SIGKILL to the process and its descendants, then wait until they are gone."""
    # The parent first: a PostgreSQL that sees a child die would start a recovery.
    everyone = list(dict.fromkeys([process, *family, *descendants(process)]))
    for member in everyone:
        _signal(member, signal.SIGKILL)
    wait_until(
        lambda: not any(map(is_alive, everyone)), timeout=10, what=f"the end of pid {process.pid}"
    )
