"""The background work of a node, wired: repair, scan, census, scrubs, garbage, moves.

Every node runs all of it; what only the leader does looks for itself whether this is the leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass

from astra.net import Dialer
from astra.ports import Clock, MetadataStore
from node.chunkstore.executor import AsyncChunkStore
from node.membership import ClusterMap
from node.notebook import Notebook
from node.services.blob_repair import BlobRepairer
from node.services.blobs import BlobService
from node.services.census import CensusService, SelfCensus
from node.services.fence import CopyFence
from node.services.garbage import GarbageCollector
from node.services.metadata_scrub import MetadataScrub
from node.services.ports import Consensus, LeaderLink
from node.services.readers import Readers
from node.services.reads import Reads
from node.services.rebalance import Balance, Rebalancer
from node.services.repair import RepairQueue, RepairService
from node.services.scan import RepairScan
from node.services.scrub import ScrubService
from node.services.standing import NodeWatch
from node.services.throttle import TokenBucket
from node.settings import NodeSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What the background work needs of its node."""

    store: MetadataStore
    chunks: AsyncChunkStore
    dialer: Dialer
    cluster: ClusterMap
    clock: Clock
    notebook: Notebook
    consensus: Consensus
    reads: Reads
    blobs: BlobService
    leader: LeaderLink
    can_be_spared: Callable[[], bool]


class Upkeep:
    """`repairer`, `census`, `queue` and `readers` answer requests; `background` is the rest."""

    def __init__(self, settings: NodeSettings, around: Surroundings) -> None:
        self._settings = settings
        self._around = around
        self._consensus = around.consensus
        self._fence = CopyFence()
        self.readers = Readers(around.clock, int(settings.garbage_grace_s * 1000))
        self._rate = TokenBucket(
            mib_per_s=settings.repair_mib_per_s,
            now_ms=around.clock.monotonic_ms,
            sleep=asyncio.sleep,
        )
        self._watch = NodeWatch(around.cluster, around.clock, int(settings.repair_grace_s * 1000))
        self.queue = RepairQueue(around.clock, int(settings.repair_delay_s * 1000))
        self.repairer = BlobRepairer(
            node_id=settings.node_id,
            chunks=around.chunks,
            dialer=around.dialer,
            parallel_max=2 * settings.repair_parallel_max,
            rate=self._rate,
            fence=self._fence,
        )
        self._repair = self._make_repair()
        self._scan = self._make_scan()
        self._rebalancer = self._make_rebalancer()
        self.garbage = self._make_garbage()
        self.census = CensusService(
            node_id=settings.node_id,
            reads=around.reads,
            chunks=around.chunks,
            queue=self.queue,
            leader=around.leader,
            rate=self._rate,
        )
        self._self_census = SelfCensus(
            node_id=settings.node_id,
            store=around.store,
            chunks=around.chunks,
            leader=around.leader,
            barrier=around.consensus.read_barrier,
        )
        self._scrub = self._make_scrub()
        self._metadata_scrub = self._make_metadata_scrub()

    def _make_repair(self) -> RepairService:
        settings, around = self._settings, self._around
        return RepairService(
            queue=self.queue,
            reads=around.reads,
            cluster=around.cluster,
            watch=self._watch,
            dialer=around.dialer,
            leader=around.leader,
            clock=around.clock,
            parallel_max=settings.repair_parallel_max,
            mib_per_s=settings.repair_mib_per_s,
        )

    def _make_scan(self) -> RepairScan:
        settings, around = self._settings, self._around
        return RepairScan(
            reads=around.reads,
            consensus=around.consensus,
            cluster=around.cluster,
            queue=self.queue,
            repair=self._repair,
            watch=self._watch,
            clock=around.clock,
            interval_s=settings.repair_scan_interval_s,
            young_ms=int(settings.repair_delay_s * 2000),
        )

    def _make_rebalancer(self) -> Rebalancer:
        settings, around = self._settings, self._around
        told_s = 2 * settings.report_interval_s
        deleted_s = settings.garbage_grace_s + 2 * settings.garbage_interval_s
        return Rebalancer(
            reads=around.reads,
            consensus=around.consensus,
            repair=self._repair,
            scan=self._scan,
            watch=self._watch,
            balance=Balance(
                around.clock,
                arrival_ms=int(told_s * 1000),
                departure_ms=int((told_s + deleted_s) * 1000),
            ),
        )

    def _make_garbage(self) -> GarbageCollector:
        settings, around = self._settings, self._around
        return GarbageCollector(
            node_id=settings.node_id,
            store=around.store,
            chunks=around.chunks,
            blobs=around.blobs,
            leader=around.leader,
            barrier=around.consensus.read_barrier,
            clock=around.clock,
            grace_ms=int(settings.garbage_grace_s * 1000),
            fence=self._fence,
            readers=self.readers,
        )

    def _make_scrub(self) -> ScrubService:
        settings, around = self._settings, self._around
        return ScrubService(
            node_id=settings.node_id,
            chunks=around.chunks,
            leader=around.leader,
            notebook=around.notebook,
            clock=around.clock,
            mib_per_s=settings.scrub_mib_per_s,
            period_s=settings.scrub_period_s,
        )

    def _make_metadata_scrub(self) -> MetadataScrub:
        settings, around = self._settings, self._around
        return MetadataScrub(
            node_id=settings.node_id,
            store=around.store,
            consensus=around.consensus,
            can_be_spared=around.can_be_spared,
            rate=TokenBucket(
                mib_per_s=settings.scrub_mib_per_s,
                now_ms=around.clock.monotonic_ms,
                sleep=asyncio.sleep,
            ),
            clock=around.clock,
            period_s=settings.metadata_scrub_period_s,
        )

    def background(self) -> Sequence[Coroutine[None, None, None]]:
        settings = self._settings
        return [
            self._repair.run(),
            self._scan.run_watch(),
            self._scan.run(),
            self._rebalancer.run(settings.rebalance_interval_s),
            self.garbage.run(settings.garbage_interval_s),
            self.garbage.run_sweep(settings.sweep_interval_s),
            self._self_census.run(settings.census_interval_s),
            self._scrub.run(),
            self._metadata_scrub.run(),
        ]

    def leadership_lost(self) -> None:
        self.queue.clear()
        self._repair.forget()

    # --- for people ---

    def problems(self) -> list[str]:
        problems = self._scrub.problems() + self._metadata_scrub.problems()
        if self._self_census.missing:
            count = self._self_census.missing
            problems.append(f"{count} copies are missing or damaged here: they are copied again")
        elif not self._self_census.has_looked:
            problems.append("it has not looked yet whether its copies are there")
        return problems + self._scan.problems() if self._consensus.is_leader else problems

    def work(self) -> tuple[tuple[str, str], ...]:
        """What is under way, for status."""
        return (
            ("scrub", self._scrub.summary()),
            ("metadata scrub", self._metadata_scrub.summary()),
            ("repair", f"{len(self.queue)} waiting" if self._consensus.is_leader else "-"),
            ("rebalance", f"{self._rebalancer.moved} blobs moved"),
        )
