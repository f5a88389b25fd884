"""What the cluster knows: the documents of the metadata store, and its tables.

Rules of this file: values only. Documents are msgspec arrays, so a new field goes to the end
and needs a default; the meaning of an old one never changes. Keys and bucket names are bytes
in the store, because S3 orders keys by their UTF-8 bytes.

The tables hold, per key, the newest version in `OBJECTS` and all older ones in `VERSIONS`,
so that an unversioned PUT is one row and a LIST is one range of one table. Bytes are reached
through extents of blobs; a blob is either inline (its bytes are in INLINE, on every node) or
held as chunks by `holders`. Blobs are shared by copies and counted in `Blob.references`.
"""

from __future__ import annotations

import enum
from typing import Final, Generic, TypeVar

import msgspec

NULL_VERSION: Final = "null"


class Doc(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Base of all stored documents."""


class Versioning(enum.IntEnum):
    OFF = 0  # never switched on
    ENABLED = 1
    SUSPENDED = 2


class User(Doc, frozen=True, array_like=True, kw_only=True):
    user_id: str
    display_name: str
    email: str = ""
    is_root: bool = False  # may do everything, on every bucket
    created_ms: int = 0


class AccessKey(Doc, frozen=True, array_like=True, kw_only=True):
    access_key: str
    user_id: str
    secret: str
    created_ms: int = 0

    def __repr__(self) -> str:
        return f"AccessKey({self.access_key!r}, user_id={self.user_id!r})"  # never the secret


class Grant(Doc, frozen=True, array_like=True, kw_only=True):
    """One right of an ACL."""

    grantee: str  # USER_GRANTEE and a user id, or one of the groups
    permission: str  # READ, WRITE, READ_ACP, WRITE_ACP, FULL_CONTROL


USER_GRANTEE: Final = "user:"
ALL_USERS: Final = "group:AllUsers"  # also who does not sign
AUTHENTICATED_USERS: Final = "group:AuthenticatedUsers"
ANONYMOUS_OWNER: Final = "anonymous"  # who owns what was written without a signature

# Who else may do what. None is that of everything new: the owner everything, nobody else
# anything. An empty one names not even the owner.
Acl = tuple[Grant, ...] | None


class Bucket(Doc, frozen=True, array_like=True, kw_only=True):
    name: str
    owner_id: str
    created_ms: int
    epoch: int  # log index of the last change of this document; 0 is "no such bucket"
    versioning: Versioning = Versioning.OFF
    location: str = ""
    tags: tuple[tuple[str, str], ...] = ()
    acl: Acl = None


class Checksum(Doc, frozen=True, array_like=True, kw_only=True):
    algorithm: str  # CRC32, CRC32C, CRC64NVME, SHA1, SHA256
    value: str  # base64, with "-N" when composite
    composite: bool = False


class Extent(Doc, frozen=True, array_like=True, kw_only=True):
    """`length` bytes of a blob from `offset`. The unit of sharing."""

    blob_id: str
    offset: int
    length: int


class Part(Doc, frozen=True, array_like=True, kw_only=True):
    """A part of a running upload (PARTS), or of a completed object (in its Manifest)."""

    number: int
    size: int
    etag: str  # hex MD5, no quotes
    extents: tuple[Extent, ...]
    checksum: Checksum | None = None
    modified_ms: int = 0


class ObjectVersion(Doc, frozen=True, array_like=True, kw_only=True):
    """One version of one key. Delete markers have `is_marker` and no bytes."""

    version_id: str  # NULL_VERSION, or encode_version_id(order, salt)
    order: int  # log index * 1024 + place in the command: newer is larger
    modified_ms: int
    owner_id: str
    size: int = 0
    etag: str = ""  # no quotes; multipart "hex-N"
    is_marker: bool = False
    storage_class: str = "STANDARD"
    headers: tuple[tuple[str, str], ...] = ()  # content-type and the other system headers
    user_metadata: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    checksum: Checksum | None = None
    extents: tuple[Extent, ...] = ()  # when part_count is 0
    part_count: int = 0  # above 0: completed from parts, which are in MANIFESTS
    acl: Acl = None


class Manifest(Doc, frozen=True, array_like=True, kw_only=True):
    """The parts of a completed multipart object, in order."""

    parts: tuple[Part, ...]


class Upload(Doc, frozen=True, array_like=True, kw_only=True):
    """A multipart upload. Its id is globally unique and opaque."""

    upload_id: str
    owner_id: str
    initiated_ms: int
    storage_class: str = "STANDARD"
    headers: tuple[tuple[str, str], ...] = ()
    user_metadata: tuple[tuple[str, str], ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    checksum_algorithm: str = ""
    checksum_composite: bool = False
    initiator_id: str = ""
    acl: Acl = None  # of the object that it becomes
    surplus_extents: int = 0  # of its parts, beyond one each


class Blob(Doc, frozen=True, array_like=True, kw_only=True):
    size: int
    references: int  # extents of versions and parts that name it; 0 never stays in BLOBS
    holders: tuple[str, ...]  # node ids; empty when inline
    is_inline: bool = False
    created_ms: int = 0
    placed_index: int = 0  # log index of the last change of who holds it; 0: since it was added


class Garbage(Doc, frozen=True, array_like=True, kw_only=True):
    """A blob that nothing refers to any more: its holders still have to delete it."""

    holders: tuple[str, ...]
    since_ms: int
    size: int = 0


class Dropped(Doc, frozen=True, array_like=True, kw_only=True):
    """A copy that counts no more, of a blob that lives on elsewhere: that node deletes it."""

    since_ms: int


class Inline(Doc, frozen=True, array_like=True, kw_only=True):
    data: bytes


class NodeState(enum.IntEnum):
    ACTIVE = 0
    DRAINING = 1  # gets no new blobs; its copies move to other nodes


class NodeInfo(Doc, frozen=True, array_like=True, kw_only=True):
    """A member of the cluster: where it is, and whether blobs may be placed on it."""

    node_id: str
    address: str  # host:port
    zone: str = ""
    state: NodeState = NodeState.ACTIVE
    joined_ms: int = 0


class Remembered(Doc, frozen=True, array_like=True, kw_only=True):
    """The first result of a request id, for retries (encoded astra.commands.Result)."""

    index: int
    result: bytes


class Mark(Doc, frozen=True, array_like=True, kw_only=True):
    """A number the cluster keeps (applied index, access epoch, clock, ...)."""

    value: int


class VersionRef(Doc, frozen=True, array_like=True, kw_only=True):
    order: int


D = TypeVar("D", bound=Doc)
D_co = TypeVar("D_co", bound=Doc, covariant=True)

Key = tuple[bytes | str | int, ...]


class Column(enum.StrEnum):
    BYTES = "bytes"  # compared byte by byte
    TEXT = "text"  # ASCII identifiers, compared byte by byte too
    INTEGER = "integer"  # signed 64 bits


class Table(Generic[D_co]):
    """A table: named key columns, in order, and a document. Stores make it plain SQL."""

    __slots__ = ("columns", "doc", "name")

    def __init__(self, name: str, columns: tuple[tuple[str, Column], ...], doc: type[D_co]) -> None:
        self.name = name
        self.columns = columns
        self.doc = doc

    def __repr__(self) -> str:
        return f"Table({self.name})"


_BUCKET: Final = ("bucket", Column.BYTES)
_KEY: Final = ("key", Column.BYTES)

MARKS = Table("marks", (("name", Column.TEXT),), Mark)
USERS = Table("users", (("user_id", Column.TEXT),), User)
ACCESS_KEYS = Table("access_keys", (("access_key", Column.TEXT),), AccessKey)
NODES = Table("nodes", (("node_id", Column.TEXT),), NodeInfo)
BUCKETS = Table("buckets", (_BUCKET,), Bucket)
OBJECTS = Table("objects", (_BUCKET, _KEY), ObjectVersion)
# `age` is ORDER_MAX - order, so that an ascending scan sees the newest version first.
VERSIONS = Table("versions", (_BUCKET, _KEY, ("age", Column.INTEGER)), ObjectVersion)
# Where the null version of a key is when it is not the newest.
NULL_VERSIONS = Table("null_versions", (_BUCKET, _KEY), VersionRef)
MANIFESTS = Table("manifests", (_BUCKET, _KEY, ("order_", Column.INTEGER)), Manifest)
UPLOADS = Table("uploads", (_BUCKET, _KEY, ("upload_id", Column.TEXT)), Upload)
PARTS = Table("parts", (("upload_id", Column.TEXT), ("number", Column.INTEGER)), Part)
BLOBS = Table("blobs", (("blob_id", Column.TEXT),), Blob)
INLINE = Table("inline_data", (("blob_id", Column.TEXT),), Inline)
GARBAGE = Table("garbage", (("blob_id", Column.TEXT),), Garbage)
# By node first, so that each node reads its own. While the row is there, that node is no holder
# of the blob and cannot become one.
DROPPED = Table("dropped", (("node_id", Column.TEXT), ("blob_id", Column.TEXT)), Dropped)
REQUESTS = Table("requests", (("request_id", Column.TEXT),), Remembered)
# Request ids by log index, so that old ones are forgotten in order.
REQUEST_ORDER = Table(
    "request_order", (("index_", Column.INTEGER), ("request_id", Column.TEXT)), Mark
)
# First answers of CompleteMultipartUpload, kept for a day. Not in UPLOADS, so that listing and
# deleting a bucket see running uploads only; and the same by time, so that they are forgotten.
COMPLETIONS = Table("completions", (_BUCKET, _KEY, ("upload_id", Column.TEXT)), Remembered)
COMPLETION_ORDER = Table(
    "completion_order",
    (("at_ms", Column.INTEGER), _BUCKET, _KEY, ("upload_id", Column.TEXT)),
    Mark,
)

TABLES: Final[tuple[Table[Doc], ...]] = (
    MARKS, USERS, ACCESS_KEYS, NODES, BUCKETS, OBJECTS, VERSIONS, NULL_VERSIONS, MANIFESTS,
    UPLOADS, PARTS, BLOBS, INLINE, GARBAGE, REQUESTS, REQUEST_ORDER,
    COMPLETIONS, COMPLETION_ORDER, DROPPED,
)  # fmt: skip

ORDER_MAX: Final = 2**62

# Names in MARKS.
APPLIED_INDEX: Final = "applied_index"
APPLIED_TERM: Final = "applied_term"
ACCESS_EPOCH: Final = "access_epoch"  # log index of the last change of users or keys
CLOCK_MS: Final = "clock_ms"  # the largest command time applied: time never goes back


def encode_version_id(order: int, salt: bytes) -> str:
    """Opaque, unique, and enough to find the row: 16 hex of order, 16 hex of salt."""
    return f"{order:016x}{salt[:8].hex():0>16}"


def decode_version_order(version_id: str) -> int | None:
    """The order inside a version id, or None when it cannot be one of ours."""
    if len(version_id) != 32 or not version_id.isascii():
        return None
    try:
        order = int(version_id[:16], 16)
        int(version_id[16:], 16)
    except ValueError:
        return None
    return order if 0 < order < ORDER_MAX and version_id == version_id.lower() else None
