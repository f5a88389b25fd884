"""Buckets: create, delete, versioning state, tags, ACL.

Rules of this file: `Bucket.epoch` is the log index of the last change of the document, so that
a gateway that decided on an older one is told (DESIGN section 4). The number of buckets of each
owner is a mark, because counting them would read all.

Deleting: versions and delete markers must be gone, running uploads need not be (AWS deletes a
general purpose bucket that has some); their parts become garbage in the same command. That work
is bounded: a bucket with more of them is not empty until some were aborted.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from astra.commands import (
    CreateBucket,
    DeleteBucket,
    Done,
    Pairs,
    SetBucketAcl,
    SetBucketTags,
    SetVersioning,
)
from astra.constants import BUCKET_TAGS_MAX, BUCKETS_PER_OWNER_MAX
from astra.errors import RefusalCode, Refused
from astra.model import BUCKETS, OBJECTS, UPLOADS, Bucket, Part, Upload, Versioning
from node.apply.multipart import drop_upload, read_upload_parts
from node.apply.state import Turn, check_acl, is_text, refuse_unless

_UPLOADS_DROPPED_MAX: Final = 1000
_PARTS_DROPPED_MAX: Final = 20_000

_Running = tuple[bytes, Upload, list[Part]]


def bucket_end(bucket: bytes) -> tuple[bytes]:
    """The end of the rows of a bucket, in the tables that begin with one."""
    return (bucket + b"\x00",)


def _count_mark(owner_id: str) -> str:
    return f"buckets:{owner_id}"


async def create_bucket(turn: Turn, command: CreateBucket) -> Done:
    row = (command.bucket.encode(),)
    existing = await turn.batch.get(BUCKETS, row)
    if existing is not None:
        is_own = existing.owner_id == command.owner_id
        raise Refused(RefusalCode.BUCKET_OWNED if is_own else RefusalCode.BUCKET_EXISTS)
    refuse_unless(is_text(command.owner_id), RefusalCode.INVALID_ARGUMENT, "not a user id")
    _check_tags(command.tags)
    check_acl(command.acl)
    count = await turn.batch.mark(_count_mark(command.owner_id))
    refuse_unless(count < BUCKETS_PER_OWNER_MAX, RefusalCode.TOO_MANY_BUCKETS)
    bucket = Bucket(
        name=command.bucket,
        owner_id=command.owner_id,
        created_ms=turn.now_ms,
        epoch=turn.index,
        location=command.location,
        tags=command.tags,
        acl=command.acl,
    )
    await turn.batch.put(BUCKETS, row, bucket)
    turn.batch.set_mark(_count_mark(command.owner_id), count + 1)
    return Done()


async def delete_bucket(turn: Turn, command: DeleteBucket) -> Done:
    settings = await turn.bucket(command.bucket)
    bucket = command.bucket.encode()
    # A key with older versions has a newest one, so looking at OBJECTS is enough.
    objects = await turn.batch.scan(OBJECTS, (bucket,), bucket_end(bucket), 1)
    refuse_unless(not objects, RefusalCode.BUCKET_NOT_EMPTY)
    for key, upload, parts in await _running_uploads(turn, bucket):
        await drop_upload(turn, bucket, key, upload.upload_id, parts)
    await turn.batch.delete(BUCKETS, (bucket,))
    count = await turn.batch.mark(_count_mark(settings.owner_id))
    turn.batch.set_mark(_count_mark(settings.owner_id), max(0, count - 1))
    return Done()


async def _running_uploads(turn: Turn, bucket: bytes) -> list[_Running]:
    rows = await turn.batch.scan(UPLOADS, (bucket,), bucket_end(bucket), _UPLOADS_DROPPED_MAX + 1)
    detail = "abort its running uploads first"
    is_bounded = len(rows) <= _UPLOADS_DROPPED_MAX
    refuse_unless(is_bounded, RefusalCode.BUCKET_NOT_EMPTY, detail)
    running: list[_Running] = []
    part_count = 0
    for row, upload in rows:
        key = row[1]
        parts = await read_upload_parts(turn, upload.upload_id)
        part_count += len(parts)
        is_bounded = part_count <= _PARTS_DROPPED_MAX
        refuse_unless(is_bounded, RefusalCode.BUCKET_NOT_EMPTY, detail)
        if isinstance(key, bytes):
            running.append((key, upload, parts))
    return running


async def set_versioning(turn: Turn, command: SetVersioning) -> Done:
    """Once on, versioning can be suspended but never be off again (AWS)."""
    settings = await turn.bucket(command.bucket)
    is_back = command.versioning is Versioning.OFF and settings.versioning is not Versioning.OFF
    refuse_unless(not is_back, RefusalCode.INVALID_ARGUMENT, "versioning cannot be off again")
    return await _put(turn, replace(settings, versioning=command.versioning, epoch=turn.index))


async def set_bucket_tags(turn: Turn, command: SetBucketTags) -> Done:
    settings = await turn.bucket(command.bucket)
    _check_tags(command.tags)
    return await _put(turn, replace(settings, tags=command.tags, epoch=turn.index))


async def set_bucket_acl(turn: Turn, command: SetBucketAcl) -> Done:
    """The same once more moves no epoch: many clients that set it at once do not starve."""
    settings = await turn.bucket(command.bucket)
    check_acl(command.acl)
    if settings.acl == command.acl:
        return Done()
    return await _put(turn, replace(settings, acl=command.acl, epoch=turn.index))


def _check_tags(tags: Pairs) -> None:
    is_few = len(tags) <= BUCKET_TAGS_MAX
    refuse_unless(is_few, RefusalCode.INVALID_ARGUMENT, "too many tags")


async def _put(turn: Turn, settings: Bucket) -> Done:
    await turn.batch.put(BUCKETS, (settings.name.encode(),), settings)
    return Done()
