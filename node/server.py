"""The node's dispatch table: which message which service method answers.

Rules: no logic here but who may ask what. A gateway may not speak Raft or push entries; a node
may not speak in another node's name. NotLeader leaves with the leader's *address*, so that a
gateway need not know node ids.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar, cast

from astra.commands import (
    AbortUpload,
    AnyCommand,
    CompleteUpload,
    CreateUpload,
    DeleteAccessKey,
    DeleteBucket,
    DeleteObjects,
    PutObject,
    PutPart,
)
from astra.constants import READ_BLOBS_MAX
from astra.errors import InvariantBroken, NotLeader, WireError
from astra.net import BulkStream, Peer, Routes
from astra.wire import (
    Accepted,
    AddMember,
    BlobRead,
    BlobWrite,
    CheckBlobs,
    Commit,
    CountHeld,
    DrainMember,
    EntryBatch,
    FetchEntries,
    FetchSnapshot,
    FindUsers,
    GetAccess,
    GetBucket,
    GetStatus,
    ListAccess,
    ListBlobs,
    ListBuckets,
    ListDropped,
    ListGarbage,
    ListHeld,
    ListMembers,
    ListObjects,
    ListParts,
    ListUploads,
    ListVersions,
    Locate,
    Message,
    NodeReport,
    NodeStatus,
    Notice,
    PeerQuery,
    PlaceBlobs,
    RaftMessage,
    RemoveMember,
    RepairBlob,
    ReportBadBlob,
    ReportBadBlobs,
    Sighting,
    StillReading,
    TransferLeadership,
)
from node.membership import ClusterMap
from node.services.blob_repair import BlobRepairer
from node.services.blobs import BlobService
from node.services.browse import BrowseService
from node.services.census import CensusService
from node.services.delete import DeleteService
from node.services.download import DownloadService
from node.services.members import MemberService
from node.services.ports import Consensus
from node.services.query import QueryService
from node.services.readers import Readers
from node.services.repair import RepairQueue
from node.services.update import UpdateService
from node.services.upload import UploadService
from node.sightings import Sightings
from node.snapshots import SnapshotSource

M = TypeVar("M", bound=Message)

_UPLOADS = (PutObject, PutPart, CreateUpload, CompleteUpload)
_DELETES = (DeleteObjects, DeleteBucket, AbortUpload, DeleteAccessKey)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """All that the routes lead to."""

    node_id: str
    cluster: ClusterMap
    consensus: Consensus
    upload: UploadService
    download: DownloadService
    query: QueryService
    update: UpdateService
    delete: DeleteService
    browse: BrowseService
    blobs: BlobService
    repairer: BlobRepairer
    repairs: RepairQueue
    readers: Readers
    census: CensusService
    on_notice: Callable[[Notice], None]
    status: Callable[[], Awaitable[NodeStatus]]
    transfer: Callable[[str], Awaitable[None]]
    entries: Callable[[FetchEntries], Awaitable[EntryBatch]]
    raft: Callable[[RaftMessage], None]
    snapshots: SnapshotSource
    members: MemberService
    sightings: Sightings
    sighting: Callable[[str, Sighting], Awaitable[Sighting]]


def fill_routes(routes: Routes, services: Services) -> None:
    """The table. Each handler is bound to its message type once, here."""
    table = _Table(routes, services.cluster)
    _add_leader_routes(table, services)
    _add_holder_routes(table, services)
    _add_node_routes(table, services)
    _add_member_routes(table, services.members)


def _add_leader_routes(table: _Table, services: Services) -> None:
    async def commit(request: Commit) -> Message:
        return await _service_of(services, request.command).commit(request)

    async def locate(request: Locate) -> Message:
        if request.with_data:
            return await services.download.locate(request)
        return await services.query.answer(request)

    table.unary(Commit, commit)
    table.unary(Locate, locate)
    table.unary(PlaceBlobs, services.upload.place)
    table.unary(ListObjects, services.query.answer)
    table.unary(ListVersions, services.query.answer)
    table.unary(ListUploads, services.browse.list_uploads)
    table.unary(ListParts, services.browse.list_parts)
    table.unary(ListBuckets, services.browse.list_buckets)
    table.unary(GetBucket, services.browse.get_bucket)
    table.unary(GetAccess, services.browse.get_access)
    table.unary(ListAccess, services.browse.list_access)
    table.unary(FindUsers, services.browse.find_users)


def _service_of(
    services: Services, command: AnyCommand
) -> UploadService | DeleteService | UpdateService:
    if isinstance(command, _UPLOADS):
        return services.upload
    if isinstance(command, _DELETES):
        return services.delete
    return services.update


def _add_holder_routes(table: _Table, services: Services) -> None:
    def report(peer: Peer, request: ReportBadBlob) -> None:
        if services.consensus.is_leader:
            services.repairs.note_bad_copy(request)

    def still_reading(_: Peer, message: StillReading) -> None:
        services.readers.note(message.blob_ids[:READ_BLOBS_MAX])

    table.streaming(BlobWrite, services.blobs.write)
    table.streaming(BlobRead, services.blobs.read)
    table.unary(CheckBlobs, services.blobs.check)
    table.unary(RepairBlob, services.repairer.repair)
    table.oneway(StillReading, still_reading)
    table.oneway(ReportBadBlob, report)
    table.unary(ReportBadBlobs, services.census.note_bad)
    table.unary(ListBlobs, services.census.list_blobs)
    table.unary(ListGarbage, services.census.list_garbage)
    table.unary(ListDropped, services.census.list_dropped)
    table.unary(ListHeld, services.census.list_held)


def _add_node_routes(table: _Table, services: Services) -> None:
    async def status(request: GetStatus) -> Message:
        return await services.status()

    async def transfer(request: TransferLeadership) -> Message:
        await services.transfer(request.to)
        return Accepted()

    async def sighting(peer: Peer, told: Sighting) -> Message:
        if peer.role != "node":
            return Sighting()
        return await services.sighting(peer.peer_id, told)

    def note_report(peer: Peer, report: NodeReport) -> None:
        if peer == Peer("node", report.node_id):
            services.cluster.note(report)
            if services.cluster.is_member(report.node_id):
                services.sightings.note_report(report.node_id, report.log)

    def note_notice(peer: Peer, notice: Notice) -> None:
        if peer.role == "node":
            services.on_notice(notice)

    def raft(peer: Peer, message: RaftMessage) -> None:
        is_honest = peer == Peer("node", message.sender) and message.to == services.node_id
        if is_honest:
            services.raft(message)

    table.unary(GetStatus, status)
    table.unary_of_peer(Sighting, sighting)
    table.unary(TransferLeadership, transfer)
    table.unary(FetchEntries, services.entries)
    table.unary(PeerQuery, services.query.answer_peer)
    table.oneway(NodeReport, note_report)
    table.oneway(Notice, note_notice)
    table.oneway(RaftMessage, raft)
    table.streaming(FetchSnapshot, services.snapshots.serve)


def _add_member_routes(table: _Table, members: MemberService) -> None:
    table.unary(ListMembers, members.list_members)
    table.unary(AddMember, members.add)
    table.unary(DrainMember, members.drain)
    table.unary(RemoveMember, members.remove)
    table.unary(CountHeld, members.count)


class _Table:
    """Registers typed handlers in the untyped Routes."""

    def __init__(self, routes: Routes, cluster: ClusterMap) -> None:
        self._routes = routes
        self._cluster = cluster

    def unary(self, kind: type[M], handler: Callable[[M], Awaitable[Message]]) -> None:
        async def handle(_: Peer, message: M) -> Message:
            try:
                return await handler(message)
            except NotLeader as error:
                raise NotLeader(self._cluster.address_of(error.leader)) from error

        self.unary_of_peer(kind, handle)

    def unary_of_peer(
        self, kind: type[M], handler: Callable[[Peer, M], Awaitable[Message]]
    ) -> None:
        async def handle(peer: Peer, message: Message) -> Message:
            if not isinstance(message, kind):
                raise InvariantBroken(f"the route of {kind.__name__} got something else")
            return await handler(peer, message)

        self._routes.unary[cast("type[Message]", kind)] = handle

    def oneway(self, kind: type[M], handler: Callable[[Peer, M], None]) -> None:
        def handle(peer: Peer, message: Message) -> None:
            if not isinstance(message, kind):
                raise WireError(f"the route of {kind.__name__} got something else")
            handler(peer, message)

        self._routes.oneway[cast("type[Message]", kind)] = handle

    def streaming(
        self, kind: type[M], handler: Callable[[Peer, M, BulkStream], Awaitable[None]]
    ) -> None:
        async def handle(peer: Peer, message: Message, stream: BulkStream) -> None:
            if not isinstance(message, kind):
                raise InvariantBroken(f"the route of {kind.__name__} got something else")
            await handler(peer, message, stream)

        self._routes.streaming[cast("type[Message]", kind)] = handle
