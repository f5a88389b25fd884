"""Objects: put, copy, delete, tags, ACLs.

Rules of this file: every refusal comes before the first write of its command (in DeleteObjects
of its entry). New references are taken before old ones are given back, so that copying a
version over itself never lets its bytes go.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from astra.commands import (
    CopyObject,
    Deleted,
    DeletedMany,
    DeleteEntry,
    DeleteObjects,
    PutDone,
    PutObject,
    SetObjectAcl,
    SetObjectTags,
    VersionDone,
)
from astra.constants import DELETE_KEYS_MAX, OBJECT_SIZE_MAX
from astra.errors import RefusalCode, Refused
from astra.model import (
    BLOBS,
    MANIFESTS,
    OBJECTS,
    ORDER_MAX,
    VERSIONS,
    Bucket,
    Manifest,
    ObjectVersion,
    Part,
    Versioning,
)
from node.apply import blobs, versions
from node.apply.state import Turn, check_acl, refuse_unless
from node.lookup import extents_of, find_by_order, find_version, read_parts


async def put_object(turn: Turn, command: PutObject) -> PutDone:
    settings = await turn.bucket(command.bucket)
    bucket = command.bucket.encode()
    newest = await versions.read_newest(turn, bucket, command.key)
    versions.check_write(command.condition, newest)
    is_size = 0 <= command.size <= OBJECT_SIZE_MAX
    refuse_unless(is_size, RefusalCode.INVALID_ARGUMENT, "size out of range")
    check_acl(command.head.acl)
    await blobs.check_new(turn, command.blob, command.size)
    order = turn.order()
    head = command.head
    version = ObjectVersion(
        version_id=versions.new_version_id(turn, settings, order),
        order=order,
        modified_ms=turn.now_ms,
        owner_id=head.owner_id,
        size=command.size,
        etag=command.etag,
        storage_class=head.storage_class,
        headers=head.headers,
        user_metadata=head.user_metadata,
        tags=head.tags,
        acl=head.acl,
        checksum=command.checksum,
        extents=await blobs.add(turn, command.blob, command.size),
    )
    await versions.put_on_top(turn, bucket, command.key, version, newest)
    return versions.put_done(settings, version)


# --- copy ------------------------------------------------------------------------------------


async def read_source(
    turn: Turn, bucket_name: str, key: bytes, order: int
) -> tuple[ObjectVersion, tuple[Part, ...]]:
    """The version that a copy names. Refused SOURCE_CHANGED, IS_DELETE_MARKER."""
    bucket = bucket_name.encode()
    refuse_unless(0 < order < ORDER_MAX, RefusalCode.SOURCE_CHANGED)
    source = await find_by_order(turn.batch, bucket, key, order)
    if source is None or source.order != order:
        raise Refused(RefusalCode.SOURCE_CHANGED)
    refuse_unless(not source.is_marker, RefusalCode.IS_DELETE_MARKER, "a marker has no bytes")
    return source, await read_parts(turn.batch, bucket, key, source)


async def copy_object(turn: Turn, command: CopyObject) -> PutDone:
    settings = await turn.bucket(command.bucket)
    bucket = command.bucket.encode()
    newest = await versions.read_newest(turn, bucket, command.key)
    versions.check_write(command.condition, newest)
    check_acl(command.acl)
    source, parts = await read_source(
        turn, command.source_bucket, command.source_key, command.source_order
    )
    version = _copied(turn, settings, command, source)
    await blobs.share(turn, extents_of(source, parts))
    await versions.put_on_top(turn, bucket, command.key, version, newest)
    if parts:
        manifest = Manifest(parts=parts)
        await turn.batch.put(MANIFESTS, (bucket, command.key, version.order), manifest)
    return versions.put_done(settings, version)


def _copied(
    turn: Turn, settings: Bucket, command: CopyObject, source: ObjectVersion
) -> ObjectVersion:
    order = turn.order()
    head = command.head
    storage_class = command.storage_class
    if head is not None and head.storage_class != "STANDARD":
        storage_class = head.storage_class  # either place may name one
    return replace(
        source,
        version_id=versions.new_version_id(turn, settings, order),
        order=order,
        modified_ms=turn.now_ms,
        owner_id=command.owner_id,
        storage_class=storage_class,
        headers=source.headers if head is None else head.headers,
        user_metadata=source.user_metadata if head is None else head.user_metadata,
        tags=source.tags if command.tags is None else command.tags,
        checksum=source.checksum if command.checksum is None else command.checksum,
        acl=command.acl,
    )


# --- delete ----------------------------------------------------------------------------------


async def delete_objects(turn: Turn, command: DeleteObjects) -> DeletedMany:
    settings = await turn.bucket(command.bucket)
    is_bounded = len(command.entries) <= DELETE_KEYS_MAX
    refuse_unless(is_bounded, RefusalCode.INVALID_ARGUMENT, "too many keys")
    bucket = settings.name.encode()
    await _read_ahead(turn, bucket, command.entries)
    done: list[Deleted] = []
    for place, entry in enumerate(command.entries):
        try:
            done.append(await _delete_entry(turn, settings, command.owner_id, place, entry))
        except Refused as refused:
            done.append(Deleted(key=entry.key, version_id=entry.version_id, refused=refused.code))
    return DeletedMany(entries=tuple(done))


async def _read_ahead(turn: Turn, bucket: bytes, entries: Sequence[DeleteEntry]) -> None:
    """Into the cache: neighbours, and the blobs of what was uploaded together, come in a few
    scans instead of one round trip each."""
    rows = await turn.batch.get_many(OBJECTS, [(bucket, entry.key) for entry in entries])
    extents = [extent for version in rows.values() if version for extent in version.extents]
    await turn.batch.get_many(BLOBS, [(extent.blob_id,) for extent in extents])


async def _delete_entry(
    turn: Turn, settings: Bucket, owner_id: str, place: int, entry: DeleteEntry
) -> Deleted:
    bucket = settings.name.encode()
    if entry.version_id is not None:
        return await _delete_version(turn, settings, entry, entry.version_id)
    newest = await versions.read_newest(turn, bucket, entry.key)
    _check_delete(entry, newest)
    if settings.versioning is Versioning.OFF:
        if newest is not None:
            await versions.remove_newest(turn, settings, entry.key, newest)
        return Deleted(key=entry.key)
    order = turn.order(place)
    marker = ObjectVersion(
        version_id=versions.new_version_id(turn, settings, order),
        order=order,
        modified_ms=turn.now_ms,
        owner_id=owner_id,
        is_marker=True,
    )
    await versions.put_on_top(turn, bucket, entry.key, marker, newest)
    return Deleted(key=entry.key, marker_version_id=marker.version_id)


async def _delete_version(
    turn: Turn, settings: Bucket, entry: DeleteEntry, version_id: str
) -> Deleted:
    """Deleting a version that is not there succeeds, and its condition does not matter: AWS
    answers 204 "if the ETag value matches or if the object does not exist"."""
    target = await versions.find_target(turn, settings.name.encode(), entry.key, version_id)
    _check_delete(entry, target)
    if target is not None:
        await versions.remove_version(turn, settings, entry.key, target)
    was_marker = target is not None and target.is_marker
    return Deleted(key=entry.key, version_id=version_id, was_marker=was_marker)


def _check_delete(entry: DeleteEntry, target: ObjectVersion | None) -> None:
    is_allowed = target is None or versions.is_delete_allowed(entry.condition, target)
    refuse_unless(is_allowed, RefusalCode.PRECONDITION_FAILED)


# --- tags and ACLs ---------------------------------------------------------------------------


async def set_object_tags(turn: Turn, command: SetObjectTags) -> VersionDone:
    settings = await turn.bucket(command.bucket)
    version, is_newest = await _find_changed(turn, command)
    changed = replace(version, tags=command.tags)
    return await _put_back(turn, settings, command.key, changed, is_newest=is_newest)


async def set_object_acl(turn: Turn, command: SetObjectAcl) -> VersionDone:
    settings = await turn.bucket(command.bucket)
    check_acl(command.acl)
    version, is_newest = await _find_changed(turn, command)
    judged = command.judged
    if judged is not None:
        is_same = judged.order == version.order and judged.acl == version.acl
        refuse_unless(is_same, RefusalCode.CONFLICT, "the version or its ACL has changed")
    changed = replace(version, acl=command.acl)
    return await _put_back(turn, settings, command.key, changed, is_newest=is_newest)


async def _find_changed(
    turn: Turn, command: SetObjectTags | SetObjectAcl
) -> tuple[ObjectVersion, bool]:
    """The version, and whether it is the newest. Refused NO_SUCH_KEY, NO_SUCH_VERSION,
    IS_DELETE_MARKER."""
    bucket = command.bucket.encode()
    version, is_newest = await find_version(turn.batch, bucket, command.key, command.version_id)
    if version.is_marker:
        is_named = command.version_id is not None
        raise Refused(RefusalCode.IS_DELETE_MARKER if is_named else RefusalCode.NO_SUCH_KEY)
    return version, is_newest


async def _put_back(
    turn: Turn, settings: Bucket, key: bytes, version: ObjectVersion, *, is_newest: bool
) -> VersionDone:
    bucket = settings.name.encode()
    if is_newest:
        await turn.batch.put(OBJECTS, (bucket, key), version)
    else:
        await turn.batch.put(VERSIONS, (bucket, key, ORDER_MAX - version.order), version)
    is_versioned = settings.versioning is not Versioning.OFF
    return VersionDone(version_id=version.version_id, versioned=is_versioned)
