"""Pages of keys, versions, uploads, parts and buckets.

Rules of this file: reads of one MetadataView only, in byte order. The cost of a page grows with
what the page shows, not with what it jumps over: a common prefix costs one seek however many
keys are below it, and plain keys come a thousand to a scan. Rows that a page must not show
(delete markers) are read at most `_HIDDEN_ROWS_MAX` to a page; then the page ends early with
something to resume from. The one exception is a prefix that has had nothing but delete markers
so far: `after` cannot point inside of it, so it is read until its first object, or its end.

`resume` is empty exactly when nothing more would be listed: every page looks one item ahead.

Follows the AWS pages of ListObjectsV2, ListObjectVersions and ListMultipartUploads.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Final, Generic

from msgspec.structs import replace

from astra import wire
from astra.constants import LIST_KEYS_MAX, PART_NUMBER_MAX
from astra.errors import RefusalCode, Refused
from astra.model import (
    BUCKETS,
    NULL_VERSION,
    NULL_VERSIONS,
    OBJECTS,
    ORDER_MAX,
    PARTS,
    UPLOADS,
    VERSIONS,
    Bucket,
    D,
    Key,
    ObjectVersion,
    Table,
    Upload,
    decode_version_order,
    encode_version_id,
)
from astra.ports import MetadataView
from node.lookup import admit, check_access, successor

_ROWS_MAX: Final = LIST_KEYS_MAX + 1  # a page, and the look ahead
_ROWS_MIN: Final = 4  # read at a place where one row decides
_ROWS_FIRST: Final = 64  # when a delimiter may make most of them useless
_HIDDEN_ROWS_MAX: Final = 20_000
_LIMIT_MAX: Final = 10_000


def prefix_end(prefix: bytes) -> bytes | None:
    """The smallest key after all keys that begin with `prefix`; None: there is none."""
    stripped = prefix.rstrip(b"\xff")
    return stripped[:-1] + bytes([stripped[-1] + 1]) if stripped else None


def common_prefix(key: bytes, prefix: bytes, delimiter: bytes) -> bytes | None:
    """What `key` collapses into, None when it is listed itself."""
    if not delimiter or not key.startswith(prefix):
        return None
    found = key.find(delimiter, len(prefix))
    return None if found < 0 else key[: found + len(delimiter)]


class _Cursor(Generic[D]):
    """Walks the rows of one bucket in a table whose key begins (bucket, key).

    How much it reads at once adapts: more when enough of it was looked at, less when seeks went
    past nearly all of it, inside of what had been read or beyond.
    """

    __slots__ = (
        "_end", "_is_end", "_passed_over", "_position", "_rows", "_size", "_start", "_table",
        "_view",
    )  # fmt: skip

    def __init__(
        self, view: MetadataView, table: Table[D], start: Key, end: Key, first_size: int
    ) -> None:
        self._view: Final = view
        self._table: Final = table
        self._start = start
        self._end = end
        self._size = max(_ROWS_MIN, min(_ROWS_MAX, first_size))
        self._rows: Sequence[tuple[Key, D]] = ()
        self._position = 0
        self._passed_over = 0  # rows that were read for nothing
        self._is_end = False

    async def peek(self) -> tuple[Key, D] | None:
        """The row at the cursor, None after the last."""
        if self._position == len(self._rows):
            await self._fill()
        return self._rows[self._position] if self._position < len(self._rows) else None

    def advance(self) -> None:
        self._position += 1

    def seek(self, start: Key) -> None:
        """To the first row at or after `start`, which is never behind the cursor."""
        rows = self._rows
        position = bisect_left(rows, start, self._position, key=lambda row: row[0])
        self._passed_over += max(0, position - self._position - 1)  # the first was looked at
        if position == len(rows) and not self._is_end:
            self._adapt()
            self._rows, self._position, self._start = (), 0, start
        else:
            self._position = position

    def _adapt(self) -> None:
        """A scan costs about as much as reading eight rows."""
        looked_at = len(self._rows) - self._passed_over
        if self._passed_over > 8 * looked_at:
            self._size = max(_ROWS_MIN, self._size // 4)
        elif self._passed_over < 2 * looked_at:
            self._size = min(_ROWS_MAX, self._size * 4)

    async def _fill(self) -> None:
        if self._is_end:
            return
        start = self._start
        if self._rows:
            start = successor(self._rows[-1][0])
            self._adapt()
        self._rows = await self._view.scan(self._table, start, self._end, self._size)
        self._position = 0
        self._passed_over = 0
        self._is_end = len(self._rows) < self._size
        self._start = start


def _key_of(row: Key) -> bytes:
    key = row[1]
    return key if isinstance(key, bytes) else b""


class _Window:
    """Where a listing begins and ends: the prefix, and what comes after `after`. `inside`: rows
    of the key `after` itself may follow still."""

    __slots__ = ("bucket", "delimiter", "end", "prefix", "start")

    def __init__(
        self, bucket: str, prefix: bytes, delimiter: bytes, after: bytes, *, inside: bool = False
    ) -> None:
        self.bucket: Final = bucket.encode()
        self.prefix: Final = prefix
        self.delimiter: Final = delimiter
        self.end: Final = self.behind(prefix)
        self.start: Final = self._first(after, inside=inside)

    def _first(self, after: bytes, *, inside: bool) -> Key:
        if not after or after < self.prefix:
            return (self.bucket, self.prefix)
        below = self.collapse(after)
        if below is not None:
            return self.behind(below)
        return (self.bucket, after if inside else after + b"\x00")

    def behind(self, prefix: bytes) -> Key:
        """The first row that is not below `prefix`."""
        end = prefix_end(prefix)
        return (self.bucket + b"\x00",) if end is None else (self.bucket, end)

    def collapse(self, key: bytes) -> bytes | None:
        return common_prefix(key, self.prefix, self.delimiter)

    def cursor(self, view: MetadataView, table: Table[D], start: Key, limit: int) -> _Cursor[D]:
        first_size = min(limit + 1, _ROWS_FIRST) if self.delimiter else limit + 1
        return _Cursor(view, table, start, self.end, first_size)


def _limited(limit: int) -> int:
    return max(0, min(limit, _LIMIT_MAX))


def _shown(version: ObjectVersion) -> ObjectVersion:
    """Without what no listing shows and a client may make long: a page of a thousand such
    versions would not fit into a frame, and the bucket could not be listed any more."""
    return replace(version, headers=(), user_metadata=(), tags=(), extents=(), acl=None)


def _shown_upload(upload: Upload) -> Upload:
    return replace(upload, headers=(), user_metadata=(), tags=(), acl=None)


# --- objects ---------------------------------------------------------------------------------


async def list_objects(view: MetadataView, query: wire.ListObjects) -> wire.ObjectPage:
    """Refused: NO_SUCH_BUCKET, STALE_EPOCH."""
    await admit(view, query.bucket, query.epochs)
    window = _Window(query.bucket, query.prefix, query.delimiter, query.after)
    limit = _limited(query.limit)
    objects: list[wire.ListedObject] = []
    prefixes: list[bytes] = []
    resume = await _walk_objects(view, window, limit, objects, prefixes) if limit else b""
    return wire.ObjectPage(objects=tuple(objects), prefixes=tuple(prefixes), resume=resume)


async def _walk_objects(
    view: MetadataView,
    window: _Window,
    limit: int,
    objects: list[wire.ListedObject],
    prefixes: list[bytes],
) -> bytes:
    """Fills the page; what to resume after."""
    cursor = window.cursor(view, OBJECTS, window.start, limit)
    seen = b""  # nothing up to here is missing from the page
    hidden = 0
    while (row := await cursor.peek()) is not None:
        key, version = _key_of(row[0]), row[1]
        below = window.collapse(key)
        if version.is_marker:
            is_undecided = below is not None and window.collapse(seen) == below
            if hidden >= _HIDDEN_ROWS_MAX and not is_undecided:
                return seen
            hidden += 1
            seen = key
            cursor.advance()
            continue
        if len(objects) + len(prefixes) == limit:
            # Not `seen`: the markers since may lie in the prefix of this row.
            return _last_listed(objects, prefixes)
        if below is None:
            objects.append(wire.ListedObject(key=key, version=_shown(version)))
            seen = key
            cursor.advance()
        else:
            prefixes.append(below)
            seen = below
            cursor.seek(window.behind(below))
    return b""


def _last_listed(objects: Sequence[wire.ListedObject], prefixes: Sequence[bytes]) -> bytes:
    last_key = objects[-1].key if objects else b""
    return max(last_key, prefixes[-1]) if prefixes else last_key


# --- versions --------------------------------------------------------------------------------


async def list_versions(view: MetadataView, query: wire.ListVersions) -> wire.VersionPage:
    """`resume_version` of a null version is an id made of its order, because "null" may be
    another version by the next page. Refused: NO_SUCH_BUCKET, STALE_EPOCH, INVALID_ARGUMENT
    (`after_version` is no version id)."""
    await admit(view, query.bucket, query.epochs)
    is_inside = bool(query.after_key) and query.after_version is not None
    window = _Window(query.bucket, query.prefix, query.delimiter, query.after_key, inside=is_inside)
    below_order = ORDER_MAX
    if is_inside and query.after_version is not None:
        below_order = await _order_of(view, window.bucket, query.after_key, query.after_version)
    walk = _VersionWalk(view, window, _limited(query.limit), query.after_key, below_order)
    return await walk.page() if walk.limit else walk.page_so_far()


async def _order_of(view: MetadataView, bucket: bytes, key: bytes, version_id: str) -> int:
    """The order that the next version of `key` has to be below."""
    if version_id == NULL_VERSION:
        newest = await view.get(OBJECTS, (bucket, key))
        if newest is not None and newest.version_id == NULL_VERSION:
            return newest.order
        ref = await view.get(NULL_VERSIONS, (bucket, key))
        return ORDER_MAX if ref is None else ref.order  # gone: rather twice than never
    order = decode_version_order(version_id)
    if order is None:
        raise Refused(RefusalCode.INVALID_ARGUMENT, "not a version id")
    return order


class _VersionWalk:
    """Two cursors side by side: the newest version of each key, and the older ones."""

    def __init__(
        self, view: MetadataView, window: _Window, limit: int, after_key: bytes, below_order: int
    ) -> None:
        self.limit: Final = limit
        self._window = window
        self._after_key = after_key
        self._below_order = below_order
        self._newest: _Cursor[ObjectVersion] = window.cursor(view, OBJECTS, window.start, limit)
        start = window.start
        if start == (window.bucket, after_key) and below_order < ORDER_MAX:
            start = (window.bucket, after_key, ORDER_MAX - below_order + 1)
        self._older: _Cursor[ObjectVersion] = window.cursor(view, VERSIONS, start, limit)
        self._versions: list[wire.ListedVersion] = []
        self._prefixes: list[bytes] = []
        self._resume: tuple[bytes, str | None] = (b"", None)  # after what is listed so far

    async def page(self) -> wire.VersionPage:
        while (row := await self._newest.peek()) is not None:
            key = _key_of(row[0])
            below = self._window.collapse(key)
            if below is not None:
                if self._is_full():
                    return self.page_so_far(*self._resume)
                self._add_prefix(below)
                continue
            is_listed = key != self._after_key or row[1].order < self._below_order
            if is_listed and not self._add(key, row[1], is_latest=True):
                return self.page_so_far(*self._resume)
            self._newest.advance()
            if not await self._add_older(key):
                return self.page_so_far(*self._resume)
        return self.page_so_far()

    def page_so_far(
        self, resume_key: bytes = b"", resume_version: str | None = None
    ) -> wire.VersionPage:
        return wire.VersionPage(
            versions=tuple(self._versions),
            prefixes=tuple(self._prefixes),
            resume_key=resume_key,
            resume_version=resume_version,
        )

    def _is_full(self) -> bool:
        return len(self._versions) + len(self._prefixes) == self.limit

    def _add_prefix(self, below: bytes) -> None:
        self._prefixes.append(below)
        self._resume = (below, None)
        behind = self._window.behind(below)
        self._newest.seek(behind)
        self._older.seek(behind)

    async def _add_older(self, key: bytes) -> bool:
        """The older versions of `key`; False when the page was full before their end."""
        while (row := await self._older.peek()) is not None and _key_of(row[0]) <= key:
            if not self._add(key, row[1], is_latest=False):
                return False
            self._older.advance()
        return True

    def _add(self, key: bytes, version: ObjectVersion, *, is_latest: bool) -> bool:
        """False when the page is full."""
        if self._is_full():
            return False
        self._versions.append(
            wire.ListedVersion(key=key, version=_shown(version), is_latest=is_latest)
        )
        is_null = version.version_id == NULL_VERSION
        place = encode_version_id(version.order, b"") if is_null else version.version_id
        self._resume = (key, place)
        return True


# --- uploads and parts -----------------------------------------------------------------------


async def list_uploads(view: MetadataView, query: wire.ListUploads) -> wire.UploadPage:
    """Running uploads, of one key oldest first. Refused: NO_SUCH_BUCKET, STALE_EPOCH,
    INVALID_ARGUMENT."""
    await admit(view, query.bucket, query.epochs)
    is_inside = bool(query.after_key) and query.after_upload is not None
    window = _Window(query.bucket, query.prefix, query.delimiter, query.after_key, inside=is_inside)
    start = window.start
    if query.after_upload is not None and start == (window.bucket, query.after_key):
        if not query.after_upload.isprintable():
            raise Refused(RefusalCode.INVALID_ARGUMENT, "not an upload id")
        start = successor((window.bucket, query.after_key, query.after_upload))
    uploads: list[wire.ListedUpload] = []
    prefixes: list[bytes] = []
    limit = _limited(query.limit)
    resume: tuple[bytes, str | None] = (b"", None)
    if limit:
        cursor = window.cursor(view, UPLOADS, start, limit)
        resume = await _walk_uploads(cursor, window, limit, uploads, prefixes)
    return wire.UploadPage(
        uploads=tuple(uploads),
        prefixes=tuple(prefixes),
        resume_key=resume[0],
        resume_upload=resume[1],
    )


async def _walk_uploads(
    cursor: _Cursor[Upload],
    window: _Window,
    limit: int,
    uploads: list[wire.ListedUpload],
    prefixes: list[bytes],
) -> tuple[bytes, str | None]:
    """Fills the page; what to resume after."""
    last: tuple[bytes, str | None] = (b"", None)
    while (row := await cursor.peek()) is not None:
        if len(uploads) + len(prefixes) == limit:
            return last
        key, upload = _key_of(row[0]), row[1]
        below = window.collapse(key)
        if below is None:
            uploads.append(wire.ListedUpload(key=key, upload=_shown_upload(upload)))
            last = (key, upload.upload_id)
            cursor.advance()
        else:
            prefixes.append(below)
            last = (below, None)
            cursor.seek(window.behind(below))
    return (b"", None)


async def list_parts(view: MetadataView, query: wire.ListParts) -> wire.PartPage:
    """Refused: NO_SUCH_BUCKET, NO_SUCH_UPLOAD, STALE_EPOCH."""
    settings = await admit(view, query.bucket, query.epochs)
    upload = await view.get(UPLOADS, (settings.name.encode(), query.key, query.upload_id))
    if upload is None:
        raise Refused(RefusalCode.NO_SUCH_UPLOAD)
    limit = _limited(query.limit)
    first = max(0, min(query.after, PART_NUMBER_MAX)) + 1
    start, end = (query.upload_id, first), (query.upload_id, PART_NUMBER_MAX + 1)
    rows = await view.scan(PARTS, start, end, limit + 1) if limit else ()
    parts = tuple(replace(part, extents=()) for _, part in rows[:limit])  # as `_shown`
    resume = parts[-1].number if len(rows) > limit and parts else 0
    return wire.PartPage(upload=upload, parts=parts, resume=resume)


# --- buckets ---------------------------------------------------------------------------------


async def list_buckets(view: MetadataView, query: wire.ListBuckets) -> wire.BucketPage:
    """The buckets that a user owns, by name. Refused: STALE_EPOCH."""
    await check_access(view, query.epochs.access)
    limit = _limited(query.limit)
    prefix, after = query.prefix.encode(), query.after.encode()
    start: Key = (max(prefix, after + b"\x00" if after else b""),)
    last = prefix_end(prefix)
    end = None if last is None else (last,)
    found: list[Bucket] = []
    while limit:
        rows = await view.scan(BUCKETS, start, end, _ROWS_MAX)
        for _, bucket in rows:
            if bucket.owner_id != query.owner_id:
                continue
            if len(found) == limit:
                return wire.BucketPage(buckets=tuple(found), resume=found[-1].name)
            found.append(replace(bucket, tags=(), acl=None))  # as `_shown`
        if len(rows) < _ROWS_MAX:
            break
        start = successor(rows[-1][0])
    return wire.BucketPage(buckets=tuple(found))
