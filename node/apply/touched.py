"""What a command may change, for whoever keeps something that it would make old.

Rules of this file: pure; says too much rather than too little (a refused command changes
nothing). The leader invalidates by it before it acknowledges, and fills notices with it.
"""

from __future__ import annotations

from dataclasses import dataclass

from astra.commands import (
    AbortUpload,
    AnyCommand,
    CompleteUpload,
    CopyObject,
    CopyPart,
    CreateBucket,
    CreateUpload,
    DeleteAccessKey,
    DeleteBucket,
    DeleteObjects,
    Proposal,
    PutNode,
    PutObject,
    PutPart,
    PutUser,
    RemoveNode,
    SetBucketAcl,
    SetBucketTags,
    SetObjectAcl,
    SetObjectTags,
    SetVersioning,
    decode_proposal,
)
from astra.wire import Entry, EntryKind

_ObjectWrite = PutObject | CopyObject | CompleteUpload | SetObjectTags | SetObjectAcl
_UploadChange = CreateUpload | PutPart | CopyPart | AbortUpload
_BucketChange = CreateBucket | DeleteBucket | SetVersioning | SetBucketTags | SetBucketAcl


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    keys: tuple[tuple[str, bytes], ...] = ()  # (bucket, key) whose versions may change
    listings: tuple[str, ...] = ()  # buckets whose lists of keys or versions may change
    buckets: tuple[str, ...] = ()  # buckets whose settings, or existence, may change
    access: bool = False  # users or keys may change
    nodes: bool = False  # the members of the cluster may change


NOTHING = Touched()


def touched_by(command: AnyCommand) -> Touched:
    if isinstance(command, _ObjectWrite):
        return Touched(keys=((command.bucket, command.key),), listings=(command.bucket,))
    if isinstance(command, DeleteObjects):
        keys = dict.fromkeys((command.bucket, entry.key) for entry in command.entries)
        return Touched(keys=tuple(keys), listings=(command.bucket,))
    if isinstance(command, _BucketChange):
        return Touched(listings=(command.bucket,), buckets=(command.bucket,))
    if isinstance(command, PutUser | DeleteAccessKey):
        return Touched(access=True)
    if isinstance(command, PutNode | RemoveNode):
        return Touched(nodes=True)
    return NOTHING


def keys_touched(proposal: Proposal) -> tuple[tuple[str, bytes], ...]:
    return touched_by(proposal.command).keys


def buckets_touched(proposal: Proposal) -> tuple[str, ...]:
    """Buckets whose settings may change."""
    return touched_by(proposal.command).buckets


def touched_by_entry(entry: Entry) -> Touched:
    """Raises UnknownFormat."""
    if entry.kind is not EntryKind.COMMAND:
        return NOTHING
    return touched_by(decode_proposal(entry.data).command)


def bucket_of(command: AnyCommand) -> str | None:
    """The bucket that a command writes to, None when it is of the cluster as a whole."""
    if isinstance(command, _ObjectWrite | DeleteObjects | _UploadChange | _BucketChange):
        return command.bucket
    return None


def keys_named(command: AnyCommand) -> tuple[bytes, ...]:
    """All keys that a command may make rows of."""
    if isinstance(command, _ObjectWrite | _UploadChange):
        return (command.key,)
    if isinstance(command, DeleteObjects):
        return tuple(entry.key for entry in command.entries)
    return ()
