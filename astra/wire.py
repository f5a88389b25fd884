"""Every message that crosses a socket, and the frame that carries it.

Rules of this file: values only. No sockets, no clock, no asyncio. A message that is not
defined here does not exist. Adding a field needs a default; removing or re-typing one needs
a new WIRE_VERSION. Every collection and every byte string that a peer sends is bounded by
the limits of frames (frame.py), which are checked before anything is decoded.
"""

from __future__ import annotations

import enum

import msgspec

from astra.commands import AnyCommand, Result
from astra.model import (
    AccessKey,
    Blob,
    Bucket,
    Garbage,
    NodeInfo,
    ObjectVersion,
    Part,
    Upload,
    User,
    Versioning,
)


class Wire(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=False):
    """Base of all messages: immutable, named fields, unknown fields ignored."""


# --- Raft (node/raft speaks only these) ----------------------------------------------------


class EntryKind(enum.IntEnum):
    COMMAND = 0
    NOOP = 1  # appended by each new leader, so that entries of older terms commit (Raft 5.4.2)
    CONFIG = 2  # data is an encoded Membership


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """One log entry. `data` is opaque to Raft."""

    index: int
    term: int
    kind: EntryKind
    data: bytes


class Membership(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Who votes, and who is only replicated to. Joint while `voters_outgoing` is not empty."""

    voters: tuple[str, ...]
    learners: tuple[str, ...] = ()
    voters_outgoing: tuple[str, ...] = ()


class RaftBody(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Base of the Raft message bodies. `term` is the sender's term (PreVote: the wished one)."""

    term: int


class RequestVote(RaftBody, frozen=True, kw_only=True, array_like=True, tag="vote"):
    last_index: int
    last_term: int
    pre: bool = False  # PreVote (thesis 9.6): asks without raising anybody's term
    transfer: bool = False  # the leader asked for this election: leases do not refuse it


class VoteReply(RaftBody, frozen=True, kw_only=True, array_like=True, tag="voted"):
    granted: bool
    pre: bool = False


class Append(RaftBody, frozen=True, kw_only=True, array_like=True, tag="append"):
    prev_index: int
    prev_term: int
    commit: int
    entries: tuple[Entry, ...] = ()


class AppendReply(RaftBody, frozen=True, kw_only=True, array_like=True, tag="appended"):
    """Accepted: `index` is the last index known to match. Rejected: the refused prev_index,
    with a hint where the logs may agree (largest index, and its term, worth trying)."""

    accepted: bool
    index: int
    hint_index: int = 0
    hint_term: int = 0


class Heartbeat(RaftBody, frozen=True, kw_only=True, array_like=True, tag="beat"):
    commit: int  # never above what the receiver is known to match
    round: int = 0  # echoed; confirms ReadIndex rounds and leases
    sent_at_ms: int = 0  # leader's monotonic clock, echoed; bounds the lease


class HeartbeatReply(RaftBody, frozen=True, kw_only=True, array_like=True, tag="beaten"):
    round: int = 0
    sent_at_ms: int = 0


class InstallSnapshot(RaftBody, frozen=True, kw_only=True, array_like=True, tag="snapshot"):
    """The receiver fetches the content from the sender by `FetchSnapshot` and then acts."""

    index: int
    snapshot_term: int
    membership: Membership


class TimeoutNow(RaftBody, frozen=True, kw_only=True, array_like=True, tag="timeoutnow"):
    """Leadership transfer (thesis 3.10): start an election at once."""


class ReadIndexRequest(RaftBody, frozen=True, kw_only=True, array_like=True, tag="readindex"):
    context: int


class ReadIndexReply(RaftBody, frozen=True, kw_only=True, array_like=True, tag="readindexed"):
    context: int
    index: int


RaftMessageBody = (
    RequestVote | VoteReply | Append | AppendReply | Heartbeat | HeartbeatReply
    | InstallSnapshot | TimeoutNow | ReadIndexRequest | ReadIndexReply
)  # fmt: skip


class RaftMessage(Wire, frozen=True, kw_only=True, tag="raft"):
    """At most once, unordered: the core tolerates loss, doubling, delay and reordering."""

    group: int = 0  # one Raft group today; bucket shards later (DESIGN section 9)
    sender: str
    to: str
    body: RaftMessageBody


# --- handshake: the only messages read from a peer that has proved nothing ------------------


class Hello(Wire, frozen=True, kw_only=True, tag="hello"):
    """First frame of the dialling side. `role` is "node" or "gateway"."""

    wire_version: int
    role: str
    peer_id: str
    nonce: bytes  # 32 fresh random bytes


class Challenge(Wire, frozen=True, kw_only=True, tag="challenge"):
    """The accepting side proves the secret over both nonces, and asks for the same."""

    wire_version: int
    peer_id: str
    nonce: bytes
    proof: bytes  # HMAC-SHA256(secret, "server" | both nonces | both ids)


class Proof(Wire, frozen=True, kw_only=True, tag="proof"):
    proof: bytes  # HMAC-SHA256(secret, "client" | both nonces | both ids)


class Welcome(Wire, frozen=True, kw_only=True, tag="welcome"):
    """The dialler is believed; requests may follow."""


# --- answers that fit every request ----------------------------------------------------------


class Failure(Wire, frozen=True, kw_only=True, tag="failure"):
    """The request was not done. `kind` is a class of astra.errors (see astra/rpc.py)."""

    kind: str
    detail: str = ""
    leader: str | None = None


class Accepted(Wire, frozen=True, kw_only=True, tag="accepted"):
    """Done; nothing to tell."""


# --- gateway to leader -----------------------------------------------------------------------


class Epochs(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """The access state on which the gateway allowed the request. None: not decided on it."""

    access: int | None = None
    bucket: int | None = None


class Commit(Wire, frozen=True, kw_only=True, tag="commit"):
    """Exactly once per request id. Answered by Committed once it is committed (fsynced on a
    majority of voters) and applied on the leader."""

    request_id: str
    epochs: Epochs
    command: AnyCommand


class Committed(Wire, frozen=True, kw_only=True, tag="committed"):
    index: int
    result: Result


class HolderRef(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    node_id: str
    address: str  # host:port


class PlaceBlobs(Wire, frozen=True, kw_only=True, tag="place"):
    """Upload: where to write `count` new blobs of about `size` bytes. `upload_id` is checked
    when given (UploadPart)."""

    bucket: str
    epochs: Epochs
    size: int
    key: bytes = b""
    upload_id: str | None = None
    count: int = 1


class Placement(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    blob_id: str
    holders: tuple[HolderRef, ...]  # leader's choice; write to all, quorum is enough


class Placed(Wire, frozen=True, kw_only=True, tag="placed"):
    placements: tuple[Placement, ...]
    quorum: int
    upload: Upload | None = None


class Locate(Wire, frozen=True, kw_only=True, tag="locate"):
    """Download and query: one version (None: the newest) and, when `with_data`, where its bytes
    are. Linearizable. Refused: NO_SUCH_BUCKET, NO_SUCH_KEY, NO_SUCH_VERSION. A delete marker is
    answered as such, never as an error."""

    bucket: str
    key: bytes
    epochs: Epochs
    version_id: str | None = None
    with_data: bool = False
    with_parts: bool = False  # the manifest even without data (GetObjectAttributes, partNumber)


class BlobPlace(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    blob_id: str
    size: int
    holders: tuple[HolderRef, ...]  # fastest first


class Located(Wire, frozen=True, kw_only=True, tag="located"):
    version: ObjectVersion
    versioning: Versioning
    is_latest: bool = True
    parts: tuple[Part, ...] = ()  # the manifest, when asked for and part_count is above 0
    inline: tuple[tuple[str, bytes], ...] = ()  # blob id, bytes: small objects come along
    places: tuple[BlobPlace, ...] = ()


class ListObjects(Wire, frozen=True, kw_only=True, tag="list"):
    """Keys after `after` in byte order; with a delimiter, keys that share a prefix up to it
    collapse into one common prefix. `after` inside a common prefix skips that prefix."""

    bucket: str
    epochs: Epochs
    prefix: bytes = b""
    delimiter: bytes = b""
    after: bytes = b""
    limit: int = 1000


class ListedObject(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    key: bytes
    version: ObjectVersion


class ObjectPage(Wire, frozen=True, kw_only=True, tag="objects"):
    """`resume` is what to pass as `after` for the next page (b"": this is the last)."""

    objects: tuple[ListedObject, ...]
    prefixes: tuple[bytes, ...]
    resume: bytes = b""


class ListVersions(Wire, frozen=True, kw_only=True, tag="list-versions"):
    """Versions and delete markers after (after_key, after_version), newest first in a key."""

    bucket: str
    epochs: Epochs
    prefix: bytes = b""
    delimiter: bytes = b""
    after_key: bytes = b""
    after_version: str | None = None
    limit: int = 1000


class ListedVersion(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    key: bytes
    version: ObjectVersion
    is_latest: bool


class VersionPage(Wire, frozen=True, kw_only=True, tag="versions"):
    versions: tuple[ListedVersion, ...]
    prefixes: tuple[bytes, ...]
    resume_key: bytes = b""  # b"": this is the last page
    resume_version: str | None = None


class ListUploads(Wire, frozen=True, kw_only=True, tag="list-uploads"):
    bucket: str
    epochs: Epochs
    prefix: bytes = b""
    delimiter: bytes = b""
    after_key: bytes = b""
    after_upload: str | None = None
    limit: int = 1000


class ListedUpload(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    key: bytes
    upload: Upload


class UploadPage(Wire, frozen=True, kw_only=True, tag="uploads"):
    uploads: tuple[ListedUpload, ...]
    prefixes: tuple[bytes, ...]
    resume_key: bytes = b""
    resume_upload: str | None = None


class ListParts(Wire, frozen=True, kw_only=True, tag="list-parts"):
    """Also how a gateway reads one upload (limit 0), and the parts it completes."""

    bucket: str
    key: bytes
    upload_id: str
    epochs: Epochs
    after: int = 0
    limit: int = 1000


class PartPage(Wire, frozen=True, kw_only=True, tag="parts"):
    upload: Upload
    parts: tuple[Part, ...]
    resume: int = 0  # 0: this is the last page


class ListBuckets(Wire, frozen=True, kw_only=True, tag="list-buckets"):
    owner_id: str
    epochs: Epochs
    prefix: str = ""
    after: str = ""
    limit: int = 10_000


class BucketPage(Wire, frozen=True, kw_only=True, tag="buckets"):
    buckets: tuple[Bucket, ...]
    resume: str = ""


class GetBucket(Wire, frozen=True, kw_only=True, tag="get-bucket"):
    """For the gateway's cache. Answered by BucketFound, also when there is none."""

    bucket: str


class BucketFound(Wire, frozen=True, kw_only=True, tag="bucket"):
    bucket: Bucket | None
    owner: User | None = None


class GetAccess(Wire, frozen=True, kw_only=True, tag="get-access"):
    """For the gateway's cache: a key and its user, at one access epoch."""

    access_key: str


class AccessFound(Wire, frozen=True, kw_only=True, tag="access"):
    epoch: int
    key: AccessKey | None = None
    user: User | None = None


class ListAccess(Wire, frozen=True, kw_only=True, tag="list-access"):
    """For the command line: access keys behind `after`, by name, without secrets."""

    after: str = ""
    limit: int = 1000


class AccessPage(Wire, frozen=True, kw_only=True, tag="access-page"):
    """`users`: whose keys these are. `resume` is what to pass as `after` ("": the last page)."""

    keys: tuple[tuple[str, str, int], ...]  # access key, user id, created_ms
    users: tuple[User, ...]
    resume: str = ""


class FindUsers(Wire, frozen=True, kw_only=True, tag="find-users"):
    """Those of these ids and e-mail addresses that are users; up to USERS_ASKED_MAX at once."""

    user_ids: tuple[str, ...] = ()
    emails: tuple[str, ...] = ()


class UsersFound(Wire, frozen=True, kw_only=True, tag="users-found"):
    """Each once. Of an address of several users two: enough to see that."""

    users: tuple[User, ...]


class Subscribe(Wire, frozen=True, kw_only=True, tag="subscribe"):
    """From now on the node sends Notice frames on this stream."""


class Notice(Wire, frozen=True, kw_only=True, tag="notice"):
    """A hint (DESIGN section 2): what changed, up to `index`. May be lost, doubled or late."""

    term: int
    index: int
    access: bool = False  # users or keys changed
    buckets: tuple[str, ...] = ()  # bucket settings changed
    entries: tuple[Entry, ...] = ()  # committed entries, for learners; consecutive


# --- blob bytes ------------------------------------------------------------------------------
# A write is BlobWrite, then BlobPiece frames (payload: whole chunks in order, the last may be
# shorter), then BlobEnd; the holder answers BlobStored only when it is durable, or Failure at
# any time. A read answers BlobPiece frames and BlobEnd. Both use a connection of their own for
# their duration, so TCP is the flow control.


class BlobWrite(Wire, frozen=True, kw_only=True, tag="blob-write"):
    blob_id: str


class BlobPiece(Wire, frozen=True, kw_only=True, tag="blob-piece"):
    """`payload_crc` of the frame is the CRC32C of the payload: end to end for whole chunks."""


class BlobEnd(Wire, frozen=True, kw_only=True, tag="blob-end"):
    size: int


class BlobStored(Wire, frozen=True, kw_only=True, tag="blob-stored"):
    size: int


class BlobRead(Wire, frozen=True, kw_only=True, tag="blob-read"):
    """Pieces start at `offset` and are cut at chunk borders."""

    blob_id: str
    offset: int
    length: int


class CheckBlobs(Wire, frozen=True, kw_only=True, tag="blob-check"):
    """Which of these blobs does this node hold whole?"""

    blob_ids: tuple[str, ...]


class BlobsHeld(Wire, frozen=True, kw_only=True, tag="blobs-held"):
    blob_ids: tuple[str, ...]


class StillReading(Wire, frozen=True, kw_only=True, tag="still-reading"):
    """A gateway to a holder: downloads that run need these (at most READ_BLOBS_MAX). What of them
    is garbage by now is kept for READ_KEPT_S more. May be lost: it is said every READ_TOLD_S."""

    blob_ids: tuple[str, ...]


class ReportBadBlob(Wire, frozen=True, kw_only=True, tag="bad-blob"):
    """A reader found this holder's copy missing, damaged or stalled: repair it."""

    blob_id: str
    node_id: str


class ReportBadBlobs(Wire, frozen=True, kw_only=True, tag="bad-blobs"):
    """A node found its own copies of these missing or damaged. Answered by Accepted once the
    leader has noted all; Overloaded: the rest later."""

    node_id: str
    blob_ids: tuple[str, ...]


class RepairBlob(Wire, frozen=True, kw_only=True, tag="repair-blob"):
    """Leader to a holder: fetch a good copy from one of `sources` and verify it."""

    blob_id: str
    size: int
    sources: tuple[HolderRef, ...]


# --- the census: what the metadata says, and what is on the disks ------------------------------
# Pages in the order of their keys; `resume` is what to pass as `after` next, None at the end.


class ListBlobs(Wire, frozen=True, kw_only=True, tag="list-blobs"):
    """Asked of the leader: blobs with chunks, linearizable page by page."""

    after: str = ""
    limit: int = 500


class BlobPage(Wire, frozen=True, kw_only=True, tag="blob-page"):
    blobs: tuple[tuple[str, Blob], ...]
    resume: str | None


class ListGarbage(Wire, frozen=True, kw_only=True, tag="list-garbage"):
    """Asked of the leader: what has to be deleted, of which node."""

    after: str = ""
    limit: int = 500


class GarbagePage(Wire, frozen=True, kw_only=True, tag="garbage-page"):
    blobs: tuple[tuple[str, Garbage], ...]
    resume: str | None


class ListDropped(Wire, frozen=True, kw_only=True, tag="list-dropped"):
    """Asked of the leader: the copies that `node_id` has to delete."""

    node_id: str
    after: str = ""
    limit: int = 500


class DroppedPage(Wire, frozen=True, kw_only=True, tag="dropped-page"):
    blob_ids: tuple[str, ...]
    resume: str | None


class ListHeld(Wire, frozen=True, kw_only=True, tag="list-held"):
    """Asked of any node: the files of its chunk store, in an order of its own. `verify`: their
    bytes are read too, at the rate of repairs."""

    after: str | None = None
    limit: int = 500
    verify: bool = False


class HeldPage(Wire, frozen=True, kw_only=True, tag="held-page"):
    """`damaged`: those of `blob_ids` that have a bad footer, or (`verify`) a bad chunk."""

    blob_ids: tuple[str, ...]
    damaged: tuple[str, ...]
    resume: str | None


# --- node to node ----------------------------------------------------------------------------


class LogEnd(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    """Where a log ends, and who is in the Raft group there, committed or not."""

    term: int
    index: int
    membership: Membership


class Sighting(Wire, frozen=True, kw_only=True, tag="sighting"):
    """How far a node has come: its newest start (number, random token), and how much of the log it
    has durably. From a node that starts it is a question: noted durably, and answered by the most
    that the receiver had seen of it before, with the end of the receiver's own log. `node_id` is of
    who answers (another one may be at its address by now), `takes_part` says that it votes."""

    life: int = 0
    token: int = 0
    index: int = 0  # committed entries
    term: int = 0
    log_end: LogEnd | None = None
    node_id: str = ""
    takes_part: bool = False


class NodeReport(Wire, frozen=True, kw_only=True, tag="report"):
    """Each node to the others, about every second: what placement and ranking go by."""

    node_id: str
    address: str
    zone: str = ""
    total_bytes: int = 0
    free_bytes: int = 0
    streams: int = 0  # blob reads and writes under way
    read_mib_per_s: float = 0.0  # measured, moving average; 0 unknown
    applied_index: int = 0
    writable: bool = True
    log_write_ms: float = 0.0  # median of its durable log writes; 0 unknown
    log: Sighting = Sighting()  # life 0: it takes no part in the log


class FetchEntries(Wire, frozen=True, kw_only=True, tag="fetch-entries"):
    """Learners: committed entries from `after` + 1. Failure Unavailable: take a snapshot."""

    after: int
    limit_bytes: int = 1 << 20


class EntryBatch(Wire, frozen=True, kw_only=True, tag="entries"):
    entries: tuple[Entry, ...]
    commit: int
    membership: Membership | None = None  # of the Raft group, as of `commit`


class FetchSnapshot(Wire, frozen=True, kw_only=True, tag="fetch-snapshot"):
    """Answered on this stream by SnapshotHead, SnapshotPiece frames (payload: opaque bytes of
    the metadata store's export) and BlobEnd with the total size."""


class SnapshotHead(Wire, frozen=True, kw_only=True, tag="snapshot-head"):
    index: int
    term: int
    membership: Membership


class SnapshotPiece(Wire, frozen=True, kw_only=True, tag="snapshot-piece"):
    """Payload: at most FRAME_PAYLOAD_BYTES_MAX bytes of the export."""


class GetStatus(Wire, frozen=True, kw_only=True, tag="get-status"):
    pass


class NodeStatus(Wire, frozen=True, kw_only=True, tag="status"):
    node_id: str
    role: str  # leader, follower, candidate, learner
    leader: str | None
    term: int
    commit_index: int
    applied_index: int
    pid: int
    address: str
    total_bytes: int
    free_bytes: int
    blobs: int
    healthy: bool
    problems: tuple[str, ...] = ()  # what is degraded, and why
    backends: tuple[tuple[str, str], ...] = ()  # metadata, cache, bus: name and state
    zone: str = ""
    work: tuple[tuple[str, str], ...] = ()  # background work (scrub, repair, ...) and its state


class TransferLeadership(Wire, frozen=True, kw_only=True, tag="transfer"):
    to: str


# --- members: asked of the leader by the command line, and by nodes that hear nobody ------------


class ListMembers(Wire, frozen=True, kw_only=True, tag="list-members"):
    pass


class Member(msgspec.Struct, frozen=True, kw_only=True, array_like=True):
    node: NodeInfo
    part: str  # in the log: voter, learner, follower (gets notices)
    is_live: bool
    applied_index: int = 0


class MemberList(Wire, frozen=True, kw_only=True, tag="members"):
    leader: str
    members: tuple[Member, ...]


class AddMember(Wire, frozen=True, kw_only=True, tag="add-member"):
    """The node may join; also tells a new address or zone. Idempotent."""

    node_id: str
    address: str
    zone: str = ""


class DrainMember(Wire, frozen=True, kw_only=True, tag="drain-member"):
    """No new blobs for this node; its copies move off. `undo`: it is active again. Idempotent."""

    node_id: str
    undo: bool = False


class RemoveMember(Wire, frozen=True, kw_only=True, tag="remove-member"):
    """Out of the cluster. Refused while blobs name it, unless `force`. Idempotent."""

    node_id: str
    force: bool = False


class CountHeld(Wire, frozen=True, kw_only=True, tag="count-held"):
    """How many blobs name this node as a holder? One bounded page of the answer."""

    node_id: str
    after: str = ""


class HeldCount(Wire, frozen=True, kw_only=True, tag="held-count"):
    blobs: int
    bytes: int
    resume: str = ""  # what to pass as `after` for the next page; "": this was the last


class PeerQuery(Wire, frozen=True, kw_only=True, tag="peer-query"):
    """The broadcast query: the leader's store fails, so another node answers from its own,
    if it has applied at least `applied_index`."""

    applied_index: int
    query: Locate | ListObjects | ListVersions


Message = (
    Hello | Challenge | Proof | Welcome | Failure | Accepted
    | RaftMessage
    | Commit | Committed | PlaceBlobs | Placed | Locate | Located
    | ListObjects | ObjectPage | ListVersions | VersionPage | ListUploads | UploadPage
    | ListParts | PartPage | ListBuckets | BucketPage
    | GetBucket | BucketFound | GetAccess | AccessFound | ListAccess | AccessPage
    | FindUsers | UsersFound
    | Subscribe | Notice
    | BlobWrite | BlobPiece | BlobEnd | BlobStored | BlobRead
    | CheckBlobs | BlobsHeld | StillReading
    | ReportBadBlob | ReportBadBlobs | RepairBlob | ListBlobs | BlobPage
    | ListGarbage | GarbagePage | ListDropped | DroppedPage | ListHeld | HeldPage
    | NodeReport | Sighting | FetchEntries | EntryBatch | FetchSnapshot | SnapshotHead
    | SnapshotPiece | GetStatus | NodeStatus | TransferLeadership | PeerQuery
    | ListMembers | MemberList | AddMember | DrainMember | RemoveMember | CountHeld | HeldCount
)  # fmt: skip

HandshakeMessage = Hello | Challenge | Proof | Welcome | Failure
