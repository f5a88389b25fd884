"""THE settings table, and how a value is found: flag over environment over file over default.

A setting has one dotted name. `gateway.listen` is `[gateway] listen` in the TOML file,
ASTRA_GATEWAY_LISTEN in the environment and the flag of that name where a command has one. A
secret may also be given as a path, `..._FILE`, so that it stands in no process list. A name that
is not in the table is refused with the nearest one that is.
"""

from __future__ import annotations

import difflib
import math
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from astra.constants import INLINE_BYTES_DEFAULT
from astra.errors import ConfigError

ENV_PREFIX: Final = "ASTRA_"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_FILE_SUFFIX: Final = "_FILE"
_OUR_OTHER_ENV: Final = frozenset({"ASTRA_CONFIG"})  # where the TOML file is

Value = str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One row of the table. The type of `default` is the type of the value."""

    name: str
    default: Value
    help: str
    is_secret: bool = False

    @property
    def env(self) -> str:
        return ENV_PREFIX + self.name.replace(".", "_").upper()


def _setting(name: str, default: Value, text: str, *, secret: bool = False) -> Setting:
    return Setting(name=name, default=default, help=text, is_secret=secret)


SETTINGS: Final[tuple[Setting, ...]] = (
    _setting("cluster.id", "", "Name of the cluster; all its processes have the same."),
    _setting(
        "cluster.secret", "", "What peers prove to each other; 32 bytes or more.", secret=True
    ),
    _setting("cluster.tls_cert", "", "PEM file: with the next two, peers speak mutual TLS only."),
    _setting("cluster.tls_key", "", "PEM file, readable by its owner only: the key of tls_cert."),
    _setting("cluster.tls_ca", "", "PEM file: the cluster's own CA, which signed every tls_cert."),
    _setting("cluster.peers", "", "All nodes, as ID=HOST:PORT,ID=HOST:PORT,..."),
    _setting("cluster.voters", "", "Ids of the nodes that vote (at most 5); empty: the first 5."),
    _setting("data.dir", "", "Directory of this process: chunks, SQLite, marker file."),
    _setting("node.id", "", "Id of this node; must be one of cluster.peers."),
    _setting("node.listen", "", "HOST:PORT to listen on; empty: the address in cluster.peers."),
    _setting("node.zone", "", "Rack, room or site; copies go to different zones first."),
    _setting(
        "node.metadata", "sqlite", "sqlite, or the postgresql:// DSN of this node's own database.",
        secret=True,
    ),
    _setting("node.inline_bytes", INLINE_BYTES_DEFAULT, "Objects up to this size need no chunks."),
    _setting("node.garbage_grace_s", 60.0, "Unlinked blobs stay so long, and while read."),
    _setting("node.repair_grace_s", 300.0, "A node silent for longer is replaced as a holder."),
    _setting("node.repair_mib_per_s", 64.0, "How fast each node copies to repair and rebalance."),
    _setting(
        "node.scrub_mib_per_s", 16.0,
        "How fast each node reads its blobs to verify them, and its metadata (a row: 4 KiB more).",
    ),
    _setting(
        "node.metadata_scrub_period_s", 43200.0,
        "Each node verifies all of its metadata so often; first after a hundredth of it, or two.",
    ),
    _setting("node.election_ms", 600, "Silence of the leader after which an election may start."),
    _setting("node.heartbeat_ms", 75, "Interval of the leader's heartbeats."),
    _setting("redis.url", "", "Cache of HEAD and LIST; empty: the leader's memory.", secret=True),
    _setting("amqp.url", "", "RabbitMQ for broadcasts; empty: direct TCP.", secret=True),
    _setting("gateway.listen", "127.0.0.1:9000", "HOST:PORT of the S3 endpoint."),
    _setting("gateway.id", "", "Name of this gateway in logs; empty: the host name."),
    _setting("gateway.workers", 2, "Worker processes that share the endpoint."),
    _setting("gateway.nodes", "", "Addresses of nodes; empty: all of cluster.peers."),
    _setting("gateway.region", "us-east-1", "What GetBucketLocation answers."),
    _setting(
        "gateway.domains", "localhost",
        "Comma separated; BUCKET.DOMAIN addresses a bucket (virtual-host style).",
    ),
    _setting("gateway.access_log", False, "One log line for each request."),
    _setting("root.access_key", "", "Access key of the root user; empty: generated."),
    _setting("root.secret_key", "", "Its secret; empty: generated.", secret=True),
    _setting("log.level", "info", "debug, info, warning or error."),
)  # fmt: skip

BY_NAME: Final[Mapping[str, Setting]] = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A value and where it came from ("flag", "environment NAME", "file PATH", "default")."""

    value: Value = field(repr=False)  # may be a secret
    origin: str


class Config:
    """Every setting with its value and origin."""

    def __init__(self, found: Mapping[str, Found]) -> None:
        self._found = dict(found)

    def items(self) -> list[tuple[Setting, Found]]:
        return [(setting, self._found[setting.name]) for setting in SETTINGS]

    def text(self, name: str) -> str:
        return str(self._found[name].value)

    def number(self, name: str) -> int:
        return int(self._found[name].value)

    def real(self, name: str) -> float:
        return float(self._found[name].value)

    def flag(self, name: str) -> bool:
        return bool(self._found[name].value)

    def required(self, name: str) -> str:
        """The text of a setting that must be given. Raises ConfigError that says how."""
        value = self.text(name)
        if not value:
            setting = BY_NAME[name]
            table, _, key = name.partition(".")
            raise ConfigError(
                f"{name} is not set ({setting.help}) "
                f"Give it as {setting.env}, or as {key} in [{table}] of the configuration file."
            )
        return value


def load(
    *,
    flags: Mapping[str, Value | None] | None = None,
    environ: Mapping[str, str],
    file: Path | None = None,
) -> Config:
    """Finds every setting. Raises ConfigError: an unknown name, a value of the wrong type, a
    file that cannot be read, or a secret file that others may read."""
    found = {setting.name: Found(value=setting.default, origin="default") for setting in SETTINGS}
    if file is not None:
        found.update(_from_file(file))
    found.update(_from_environment(environ))
    for name, value in (flags or {}).items():
        if value is not None:
            found[name] = Found(value=_typed(_row(name, "flag"), value, "flag"), origin="flag")
    return Config(found)


def _row(name: str, origin: str) -> Setting:
    setting = BY_NAME.get(name)
    if setting is None:
        raise ConfigError(f"unknown setting {name} ({origin}){_nearest(name, BY_NAME)}")
    return setting


def _nearest(name: str, names: Mapping[str, object] | list[str]) -> str:
    near = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f"; did you mean {near[0]}?" if near else ""


def _from_file(path: Path) -> dict[str, Found]:
    try:
        is_private = not path.stat().st_mode & _OTHERS
        tree = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"cannot read the configuration file: {error}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from error
    found: dict[str, Found] = {}
    for table, rows in tree.items():
        if not isinstance(rows, dict):
            raise ConfigError(f"{path}: {table} must be in a table, as [{table}]")
        for key, value in rows.items():
            one = _one_of_file(f"{table}.{key}", value, path)
            # A secret under another name is the path of a file, which was looked at.
            if not is_private and _is_secret(one.get(f"{table}.{key}"), f"{table}.{key}"):
                raise ConfigError(
                    f"others may read the secret {table}.{key} in {path}: run chmod 600 {path}"
                )
            found.update(one)
    return found


def _is_secret(found: Found | None, name: str) -> bool:
    setting = BY_NAME.get(name)
    if found is None or setting is None or not setting.is_secret:
        return False
    return found.value not in ("", setting.default)


def _one_of_file(name: str, value: Value, path: Path) -> dict[str, Found]:
    origin = f"file {path}"
    secret = BY_NAME.get(name.removesuffix("_file"))
    if name.endswith("_file") and secret is not None and secret.is_secret:
        text = _read_secret(path.parent / str(value))
        return {secret.name: Found(value=text, origin=f"file {value}")}
    return {name: Found(value=_typed(_row(name, origin), value, origin), origin=origin)}


def _from_environment(environ: Mapping[str, str]) -> dict[str, Found]:
    rows = {setting.env: setting for setting in SETTINGS}
    found: dict[str, Found] = {}
    for variable in sorted(environ):
        if not variable.startswith(ENV_PREFIX) or variable in _OUR_OTHER_ENV:
            continue
        text, origin = environ[variable], f"environment {variable}"
        setting = rows.get(variable)
        if setting is None:
            setting = rows.get(variable.removesuffix(_FILE_SUFFIX))
            if setting is None or not setting.is_secret or not variable.endswith(_FILE_SUFFIX):
                raise ConfigError(
                    f"unknown environment variable {variable}{_nearest(variable, list(rows))}"
                )
            text = _read_secret(Path(text))
        found[setting.name] = Found(value=_typed(setting, text, origin), origin=origin)
    return found


def _read_secret(path: Path) -> str:
    """The first line of a file that only its owner may read."""
    try:
        mode = path.stat().st_mode
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the secret in {path}: {error}") from error
    if mode & _OTHERS:
        raise ConfigError(f"others may read the secret in {path}: run chmod 600 {path}")
    return text.strip()


_WORDS: Final = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False,
                 "off": False, "0": False}  # fmt: skip


def _boolean(text: str) -> bool:
    return _WORDS[text.strip().lower()]


_PARSERS: Final[Mapping[type, Callable[[str], Value]]] = {
    bool: _boolean, int: int, float: float, str: str,
}  # fmt: skip


def _typed(setting: Setting, value: Value, origin: str) -> Value:
    wanted = type(setting.default)
    is_plain = wanted is not float and (wanted is bool or not isinstance(value, bool))
    if isinstance(value, wanted) and is_plain:
        return value
    try:
        parsed = _PARSERS[wanted](str(value))
    except (ValueError, KeyError):
        parsed = None
    is_number = not isinstance(parsed, float) or math.isfinite(parsed)
    if parsed is None or not is_number or not isinstance(value, str | int | float):
        shown = "the value" if setting.is_secret else repr(value)
        raise ConfigError(f"{setting.name} ({origin}): {shown} is not of type {wanted.__name__}")
    return parsed


def parse_peers(text: str) -> dict[str, str]:
    """ "n1=host:port,n2=host:port" as a map. Raises ConfigError."""
    peers: dict[str, str] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        node_id, separator, address = item.partition("=")
        host, colon, port = address.rpartition(":")
        if not (separator and node_id and colon and host and port.isdigit()):
            raise ConfigError(f"cluster.peers: {item!r} is not ID=HOST:PORT")
        if node_id in peers:
            raise ConfigError(f"cluster.peers: {node_id} is there twice")
        peers[node_id] = address
    return peers


def parse_listen(name: str, text: str) -> tuple[str, int]:
    """ "host:port" or "[v6]:port". Raises ConfigError."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:
        raise ConfigError(f"{name}: {text!r} is not HOST:PORT")
    return host.strip("[]") or "0.0.0.0", int(port)  # noqa: S104 (":9000" asks for all)
