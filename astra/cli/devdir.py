"""The data directory of `astra dev`: who the cluster is, its keys, its ports, one owner at a time.

DIR/astra.toml         the cluster, for `astra status --data DIR` and the like
DIR/cluster-secret     what the peers prove to each other (mode 0600)
DIR/credentials.json   access key and secret of the root user (mode 0600)
DIR/nodes/ID.toml      settings of one node (mode 0600: may hold a database password)
DIR/nodes/ID/          its chunks and its SQLite file
DIR/voters               ids of the nodes that the cluster was started with
DIR/removed              ids of nodes that were removed; they are not started any more
DIR/gateway.toml, DIR/gateway.json, DIR/logs/, DIR/lock
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from astra.constants import VOTERS_MAX
from astra.errors import ConfigError

_PORTS: Final = range(21000, 31000)  # below the range of ports that outgoing connections take
_ACCESS_KEY_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    access_key: str
    secret_key: str

    def __repr__(self) -> str:
        return f"Credentials({self.access_key!r})"


class DevDirectory:
    """Made or found at `path`; held until the process ends."""

    def __init__(self, path: Path) -> None:
        """Raises ConfigError when the directory cannot be used, or is in use."""
        self.path = path.resolve()
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            for part in ("nodes", "logs"):
                (self.path / part).mkdir(exist_ok=True)
            self._lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise ConfigError(
                f"cannot use the data directory {path}: {error.strerror}; "
                "choose another with --data"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"another astra dev runs on {path}; stop it, or choose another with --data"
            ) from error

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def write_private(self, name: str, text: str) -> Path:
        """Atomically replaces a file that only we may read, durably. Raises ConfigError, such as
        for a full disk; then what was there before is there still."""
        path = self.path / name
        temporary = path.with_name(path.name + ".tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except OSError as error:
            raise ConfigError(f"cannot write {path}: {error.strerror}") from error
        return path

    def _read_json(self, name: str) -> dict[str, Any]:
        """What the file holds, nothing when it is not there. Raises ConfigError."""
        path = self.path / name
        try:
            found = json.loads(path.read_text()) if path.exists() else {}
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot read {path}: {error}") from error
        if not isinstance(found, dict):
            raise ConfigError(f"{path} is damaged: it holds no JSON object")
        return found

    def secret(self) -> str:
        """The cluster's secret; made at the first start."""
        path = self.path / "cluster-secret"
        if not path.exists():
            self.write_private("cluster-secret", secrets.token_hex(32))
        return path.read_text().strip()

    def credentials(self, access_key: str, secret_key: str) -> Credentials:
        """The root user's keys: those given, or those kept, or new ones. Kept from now on."""
        kept = self._read_json("credentials.json")
        found = Credentials(
            access_key=access_key or kept.get("access_key") or new_access_key(),
            secret_key=secret_key or kept.get("secret_key") or secrets.token_urlsafe(30),
        )
        text = {"access_key": found.access_key, "secret_key": found.secret_key}
        self.write_private("credentials.json", json.dumps(text, indent=2) + "\n")
        return found

    def cluster_id(self) -> str:
        path = self.path / "cluster-id"
        if not path.exists():
            self.write_private("cluster-id", f"dev-{secrets.token_hex(4)}")
        return path.read_text().strip()

    def node_ids(self) -> list[str]:
        """The nodes that were started here before; none in a new directory."""
        return list(self._read_json("ports.json"))

    def node_addresses(self, count: int) -> dict[str, str]:
        """An address for each node: the port it had, while that is free. Raises ConfigError when
        the directory holds more nodes than asked for (their data would be left out)."""
        kept: dict[str, int] = self._read_json("ports.json")
        removed = set(_words(self.path / "removed"))
        kept = {node_id: port for node_id, port in kept.items() if node_id not in removed}
        if len(kept) > count:
            raise ConfigError(
                f"this data directory has {len(kept)} nodes; start it with --nodes {len(kept)}"
            )
        taken: set[int] = set()
        ports: dict[str, int] = {}
        for node_id in _new_ids(kept, removed, count):
            ports[node_id] = _free_port(kept.get(node_id), taken)
            taken.add(ports[node_id])
        self.write_private("ports.json", json.dumps(ports))
        return {node_id: f"127.0.0.1:{port}" for node_id, port in ports.items()}

    def voters(self, addresses: Sequence[str]) -> tuple[str, ...]:
        """Who voted when the cluster began, of which `addresses` names the nodes of now. Nodes
        that come later are voted in by the cluster."""
        path = self.path / "voters"
        if not path.exists():
            self.write_private("voters", " ".join(addresses[:VOTERS_MAX]))
        return tuple(_words(path))


def note_removed(path: Path, node_id: str) -> None:
    """The node is not started any more, if `path` is the directory of an `astra dev`."""
    ports = path / "ports.json"
    if ports.exists() and node_id in json.loads(ports.read_text()):
        with (path / "removed").open("a") as file:
            file.write(f"{node_id}\n")


def _words(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


def _new_ids(kept: Iterable[str], removed: Set[str], count: int) -> list[str]:
    """The kept node ids, and new ones after them: an id is never used again."""
    ids = list(kept)
    number = 1
    while len(ids) < count:
        if f"n{number}" not in removed and f"n{number}" not in ids:
            ids.append(f"n{number}")
        number += 1
    return ids


def new_access_key() -> str:
    """20 characters, as S3 tools expect them."""
    return "AS" + "".join(secrets.choice(_ACCESS_KEY_LETTERS) for _ in range(18))


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _free_port(wished: int | None, taken: set[int]) -> int:
    if wished is not None and wished not in taken and _is_free(wished):
        return wished
    for _ in range(1000):
        port = secrets.choice(_PORTS)
        if port not in taken and _is_free(port):
            return port
    raise ConfigError("no free port between 21000 and 31000 on 127.0.0.1 for the nodes")


def render_toml(tables: Mapping[str, Mapping[str, str | int | float | bool]]) -> str:
    """A small TOML file: tables of plain values."""
    lines: list[str] = []
    for table, rows in tables.items():
        lines.append(f"[{table}]")
        lines.extend(f"{key} = {json.dumps(value)}" for key, value in rows.items())
        lines.append("")
    return "\n".join(lines)
