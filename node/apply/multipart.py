"""Multipart uploads: begin, parts, complete, abort.

Rules of this file: UPLOADS has running uploads only. Each PARTS row refers to its blobs; on
completion the references move into the manifest of the new version unchanged, and those of
parts that were not named are given back. The first answer of a completion is kept for a day in
COMPLETIONS, so that a client whose connection broke can ask again; every later create or
complete forgets a few that are older, oldest first, so that the work is bounded and the tables
do not grow.

Follows the AWS pages of CompleteMultipartUpload and "Multipart upload limits".
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final

from msgspec.structs import replace

from astra.commands import (
    AbortUpload,
    CompleteUpload,
    CopyPart,
    CreateUpload,
    Done,
    NamedPart,
    PartDone,
    PutDone,
    PutPart,
    UploadDone,
    decode_result,
    encode_result,
)
from astra.constants import (
    OBJECT_SIZE_MAX,
    PART_NUMBER_MAX,
    PART_SIZE_MIN,
    PUT_SIZE_MAX,
    SURPLUS_EXTENTS_MAX,
)
from astra.errors import RefusalCode, Refused
from astra.model import (
    COMPLETION_ORDER,
    COMPLETIONS,
    MANIFESTS,
    PARTS,
    UPLOADS,
    Bucket,
    Extent,
    Manifest,
    Mark,
    ObjectVersion,
    Part,
    Remembered,
    Upload,
    encode_version_id,
)
from node.apply import blobs, versions
from node.apply.objects import read_source
from node.apply.state import Turn, check_acl, refuse_unless
from node.lookup import extents_of

_COMPLETION_KEPT_MS: Final = 24 * 3600 * 1000
_FORGET_AT_ONCE: Final = 4  # more than one, so that they cannot pile up
_SCAN_ROWS: Final = 1000


async def create_upload(turn: Turn, command: CreateUpload) -> UploadDone:
    await turn.bucket(command.bucket)
    head = command.head
    check_acl(head.acl)
    upload = Upload(
        upload_id=encode_version_id(turn.order(), turn.salt),
        owner_id=head.owner_id,
        initiated_ms=turn.now_ms,
        storage_class=head.storage_class,
        headers=head.headers,
        user_metadata=head.user_metadata,
        tags=head.tags,
        acl=head.acl,
        checksum_algorithm=command.checksum_algorithm,
        checksum_composite=command.checksum_composite,
        initiator_id=command.initiator_id,
    )
    row = (command.bucket.encode(), command.key, upload.upload_id)
    await turn.batch.put(UPLOADS, row, upload)
    await _forget_completions(turn)
    return UploadDone(upload_id=upload.upload_id, initiated_ms=upload.initiated_ms)


# --- parts -----------------------------------------------------------------------------------


async def put_part(turn: Turn, command: PutPart) -> PartDone:
    upload = await _require_upload(turn, command)
    refuse_unless(command.size <= PUT_SIZE_MAX, RefusalCode.INVALID_ARGUMENT, "part too large")
    await blobs.check_new(turn, command.blob, command.size)
    part = Part(
        number=command.number,
        size=command.size,
        etag=command.etag,
        extents=await blobs.add(turn, command.blob, command.size),
        checksum=command.checksum,
        modified_ms=turn.now_ms,
    )
    return await _put_part(turn, command, upload, part)


async def copy_part(turn: Turn, command: CopyPart) -> PartDone:
    upload = await _require_upload(turn, command)
    source, source_parts = await read_source(
        turn, command.source_bucket, command.source_key, command.source_order
    )
    is_inside = command.offset >= 0 and 0 <= command.length <= source.size - command.offset
    refuse_unless(is_inside, RefusalCode.INVALID_ARGUMENT, "range outside of the source")
    refuse_unless(command.length <= PUT_SIZE_MAX, RefusalCode.INVALID_ARGUMENT, "part too large")
    extents = slice_extents(extents_of(source, source_parts), command.offset, command.length)
    await _check_pieces(turn, command, upload, extents)
    await blobs.share(turn, extents)
    part = Part(
        number=command.number,
        size=command.length,
        etag=command.etag,
        extents=extents,
        checksum=command.checksum,
        modified_ms=turn.now_ms,
    )
    return await _put_part(turn, command, upload, part)


def slice_extents(extents: Iterable[Extent], offset: int, length: int) -> tuple[Extent, ...]:
    """The extents of `length` bytes from `offset` of the bytes that `extents` are."""
    taken: list[Extent] = []
    for extent in extents:
        skipped = min(offset, extent.length)
        offset -= skipped
        count = min(length, extent.length - skipped)
        if count > 0:
            start = extent.offset + skipped
            taken.append(Extent(blob_id=extent.blob_id, offset=start, length=count))
            length -= count
    return tuple(taken)


async def _require_upload(turn: Turn, command: PutPart | CopyPart) -> Upload:
    await turn.bucket(command.bucket)
    row = (command.bucket.encode(), command.key, command.upload_id)
    upload = await turn.batch.get(UPLOADS, row)
    if upload is None:
        raise Refused(RefusalCode.NO_SUCH_UPLOAD)
    is_number = 1 <= command.number <= PART_NUMBER_MAX
    refuse_unless(is_number, RefusalCode.INVALID_ARGUMENT, "part number out of range")
    return upload


def _surplus(extents: Sequence[Extent]) -> int:
    return max(0, len(extents) - 1)


async def _check_pieces(
    turn: Turn, command: CopyPart, upload: Upload, extents: Sequence[Extent]
) -> None:
    """Refused TOO_MANY_PIECES. A copy costs its sender nothing and may double the extents, so a
    few dozen copies of copies would otherwise fill the memory of every node."""
    replaced = await turn.batch.get(PARTS, (command.upload_id, command.number))
    before = 0 if replaced is None else _surplus(replaced.extents)
    surplus = upload.surplus_extents - before + _surplus(extents)
    refuse_unless(surplus <= SURPLUS_EXTENTS_MAX, RefusalCode.TOO_MANY_PIECES)


async def _put_part(
    turn: Turn, command: PutPart | CopyPart, upload: Upload, part: Part
) -> PartDone:
    row = (command.upload_id, part.number)
    replaced = await turn.batch.get(PARTS, row)
    await turn.batch.put(PARTS, row, part)
    change = _surplus(part.extents)
    if replaced is not None:
        await blobs.release(turn, replaced.extents)
        change -= _surplus(replaced.extents)
    if change:
        changed = replace(upload, surplus_extents=upload.surplus_extents + change)
        place = (command.bucket.encode(), command.key, command.upload_id)
        await turn.batch.put(UPLOADS, place, changed)
    return PartDone(
        etag=part.etag, size=part.size, modified_ms=part.modified_ms, checksum=part.checksum
    )


async def read_upload_parts(turn: Turn, upload_id: str) -> list[Part]:
    """All parts of an upload, by number."""
    parts: list[Part] = []
    after = 0
    while True:
        start, end = (upload_id, after + 1), (upload_id, PART_NUMBER_MAX + 1)
        rows = await turn.batch.scan(PARTS, start, end, _SCAN_ROWS)
        parts.extend(part for _, part in rows)
        if len(rows) < _SCAN_ROWS:
            return parts
        after = parts[-1].number


# --- the end of an upload --------------------------------------------------------------------


async def complete_upload(turn: Turn, command: CompleteUpload) -> PutDone:
    settings = await turn.bucket(command.bucket)
    bucket = command.bucket.encode()
    upload = await turn.batch.get(UPLOADS, (bucket, command.key, command.upload_id))
    if upload is None:
        return await _first_answer(turn, settings, command)
    stored = await read_upload_parts(turn, command.upload_id)
    parts = _choose_parts(command, stored)
    newest = await versions.read_newest(turn, bucket, command.key)
    versions.check_write(command.condition, newest)
    version = _completed(turn, settings, command, upload, parts)
    await _end_upload(turn, bucket, command.key, command.upload_id, stored)
    chosen = {part.number for part in parts}
    unused = [part for part in stored if part.number not in chosen]
    await blobs.release(turn, (extent for part in unused for extent in part.extents))
    manifest = Manifest(parts=parts)
    await turn.batch.put(MANIFESTS, (bucket, command.key, version.order), manifest)
    await versions.put_on_top(turn, bucket, command.key, version, newest)
    answer = versions.put_done(settings, version)
    await _remember_completion(turn, command, answer)
    return answer


def _choose_parts(command: CompleteUpload, stored: Sequence[Part]) -> tuple[Part, ...]:
    """The named parts. Refused INVALID_PART_ORDER, INVALID_PART, PART_TOO_SMALL, SIZE_MISMATCH
    or INVALID_ARGUMENT; in that order, as AWS does."""
    named = command.parts
    refuse_unless(bool(named), RefusalCode.INVALID_ARGUMENT, "no parts are named")
    is_ascending = all(a.number < b.number for a, b in pairwise(named))
    refuse_unless(is_ascending, RefusalCode.INVALID_PART_ORDER)
    by_number = {part.number: part for part in stored}
    chosen: list[Part] = []
    for wanted in named:
        part = by_number.get(wanted.number)
        if part is None or not _is_named(part, wanted):
            raise Refused(RefusalCode.INVALID_PART, f"part {wanted.number}")
        chosen.append(part)
    for part in chosen[:-1]:
        is_enough = part.size >= PART_SIZE_MIN
        refuse_unless(is_enough, RefusalCode.PART_TOO_SMALL, f"part {part.number}")
    size = sum(part.size for part in chosen)
    refuse_unless(command.size in (None, size), RefusalCode.SIZE_MISMATCH, f"{size} bytes")
    refuse_unless(size <= OBJECT_SIZE_MAX, RefusalCode.INVALID_ARGUMENT, "object too large")
    return tuple(chosen)


def _is_named(part: Part, wanted: NamedPart) -> bool:
    if part.etag != wanted.etag:
        return False
    if wanted.checksum is None:
        return True
    has = part.checksum
    return (
        has is not None
        and has.algorithm == wanted.checksum.algorithm
        and has.value == wanted.checksum.value
    )


def _completed(
    turn: Turn, settings: Bucket, command: CompleteUpload, upload: Upload, parts: tuple[Part, ...]
) -> ObjectVersion:
    order = turn.order()
    return ObjectVersion(
        version_id=versions.new_version_id(turn, settings, order),
        order=order,
        modified_ms=turn.now_ms,
        owner_id=upload.owner_id,
        size=sum(part.size for part in parts),
        etag=command.etag,
        storage_class=upload.storage_class,
        headers=upload.headers,
        user_metadata=upload.user_metadata,
        tags=upload.tags,
        acl=upload.acl,
        checksum=command.checksum,
        part_count=len(parts),
    )


async def abort_upload(turn: Turn, command: AbortUpload) -> Done:
    await turn.bucket(command.bucket)
    bucket = command.bucket.encode()
    upload = await turn.batch.get(UPLOADS, (bucket, command.key, command.upload_id))
    refuse_unless(upload is not None, RefusalCode.NO_SUCH_UPLOAD)
    parts = await read_upload_parts(turn, command.upload_id)
    await drop_upload(turn, bucket, command.key, command.upload_id, parts)
    return Done()


async def drop_upload(
    turn: Turn, bucket: bytes, key: bytes, upload_id: str, parts: Sequence[Part]
) -> None:
    """Ends an upload without an object. `parts` are all that it has."""
    await _end_upload(turn, bucket, key, upload_id, parts)
    await blobs.release(turn, (extent for part in parts for extent in part.extents))


async def _end_upload(
    turn: Turn, bucket: bytes, key: bytes, upload_id: str, parts: Iterable[Part]
) -> None:
    """Takes the rows away, not the bytes."""
    await turn.batch.delete(UPLOADS, (bucket, key, upload_id))
    for part in parts:
        await turn.batch.delete(PARTS, (upload_id, part.number))


# --- first answers ---------------------------------------------------------------------------


async def _first_answer(turn: Turn, settings: Bucket, command: CompleteUpload) -> PutDone:
    row = (command.bucket.encode(), command.key, command.upload_id)
    kept = await turn.batch.get(COMPLETIONS, row)
    answer = None if kept is None else decode_result(kept.result)
    if not isinstance(answer, PutDone) or answer.modified_ms < settings.created_ms:
        raise Refused(RefusalCode.NO_SUCH_UPLOAD)  # or it was in an older bucket of this name
    return answer


async def _remember_completion(turn: Turn, command: CompleteUpload, answer: PutDone) -> None:
    row = (command.bucket.encode(), command.key, command.upload_id)
    kept = Remembered(index=turn.index, result=encode_result(answer))
    await turn.batch.put(COMPLETIONS, row, kept)
    await turn.batch.put(COMPLETION_ORDER, (turn.now_ms, *row), Mark(value=turn.index))
    await _forget_completions(turn)


async def _forget_completions(turn: Turn) -> None:
    end = (turn.now_ms - _COMPLETION_KEPT_MS,)
    for row, _ in await turn.batch.scan(COMPLETION_ORDER, (0,), end, _FORGET_AT_ONCE):
        await turn.batch.delete(COMPLETION_ORDER, row)
        await turn.batch.delete(COMPLETIONS, row[1:])
