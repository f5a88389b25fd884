"""`astra dev`: a whole cluster on this machine, for a first look and for development.

The same processes as on many machines, supervised: nodes, and a gateway with its workers. Prints
what to paste when it is ready. Data, keys and ports are kept in the data directory.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from astra.cli.cluster import commit, connected
from astra.cli.devdir import Credentials, DevDirectory, render_toml
from astra.cli.process import run_until_signalled
from astra.cli.supervisor import Child, child_environment
from astra.commands import PutUser
from astra.config import Config, load, parse_listen
from astra.errors import AstraError, ConfigError
from astra.model import AccessKey, User
from astra.wire import Accepted, AddMember, ListMembers, MemberList

ROOT_USER_ID: Final = "root"
# Not a name of AWS: for their oldest regions SDKs presign with signature version 2 unless they are
# told otherwise, and we refuse that one. The server accepts any region.
PASTED_REGION: Final = "local"
_READY_TIMEOUT_S: Final = 60.0
_STOP_GATEWAY_S: Final = 4.0
_STOP_NODES_S: Final = 5.0
_EXIT_NOT_READY: Final = 1
_WORKERS_MAX: Final = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """The servers of `--backend services`: a database per node, one Redis, one RabbitMQ."""

    postgres: tuple[str, ...]
    redis: str
    amqp: str


def read_backends(path: Path, nodes: int) -> Backends:
    """Raises ConfigError when the file is not there or has too few databases."""
    try:
        found = json.loads(path.read_text())
        backends = Backends(
            postgres=tuple(found["postgres"]), redis=found["redis"], amqp=found["amqp"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"cannot read the backend servers from {path}: {error}; "
            "start them with scripts/services up"
        ) from error
    if len(backends.postgres) < nodes:
        raise ConfigError(f"{path} has {len(backends.postgres)} databases for {nodes} nodes")
    return backends


class Dev:
    """One run of the command."""

    def __init__(self, config: Config, directory: DevDirectory, backends: Backends | None) -> None:
        self._config = config
        self._directory = directory
        self._backends = backends
        self._nodes: list[Child] = []
        self._gateway: Child | None = None
        self._credentials: Credentials | None = None
        self._addresses: dict[str, str] = {}

    def prepare(self, *, nodes: int) -> None:
        """Writes the settings of every process. Raises ConfigError."""
        config, directory = self._config, self._directory
        access_key, secret_key = config.text("root.access_key"), config.text("root.secret_key")
        if bool(access_key) != bool(secret_key):
            raise ConfigError("give ASTRA_ROOT_ACCESS_KEY and ASTRA_ROOT_SECRET_KEY, or neither")
        _check_port_free(config)
        self._credentials = directory.credentials(access_key, secret_key)
        before = directory.node_ids()
        addresses = directory.node_addresses(nodes)
        self._addresses = addresses
        cluster = {
            "id": directory.cluster_id(),
            "peers": ",".join(f"{node_id}={at}" for node_id, at in addresses.items()),
            "voters": ",".join(self._seed_voters(before or list(addresses))),
        }
        directory.secret()
        directory.write_private(
            "astra.toml",
            render_toml({"cluster": {**cluster, "secret_file": "cluster-secret"}}),
        )
        for number, node_id in enumerate(addresses):
            self._nodes.append(self._prepare_node(number, node_id, cluster))
        self._gateway = self._prepare_gateway(cluster)

    def _seed_voters(self, began_with: list[str]) -> tuple[str, ...]:
        """Those of the first start that are still here; a node that is new never votes by its
        settings alone."""
        voters = self._directory.voters(began_with)
        return tuple(each for each in voters if each in self._addresses) or tuple(
            list(self._addresses)[:1]
        )

    def _prepare_node(self, number: int, node_id: str, cluster: Mapping[str, str]) -> Child:
        directory = self._directory
        tables: dict[str, dict[str, str | int | float | bool]] = {
            "cluster": {**cluster, "secret_file": "../cluster-secret"},
            "node": {"id": node_id},
            "data": {"dir": str(directory.path / "nodes" / node_id)},
        }
        if self._backends is not None:
            tables["node"]["metadata"] = self._backends.postgres[number]
            tables["redis"] = {"url": self._backends.redis}
            tables["amqp"] = {"url": self._backends.amqp}
        path = directory.write_private(f"nodes/{node_id}.toml", render_toml(tables))
        return self._child(f"node {node_id}", ["node", "--config", str(path)], node_id)

    def _prepare_gateway(self, cluster: Mapping[str, str]) -> Child:
        config, directory = self._config, self._directory
        tables: dict[str, dict[str, str | int | float | bool]] = {
            "cluster": {**cluster, "secret_file": "cluster-secret"},
            "data": {"dir": str(directory.path)},
            "gateway": {
                "listen": config.text("gateway.listen"),
                "workers": config.number("gateway.workers"),
                "id": "gateway",
            },
        }
        if self._backends is not None:
            tables["amqp"] = {"url": self._backends.amqp}
        path = directory.write_private("gateway.toml", render_toml(tables))
        return self._child("gateway", ["gateway", "--config", str(path)], "gateway")

    def _child(self, name: str, arguments: list[str], log_name: str) -> Child:
        command = [sys.executable, "-P", "-m", "astra.cli.main", *arguments]
        command += ["--parent", str(os.getpid())]
        return Child(name, command, self._directory.logs / f"{log_name}.log", say)

    async def run(self, stop: asyncio.Event) -> int:
        """Starts everything, says when it is ready, and stops it when asked to."""
        for node in self._nodes:
            await node.start()
        if self._gateway is not None:
            await self._gateway.start()
        try:
            if not await self._until_ready(stop):
                return 0 if stop.is_set() else _EXIT_NOT_READY
            self._greet()
            await stop.wait()
            say("stopping")
            return 0
        finally:
            await self._stop()

    async def _until_ready(self, stop: asyncio.Event) -> bool:
        """Waits for a leader, gives the root user its keys, waits for the endpoint."""
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                while not stop.is_set():
                    try:
                        await self._put_root()
                        await self._add_nodes()
                        await _endpoint_answers(self._config)
                        return True
                    except (AstraError, OSError):
                        await asyncio.sleep(0.05)
        except TimeoutError:
            say(f"the cluster does not become ready; look into {self._directory.logs}")
        return False

    async def _put_root(self) -> None:
        credentials = self._credentials
        if credentials is None:
            raise ConfigError("prepare comes first")
        config = load(environ=child_environment(), file=self._directory.path / "astra.toml")
        user = User(user_id=ROOT_USER_ID, display_name="root", is_root=True)
        key = AccessKey(
            access_key=credentials.access_key,
            user_id=ROOT_USER_ID,
            secret=credentials.secret_key,
        )
        async with connected(config, timeout_s=5.0) as leader:
            await commit(leader, PutUser(user=user, keys=(key,), replace=True))

    async def _add_nodes(self) -> None:
        """More nodes than last time: the cluster grows."""
        config = load(environ=child_environment(), file=self._directory.path / "astra.toml")
        async with connected(config, timeout_s=5.0) as leader:
            found = await leader.ask(ListMembers(), MemberList)
            known = {member.node.node_id for member in found.members}
            for node_id, address in self._addresses.items():
                if known and node_id not in known:
                    await leader.ask(AddMember(node_id=node_id, address=address), Accepted)
                    say(f"node {node_id} joins the cluster")

    def _greet(self) -> None:
        credentials = self._credentials
        if credentials is None:
            return
        endpoint = f"http://{self._config.text('gateway.listen')}"
        print(greeting(endpoint, credentials, self._directory.path), flush=True)
        print(f"ready {endpoint}", flush=True)

    async def _stop(self) -> None:
        """The gateway first, so that no request meets a half-stopped cluster."""
        if self._gateway is not None:
            await self._gateway.stop(_STOP_GATEWAY_S)
        await asyncio.gather(*(node.stop(_STOP_NODES_S) for node in self._nodes))


def greeting(endpoint: str, credentials: Credentials, directory: Path) -> str:
    """What to paste. The secret is shown because only its owner sees this terminal."""
    return f"""
AstraStorage is running.
  endpoint    {endpoint}
  access key  {credentials.access_key}
  secret key  {credentials.secret_key}
  data        {directory}

Paste this into another terminal:
  export AWS_ACCESS_KEY_ID={credentials.access_key}
  export AWS_SECRET_ACCESS_KEY={credentials.secret_key}
  export AWS_DEFAULT_REGION={PASTED_REGION}
  export AWS_ENDPOINT_URL={endpoint}
  aws s3 mb s3://my-bucket
  echo hello > hello.txt
  aws s3 cp hello.txt s3://my-bucket/
  aws s3 ls s3://my-bucket

Stop with Ctrl-C; everything is kept and there again at the next start.
"""


def say(text: str) -> None:
    print(f"astra: {text}", file=sys.stderr, flush=True)


def _check_port_free(config: Config) -> None:
    """Before anything starts: a port in use is one clear line."""
    from gateway.workers import open_listener

    host, port = parse_listen("gateway.listen", config.text("gateway.listen"))
    open_listener(host, port).close()


async def _endpoint_answers(config: Config) -> None:
    host, port = parse_listen("gateway.listen", config.text("gateway.listen"))
    reader, writer = await asyncio.open_connection("127.0.0.1" if host == "0.0.0.0" else host, port)  # noqa: S104
    try:
        writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(2.0):
            if not (await reader.readline()).startswith(b"HTTP/1.1 "):
                raise OSError("no HTTP there")
    finally:
        writer.close()


def run_dev(config: Config, *, data: Path, nodes: int, backends_file: Path | None) -> int:
    """The command. Raises ConfigError for what cannot work."""
    if not 1 <= nodes <= 16:
        raise ConfigError("--nodes must be between 1 and 16")
    if not 1 <= config.number("gateway.workers") <= _WORKERS_MAX:
        raise ConfigError(f"gateway.workers (--workers) must be between 1 and {_WORKERS_MAX}")
    backends = read_backends(backends_file, nodes) if backends_file is not None else None
    dev = Dev(config, DevDirectory(data), backends)
    dev.prepare(nodes=nodes)
    return run_until_signalled(dev.run)
