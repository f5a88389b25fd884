"""How this node is doing: its report to the others, and its status for people.

A problem is something degraded, in words that say what and why; none of them stops the node.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from astra.constants import REPLICAS
from astra.errors import AstraError
from astra.ports import Bus, Cache, MetadataStore
from astra.wire import NodeReport, NodeStatus, Sighting
from node.applier import Applier
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.ports import Space
from node.membership import ClusterMap, describe_lag, describe_unrecorded
from node.raft.types import RaftStatus, Role
from node.services.blobs import BlobService
from node.services.ports import Consensus
from node.sightings import OLD_DISK, OLD_DISK_TODO


@dataclass(frozen=True, slots=True, kw_only=True)
class Backends:
    """Names of what this process was composed of."""

    metadata: str
    cache: str
    bus: str


class Work(Protocol):
    """The background work, as people see it."""

    def problems(self) -> list[str]: ...

    def work(self) -> tuple[tuple[str, str], ...]: ...


class HealthService:
    def __init__(
        self,
        *,
        consensus: Consensus,
        applier: Applier,
        cluster: ClusterMap,
        store: MetadataStore,
        chunks: AsyncChunkStore,
        blobs: BlobService,
        cache: Cache,
        bus: Bus,
        backends: Backends,
        zone: str,
        free_bytes_min: int,
        log_write_ms: Callable[[], float],
        log: Callable[[], Sighting],
        doubt: Callable[[], str],
        upkeep: Work,
    ) -> None:
        self._upkeep = upkeep
        self._consensus = consensus
        self._applier = applier
        self._cluster = cluster
        self._store = store
        self._chunks = chunks
        self._blobs = blobs
        self._cache = cache
        self._bus = bus
        self._backends = backends
        self._zone = zone
        self._free_bytes_min = free_bytes_min
        self._log_write_ms = log_write_ms
        self._log = log
        self._doubt = doubt
        self._space = Space(total=0, free=0)
        self._disk_problem = ""

    async def make_report(self) -> NodeReport:
        """For the other nodes. A disk that does not answer makes this node unwritable."""
        await self._measure_space()
        return NodeReport(
            node_id=self._cluster.node_id,
            address=self._cluster.address_of(self._cluster.node_id) or "",
            zone=self._zone,
            total_bytes=self._space.total,
            free_bytes=self._space.free,
            streams=self._blobs.streams,
            read_mib_per_s=self._blobs.speed.mib_per_s(time.monotonic()),
            applied_index=self._applier.applied_index,
            writable=not self._disk_problem and self._space.free >= self._free_bytes_min,
            log_write_ms=self._log_write_ms(),
            log=self._log(),
        )

    async def _measure_space(self) -> None:
        try:
            self._space = await self._chunks.free_space()
            self._disk_problem = ""
        except AstraError as error:
            self._disk_problem = f"chunk store: {error}"

    async def status(self, raft: RaftStatus | None, commit_index: int) -> NodeStatus:
        """`raft` None: this node is a learner."""
        problems = await self._problems(raft)
        return NodeStatus(
            node_id=self._cluster.node_id,
            role="learner" if raft is None or not raft.is_voter else _role_name(raft.role),
            leader=self._consensus.leader,
            term=self._consensus.term,
            commit_index=commit_index,
            applied_index=self._applier.applied_index,
            pid=os.getpid(),
            address=self._cluster.address_of(self._cluster.node_id) or "",
            total_bytes=self._space.total,
            free_bytes=self._space.free,
            blobs=self._blobs.blob_count,
            healthy=self._consensus.leader is not None and not self._disk_problem,
            problems=tuple(problems),
            backends=(
                ("metadata", self._backends.metadata),
                ("cache", f"{self._backends.cache}: {self._cache.state()}"),
                ("bus", f"{self._backends.bus}: {self._bus.state()}"),
            ),
            zone=self._zone,
            work=self._upkeep.work(),
        )

    async def _problems(self, raft: RaftStatus | None) -> list[str]:
        problems: list[str] = []
        if self._cluster.is_removed:
            problems.append("this node was removed from the cluster: stop it")
        elif self._consensus.leader is None:
            problems.append("no leader: fewer than a majority of the voters can be reached")
        if doubt := self._doubt():
            problems.append(f"{OLD_DISK} ({doubt}). To do: {OLD_DISK_TODO}")
        if self._disk_problem:
            problems.append(self._disk_problem)
        elif self._space.free < self._free_bytes_min:
            problems.append(f"disk nearly full: {self._space.free} bytes free, no new blobs here")
        database = await self._store.check()
        if database is not None:
            problems.append(f"metadata store: {database}")
        problems += self._backend_problems()
        problems += [f"{node_id} is silent" for node_id in self._cluster.silent_nodes()]
        live = len(self._cluster.live_reports())
        if live < min(REPLICAS, len(self._cluster.node_ids())):
            problems.append(f"only {live} nodes are live: new blobs get fewer copies")
        if raft is not None and raft.role is Role.LEADER:
            problems += describe_lag(raft.peers, raft.last_index)
            problems += describe_unrecorded(raft.membership.voters, self._cluster.node_ids())
        return problems + self._upkeep.problems()

    def _backend_problems(self) -> list[str]:
        states = (("cache", self._cache.state()), ("bus", self._bus.state()))
        return [f"{name} {state}" for name, state in states if state != "ok"]


def _role_name(role: Role) -> str:
    return "candidate" if role is Role.PRE_CANDIDATE else str(role)
