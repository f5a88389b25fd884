"""Builders and views shared by the suites of the metadata stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from astra.model import (
    APPLIED_INDEX,
    BLOBS,
    BUCKETS,
    INLINE,
    MARKS,
    OBJECTS,
    PARTS,
    UPLOADS,
    VERSIONS,
    Key,
    Mark,
    ObjectVersion,
)
from astra.ports import MetadataStore, MetadataTxn, MetadataView

Opener = Callable[[], Awaitable[MetadataStore]]

ODD_KEYS = [
    b"", b"\x00", b"\x00\x00", b"\x01", b"%", b"%%", b"_", b"a", b"a\x00", b"a%", b"a_", b"aa",
    b"A", b"b", b"\xc3\xa9", "🦉".encode(), "\uffff".encode(), b"\x7f", b"\x80", b"\xff",
    b"\xff\xff", b"\xff" * 1024, b"\\", b"'", b'"',
]  # fmt: skip


def version(order: int, etag: str = "") -> ObjectVersion:
    return ObjectVersion(version_id="null", order=order, modified_ms=order, owner_id="o", etag=etag)


async def put_objects(store: MetadataStore, bucket: bytes, *keys: bytes, index: int = 1) -> None:
    async def body(txn: MetadataTxn) -> None:
        for number, key in enumerate(keys):
            await txn.put(OBJECTS, (bucket, key), version(number + 1))
        await txn.put(MARKS, (APPLIED_INDEX,), Mark(value=index))

    await store.write(body)


async def scan_objects(
    store: MetadataStore, start: Key, end: Key | None, limit: int = 100_000, *, long: bool = False
) -> list[Key]:
    async def body(view: MetadataView) -> list[Key]:
        return [key for key, _ in await view.scan(OBJECTS, start, end, limit)]

    return await store.read(body, long=long)


async def get_object(store: MetadataStore, bucket: bytes, key: bytes) -> ObjectVersion | None:
    async def body(view: MetadataView) -> ObjectVersion | None:
        return await view.get(OBJECTS, (bucket, key))

    return await store.read(body)


async def dump(store: MetadataStore) -> list[tuple[Key, object]]:
    async def body(view: MetadataView) -> list[tuple[Key, object]]:
        rows: list[tuple[Key, object]] = []
        for table in (MARKS, BUCKETS, OBJECTS, VERSIONS, UPLOADS, PARTS, BLOBS, INLINE):
            rows.extend(await view.scan(table, (), None, 1_000_000))
        return rows

    return await store.read(body, long=True)


async def export_all(store: MetadataStore) -> list[bytes]:
    return [piece async for piece in store.export()]


async def pieces_of(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece
