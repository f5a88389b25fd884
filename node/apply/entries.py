"""Committed log entries become tables: the only way metadata changes.

Rules of this file: deterministic. What follows depends on the tables and on the entry, never on
a clock, on chance, on the node or on how entries are batched, so that all nodes at the same
applied index have equal tables (FAULTS I7). Nothing is skipped: a format or command that this
version does not know raises UnknownFormat, and the node stops (FAULTS rows 52, 57). Whatever a
gateway may get wrong is a refusal; only our own bugs raise.

The applied index is stored in the same transaction, so that each entry is applied exactly once
whatever crashes in between.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from astra.commands import (
    AbortUpload,
    AddHolder,
    AnyCommand,
    CompleteUpload,
    CopyObject,
    CopyPart,
    CreateBucket,
    CreateUpload,
    DeleteAccessKey,
    DeleteBucket,
    DeleteObjects,
    Done,
    DropCopies,
    ForgetGarbage,
    Proposal,
    PutNode,
    PutObject,
    PutPart,
    PutUser,
    Refusal,
    RemoveNode,
    Result,
    SetBucketAcl,
    SetBucketTags,
    SetHolders,
    SetObjectAcl,
    SetObjectTags,
    SetVersioning,
    decode_proposal,
)
from astra.constants import KEY_BYTES_MAX
from astra.errors import RefusalCode, Refused, UnknownFormat, invariant
from astra.model import (
    ACCESS_EPOCH,
    APPLIED_INDEX,
    APPLIED_TERM,
    BUCKETS,
    CLOCK_MS,
    OBJECTS,
    REQUESTS,
)
from astra.ports import MetadataTxn
from astra.wire import Entry, EntryKind
from node.apply import access, blobs, buckets, multipart, nodes, objects, requests
from node.apply.state import Batch, Turn, is_text, refuse_unless
from node.apply.touched import bucket_of, keys_named, keys_touched
from node.lookup import check_bucket


async def apply_entries(txn: MetadataTxn, entries: Sequence[Entry]) -> list[Result]:
    """Applies consecutive entries, the first following the applied index of the tables: one
    result each. Awaits nothing but `txn`. Raises UnknownFormat, InvariantBroken: the caller
    rolls back and the node stops."""
    batch = Batch(txn)
    results: list[Result] = []
    proposals = [_read(entry) for entry in entries]
    await _read_ahead(batch, [proposal for proposal in proposals if proposal is not None])
    for entry, proposal in zip(entries, proposals, strict=True):
        applied = await batch.mark(APPLIED_INDEX)
        invariant(entry.index == applied + 1, f"entry {entry.index} cannot follow {applied}")
        results.append(await _apply(batch, entry.index, proposal) if proposal else Done())
        await requests.forget_old(batch, entry.index)
        batch.set_mark(APPLIED_INDEX, entry.index)
        batch.set_mark(APPLIED_TERM, entry.term)
    await batch.flush_marks()
    return results


def _read(entry: Entry) -> Proposal | None:
    """None for entries that Raft itself made."""
    if entry.kind is EntryKind.COMMAND:
        return decode_proposal(entry.data)
    if entry.kind in (EntryKind.NOOP, EntryKind.CONFIG):
        return None
    raise UnknownFormat(f"log entry {entry.index} is of unknown kind {entry.kind}")


async def _read_ahead(batch: Batch, proposals: Sequence[Proposal]) -> None:
    """What every command of the batch asks for, at once."""
    ids = [proposal.request_id for proposal in proposals]
    await batch.read_ahead(REQUESTS, [(request_id,) for request_id in ids if is_text(request_id)])
    names = [name for proposal in proposals if (name := bucket_of(proposal.command)) is not None]
    await batch.read_ahead(BUCKETS, [(name.encode(),) for name in names])
    keys = [place for proposal in proposals for place in keys_touched(proposal)]
    await batch.read_ahead(OBJECTS, [(name.encode(), key) for name, key in keys])


async def _apply(batch: Batch, index: int, proposal: Proposal) -> Result:
    request_id = proposal.request_id
    if request_id and not is_text(request_id):
        return Refusal(code=RefusalCode.INVALID_ARGUMENT, detail="not a request id")
    if request_id:
        first = await requests.recall(batch, request_id, proposal.command)
        if first is not None:
            return first
    now_ms = max(proposal.time_ms, await batch.mark(CLOCK_MS))
    batch.set_mark(CLOCK_MS, now_ms)
    turn = Turn(batch=batch, index=index, now_ms=now_ms, salt=proposal.salt)
    result = await _decide(turn, proposal)
    if request_id and not _is_stale(result):
        await requests.remember(batch, index, request_id, result)
    return result


async def _decide(turn: Turn, proposal: Proposal) -> Result:
    writes = turn.batch.writes
    try:
        await _admit(turn, proposal)
        return await _perform(turn, proposal.command)
    except Refused as refused:
        invariant(turn.batch.writes == writes, f"entry {turn.index} was refused half done")
        refusal = Refusal(code=refused.code, detail=refused.detail)
    command = proposal.command
    if isinstance(command, PutObject | PutPart) and not _is_stale(refusal):
        await blobs.give_up(turn, command.blob)
    return refusal


def _is_stale(result: Result) -> bool:
    return isinstance(result, Refusal) and result.code is RefusalCode.STALE_EPOCH


async def _admit(turn: Turn, proposal: Proposal) -> None:
    """Refused STALE_EPOCH when the gateway allowed the command on a state that is no more, and
    INVALID_ARGUMENT for names that no store can hold."""
    command = proposal.command
    for key in keys_named(command):
        is_key = 0 < len(key) <= KEY_BYTES_MAX
        refuse_unless(is_key, RefusalCode.INVALID_ARGUMENT, "key length")
    if proposal.access_epoch is not None:
        is_fresh = proposal.access_epoch == await turn.batch.mark(ACCESS_EPOCH)
        refuse_unless(is_fresh, RefusalCode.STALE_EPOCH, "users or keys have changed")
    name = bucket_of(command)
    if name is None:
        return
    refuse_unless(is_text(name), RefusalCode.INVALID_ARGUMENT, "not a bucket name")
    # Creating is decided by nothing that a bucket's settings say.
    if proposal.bucket_epoch is not None and not isinstance(command, CreateBucket):
        bucket = await turn.batch.get(BUCKETS, (name.encode(),))
        check_bucket(bucket, proposal.bucket_epoch, name)


async def _perform(turn: Turn, command: AnyCommand) -> Result:
    match command:
        case PutObject():
            return await objects.put_object(turn, command)
        case DeleteObjects():
            return await objects.delete_objects(turn, command)
        case CopyObject():
            return await objects.copy_object(turn, command)
        case SetObjectTags():
            return await objects.set_object_tags(turn, command)
        case SetObjectAcl():
            return await objects.set_object_acl(turn, command)
        case CreateUpload():
            return await multipart.create_upload(turn, command)
        case PutPart():
            return await multipart.put_part(turn, command)
        case CopyPart():
            return await multipart.copy_part(turn, command)
        case CompleteUpload():
            return await multipart.complete_upload(turn, command)
        case AbortUpload():
            return await multipart.abort_upload(turn, command)
        case CreateBucket():
            return await buckets.create_bucket(turn, command)
        case DeleteBucket():
            return await buckets.delete_bucket(turn, command)
        case SetVersioning():
            return await buckets.set_versioning(turn, command)
        case SetBucketTags():
            return await buckets.set_bucket_tags(turn, command)
        case SetBucketAcl():
            return await buckets.set_bucket_acl(turn, command)
        case PutUser():
            return await access.put_user(turn, command)
        case DeleteAccessKey():
            return await access.delete_access_key(turn, command)
        case AddHolder():
            return await blobs.add_holder(turn, command)
        case SetHolders():
            return await blobs.set_holders(turn, command)
        case ForgetGarbage():
            return await blobs.forget_garbage(turn, command)
        case DropCopies():
            return await blobs.drop_copies(turn, command)
        case PutNode():
            return await nodes.put_node(turn, command)
        case RemoveNode():
            return await nodes.remove_node(turn, command)
    assert_never(command)
