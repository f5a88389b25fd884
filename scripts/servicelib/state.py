"""DIR/services.json: what runs, on which ports, with which passwords.

Guarantees: mode 0600, replaced atomically, written only under the lock of the directory.
The three top-level keys `postgres` (list of DSNs, one per node), `redis` and `amqp` (URLs) are
the public part; `astra dev --backend services --services FILE` reads exactly these.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

from scripts.servicelib.process import Process

NODES = 3
POSTGRES = tuple(f"postgres-{number}" for number in range(1, NODES + 1))
SERVERS = (*POSTGRES, "redis", "rabbitmq")
PORT_NAMES = (*SERVERS, "epmd", "rabbitmq-dist")
USER = "astra"
DATABASE = "astra"
FIRST_PORT = 10240
VERSION = 1


@dataclass(slots=True, kw_only=True)
class State:
    """Everything recorded about one set of servers."""

    data: Path
    password: str
    ports: dict[str, int]
    processes: dict[str, Process] = field(default_factory=dict)
    owner: str = ""

    def log(self, name: str) -> Path:
        """The file with a server's output."""
        return self.data / f"{name}.log"

    def postgres_url(self, name: str, database: str = DATABASE) -> str:
        """DSN of one node's own database."""
        return f"postgresql://{USER}:{self.password}@127.0.0.1:{self.ports[name]}/{database}"

    def redis_url(self, number: int = 0) -> str:
        """URL of one of the 16 Redis databases."""
        return f"redis://:{self.password}@127.0.0.1:{self.ports['redis']}/{number}"

    def amqp_url(self, virtual_host: str = "") -> str:
        """URL of a virtual host of RabbitMQ; empty: the default one, '/'."""
        return f"amqp://{USER}:{self.password}@127.0.0.1:{self.ports['rabbitmq']}/{virtual_host}"

    def public(self) -> dict[str, object]:
        """The part that a cluster needs."""
        return {
            "postgres": [self.postgres_url(name) for name in POSTGRES],
            "redis": self.redis_url(),
            "amqp": self.amqp_url(),
        }


def new_state(data: Path, owner: str) -> State:
    """A fresh state: unused ports, one generated password."""
    ports = dict(zip(PORT_NAMES, free_ports(len(PORT_NAMES)), strict=True))
    return State(data=data, password=secrets.token_urlsafe(24), ports=ports, owner=owner)


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listens on, below the range from which the kernel lends ports.

    A server that is stopped and started again must find its port free: a port of the
    ephemeral range could meanwhile be the near end of somebody's connection.
    """
    try:
        low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except OSError:
        low = 32768
    candidates = range(FIRST_PORT, low) if low - FIRST_PORT > 1000 else range(low, 60999)
    found: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if is_free(port):
            found.append(port)
        if len(found) == count:
            return found
    raise OSError("no free loopback ports")


def is_free(port: int) -> bool:
    """True when the loopback port can be bound now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def load(directory: Path) -> State | None:
    """The recorded state, or None when nothing was ever started here (or it was wiped)."""
    try:
        raw = json.loads((directory / "services.json").read_text())
    except FileNotFoundError:
        return None
    return State(
        data=Path(raw["data"]),
        password=raw["password"],
        ports=raw["ports"],
        processes={name: Process(**entry) for name, entry in raw["processes"].items()},
        owner=raw["owner"],
    )


def save(directory: Path, state: State) -> None:
    """Atomic: a reader sees the old file or the new one."""
    text = json.dumps(
        {
            "version": VERSION,
            **state.public(),
            "owner": state.owner,
            "data": str(state.data),
            "password": state.password,
            "ports": state.ports,
            "processes": {name: asdict(entry) for name, entry in state.processes.items()},
        },
        indent=2,
    )
    temporary = directory / f".services.json.{os.getpid()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(text + "\n")
    temporary.replace(directory / "services.json")


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """One command at a time per directory; the lock dies with its holder."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
