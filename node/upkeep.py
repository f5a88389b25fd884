"""The background work of a node on its blobs, wired: repair, scan, census, scrub, garbage, moves.

Every node runs all of it; what only the leader does looks for itself whether this is the leader.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence

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
from node.services.ports import Consensus, LeaderLink
from node.services.reads import Reads
from node.services.rebalance import Rebalancer
from node.services.repair import RepairQueue, RepairService
from node.services.scan import RepairScan
from node.services.scrub import ScrubService
from node.services.standing import NodeWatch
from node.services.throttle import TokenBucket
from node.settings import NodeSettings


class Upkeep:
    """`repairer`, `census` and `queue` answer requests; `background` is the rest."""

    def __init__(
        self,
        settings: NodeSettings,
        *,
        store: MetadataStore,
        chunks: AsyncChunkStore,
        dialer: Dialer,
        cluster: ClusterMap,
        clock: Clock,
        notebook: Notebook,
        consensus: Consensus,
        reads: Reads,
        blobs: BlobService,
        leader: LeaderLink,
    ) -> None:
        self._settings = settings
        self._consensus = consensus
        fence = CopyFence()
        rate = TokenBucket(
            mib_per_s=settings.repair_mib_per_s, now_ms=clock.monotonic_ms, sleep=asyncio.sleep
        )
        watch = NodeWatch(cluster, clock, int(settings.repair_grace_s * 1000))
        self.queue = RepairQueue(clock, int(settings.repair_delay_s * 1000))
        self.repairer = BlobRepairer(
            node_id=settings.node_id,
            chunks=chunks,
            dialer=dialer,
            parallel_max=2 * settings.repair_parallel_max,
            rate=rate,
            fence=fence,
        )
        self._repair = RepairService(
            queue=self.queue,
            reads=reads,
            cluster=cluster,
            watch=watch,
            dialer=dialer,
            leader=leader,
            clock=clock,
            parallel_max=settings.repair_parallel_max,
            mib_per_s=settings.repair_mib_per_s,
        )
        self._scan = RepairScan(
            reads=reads,
            consensus=consensus,
            cluster=cluster,
            queue=self.queue,
            repair=self._repair,
            watch=watch,
            clock=clock,
            interval_s=settings.repair_scan_interval_s,
            young_ms=int(settings.repair_delay_s * 2000),
        )
        self._rebalancer = Rebalancer(
            reads=reads, consensus=consensus, repair=self._repair, scan=self._scan, watch=watch
        )
        self.garbage = GarbageCollector(
            node_id=settings.node_id,
            store=store,
            chunks=chunks,
            blobs=blobs,
            leader=leader,
            barrier=consensus.read_barrier,
            clock=clock,
            grace_ms=int(settings.garbage_grace_s * 1000),
            fence=fence,
        )
        self.census = CensusService(
            node_id=settings.node_id,
            reads=reads,
            chunks=chunks,
            queue=self.queue,
            leader=leader,
            rate=rate,
        )
        self._self_census = SelfCensus(
            node_id=settings.node_id,
            store=store,
            chunks=chunks,
            leader=leader,
            barrier=consensus.read_barrier,
        )
        self._scrub = ScrubService(
            node_id=settings.node_id,
            chunks=chunks,
            leader=leader,
            notebook=notebook,
            clock=clock,
            mib_per_s=settings.scrub_mib_per_s,
            period_s=settings.scrub_period_s,
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
        ]

    def leadership_lost(self) -> None:
        self.queue.clear()
        self._repair.forget()

    # --- for people ---

    def problems(self) -> list[str]:
        problems = self._scrub.problems()
        if self._self_census.missing:
            problems.append(
                f"{self._self_census.missing} copies were missing or damaged here at the last"
                " census: they are copied again"
            )
        return problems + self._scan.problems() if self._consensus.is_leader else problems

    def work(self) -> tuple[tuple[str, str], ...]:
        """What is under way, for status."""
        return (
            ("scrub", self._scrub.summary()),
            ("repair", f"{len(self.queue)} waiting" if self._consensus.is_leader else "-"),
            ("rebalance", f"{self._rebalancer.moved} blobs moved"),
        )
