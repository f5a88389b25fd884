"""A real cluster for tests: `astra dev` as a subprocess, nodes and gateway as its children.

Invariants: everything is on 127.0.0.1 and below one private directory; only processes that
this cluster reported as its own are ever signalled; `close` leaves none of them behind.
"""

import asyncio
import http.client
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import ClassVar, Literal

import msgspec

from astra.cli.status import read_status
from astra.config import load
from tests.support.clients import Clients, Target, make_clients
from tests.support.ports import free_port
from tests.support.procs import Proc, family, seen
from tests.support.services import ROOT, Backends, Services
from tests.support.wait import wait_until

Backend = Literal["embedded", "services"]

READY_SECONDS = 90.0
STOP_SECONDS = 20.0
HEALTHY_SECONDS = 90.0
TAIL_LINES = 60


class NodeStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One node as `astra status` shows it; `pid` is None while it is down."""

    id: int | str
    role: str
    part: str = ""
    pid: int | None = None
    commit: int = 0
    applied: int = 0
    health: str = ""


class GatewayStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One gateway worker process."""

    pid: int | None = None


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`astra status -o json`, the part that tests rely on."""

    nodes: list[NodeStatus]
    gateways: list[GatewayStatus] = []

    def pids(self) -> list[int]:
        """Process ids of everything that is up."""
        members: list[NodeStatus | GatewayStatus] = [*self.nodes, *self.gateways]
        return [member.pid for member in members if member.pid]


class _Credentials(msgspec.Struct, frozen=True, kw_only=True):
    access_key: str
    secret_key: str


class Cluster:
    """One running cluster; make it with `Cluster.start`, end it with `close`."""

    active: ClassVar[list["Cluster"]] = []

    def __init__(
        self, *, backend: Backend, directory: Path, nodes: int, workers: int, services: Path | None
    ) -> None:
        self.backend = backend
        self.data = directory / "data"
        self.nodes = nodes
        self.workers = workers
        self.port = free_port()
        self._services = services
        self._output = directory / "dev.log"
        self._home = directory / "clients"
        self._process: subprocess.Popen[bytes] | None = None
        self._known: set[Proc] = set()
        self._cleanup = ExitStack()
        self._settings: dict[str, str] = {}

    @classmethod
    def start(
        cls,
        *,
        backend: Backend,
        directory: Path,
        nodes: int = 3,
        workers: int = 2,
        services: Services | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> "Cluster":
        """Start and return once it serves; `services` is needed for that backend, `settings` are
        ASTRA_* variables for it.

        The services variant gets databases, a Redis number and a virtual host of its own.
        """
        directory.mkdir(parents=True, exist_ok=True)
        file = None
        cleanup = ExitStack()
        if backend == "services":
            assert services is not None, "the services backend needs the services fixture"
            backends = cleanup.enter_context(services.isolated())
            file = directory / "services.json"
            file.touch(mode=0o600)
            file.write_bytes(msgspec.json.encode(backends))
        cluster = cls(
            backend=backend, directory=directory, nodes=nodes, workers=workers, services=file
        )
        cluster._cleanup = cleanup
        cluster._settings = dict(settings or {})
        cls.active.append(cluster)
        try:
            cluster.launch()
        except BaseException:
            cluster.close()
            raise
        return cluster

    @property
    def endpoint(self) -> str:
        """`http://127.0.0.1:PORT`."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def target(self) -> Target:
        """Endpoint and the keys of the root user."""
        keys = msgspec.json.decode((self.data / "credentials.json").read_bytes(), type=_Credentials)
        return Target(
            endpoint=self.endpoint, access_key=keys.access_key, secret_key=keys.secret_key
        )

    def clients(self) -> Clients:
        """The command line clients, configured for this cluster."""
        return make_clients(self.target, self._home)

    def launch(self) -> None:
        """Start the processes and return when the `ready` line is printed."""
        argv = [sys.executable, "-m", "astra.cli.main", "dev"]
        argv += ["--listen", f"127.0.0.1:{self.port}", "--data", str(self.data)]
        argv += ["--nodes", str(self.nodes), "--workers", str(self.workers)]
        if self._services:
            argv += ["--backend", "services", "--services", str(self._services)]
        start = self._output.stat().st_size if self._output.exists() else 0
        with self._output.open("ab") as output:
            self._process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**environment(), **self._settings},
                cwd=ROOT,
                start_new_session=True,
            )
        wanted = f"ready {self.endpoint}".encode()

        def ready() -> bool:
            return wanted in self._output.read_bytes()[start:] or not self.is_running()

        wait_until(ready, READY_SECONDS, f"astra dev prints {wanted!r}")
        assert self.is_running(), f"astra dev exited:\n{self.logs()}"

    def is_running(self) -> bool:
        """True while the supervising process lives."""
        return self._process is not None and self._process.poll() is None

    def status(self) -> ClusterStatus:
        """What `astra status` says now; asked from here, because starting the command costs half
        a second of a core. In a thread: the caller may be in an event loop."""
        config = load(environ={}, file=self.data / "astra.toml")
        with ThreadPoolExecutor(1) as thread:
            found = thread.submit(asyncio.run, read_status(config, self.data)).result()
        status = msgspec.convert(found, type=ClusterStatus)
        self._known |= seen(status.pids())
        return status

    def leader(self) -> NodeStatus:
        """The leader; waits for one to be elected."""
        return self._wait_for_role("leader")

    def follower(self) -> NodeStatus:
        """Some follower that is up."""
        return self._wait_for_role("follower")

    def _wait_for_role(self, role: str) -> NodeStatus:
        found: list[NodeStatus] = []

        def look() -> bool:
            found[:] = [node for node in self.status().nodes if node.role == role and node.pid]
            return bool(found)

        wait_until(look, HEALTHY_SECONDS, f"a node with the role {role}")
        return found[0]

    @property
    def backends(self) -> Backends:
        """The servers of this cluster alone; for the services backend."""
        assert self._services is not None, "an embedded cluster has no servers"
        return msgspec.json.decode(self._services.read_bytes(), type=Backends)

    def pids(self) -> list[int]:
        """Process ids of nodes and gateway workers, without the supervisor."""
        return self.status().pids()

    def kill(self, node_id: int | str, number: int = signal.SIGKILL) -> int:
        """Signal one node; returns the pid it had."""
        pid = next((node.pid for node in self.status().nodes if node.id == node_id), None)
        assert pid, f"node {node_id} is not running"
        os.kill(pid, number)
        return pid

    def kill_worker(self, number: int = signal.SIGKILL) -> int:
        """Signal one gateway worker; returns the pid it had."""
        pid = next((gateway.pid for gateway in self.status().gateways if gateway.pid), None)
        assert pid, "no gateway worker is running"
        os.kill(pid, number)
        return pid

    def kill_everything(self) -> None:
        """SIGKILL to the supervisor and all its children at once: the power cut."""
        assert self._process is not None
        members = family(self._process.pid) | seen(self.pids())
        # The supervisor first, or it would start again what dies.
        self._process.kill()
        for member in members:
            member.signal(signal.SIGKILL)
        self._process.wait(STOP_SECONDS)
        _wait_gone(members, STOP_SECONDS)

    def stop(self) -> None:
        """SIGTERM; AssertionError unless all processes end within STOP_SECONDS, exit code 0."""
        process = self._process
        if process is None:
            return
        members = family(process.pid) if self.is_running() else set()
        began = time.monotonic()
        process.terminate()
        try:
            code = process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"SIGTERM did not end it in {STOP_SECONDS} s") from None
        _wait_gone(members, max(STOP_SECONDS - (time.monotonic() - began), 0.1))
        assert code == 0, f"exit code {code} after SIGTERM"
        self._process = None

    def restart(self) -> None:
        """Stop in order, start on the same data and port, wait until all is well."""
        self.stop()
        self.launch()
        self.wait_healthy()

    def wait_healthy(self, timeout: float = HEALTHY_SECONDS) -> None:
        """Return once all nodes and workers are up, one leads, any node may be stopped now, and the
        gateway answers."""
        wait_until(self._is_healthy, timeout, f"{self.nodes} nodes up, one leader, HTTP answers")

    def _is_healthy(self) -> bool:
        if not self._answers():
            return False
        status = self.status()
        alive = {member.pid for member in seen(status.pids()) if member.is_alive()}
        roles = [node.role for node in status.nodes if node.pid in alive]
        workers = [item for item in status.gateways if item.pid in alive]
        enough = len(roles) == self.nodes and len(workers) >= self.workers
        parts = {(node.part, node.role) for node in status.nodes}
        all_vote = not parts & {("voter", "learner"), ("", "learner")}
        return enough and roles.count("leader") == 1 and all_vote

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status < 500
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def ensure_running(self) -> None:
        """Start it again when an earlier test left it dead; for shared clusters."""
        if not self.is_running():
            self.launch()

    def close(self) -> None:
        """End all processes whatever state they are in, and remove the databases."""
        try:
            self._end_processes()
        finally:
            if self in Cluster.active:
                Cluster.active.remove(self)
            self._cleanup.close()

    def _end_processes(self) -> None:
        process = self._process
        if process is not None:
            self._known |= family(process.pid)
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(STOP_SECONDS)
        for member in self._known:
            member.signal(signal.SIGKILL)
        _wait_gone(self._known, STOP_SECONDS)

    def logs(self, lines: int = TAIL_LINES) -> str:
        """The tails of the supervisor's output and of every log file."""
        files = [self._output, *sorted((self.data / "logs").glob("*.log"))]
        parts = [f"--- {file.name}\n{_tail(file, lines)}" for file in files if file.exists()]
        return "\n".join(parts)


def environment() -> dict[str, str]:
    """The caller's environment without settings that would change the cluster."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("ASTRA_")}
    return {**kept, "PYTHONUNBUFFERED": "1"}


def _tail(file: Path, lines: int) -> str:
    return "\n".join(file.read_text(errors="replace").splitlines()[-lines:])


def _wait_gone(members: set[Proc], timeout: float) -> None:
    wait_until(
        lambda: not any(member.is_alive() for member in members),
        timeout,
        "all processes of the cluster have ended",
    )
