"""One node, wired: which part gets which. Knows ports, not backends (those are app.py's).

Order of life: the log, then the server, then the background work; `stop` goes the other way and
hands leadership over first, so that the cluster does not have to notice that this node is gone.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from astra.errors import AstraError, Fatal, NotLeader, StoreError
from astra.log import get_logger
from astra.net import Dialer, FrameServer, Routes
from astra.ports import Bus, Cache, MetadataStore
from astra.wire import (
    EntryBatch,
    FetchEntries,
    GetStatus,
    Membership,
    Message,
    NodeStatus,
    ReportBadBlob,
    Sighting,
)
from node.applier import Applier
from node.chunkstore.executor import AsyncChunkStore
from node.clock import SystemClock
from node.follower import LogFollower
from node.giveway import GiveWay
from node.ledger import Ledger
from node.membership import ClusterMap, Reporter
from node.metadata.rows import DamagedRow, DamagedTables
from node.notebook import MemoryNotebook, Notebook
from node.raft.driver import RaftDriver
from node.raft.storage import RaftStorage
from node.raft.types import Role, SoftState
from node.recall import Recall
from node.seat import Seat, any_has_log
from node.server import Services, fill_routes
from node.services.blobs import BlobService
from node.services.browse import BrowseService
from node.services.commit import Committer
from node.services.delete import DeleteService
from node.services.download import DownloadService
from node.services.health import Backends, HealthService
from node.services.members import MemberService
from node.services.notices import Announcer
from node.services.query import QueryService, answer_from, is_scan
from node.services.querycache import Answer, Query, QueryCache
from node.services.reads import Reads
from node.services.roster import Roster
from node.services.update import UpdateService
from node.services.upload import UploadService
from node.services.witness import Witness
from node.settings import NodeSettings
from node.sightings import Sightings
from node.snapshots import SnapshotInstaller, SnapshotSource
from node.transport import LeaderDialer, RaftTransport
from node.upkeep import Surroundings, Upkeep

_ENTRIES_BYTES_MAX: Final = 1 << 20
_RAFT_STOP_S: Final = 3.0
_EXISTS_TIMEOUT_S: Final = 1.0
_SIGHTINGS_S: Final = 5.0  # reports that are not stored yet are forgotten by a restart
_CONFIRM_S: Final = 0.5

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
    ledger: Ledger
    notebook: Notebook = field(default_factory=MemoryNotebook)


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
        self._sightings = Sightings(parts.ledger, random.SystemRandom())
        self.consensus = self._make_seat()
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
        self.upkeep = self._make_upkeep()
        self._health = self._make_health()
        self._reporter = Reporter(
            dialer=parts.dialer,
            cluster=parts.cluster,
            make_report=self._health.make_report,
            interval_s=settings.report_interval_s,
        )
        self._announcer = Announcer(
            consensus=self.consensus,
            bus=parts.bus,
            has_followers=lambda: bool(parts.cluster.followers()),
        )
        self._roster = Roster(
            store=parts.store,
            cluster=parts.cluster,
            consensus=self.consensus,
            dialer=parts.dialer,
            on_outside=self.consensus.leave,
        )
        self._give_way = GiveWay(seat=self.consensus, store=parts.store, cluster=parts.cluster)
        parts.cluster.in_log = frozenset(settings.voters)
        self._server = FrameServer(
            secret=settings.cluster_secret,
            node_id=settings.node_id,
            routes=parts.routes,
            on_fatal=self._on_fatal,
            tls=settings.peer_tls,
        )
        fill_routes(parts.routes, self._make_services())

    @property
    def _driver(self) -> RaftDriver | None:
        """None while this node is not in the Raft group."""
        return self.consensus.driver

    # --- making ---

    def _make_seat(self) -> Seat:
        settings = self._settings
        return Seat(
            make_driver=self._make_driver,
            follower=self._make_follower(),
            storage=self._parts.raft_storage,
            store=self._parts.store,
            applier=self.applier,
            bootstrap=Membership(voters=tuple(sorted(settings.voters)))
            if settings.is_voter
            else None,
            cluster_exists=self._cluster_exists,
            recall=Recall(
                sightings=self._sightings,
                cluster=self._parts.cluster,
                dialer=self._parts.dialer,
                clock=self._parts.clock,
            ),
        )

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
            log_write_ms=lambda: self.consensus.raft.write_ms.median_ms,
            log=self._own_sighting,
            doubt=lambda: self._sightings.own.doubt,
            upkeep=self.upkeep,
        )

    def _make_upkeep(self) -> Upkeep:
        parts = self._parts
        around = Surroundings(
            store=parts.store,
            chunks=parts.chunks,
            dialer=parts.dialer,
            cluster=parts.cluster,
            clock=parts.clock,
            notebook=parts.notebook,
            consensus=self.consensus,
            reads=self.reads,
            blobs=self._blobs,
            leader=self._leader_link,
            can_be_spared=lambda: self._give_way.can_be_spared(),
        )
        return Upkeep(self._settings, around)

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
        self._members = MemberService(
            seat=self.consensus,
            reads=self.reads,
            committer=committer,
            cluster=parts.cluster,
            voters_max=settings.voters_max,
        )
        return Services(
            node_id=settings.node_id,
            cluster=parts.cluster,
            consensus=self.consensus,
            upload=UploadService(
                reads=self.reads,
                committer=committer,
                cluster=parts.cluster,
                repairs=self.upkeep.queue,
                clock=parts.clock,
                rng=random.SystemRandom(),
            ),
            download=DownloadService(reads=self.reads, cluster=parts.cluster),
            query=self._make_query(query_cache),
            update=UpdateService(committer=committer, cluster=parts.cluster),
            delete=DeleteService(committer=committer),
            browse=BrowseService(self.reads),
            blobs=self._blobs,
            repairer=self.upkeep.repairer,
            repairs=self.upkeep.queue,
            readers=self.upkeep.readers,
            census=self.upkeep.census,
            on_notice=self.consensus.on_notice,
            status=self.status,
            transfer=self._transfer,
            entries=self._entries,
            raft=self.consensus.on_raft,
            snapshots=self._make_snapshot_source(),
            members=self._members,
            sightings=self._sightings,
            sighting=self._sighting,
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

    def _make_snapshot_source(self) -> SnapshotSource:
        seat = self.consensus
        return SnapshotSource(
            store=self._parts.store,
            applier=self.applier,
            mark_at=lambda index: seat.raft.mark_at(index),
            level_with=lambda index: seat.raft.level_with(index),
        )

    # --- life ---

    async def start(self) -> None:
        """Listening on return. Raises ConfigError, Fatal, OSError (port in use)."""
        settings = self._settings
        applied = await self._load_tables()
        self.applier.listen(self._announcer.on_applied)
        self.applier.listen(self._roster.on_applied)
        self.applier.listen_replaced(self._roster.on_replaced)
        await self._parts.chunks.sweep_temporaries()
        self._parts.bus.subscribe(self.consensus.on_notice)
        await self._parts.bus.start()
        await self.consensus.start(applied)
        await self._server.start(settings.listen_host, settings.listen_port)
        _log.info(
            "node started",
            node_id=settings.node_id, port=self._server.port, applied_index=applied,
            life=self._sightings.own.life,
        )  # fmt: skip

    async def _load_tables(self) -> int:
        """The applied index. Raises Fatal when what is needed to take part is damaged."""
        try:
            applied = await self.applier.load()
            await self._sightings.load()
            await self._roster.load()
        except DamagedRow as error:
            raise DamagedTables(str(error)) from error
        return applied

    async def run(self, stop: asyncio.Event) -> None:
        """The background work, until `stop` is set. Raises what is fatal."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in self._background()]
            await self._until_stopped(stop)
            for task in tasks:
                task.cancel()

    def _background(self) -> list[Coroutine[None, None, None]]:
        settings = self._settings
        return [
            self._reporter.run(),
            *self.upkeep.background(),
            self.consensus.run(settings.report_interval_s),
            self._roster.run(settings.report_interval_s),
            self._members.run(settings.report_interval_s / 2),
            self._give_way.run(),
            self._sightings.run(_SIGHTINGS_S),
            self._compact(),
        ]

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
                await self._sightings.save()
        except AstraError as error:
            _log.warning("what was seen of the others is not stored", reason=str(error))
        except TimeoutError:
            _log.warning("stopped without waiting for everything")
        if not self._fatal.done():
            self._fatal.cancel()
        _log.info("node stopped", node_id=self._settings.node_id)

    async def _compact(self) -> None:
        """Drops log entries that every table on this disk contains durably."""
        while True:
            await asyncio.sleep(self._settings.compact_interval_s)
            driver = self._driver
            if driver is None:
                continue
            applied = self.applier.applied_index
            try:
                await self._parts.store.flush()
                await driver.compact(min(applied, driver.applied_index))
            except Fatal:
                raise
            except AstraError as error:
                _log.info("log not compacted now", reason=str(error))

    async def _cluster_exists(self) -> bool | None:
        """Whether another node has a log: then this one joins, instead of starting a cluster.
        None while a voter does not say."""

        async def has_log(address: str) -> bool:
            answer = await self._parts.dialer.control(address).call(
                GetStatus(), timeout_s=_EXISTS_TIMEOUT_S
            )
            # A term above 0 means that a majority has moved in already.
            return isinstance(answer, NodeStatus) and bool(
                answer.term or answer.commit_index or answer.applied_index
            )

        others = self._settings.other_peers()
        asking = {node_id: has_log(address) for node_id, address in others.items()}
        return await any_has_log(asking, set(self._settings.voters) - {self._settings.node_id})

    # --- what routes and parts call back ---

    def _own_sighting(self) -> Sighting:
        """What this node promises never to fall behind again. Life 0: nothing, it sits beside."""
        driver, own = self._driver, self._sightings.own
        if driver is None:
            return Sighting()
        return Sighting(
            life=own.life, token=own.token, index=driver.applied_index, term=driver.durable_term
        )

    async def _sighting(self, node_id: str, told: Sighting) -> Sighting:
        """The most that was seen of a node that starts; a leader knows what it acknowledged. Of a
        stranger nothing is kept."""
        if self._parts.cluster.is_member(node_id):
            seen = await self._sightings.note_start(node_id, told)
            seen = replace(seen, index=max(seen.index, await self._acknowledged_by(node_id)))
        else:
            seen = self._sightings.seen(node_id)
        seat = self.consensus
        own_id = self._settings.node_id
        return replace(seen, node_id=own_id, takes_part=seat.takes_part, log_end=seat.log_end())

    async def _acknowledged_by(self, node_id: str) -> int:
        """0 unless this node leads for certain: another leader may have cut the rest off."""
        driver = self._driver
        if driver is None or not driver.is_leader:
            return 0
        term = driver.term
        try:
            if not driver.lease_valid_now():
                await driver.read_barrier(_CONFIRM_S)
        except AstraError:
            return 0
        peer = driver.status().peers.get(node_id)
        return peer.match if peer is not None and driver.term == term else 0

    def _on_fatal(self, error: BaseException) -> None:
        if not self._fatal.done():
            self._fatal.set_exception(error)

    def _on_role(self, state: SoftState) -> None:
        if state.role is not Role.LEADER:
            self.upkeep.leadership_lost()
        _log.info("role", role=str(state.role), leader=state.leader, term=state.term)

    def _on_told(self, message: Message) -> None:
        if isinstance(message, ReportBadBlob) and self.consensus.is_leader:
            self.upkeep.queue.note_bad_copy(message)

    async def status(self) -> NodeStatus:
        """Also while there is no leader."""
        if self._driver is not None:
            raft = self._driver.status()
            return await self._health.status(raft, raft.commit)
        return await self._health.status(None, self.consensus.commit_index)

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
        commit, membership = self._driver.committed()
        limit = max(1, min(request.limit_bytes, _ENTRIES_BYTES_MAX))
        entries = await self._driver.read_entries(request.after + 1, commit, limit)
        return EntryBatch(entries=entries, commit=commit, membership=membership)

    async def _read_here(self, query: Query) -> Answer:
        if (problem := await self._parts.store.check()) is not None:
            raise StoreError(problem)  # what is damaged may lack a row, and not know it
        return await self._parts.store.read(answer_from(query), long=is_scan(query))
