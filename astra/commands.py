"""What the Raft log carries: the only way metadata changes, and what each change answers.

Rules of this file: values only; node/apply.py gives them their meaning, deterministically.
A stored proposal starts with a format byte; a node that meets an unknown format, command or field
halts rather than skips (FAULTS row 52, 57). New fields go to the end with a default.

The gateway builds a command; the leader stamps the proposal with time and salt, so that every
node derives the same version ids. `access_epoch` and `bucket_epoch` say on which state the
gateway allowed the request; apply refuses when that state has changed since (DESIGN 4).
"""

from __future__ import annotations

from typing import Final

import msgspec

from astra.decoding import UNREADABLE
from astra.errors import RefusalCode, UnknownFormat
from astra.model import (
    AccessKey,
    Acl,
    Checksum,
    Doc,
    NodeInfo,
    User,
    Versioning,
)

PROPOSAL_FORMAT: Final = b"\x01"

Pairs = tuple[tuple[str, str], ...]


class Condition(Doc, frozen=True, array_like=True, kw_only=True):
    """A conditional write, decided in apply so that races have one winner.

    `if_match`: ETags without quotes, or ("*",). `if_none_match`: ("*",) only (AWS).
    `if_match_size` and `if_match_modified_ms` are those of conditional deletes.
    """

    if_match: tuple[str, ...] = ()
    if_none_match: tuple[str, ...] = ()
    if_match_size: int | None = None
    if_match_modified_ms: int | None = None  # whole seconds are compared


NO_CONDITION: Final = Condition()


class NewBlob(Doc, frozen=True, array_like=True, kw_only=True):
    """A blob that is durable on its `holders`, or inline in `data`."""

    blob_id: str
    size: int
    holders: tuple[str, ...] = ()
    data: bytes | None = None


class ObjectHead(Doc, frozen=True, array_like=True, kw_only=True):
    """What a client says of an object, beside its bytes."""

    owner_id: str
    storage_class: str = "STANDARD"
    headers: Pairs = ()
    user_metadata: Pairs = ()
    tags: Pairs = ()
    acl: Acl = None


class JudgedAcl(Doc, frozen=True, array_like=True, kw_only=True):
    """What a gateway decided on: one version and the ACL that it had."""

    order: int
    acl: Acl


class Command(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag_field="t"):
    """Base of all commands."""


class CreateBucket(Command, frozen=True, kw_only=True, array_like=True, tag="create-bucket"):
    bucket: str
    owner_id: str
    location: str = ""
    tags: Pairs = ()
    acl: Acl = None


class DeleteBucket(Command, frozen=True, kw_only=True, array_like=True, tag="delete-bucket"):
    bucket: str


class SetVersioning(Command, frozen=True, kw_only=True, array_like=True, tag="set-versioning"):
    bucket: str
    versioning: Versioning


class SetBucketTags(Command, frozen=True, kw_only=True, array_like=True, tag="set-bucket-tags"):
    bucket: str
    tags: Pairs  # empty: delete them


class SetBucketAcl(Command, frozen=True, kw_only=True, array_like=True, tag="set-bucket-acl"):
    bucket: str
    acl: Acl


class PutObject(Command, frozen=True, kw_only=True, array_like=True, tag="put-object"):
    """Answers PutDone. Refused: NO_SUCH_BUCKET, PRECONDITION_FAILED, NO_SUCH_KEY (If-Match on a
    key that is not there), UPLOAD_EXPIRED, STALE_EPOCH."""

    bucket: str
    key: bytes
    head: ObjectHead
    etag: str
    size: int
    blob: NewBlob | None = None  # None: no bytes
    checksum: Checksum | None = None
    condition: Condition = NO_CONDITION


class CopyObject(Command, frozen=True, kw_only=True, array_like=True, tag="copy-object"):
    """Shares the bytes of exactly one version, named by its order. Answers PutDone.
    `head` None: the source's head (owner_id set), otherwise it replaces it; `tags` None: the
    source's tags. Refused: SOURCE_CHANGED when that version is gone."""

    bucket: str
    key: bytes
    source_bucket: str
    source_key: bytes
    source_order: int
    owner_id: str
    storage_class: str = "STANDARD"
    head: ObjectHead | None = None
    tags: Pairs | None = None
    checksum: Checksum | None = None  # None: the source's
    condition: Condition = NO_CONDITION
    acl: Acl = None  # of the copy; that of the source is never copied


class DeleteEntry(Doc, frozen=True, array_like=True, kw_only=True):
    key: bytes
    version_id: str | None = None  # None: the newest, by the bucket's versioning state
    condition: Condition = NO_CONDITION


class DeleteObjects(Command, frozen=True, kw_only=True, array_like=True, tag="delete-objects"):
    """One or up to 1000 deletes, each decided on its own. Answers DeletedMany."""

    bucket: str
    owner_id: str  # of the delete markers
    entries: tuple[DeleteEntry, ...]


class SetObjectTags(Command, frozen=True, kw_only=True, array_like=True, tag="set-object-tags"):
    """Answers VersionDone. Refused: NO_SUCH_KEY, NO_SUCH_VERSION, IS_DELETE_MARKER."""

    bucket: str
    key: bytes
    version_id: str | None
    tags: Pairs


class SetObjectAcl(Command, frozen=True, kw_only=True, array_like=True, tag="set-object-acl"):
    """Answers VersionDone. `judged`: the version, by its order, and its ACL on which the asker
    was allowed (None: allowed whatever they are). Refused: NO_SUCH_KEY, NO_SUCH_VERSION,
    IS_DELETE_MARKER, CONFLICT when it is another one now."""

    bucket: str
    key: bytes
    version_id: str | None
    acl: Acl
    judged: JudgedAcl | None = None


class CreateUpload(Command, frozen=True, kw_only=True, array_like=True, tag="create-upload"):
    """Apply derives the upload id from the order and the salt. Answers UploadDone."""

    bucket: str
    key: bytes
    head: ObjectHead
    initiator_id: str
    checksum_algorithm: str = ""
    checksum_composite: bool = False


class PutPart(Command, frozen=True, kw_only=True, array_like=True, tag="put-part"):
    """Answers PartDone. An existing part of that number is replaced, its blob freed."""

    bucket: str
    key: bytes
    upload_id: str
    number: int
    size: int
    etag: str
    blob: NewBlob | None = None
    checksum: Checksum | None = None


class CopyPart(Command, frozen=True, kw_only=True, array_like=True, tag="copy-part"):
    """A part that shares `length` bytes from `offset` of one version. Answers PartDone."""

    bucket: str
    key: bytes
    upload_id: str
    number: int
    source_bucket: str
    source_key: bytes
    source_order: int
    offset: int
    length: int
    etag: str
    checksum: Checksum | None = None


class NamedPart(Doc, frozen=True, array_like=True, kw_only=True):
    """A part as CompleteMultipartUpload names it."""

    number: int
    etag: str
    checksum: Checksum | None = None


class CompleteUpload(Command, frozen=True, kw_only=True, array_like=True, tag="complete-upload"):
    """Answers PutDone; a repeat of a completed one answers the same. `checksum` is what the
    gateway computed for the whole object out of the parts' checksums. Refused: NO_SUCH_UPLOAD,
    INVALID_PART, INVALID_PART_ORDER, PART_TOO_SMALL, PRECONDITION_FAILED, SIZE_MISMATCH."""

    bucket: str
    key: bytes
    upload_id: str
    parts: tuple[NamedPart, ...]
    etag: str  # of the whole: hex-N
    checksum: Checksum | None = None
    size: int | None = None  # x-amz-mp-object-size
    condition: Condition = NO_CONDITION


class AbortUpload(Command, frozen=True, kw_only=True, array_like=True, tag="abort-upload"):
    bucket: str
    key: bytes
    upload_id: str


class PutUser(Command, frozen=True, kw_only=True, array_like=True, tag="put-user"):
    """Creates or changes a user, and adds `keys` to it."""

    user: User
    keys: tuple[AccessKey, ...] = ()
    replace: bool = False  # False: USER_EXISTS when another user has that id


class DeleteAccessKey(Command, frozen=True, kw_only=True, array_like=True, tag="delete-access-key"):
    access_key: str


class SetHolders(Command, frozen=True, kw_only=True, array_like=True, tag="set-holders"):
    """Repair: the blob's holders become `holders` if they still are `expected`, and were last
    changed at log index `expected_index` (None: whenever). Who holds it no longer has to delete
    its copy (model.DROPPED). Refused: CONFLICT, also when a new holder still has to."""

    blob_id: str
    expected: tuple[str, ...]
    holders: tuple[str, ...]
    expected_index: int | None = None


class DropCopies(Command, frozen=True, kw_only=True, array_like=True, tag="drop-copies"):
    """`node_id` has found copies of blobs that it is not a holder of: it has to delete them.
    Those of which it is one by now, and those that are no more, are left as they are."""

    node_id: str
    blob_ids: tuple[str, ...]


class ForgetGarbage(Command, frozen=True, kw_only=True, array_like=True, tag="forget-garbage"):
    """`node_id` has deleted its copies of these blobs (or never had them): garbage, or dropped."""

    node_id: str
    blob_ids: tuple[str, ...]


class AddHolder(Command, frozen=True, kw_only=True, array_like=True, tag="add-holder"):
    """The third copy of a fresh blob has become durable."""

    blob_id: str
    node_id: str


class PutNode(Command, frozen=True, kw_only=True, array_like=True, tag="put-node"):
    """A node joins, moves to another address or zone, or starts or stops draining."""

    node: NodeInfo


class RemoveNode(Command, frozen=True, kw_only=True, array_like=True, tag="remove-node"):
    """The node is no member any more. Whoever proposes it has made sure that no blob names it
    and that it does not vote. Idempotent."""

    node_id: str


AnyCommand = (
    CreateBucket
    | DeleteBucket
    | SetVersioning
    | SetBucketTags
    | SetBucketAcl
    | PutObject
    | CopyObject
    | DeleteObjects
    | SetObjectTags
    | SetObjectAcl
    | CreateUpload
    | PutPart
    | CopyPart
    | CompleteUpload
    | AbortUpload
    | PutUser
    | DeleteAccessKey
    | SetHolders
    | AddHolder
    | ForgetGarbage
    | DropCopies
    | PutNode
    | RemoveNode
)


class Proposal(Doc, frozen=True, array_like=True, kw_only=True):
    """One entry of the log."""

    request_id: str  # a retry with the same id answers the first result
    time_ms: int  # the leader's clock; apply never lets time go back
    salt: bytes  # 8 random bytes
    command: AnyCommand
    access_epoch: int | None = None  # None: the cluster's own housekeeping
    bucket_epoch: int | None = None  # of the command's `bucket`


# --- results ---------------------------------------------------------------------------------


class Done(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="done"):
    """Nothing more to say."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="refused"):
    code: RefusalCode
    detail: str = ""


class PutDone(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="put"):
    version_id: str
    order: int
    etag: str
    size: int
    modified_ms: int
    checksum: Checksum | None = None
    versioned: bool = False  # whether the client is told the version id


class VersionDone(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="version"):
    version_id: str
    versioned: bool = False


class UploadDone(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="upload"):
    upload_id: str
    initiated_ms: int


class PartDone(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="part"):
    etag: str
    size: int
    modified_ms: int
    checksum: Checksum | None = None


class Deleted(Doc, frozen=True, array_like=True, kw_only=True):
    """One delete. `refused` empty: it is done (also when nothing was there)."""

    key: bytes
    version_id: str | None = None  # the version that went, when one was named
    marker_version_id: str | None = None  # the delete marker that was made
    was_marker: bool = False  # what went was a delete marker
    refused: RefusalCode | None = None


class DeletedMany(msgspec.Struct, frozen=True, kw_only=True, array_like=True, tag="deleted"):
    entries: tuple[Deleted, ...]


Result = Done | Refusal | PutDone | VersionDone | UploadDone | PartDone | DeletedMany

_proposal_encoder = msgspec.msgpack.Encoder()
_proposal_decoder = msgspec.msgpack.Decoder(Proposal)
_result_encoder = msgspec.msgpack.Encoder()
_result_decoder: msgspec.msgpack.Decoder[Result] = msgspec.msgpack.Decoder(Result)


def encode_proposal(proposal: Proposal) -> bytes:
    return PROPOSAL_FORMAT + _proposal_encoder.encode(proposal)


def decode_proposal(data: bytes) -> Proposal:
    """Raises UnknownFormat for what a newer version wrote. Also for fields that it added: a node
    that applied the rest of the entry would have other tables than the others from then on."""
    if data[:1] != PROPOSAL_FORMAT:
        raise UnknownFormat(f"log entry format {data[:1]!r} is not known to this version")
    try:
        proposal = _proposal_decoder.decode(memoryview(data)[1:])
    except UNREADABLE as error:
        raise UnknownFormat(f"log entry cannot be read by this version: {error}") from error
    # The decoder passes over fields that it does not know; an older version wrote fewer of them.
    if len(_proposal_encoder.encode(proposal)) < len(data) - len(PROPOSAL_FORMAT):
        raise UnknownFormat("log entry has fields that this version does not know")
    return proposal


def encode_result(result: Result) -> bytes:
    return _result_encoder.encode(result)


def decode_result(data: bytes) -> Result:
    """Raises UnknownFormat for what a newer version wrote."""
    try:
        return _result_decoder.decode(data)
    except UNREADABLE as error:
        raise UnknownFormat(f"a stored result cannot be read by this version: {error}") from error
