"""The versions of one key: how one comes on top, how one goes, and what a condition says.

Rules of this file: OBJECTS has the newest version of a key, VERSIONS all older ones, and
NULL_VERSIONS says where the null version is when it is an older one; a key without versions
has no rows at all. A version's order is larger than that of every older one, because it is
made of the log index; so taking the newest away promotes the first row of VERSIONS.

Follows the AWS pages "Working with objects in a versioning-enabled bucket", "... suspended
bucket" and "Conditional requests".
"""

from __future__ import annotations

from astra.commands import Condition, PutDone
from astra.errors import RefusalCode, invariant
from astra.model import (
    MANIFESTS,
    NULL_VERSION,
    NULL_VERSIONS,
    OBJECTS,
    ORDER_MAX,
    VERSIONS,
    Bucket,
    ObjectVersion,
    Versioning,
    VersionRef,
    encode_version_id,
)
from node.apply import blobs
from node.apply.state import Turn, refuse_unless
from node.lookup import extents_of, find_older, read_parts

_MS_PER_S = 1000


def new_version_id(turn: Turn, settings: Bucket, order: int) -> str:
    """Of a version that is put now: null unless the bucket keeps versions."""
    if settings.versioning is Versioning.ENABLED:
        return encode_version_id(order, turn.salt)
    return NULL_VERSION


async def read_newest(turn: Turn, bucket: bytes, key: bytes) -> ObjectVersion | None:
    return await turn.batch.get(OBJECTS, (bucket, key))


async def put_on_top(
    turn: Turn, bucket: bytes, key: bytes, version: ObjectVersion, newest: ObjectVersion | None
) -> None:
    """Makes `version` the newest. `newest` is what has been so far. A new null version takes
    the place of the old one, wherever that is."""
    is_null = version.version_id == NULL_VERSION
    if newest is not None:
        if is_null and newest.version_id == NULL_VERSION:
            await _free(turn, bucket, key, newest)
        else:
            await _push_down(turn, bucket, key, newest)
            if is_null:
                await _drop_older_null(turn, bucket, key)
    await turn.batch.put(OBJECTS, (bucket, key), version)


async def remove_newest(turn: Turn, settings: Bucket, key: bytes, newest: ObjectVersion) -> None:
    """The next older version, if there is one, becomes the newest."""
    bucket = settings.name.encode()
    await _free(turn, bucket, key, newest)
    promoted = None
    if settings.versioning is not Versioning.OFF:  # a bucket that was never on has no older ones
        rows = await turn.batch.scan(VERSIONS, (bucket, key), (bucket, key, ORDER_MAX + 1), 1)
        promoted = rows[0][1] if rows else None
    if promoted is None:
        await turn.batch.delete(OBJECTS, (bucket, key))
        return
    await _forget_older(turn, bucket, key, promoted)
    await turn.batch.put(OBJECTS, (bucket, key), promoted)


async def remove_version(turn: Turn, settings: Bucket, key: bytes, version: ObjectVersion) -> None:
    """Removes a version that `find_target` found."""
    bucket = settings.name.encode()
    newest = await read_newest(turn, bucket, key)
    if newest is not None and newest.order == version.order:
        await remove_newest(turn, settings, key, newest)
        return
    await _forget_older(turn, bucket, key, version)
    await _free(turn, bucket, key, version)


async def find_target(
    turn: Turn, bucket: bytes, key: bytes, version_id: str
) -> ObjectVersion | None:
    newest = await read_newest(turn, bucket, key)
    if newest is None or newest.version_id == version_id:
        return newest
    return await find_older(turn.batch, bucket, key, version_id)


async def _push_down(turn: Turn, bucket: bytes, key: bytes, version: ObjectVersion) -> None:
    await turn.batch.put(VERSIONS, (bucket, key, ORDER_MAX - version.order), version)
    if version.version_id == NULL_VERSION:
        await turn.batch.put(NULL_VERSIONS, (bucket, key), VersionRef(order=version.order))


async def _forget_older(turn: Turn, bucket: bytes, key: bytes, version: ObjectVersion) -> None:
    """Takes a version out of VERSIONS, not its bytes."""
    await turn.batch.delete(VERSIONS, (bucket, key, ORDER_MAX - version.order))
    if version.version_id == NULL_VERSION:
        await turn.batch.delete(NULL_VERSIONS, (bucket, key))


async def _drop_older_null(turn: Turn, bucket: bytes, key: bytes) -> None:
    version = await find_older(turn.batch, bucket, key, NULL_VERSION)
    if version is not None:
        await _forget_older(turn, bucket, key, version)
        await _free(turn, bucket, key, version)


async def _free(turn: Turn, bucket: bytes, key: bytes, version: ObjectVersion) -> None:
    """Gives back the bytes of a version that leaves the tables."""
    parts = await read_parts(turn.batch, bucket, key, version)
    await blobs.release(turn, extents_of(version, parts))
    if version.part_count > 0:
        await turn.batch.delete(MANIFESTS, (bucket, key, version.order))


# --- conditions ------------------------------------------------------------------------------


def check_write(condition: Condition, newest: ObjectVersion | None) -> None:
    """Refused NO_SUCH_KEY for If-Match on nothing, PRECONDITION_FAILED otherwise. A key whose
    newest version is a delete marker is not there."""
    is_there = newest is not None and not newest.is_marker
    etag = newest.etag if newest is not None else ""
    if condition.if_match:
        refuse_unless(is_there, RefusalCode.NO_SUCH_KEY, "If-Match, but there is no such key")
        is_match = _names(condition.if_match, etag)
        refuse_unless(is_match, RefusalCode.PRECONDITION_FAILED, "If-Match")
    if condition.if_none_match and is_there:
        is_match = _names(condition.if_none_match, etag)
        refuse_unless(not is_match, RefusalCode.PRECONDITION_FAILED, "If-None-Match")


def is_delete_allowed(condition: Condition, target: ObjectVersion) -> bool:
    """A delete marker is a target like others, with no ETag and no bytes."""
    if condition.if_match and not _names(condition.if_match, target.etag):
        return False
    if condition.if_match_size is not None and condition.if_match_size != target.size:
        return False
    wanted_ms = condition.if_match_modified_ms
    return wanted_ms is None or wanted_ms // _MS_PER_S == target.modified_ms // _MS_PER_S


def _names(etags: tuple[str, ...], etag: str) -> bool:
    return "*" in etags or etag in etags


def put_done(settings: Bucket, version: ObjectVersion) -> PutDone:
    """The client is told the version id only while the bucket keeps versions, as AWS does."""
    invariant(not version.is_marker, "a delete marker is not the answer to a put")
    return PutDone(
        version_id=version.version_id,
        order=version.order,
        etag=version.etag,
        size=version.size,
        modified_ms=version.modified_ms,
        checksum=version.checksum,
        versioned=settings.versioning is Versioning.ENABLED,
    )
