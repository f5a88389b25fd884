"""A cluster of separate processes whose every link goes through the proxy.

Nodes and gateway are started one by one, as on many machines (`astra node`, `astra gateway`), so
that each can be killed, frozen, cut off and started again. Everything is on 127.0.0.1 and below
one private directory.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from astra.cli.cluster import commit, connected
from astra.cli.devdir import render_toml
from astra.commands import PutUser
from astra.config import Config, load
from astra.errors import AstraError
from astra.model import AccessKey, User
from astra.net import Dialer
from astra.wire import GetStatus, NodeStatus
from tests.chaos.census import Disk
from tests.chaos.server import Server
from tests.support import diskfault
from tests.support.clients import Target
from tests.support.ports import free_ports
from tests.support.proxy import GATEWAY, Proxy
from tests.support.services import Backends, Services
from tests.support.wait import wait_until

READY_S: Final = 40.0
HEALTHY_S: Final = 90.0  # what a walk over all blobs has found is said until the next, 60 s later
TMPFS_BYTES: Final = 4 << 30

Tables = dict[str, dict[str, str | int | float | bool]]


class Rig:
    """Make it, `start` it, and `close` it whatever happens."""

    def __init__(
        self,
        directory: Path,
        *,
        seed: int,
        nodes: int = 3,
        workers: int = 2,
        services: Services | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.directory = directory
        self.services = services
        self.say = say
        self.names = [f"n{number}" for number in range(1, nodes + 1)]
        self._workers = workers
        self._cleanup = ExitStack()
        ports = free_ports(2 * nodes + 1)
        pairs = list(zip(ports[:nodes], ports[nodes : 2 * nodes], strict=True))
        self._listening = dict(zip(self.names, pairs, strict=True))
        self._gateway_port = ports[-1]
        self._keys = (f"AS{secrets.token_hex(9).upper()}", secrets.token_urlsafe(30))
        self._backends: Backends | None = None
        self.proxy: Proxy | None = None
        self._seed = seed
        self.nodes: dict[str, Server] = {}
        self.gateway = Server(
            GATEWAY, ["gateway", "--config", str(directory / "gateway.toml")], self._log(GATEWAY)
        )
        self.limited: set[str] = set()  # nodes whose data directory is a tmpfs of its own
        self.has_shim = False

    # --- life ---

    def start(self) -> None:
        """Returns once the endpoint serves and the root user has its keys."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "logs").mkdir(exist_ok=True)
        self.proxy = Proxy(self._listening, seed=self._seed)
        self._cleanup.callback(self.proxy.close)
        self._backends = self._open_backends()
        shim = self._compile_shim()
        self._write_settings(self._backends)
        for name in self.names:
            self.nodes[name] = self._node(name, shim)
        self._limit_disk(self.names[-1])
        for server in self.servers():
            server.start()
        wait_until(self._has_root, READY_S, "the cluster takes its first command")
        self.wait_healthy()

    def servers(self) -> list[Server]:
        return [*self.nodes.values(), self.gateway]

    def close(self) -> None:
        """Ends every process, unmounts, removes the databases."""
        try:
            for server in self.servers():
                server.kill()
        finally:
            self._cleanup.close()

    @property
    def target(self) -> Target:
        return Target(
            endpoint=f"http://127.0.0.1:{self._gateway_port}",
            access_key=self._keys[0],
            secret_key=self._keys[1],
        )

    def links(self) -> Proxy:
        assert self.proxy is not None, "the rig is not started"
        return self.proxy

    # --- what there is ---

    def config(self) -> Config:
        """To ask the nodes directly, whatever the proxy does."""
        return load(environ={}, file=self.directory / "direct.toml")

    def statuses(self) -> dict[str, NodeStatus | AstraError]:
        return asyncio.run(self._statuses())

    async def _statuses(self) -> dict[str, NodeStatus | AstraError]:
        secret = (self.directory / "secret").read_bytes()
        dialer = Dialer(secret=secret, role="gateway", peer_id="chaos")

        async def ask(port: int) -> NodeStatus | AstraError:
            try:
                client = dialer.control(f"127.0.0.1:{port}")
                answer = await client.call(GetStatus(), timeout_s=2.0)
            except AstraError as error:
                return error
            return answer if isinstance(answer, NodeStatus) else AstraError("no status")

        try:
            ports = [target for _, target in self._listening.values()]
            answers = await asyncio.gather(*(ask(port) for port in ports))
            return dict(zip(self._listening, answers, strict=True))
        finally:
            await dialer.close()

    def leader(self) -> str:
        """The node that leads now; waits for one."""
        found: list[str] = []

        def look() -> bool:
            leaders = [
                (status.term, name)
                for name, status in self.statuses().items()
                if isinstance(status, NodeStatus) and status.role == "leader"
            ]
            found[:] = [name for _, name in sorted(leaders)[-1:]]
            return bool(found)

        wait_until(look, READY_S, "a node leads")
        return found[0]

    def wait_serving(self, node: str) -> None:
        """Returns once the node answers."""
        wait_until(
            lambda: isinstance(self.statuses()[node], NodeStatus), READY_S, f"{node} answers"
        )

    def followers(self) -> list[str]:
        leader = self.leader()
        return [name for name in self.names if name != leader]

    def disks(self) -> dict[str, Disk]:
        """What each node keeps, and where."""
        backends = self._backends
        dsns = backends.postgres if backends is not None else [""] * len(self.names)
        pairs = zip(self.names, dsns, strict=False)  # the servers may be more than the nodes
        return {name: Disk(directory=self.data(name), dsn=dsn) for name, dsn in pairs}

    def secrets(self) -> list[str]:
        """What must be in no log."""
        known = [self._keys[1], (self.directory / "secret").read_text()]
        if self._backends is not None:
            urls = [*self._backends.postgres, self._backends.redis, self._backends.amqp]
            known += [password for url in urls if (password := urlsplit(url).password)]
        return known

    def data(self, node: str) -> Path:
        return self.directory / "nodes" / node

    def fault_file(self, node: str) -> Path:
        """What the preloaded library of this node reads."""
        return self.directory / f"{node}.disk"

    # --- health ---

    def heal(self) -> None:
        """Every link whole, every process started and running."""
        self.links().heal()
        for name in self.names:
            self.fault_file(name).unlink(missing_ok=True)
        if self.services is not None:
            self.services.bring_back()
        for server in self.servers():
            server.signal(signal.SIGCONT)
            server.start()

    def wait_healthy(self, timeout: float = HEALTHY_S) -> None:
        """Returns once every node is healthy, without problems, at the same applied index."""
        last: list[str] = []

        def look() -> bool:
            last[:] = self._problems()
            return not last

        try:
            wait_until(look, timeout, "every node is well", poll=0.1)
        except AssertionError as error:
            raise AssertionError(f"{error}: {last}") from None

    def _problems(self) -> list[str]:
        found: list[str] = []
        applied: set[int] = set()
        for name, status in self.statuses().items():
            if isinstance(status, AstraError):
                found.append(f"{name}: {status}")
                continue
            applied.add(status.applied_index)
            found += [f"{name}: {problem}" for problem in status.problems]
            if status.role == "learner":
                found.append(f"{name} does not vote yet")
            if not status.healthy:
                found.append(f"{name} is not healthy")
        if len(applied) > 1:
            found.append(f"applied up to {sorted(applied)}")
        return found

    def surprises(self) -> list[str]:
        """Processes that ended though nobody told them to."""
        for server in self.servers():
            server.is_running()
        return [text for server in self.servers() for text in server.surprises]

    def tails(self) -> str:
        return "\n".join(f"--- {each.name}\n{each.tail()}" for each in self.servers())

    # --- parts ---

    def _log(self, name: str) -> Path:
        return self.directory / "logs" / f"{name}.log"

    def _node(self, name: str, shim: Path | None) -> Server:
        server = Server(
            name, ["node", "--config", str(self.directory / f"{name}.toml")], self._log(name)
        )
        if shim is not None:
            server.environment = diskfault.environment(shim, self.fault_file(name))
        return server

    def _open_backends(self) -> Backends | None:
        if self.services is None:
            return None
        isolated = self._cleanup.enter_context(self.services.isolated())
        self._cleanup.callback(self.services.bring_back)  # before what was isolated is removed
        return isolated

    def _write_settings(self, backends: Backends | None) -> None:
        proxied = {name: listening for name, (listening, _) in self._listening.items()}
        direct = {name: target for name, (_, target) in self._listening.items()}
        self._write("secret", secrets.token_hex(32))
        cluster = {"id": "chaos", "secret_file": str(self.directory / "secret")}
        self._write("direct.toml", render_toml({"cluster": {**cluster, "peers": _peers(direct)}}))
        cluster["peers"] = _peers(proxied)
        for number, name in enumerate(self.names):
            tables: Tables = {
                "cluster": {**cluster},
                "node": {
                    "id": name, "listen": f"127.0.0.1:{direct[name]}", "garbage_grace_s": 5.0,
                },
                "data": {"dir": str(self.data(name))},
            }  # fmt: skip
            if backends is not None:
                tables["node"]["metadata"] = backends.postgres[number]
                tables |= {"redis": {"url": backends.redis}, "amqp": {"url": backends.amqp}}
            self._write(f"{name}.toml", render_toml(tables))
        gateway: Tables = {
            "cluster": {**cluster},
            "gateway": {
                "listen": f"127.0.0.1:{self._gateway_port}", "workers": self._workers,
                "id": GATEWAY,
            },
        }  # fmt: skip
        if backends is not None:
            gateway["amqp"] = {"url": backends.amqp}
        self._write("gateway.toml", render_toml(gateway))

    def _write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.touch(mode=0o600)
        path.write_text(text)

    def _compile_shim(self) -> Path | None:
        try:
            library = diskfault.compile_library(self.directory)
        except diskfault.NoCompiler as error:
            self.say(f"{error}: faults of fsync are left out")
            return None
        self.has_shim = True
        return library

    def _limit_disk(self, name: str) -> None:
        """A file system of its own for one node, whose size can be changed: a disk to fill."""
        self.data(name).mkdir(parents=True, exist_ok=True)
        if not resize_tmpfs(self.data(name), TMPFS_BYTES, is_new=True):
            self.say("mounting is not allowed here: the full disk is left out")
            return
        self.limited.add(name)
        self._cleanup.callback(_unmount, self.data(name))

    def _has_root(self) -> bool:
        try:
            asyncio.run(self._put_root())
        except AstraError:
            return False
        return True

    async def _put_root(self) -> None:
        user = User(user_id="root", display_name="root", is_root=True)
        key = AccessKey(access_key=self._keys[0], user_id="root", secret=self._keys[1])
        async with connected(self.config(), timeout_s=2.0) as leader:
            await commit(leader, PutUser(user=user, keys=(key,), replace=True))


def _peers(ports: dict[str, int]) -> str:
    return ",".join(f"{name}=127.0.0.1:{port}" for name, port in ports.items())


def resize_tmpfs(path: Path, size: int, *, is_new: bool = False) -> bool:
    """Mounts one, or changes the size of the one that is there; False when that is not allowed."""
    if shutil.which("mount") is None:
        return False
    what = [f"size={size},mode=0700"] if is_new else [f"remount,size={size}"]
    argv = ["mount", "-t", "tmpfs", "-o", *what, "chaos", str(path)]
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def _unmount(path: Path) -> None:
    subprocess.run(["umount", "-l", str(path)], capture_output=True, check=False)


def save(path: Path, value: object) -> None:
    """JSON for people and scripts."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=1))
