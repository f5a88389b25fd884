"""PostgreSQL (one per node), Redis and RabbitMQ of `scripts/services`, typed.

Several test sessions may share one set: each holds a shared lock while it may use them, and
the last session to end stops servers that were started by a session (`owner` "pytest").
"""

import fcntl
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import msgspec
import redis

from tests.support.procs import Proc, family, seen

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "services"
OWNER = "pytest"
COMMAND_SECONDS = 120
POSTGRES_NAMES = ("postgres-1", "postgres-2", "postgres-3")
SERVER_NAMES = (*POSTGRES_NAMES, "redis", "rabbitmq")


class Backends(msgspec.Struct, frozen=True, kw_only=True):
    """The public part of services.json: where a cluster finds its backends."""

    postgres: list[str]
    redis: str
    amqp: str


class _Process(msgspec.Struct, frozen=True, kw_only=True):
    pid: int
    started: int


class _Recorded(Backends, frozen=True, kw_only=True):
    owner: str
    processes: dict[str, _Process] = {}


def services_directory() -> Path:
    """Where this checkout's test servers live; TEST_SERVICES_DIR overrides."""
    return Path(os.environ.get("TEST_SERVICES_DIR") or ROOT / ".services" / "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The running servers. Every method returns when the change is complete."""

    directory: Path

    @property
    def file(self) -> Path:
        """services.json, as `astra dev --services` takes it."""
        return self.directory / "services.json"

    @property
    def backends(self) -> Backends:
        """Addresses of the shared databases; prefer `isolated` for anything that is stored."""
        return msgspec.json.decode(self.file.read_bytes(), type=Backends)

    @property
    def postgres(self) -> list[str]:
        """DSNs, one cluster per node."""
        return self.backends.postgres

    @property
    def redis(self) -> str:
        """URL of Redis."""
        return self.backends.redis

    @property
    def amqp(self) -> str:
        """URL of RabbitMQ."""
        return self.backends.amqp

    def stop(self, name: str) -> None:
        """Stop one server ("postgres-1", "redis", "rabbitmq") in order."""
        run_script(self.directory, "stop", name)

    def kill(self, name: str) -> None:
        """SIGKILL to one server and all its processes."""
        run_script(self.directory, "stop", "--kill", name)

    def start(self, name: str) -> None:
        """Start one server again on its old port with its old data; returns when it answers."""
        run_script(self.directory, "start", name)

    def restart(self, name: str) -> None:
        """Stop in order, then start."""
        run_script(self.directory, "restart", name)

    def pause(self, name: str) -> None:
        """SIGSTOP to one server and all its processes: its connections stay, nothing answers."""
        paused: set[Proc] = set()
        while more := self._processes(name) - paused:  # a child that was born meanwhile
            for member in more:
                member.signal(signal.SIGSTOP)
            paused |= more

    def resume(self, name: str) -> None:
        """SIGCONT to all of them; nothing happens to a server that runs or is stopped."""
        for member in self._processes(name):
            member.signal(signal.SIGCONT)

    def _processes(self, name: str) -> set[Proc]:
        recorded = msgspec.json.decode(self.file.read_bytes(), type=_Recorded).processes.get(name)
        if recorded is None:
            return set()
        root = Proc(pid=recorded.pid, started=str(recorded.started))
        return family(root.pid) if root in seen([root.pid]) else set()

    def bring_back(self) -> None:
        """Whatever a test left paused or stopped runs again."""
        for name in SERVER_NAMES:
            self.resume(name)
        self.start_all()

    def start_all(self) -> None:
        """Start whatever a test left stopped."""
        run_script(self.directory, "up", "--owner", OWNER)

    def flush_redis(self, url: str = "") -> None:
        """FLUSHALL: every cached answer of everybody is gone."""
        client = redis.Redis.from_url(url or self.redis)
        try:
            client.flushall()
        finally:
            client.close()

    @contextmanager
    def isolated(self) -> Iterator[Backends]:
        """Empty databases, an emptied Redis number and a virtual host, removed at the end."""
        name = f"t{uuid.uuid4().hex[:12]}"
        made = run_script(self.directory, "isolate", name)
        backends = msgspec.json.decode(made, type=Backends)
        client = redis.Redis.from_url(backends.redis)
        try:
            client.flushdb()
        finally:
            client.close()
        try:
            yield backends
        finally:
            run_script(self.directory, "forget", name)


def run_script(directory: Path, *arguments: str) -> str:
    """Run `scripts/services`; AssertionError with its own words when it fails."""
    command, *rest = arguments
    done = subprocess.run(
        [str(SCRIPT), command, "--dir", str(directory), *rest],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, f"scripts/services {' '.join(arguments)}: {done.stderr}"
    return done.stdout


def acquire_services() -> tuple[Services, IO[str]]:
    """Start the servers unless they run; keep the returned handle open while using them."""
    directory = services_directory()
    directory.mkdir(parents=True, exist_ok=True)
    handle = (directory / "in-use").open("w")
    fcntl.flock(handle, fcntl.LOCK_SH)
    services = Services(directory=directory)
    services.start_all()
    return services, handle


def stop_services_if_last() -> None:
    """At the end of a session: stop servers that tests started and nobody uses any more."""
    directory = services_directory()
    file = directory / "services.json"
    if not file.exists() or msgspec.json.decode(file.read_bytes(), type=_Recorded).owner != OWNER:
        return
    with (directory / "in-use").open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        run_script(directory, "down", "--wipe")
