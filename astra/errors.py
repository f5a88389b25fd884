"""The internal error tree. No HTTP here: the gateway maps these to S3 codes in one place.

AstraError
├── Refused                 a deterministic answer of the cluster: do not retry as it is
├── Transient               safe to retry: nothing was changed
│   ├── NotLeader           ask `leader` (None: unknown yet)
│   ├── Unavailable         no quorum, no holder, node is starting or stopping
│   └── Overloaded          a bounded queue is full
├── OutcomeUnknown          the proposal may or may not commit: retry with the same request id
├── DeadlineExceeded        a wait ended without an answer
├── WireError               the peer broke the protocol: the connection is closed
│   └── HandshakeFailed     the peer does not know the cluster secret
├── StoreError              this node's disk or database
│   ├── BlobNotFound, BadChunk, StorageFull, BlobConflict
│   └── Fatal               the process must stop and never retry
│       └── FsyncFailed, DamagedLog, UnknownFormat, OldFormat, ForeignDirectory
└── ConfigError             what is wrong, and what to do
"""

from __future__ import annotations

import enum


class AstraError(Exception):
    """Base of every error that we raise on purpose."""


class RefusalCode(enum.StrEnum):
    """Why a command or a query was refused. Stored in results: only ever add members."""

    NO_SUCH_BUCKET = "no-such-bucket"
    NO_SUCH_KEY = "no-such-key"
    NO_SUCH_VERSION = "no-such-version"
    NO_SUCH_UPLOAD = "no-such-upload"
    NO_SUCH_TAGS = "no-such-tags"
    NO_SUCH_USER = "no-such-user"
    NO_SUCH_ACCESS_KEY = "no-such-access-key"
    IS_DELETE_MARKER = "is-delete-marker"
    INVALID_PART = "invalid-part"
    INVALID_PART_ORDER = "invalid-part-order"
    PART_TOO_SMALL = "part-too-small"
    PRECONDITION_FAILED = "precondition-failed"
    CONFLICT = "conflict"  # a concurrent change won: the caller may decide again
    SOURCE_CHANGED = "source-changed"  # the copied version is gone: look it up again
    BUCKET_EXISTS = "bucket-exists"  # owned by somebody else
    BUCKET_OWNED = "bucket-owned"  # owned by the caller already
    BUCKET_NOT_EMPTY = "bucket-not-empty"
    TOO_MANY_BUCKETS = "too-many-buckets"
    USER_EXISTS = "user-exists"
    ACCESS_KEY_EXISTS = "access-key-exists"
    STALE_EPOCH = "stale-epoch"  # decided on old access state: reload and decide again
    UPLOAD_EXPIRED = "upload-expired"  # the blob was placed too long ago to be committed
    CHECKSUM_MISMATCH = "checksum-mismatch"
    CHECKSUM_TYPE = "checksum-type"
    SIZE_MISMATCH = "size-mismatch"
    INVALID_ARGUMENT = "invalid-argument"
    UNKNOWN_COMMAND = "unknown-command"
    TOO_MANY_PIECES = "too-many-pieces"  # the object would have more extents than fit an answer


class Refused(AstraError):
    """The cluster decided no. `detail` is for people and holds no secret."""

    def __init__(self, code: RefusalCode, detail: str = "") -> None:
        super().__init__(f"{code}: {detail}" if detail else str(code))
        self.code = code
        self.detail = detail


class Transient(AstraError):
    """Nothing was changed; the same request may be sent again."""


class NotLeader(Transient):
    """This node does not lead; `leader` does, as far as it knows."""

    def __init__(self, leader: str | None = None) -> None:
        super().__init__(f"not the leader (leader: {leader or 'unknown'})")
        self.leader = leader


class Unavailable(Transient):
    """Not now: no quorum, no holder, or the node is starting or stopping."""


class Overloaded(Transient):
    """A bounded queue is full."""


class OutcomeUnknown(AstraError):
    """The proposal may or may not commit. Safe to repeat only with the same request id."""


class DeadlineExceeded(AstraError):
    """A wait ended without an answer. Whether the peer acted is unknown."""


class WireError(AstraError):
    """The peer sent what the protocol does not allow. The connection must be closed."""


class HandshakeFailed(WireError):
    """The peer could not prove that it knows the cluster secret."""


class StoreError(AstraError):
    """This node's disk or database."""


class BlobNotFound(StoreError):
    def __init__(self, blob_id: str) -> None:
        super().__init__(f"blob {blob_id} is not on this node")
        self.blob_id = blob_id


class BadChunk(StoreError):
    def __init__(self, blob_id: str, index: int, reason: str = "checksum differs") -> None:
        super().__init__(f"chunk {index} of blob {blob_id}: {reason}")
        self.blob_id = blob_id
        self.index = index


class BlobConflict(StoreError):
    """The blob id exists with other content, or is being written by somebody else."""


class StorageFull(StoreError):
    """No space left; nothing half-written stays behind."""


class Fatal(StoreError):
    """The process cannot trust its disk any more: it must stop and never retry."""


class FsyncFailed(Fatal):
    """An fsync error: the kernel may have dropped the pages, so a retry would lie."""


class DamagedLog(Fatal):
    """Raft log or hard state fail their checksum in the middle: rebuild from the peers."""


class UnknownFormat(Fatal):
    """Written by a newer version of AstraStorage than this one."""


class OldFormat(Fatal):
    """Written by an older version of AstraStorage, in a form that this one does not read."""


class ForeignDirectory(Fatal):
    """The data directory belongs to another node or cluster, or its disk is not mounted."""


class ConfigError(AstraError):
    """A setting is wrong; the message says which, why, and what to do."""


class InvariantBroken(Fatal):
    """Our own bug. The process stops rather than act on a state that cannot be."""


def invariant(condition: bool, message: str) -> None:
    """Stays on in production, unlike assert. Raises InvariantBroken."""
    if not condition:
        raise InvariantBroken(message)
