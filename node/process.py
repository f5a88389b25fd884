"""One node, wired: which part gets which. Knows ports, not backends (those are app.py's).

Order of life: the log, then the server, then the background work; `stop` goes the other way and
hands leadership over first, so that the cluster does not have to notice that this node is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Final

from astra.errors import AstraError, Fatal, NotLeader, Unavailable
from astra.log import get_logger
from astra.net import Dialer, FrameServer, Routes
from astra.ports import Bus, Cache, MetadataStore
from astra.wire import (
    EntryBatch,
    FetchEntries,
    Membership,
    Message,
    NodeStatus,
    Notice,
    ReportBadBlob,
)
from node.applier import Applier
from node.chunkstore.executor import AsyncChunkStore
from node.clock import SystemClock
from node.follower import LogFollower
from node.membership import ClusterMap, Reporter
from node.raft.driver import RaftDriver
from node.raft.storage import RaftStorage
from node.raft.types import Role, SoftState
from node.server import Services, fill_routes
from node.services.blob_repair import BlobRepairer
from node.services.blobs import BlobService
from node.services.browse import BrowseService
from node.services.commit import Committer
from node.services.delete import DeleteService
from node.services.download import DownloadService
from node.services.garbage import GarbageCollector
from node.services.health import Backends, HealthService
from node.services.notices import Announcer
from node.services.ports import Consensus
from node.services.query import QueryService, answer_from, is_scan
from node.services.querycache import Answer, Query, QueryCache
from node.services.reads import Reads
from node.services.repair import RepairQueue, RepairService
from node.services.update import UpdateService
from node.services.upload import UploadService
from node.services.witness import Witness
from node.settings import NodeSettings
from node.snapshots import SnapshotInstaller, SnapshotSource
from node.transport import LeaderDialer, RaftTransport

_ENTRIES_BYTES_MAX: Final = 1 << 20
_RAFT_STOP_S: Final = 3.0
_DATABASE_CHECK_S: Final = 0.5

_log = get_logger("node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What app.py opened. Whoever opened them closes them."""

    store: MetadataStore
    raft_storage: RaftStorage
    chunks: AsyncChunkStore
    cache: Cache
    bus: Bus
    dialer: Dialer
    raft_dialer: Dialer
    routes: Routes
    cluster: ClusterMap
    clock: SystemClock
    backends: Backends


class NodeProcess:
    def __init__(self, settings: NodeSettings, parts: Parts) -> None:
        self._settings = settings
        self._parts = parts
        self._fatal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._witness = Witness()
        self.applier = Applier(parts.store, self._witness)
        self._installer = SnapshotInstaller(
            store=parts.store, applier=self.applier, dialer=parts.dialer, cluster=parts.cluster
        )
        self.repairs = RepairQueue(parts.clock, int(settings.repair_delay_s * 1000))
        self._driver = self._make_driver() if settings.is_voter else None
        self._follower = None if settings.is_voter else self._make_follower()
        self._leader_link = LeaderDialer(
            parts.dialer,
            parts.cluster,
            leader=lambda: self.consensus.leader,
            tell_here=self._on_told,
        )
        self.reads = Reads(self.consensus, parts.store)
        self._blobs = BlobService(
            node_id=settings.node_id,
            chunks=parts.chunks,
            leader=self._leader_link,
            streams_max=settings.blob_streams_max,
        )
        self._health = self._make_health()
        self.garbage = self._make_garbage()
        self._repair = RepairService(
            queue=self.repairs,
            reads=self.reads,
            cluster=parts.cluster,
            dialer=parts.dialer,
            leader=self._leader_link,
            parallel_max=settings.repair_parallel_max,
        )
        self._reporter = Reporter(
            dialer=parts.dialer,
            cluster=parts.cluster,
            make_report=self._health.make_report,
            interval_s=settings.report_interval_s,
        )
        self._announcer = Announcer(
            consensus=self.consensus,
            bus=parts.bus,
            has_learners=bool(set(settings.peers) - set(settings.voters)),
        )
        self._server = FrameServer(
            secret=settings.cluster_secret,
            node_id=settings.node_id,
            routes=parts.routes,
            on_fatal=self._on_fatal,
        )
        fill_routes(parts.routes, self._make_services())

    @property
    def consensus(self) -> Consensus:
        found = self._driver or self._follower
        if found is None:
            raise Unavailable("the node is being made")
        return found

    # --- making ---

    def _make_driver(self) -> RaftDriver:
        parts, settings = self._parts, self._settings
        return RaftDriver(
            node_id=settings.node_id,
            config=settings.raft,
            storage=parts.raft_storage,
            send=RaftTransport(parts.raft_dialer, parts.cluster).send,
            apply=self.applier.apply,
            snapshots=self._installer,
            clock=parts.clock,
            rng=random.SystemRandom(),
            on_fatal=self._on_fatal,
            on_role=self._on_role,
        )

    def _make_follower(self) -> LogFollower:
        return LogFollower(
            voters=self._settings.voters,
            applier=self.applier,
            dialer=self._parts.dialer,
            cluster=self._parts.cluster,
            snapshots=self._installer,
        )

    def _make_health(self) -> HealthService:
        parts, settings = self._parts, self._settings
        return HealthService(
            consensus=self.consensus,
            applier=self.applier,
            cluster=parts.cluster,
            store=parts.store,
            chunks=parts.chunks,
            blobs=self._blobs,
            cache=parts.cache,
            bus=parts.bus,
            backends=parts.backends,
            zone=settings.zone,
            free_bytes_min=settings.free_bytes_min,
        )

    def _make_garbage(self) -> GarbageCollector:
        parts, settings = self._parts, self._settings
        return GarbageCollector(
            node_id=settings.node_id,
            store=parts.store,
            chunks=parts.chunks,
            blobs=self._blobs,
            leader=self._leader_link,
            barrier=self.consensus.read_barrier,
            clock=parts.clock,
            grace_ms=int(settings.garbage_grace_s * 1000),
        )

    def _make_services(self) -> Services:
        parts, settings = self._parts, self._settings
        query_cache = QueryCache(parts.cache, self._witness, settings.cluster_id)
        committer = Committer(
            consensus=self.consensus,
            reads=self.reads,
            query_cache=query_cache,
            clock=parts.clock,
            rng=random.SystemRandom(),
        )
        return Services(
            node_id=settings.node_id,
            cluster=parts.cluster,
            consensus=self.consensus,
            upload=UploadService(
                reads=self.reads,
                committer=committer,
                cluster=parts.cluster,
                repairs=self.repairs,
                clock=parts.clock,
                rng=random.SystemRandom(),
            ),
            download=DownloadService(reads=self.reads, cluster=parts.cluster),
            query=self._make_query(query_cache),
            update=UpdateService(committer=committer, cluster=parts.cluster),
            delete=DeleteService(committer=committer),
            browse=BrowseService(self.reads),
            blobs=self._blobs,
            repairer=BlobRepairer(
                node_id=settings.node_id,
                chunks=parts.chunks,
                dialer=parts.dialer,
                parallel_max=settings.repair_parallel_max,
            ),
            repairs=self.repairs,
            on_notice=self._on_notice,
            status=self.status,
            transfer=self._transfer,
            entries=self._entries,
            raft=None if self._driver is None else self._driver.receive,
            snapshots=self._make_snapshot_source(),
        )

    def _make_query(self, query_cache: QueryCache) -> QueryService:
        return QueryService(
            consensus=self.consensus,
            reads=self.reads,
            cache=query_cache,
            applier=self.applier,
            cluster=self._parts.cluster,
            dialer=self._parts.dialer,
            read_here=self._read_here,
        )

    def _make_snapshot_source(self) -> SnapshotSource | None:
        driver = self._driver
        if driver is None:
            return None
        return SnapshotSource(
            store=self._parts.store,
            applier=self.applier,
            mark_at=driver.mark_at,
            applied_in_log=lambda: driver.applied_index,
        )

    # --- life ---

    async def start(self) -> None:
        """Listening on return. Raises ConfigError, Fatal, OSError (port in use)."""
        settings = self._settings
        applied = await self.applier.load()
        self.applier.listen(self._announcer.on_applied)
        await self._parts.chunks.sweep_temporaries()
        if self._follower is not None:
            self._parts.bus.subscribe(self._follower.on_notice)
        await self._parts.bus.start()
        if self._driver is not None:
            await self._driver.start(applied, Membership(voters=tuple(sorted(settings.voters))))
        await self._server.start(settings.listen_host, settings.listen_port)
        _log.info(
            "node started",
            node_id=settings.node_id, port=self._server.port, applied_index=applied,
            voter=settings.is_voter,
        )  # fmt: skip

    async def run(self, stop: asyncio.Event) -> None:
        """The background work, until `stop` is set. Raises what is fatal."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in self._background()]
            await self._until_stopped(stop)
            for task in tasks:
                task.cancel()

    def _background(self) -> list[Coroutine[None, None, None]]:
        settings = self._settings
        work = [
            self._reporter.run(),
            self._repair.run(),
            self.garbage.run(settings.garbage_interval_s),
            self.garbage.run_sweep(settings.sweep_interval_s),
        ]
        if self._follower is not None:
            work.append(self._follower.run(settings.report_interval_s))
        if self._driver is not None:
            work.append(self._compact(self._driver))
            work.append(self._give_way(self._driver))
        return work

    async def _until_stopped(self, stop: asyncio.Event) -> None:
        stopping = asyncio.create_task(stop.wait())
        self._fatal.add_done_callback(lambda _: stopping.cancel())
        try:
            await stopping
        except asyncio.CancelledError:
            if not self._fatal.done():
                raise
            self._fatal.result()

    async def stop(self) -> None:
        """Within the stop timeout; what hangs is left to the end of the process."""
        try:
            async with asyncio.timeout(self._settings.stop_timeout_s):
                if self._driver is not None:
                    await self._driver.stop(_RAFT_STOP_S)
                await self._server.close()
        except TimeoutError:
            _log.warning("stopped without waiting for everything")
        if not self._fatal.done():
            self._fatal.cancel()
        _log.info("node stopped", node_id=self._settings.node_id)

    async def _compact(self, driver: RaftDriver) -> None:
        """Drops log entries that every table on this disk contains durably."""
        while True:
            await asyncio.sleep(self._settings.compact_interval_s)
            applied = self.applier.applied_index
            try:
                await self._parts.store.flush()
                await driver.compact(min(applied, driver.applied_index))
            except Fatal:
                raise
            except AstraError as error:
                _log.info("log not compacted now", reason=str(error))

    async def _give_way(self, driver: RaftDriver) -> None:
        """A leader whose database is away hands over: it could acknowledge nothing."""
        while True:
            await asyncio.sleep(_DATABASE_CHECK_S)
            if not driver.is_leader or await self._parts.store.check() is None:
                continue
            await asyncio.sleep(_DATABASE_CHECK_S)
            problem = await self._parts.store.check()
            peers = driver.status().peers if driver.is_leader else {}
            live = [peer for peer in peers if self._parts.cluster.is_live(peer)]
            if problem is None or not live:
                continue
            _log.warning("the database is away: handing leadership over", problem=problem)
            try:
                await driver.transfer(max(live, key=lambda peer: peers[peer].match))
            except AstraError as error:
                _log.info("nobody took over", reason=str(error))

    # --- what routes and parts call back ---

    def _on_fatal(self, error: BaseException) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(error)

    def _on_role(self, state: SoftState) -> None:
        if state.role is not Role.LEADER:
            self.repairs.clear()
        _log.info("role", role=str(state.role), leader=state.leader, term=state.term)

    def _on_told(self, message: Message) -> None:
        if isinstance(message, ReportBadBlob) and self.consensus.is_leader:
            self.repairs.note_bad_copy(message)

    def _on_notice(self, notice: Notice) -> None:
        if self._follower is not None:
            self._follower.on_notice(notice)

    async def status(self) -> NodeStatus:
        """Also while there is no leader."""
        if self._driver is not None:
            raft = self._driver.status()
            return await self._health.status(raft, raft.commit)
        commit = 0 if self._follower is None else self._follower.commit_index
        return await self._health.status(None, commit)

    async def _transfer(self, to: str) -> None:
        if self._driver is None:
            raise NotLeader(self.consensus.leader)
        await self._driver.transfer(to)

    async def _entries(self, request: FetchEntries) -> EntryBatch:
        """Committed entries; none although `commit` is above `after`: take a snapshot."""
        self.reads.require_leader()
        if self._driver is None:
            raise NotLeader(self.consensus.leader)
        if not self.reads.lease_holds():
            await self.reads.barrier()
        commit = self._driver.commit_index
        limit = max(1, min(request.limit_bytes, _ENTRIES_BYTES_MAX))
        entries = await self._driver.read_entries(request.after + 1, commit, limit)
        return EntryBatch(entries=entries, commit=commit)

    async def _read_here(self, query: Query) -> Answer:
        return await self._parts.store.read(answer_from(query), long=is_scan(query))
