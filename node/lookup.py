"""Questions to the metadata that more than one part of a node asks: rows, versions, locations.

Rules of this file: only reads, of one MetadataView; awaits nothing but the view (it also runs
inside a store's thread); refusals are astra.errors.Refused. Whoever answers a client has to
make sure first that the view is recent enough (ReadIndex); nothing here does.

Each `get` may be a round trip to PostgreSQL, so several rows go through `get_many`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol, cast

from astra import wire
from astra.errors import RefusalCode, Refused, invariant
from astra.model import (
    ACCESS_EPOCH,
    BLOBS,
    BUCKETS,
    INLINE,
    MANIFESTS,
    MARKS,
    NULL_VERSION,
    NULL_VERSIONS,
    OBJECTS,
    ORDER_MAX,
    VERSIONS,
    Blob,
    Bucket,
    D,
    Extent,
    Key,
    Manifest,
    ObjectVersion,
    Part,
    Table,
    decode_version_order,
)
from astra.ports import MetadataView

_SCAN_ROWS_MAX: Final = 1000
_SINGLE_GETS_MAX: Final = 2  # up to here a scan is no cheaper
_SPARSE: Final = 8  # rows read per row wanted, above which scanning stops


def successor(key: Key) -> Key:
    """The smallest key after `key`, as an end that includes it."""
    last = key[-1]
    if isinstance(last, bytes):
        return (*key[:-1], last + b"\x00")
    if isinstance(last, str):
        return (*key[:-1], last + "\x01")  # texts hold no NUL, and no store takes one
    return (*key[:-1], last + 1)


async def rows_after(
    view: MetadataView, table: Table[D], after: str, limit: int, *, within: Key = ()
) -> list[tuple[str, D]]:
    """The next rows by the text that ends their keys, behind `after` ("": from the first); of
    those only whose keys begin with `within`."""
    start = successor((*within, after)) if after else within
    rows = await view.scan(table, start, successor(within) if within else None, limit)
    return [(str(key[-1]), doc) for key, doc in rows]


class ReadsMany(Protocol):
    """What a view offers whose every call is a round trip. Optional."""

    async def get_many(self, table: Table[D], keys: Sequence[Key]) -> dict[Key, D | None]:
        """The document at each of these different keys."""
        ...


def reads_many(view: MetadataView) -> ReadsMany | None:
    return cast(ReadsMany, view) if hasattr(view, "get_many") else None


async def get_many(view: MetadataView, table: Table[D], keys: Iterable[Key]) -> dict[Key, D | None]:
    """The documents at `keys`, in one call where the store can, otherwise in about as many as
    there are clusters of neighbours.

    Deleting a folder or the parts of one upload touches neighbours, which one scan reads
    together; keys that lie far apart are fetched one by one.
    """
    wanted = sorted(set(keys))
    many = reads_many(view)
    if many is not None and len(wanted) > 1:
        return await many.get_many(table, wanted)
    found: dict[Key, D | None] = {}
    position = 0
    while len(wanted) - position > _SINGLE_GETS_MAX:
        done, rows_read = await _scan_some(view, table, wanted[position:], found)
        position += done
        if rows_read > done * _SPARSE:
            break
    for key in wanted[position:]:
        found[key] = await view.get(table, key)
    return found


async def _scan_some(
    view: MetadataView, table: Table[D], wanted: Sequence[Key], found: dict[Key, D | None]
) -> tuple[int, int]:
    """Settles the first of `wanted` by one scan: how many, and how many rows that took."""
    limit = min(_SCAN_ROWS_MAX, 2 * len(wanted) + 16)
    rows = await view.scan(table, wanted[0], successor(wanted[-1]), limit)
    by_key = dict(rows)
    is_whole = len(rows) < limit
    done = 0
    for key in wanted:
        if not is_whole and key > rows[-1][0]:
            break
        found[key] = by_key.get(key)
        done += 1
    return done, len(rows)


async def check_access(view: MetadataView, access: int | None) -> None:
    """Refused STALE_EPOCH when users or keys have changed since the caller looked."""
    if access is None:
        return
    mark = await view.get(MARKS, (ACCESS_EPOCH,))
    if access != (mark.value if mark is not None else 0):
        raise Refused(RefusalCode.STALE_EPOCH, "users or keys have changed")


def check_bucket(bucket: Bucket | None, epoch: int | None, name: str) -> Bucket:
    """A bucket that is gone is NO_SUCH_BUCKET whatever the epoch: nobody has access to it, and
    looking again would only tell the same. Refused STALE_EPOCH when its settings changed."""
    if bucket is None:
        raise Refused(RefusalCode.NO_SUCH_BUCKET, name)
    if epoch is not None and epoch != bucket.epoch:
        raise Refused(RefusalCode.STALE_EPOCH, f"bucket {name} has changed")
    return bucket


async def admit(view: MetadataView, name: str, epochs: wire.Epochs) -> Bucket:
    """The bucket, if the caller decided on the present state. Refused otherwise."""
    await check_access(view, epochs.access)
    return check_bucket(await view.get(BUCKETS, (name.encode(),)), epochs.bucket, name)


# --- versions --------------------------------------------------------------------------------


async def find_by_order(
    view: MetadataView, bucket: bytes, key: bytes, order: int
) -> ObjectVersion | None:
    """Exactly the version of that order, newest or not."""
    newest = await view.get(OBJECTS, (bucket, key))
    if newest is None or newest.order == order:
        return newest
    return await view.get(VERSIONS, (bucket, key, ORDER_MAX - order))


async def find_older(
    view: MetadataView, bucket: bytes, key: bytes, version_id: str
) -> ObjectVersion | None:
    """The version of that id among those that are not the newest."""
    if version_id == NULL_VERSION:
        ref = await view.get(NULL_VERSIONS, (bucket, key))
        order = None if ref is None else ref.order
    else:
        order = decode_version_order(version_id)
    if order is None:
        return None
    version = await view.get(VERSIONS, (bucket, key, ORDER_MAX - order))
    return version if version is not None and version.version_id == version_id else None


async def find_version(
    view: MetadataView, bucket: bytes, key: bytes, version_id: str | None
) -> tuple[ObjectVersion, bool]:
    """A version (None: the newest) and whether it is the newest. Delete markers are versions.
    Refused: NO_SUCH_KEY when none was named and there is none, otherwise NO_SUCH_VERSION."""
    newest = await view.get(OBJECTS, (bucket, key))
    if version_id is None:
        if newest is None:
            raise Refused(RefusalCode.NO_SUCH_KEY)
        return newest, True
    if newest is not None:
        if newest.version_id == version_id:
            return newest, True
        older = await find_older(view, bucket, key, version_id)
        if older is not None:
            return older, False
    raise Refused(RefusalCode.NO_SUCH_VERSION)


async def read_parts(
    view: MetadataView, bucket: bytes, key: bytes, version: ObjectVersion
) -> tuple[Part, ...]:
    """The parts of a version that was completed from parts; () otherwise."""
    if version.part_count == 0:
        return ()
    manifest: Manifest | None = await view.get(MANIFESTS, (bucket, key, version.order))
    invariant(manifest is not None, f"version {version.order} has parts but no manifest")
    return manifest.parts if manifest is not None else ()


def extents_of(version: ObjectVersion, parts: Iterable[Part]) -> tuple[Extent, ...]:
    """All bytes of a version, in order."""
    if version.part_count == 0:
        return version.extents
    return tuple(extent for part in parts for extent in part.extents)


# --- locations -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldBlob:
    """A blob that is kept as chunks, in the order of the bytes of the version."""

    blob_id: str
    size: int
    holders: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """`located` has no places yet: the caller ranks the holders of `blobs`."""

    located: wire.Located
    blobs: tuple[HeldBlob, ...] = ()


async def locate(view: MetadataView, query: wire.Locate) -> Location:
    """One version, and with `with_data` its inline bytes and the holders of the rest.
    Refused: STALE_EPOCH, NO_SUCH_BUCKET, NO_SUCH_KEY, NO_SUCH_VERSION."""
    settings = await admit(view, query.bucket, query.epochs)
    bucket = query.bucket.encode()
    version, is_latest = await find_version(view, bucket, query.key, query.version_id)
    parts: tuple[Part, ...] = ()
    if query.with_data or query.with_parts:
        parts = await read_parts(view, bucket, query.key, version)
    inline: tuple[tuple[str, bytes], ...] = ()
    blobs: tuple[HeldBlob, ...] = ()
    if query.with_data:
        inline, blobs = await _locate_bytes(view, extents_of(version, parts))
    located = wire.Located(
        version=version,
        versioning=settings.versioning,
        is_latest=is_latest,
        parts=parts,
        inline=inline,
    )
    return Location(located=located, blobs=blobs)


async def _locate_bytes(
    view: MetadataView, extents: Sequence[Extent]
) -> tuple[tuple[tuple[str, bytes], ...], tuple[HeldBlob, ...]]:
    ids = list(dict.fromkeys(extent.blob_id for extent in extents))
    blobs = await get_many(view, BLOBS, [(blob_id,) for blob_id in ids])
    inline: list[tuple[str, bytes]] = []
    held: list[HeldBlob] = []
    for blob_id in ids:
        blob = _present(blobs[(blob_id,)], blob_id)
        if blob.is_inline:
            inline.append((blob_id, await _inline_bytes(view, blob_id)))
        else:
            held.append(HeldBlob(blob_id=blob_id, size=blob.size, holders=blob.holders))
    return tuple(inline), tuple(held)


def _present(blob: Blob | None, blob_id: str) -> Blob:
    if blob is None:
        invariant(condition=False, message=f"blob {blob_id} is referred to but unknown")
        raise AssertionError
    return blob


async def _inline_bytes(view: MetadataView, blob_id: str) -> bytes:
    row = await view.get(INLINE, (blob_id,))
    invariant(row is not None, f"the bytes of inline blob {blob_id} are missing")
    return row.data if row is not None else b""
