"""The cluster under measurement: three embedded nodes and a gateway, everything fsynced."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.procs import CpuMeter
from bench.signing import Presigner
from bench.transfer import Answer, Client
from tests.support.cluster import Cluster


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What every measurement needs."""

    cluster: Cluster
    host: str
    presigner: Presigner
    directory: Path
    pids: Mapping[str, int]
    rounds: int
    seconds: int  # of one round of load
    quick: bool

    @classmethod
    @contextmanager
    def start(
        cls,
        directory: Path,
        *,
        workers: int,
        rounds: int,
        quick: bool,
        settings: Mapping[str, str] | None = None,
    ) -> Iterator[World]:
        """Starts the cluster below `directory`; it is gone afterwards."""
        cluster = Cluster.start(
            backend="embedded",
            directory=directory / "cluster",
            nodes=3,
            workers=workers,
            settings=settings,
        )
        try:
            cluster.wait_healthy()
            target, host = cluster.target, f"127.0.0.1:{cluster.port}"
            status = cluster.status()
            pids = {f"{node.role} {node.id}": node.pid for node in status.nodes if node.pid}
            for number, gateway in enumerate(status.gateways):
                if gateway.pid:
                    pids[f"gateway {number}"] = gateway.pid
            yield cls(
                cluster=cluster,
                host=host,
                presigner=Presigner(host, target.access_key, target.secret_key),
                directory=directory,
                pids=pids,
                rounds=rounds,
                seconds=1 if quick else 3,
                quick=quick,
            )
        finally:
            cluster.close()

    def client(self) -> Client:
        return Client(self.host)

    def call(self, method: str, path: str, query: Mapping[str, str] | None = None) -> Answer:
        """One request without a body on a connection of its own."""
        with self.client() as client:
            return client.get(self.presigner.target(method, path, query), method=method, keep=True)

    def make_bucket(self, name: str) -> None:
        self.call("PUT", f"/{name}")

    def meter(self) -> WorldMeter:
        return WorldMeter(self.pids)


class WorldMeter:
    """Cores kept busy by each process of the cluster, over the spans that are timed."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._meter = CpuMeter(pids)
        self._totals: dict[str, float] = {}
        self._seconds = 0.0
        self._began = 0.0

    def __enter__(self) -> WorldMeter:
        self._meter.read()
        self._began = time.monotonic()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds += time.monotonic() - self._began
        for name, cpu in self._meter.read().items():
            self._totals[name] = self._totals.get(name, 0.0) + cpu.total

    def shares(self) -> dict[str, float]:
        """Cores by process."""
        return {n: used / self._seconds for n, used in self._totals.items() if used >= 0.005}
