"""Export and replace: one suite for every MetadataStore, and from each to the others."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from astra.errors import UnknownFormat, WireError
from astra.model import (
    APPLIED_INDEX,
    BLOBS,
    BUCKETS,
    INLINE,
    MARKS,
    ORDER_MAX,
    VERSIONS,
    Blob,
    Bucket,
    Inline,
    Mark,
)
from astra.ports import MetadataStore, MetadataTxn
from node.metadata.memory import MemoryMetadataStore
from tests.support.metadata import (
    ODD_KEYS,
    Opener,
    dump,
    export_all,
    get_object,
    pieces_of,
    put_objects,
    version,
)


@pytest.fixture
async def store(opener: Opener) -> MetadataStore:
    return await opener()


async def fill(store: MetadataStore, index: int = 42) -> None:
    async def body(txn: MetadataTxn) -> None:
        await txn.put(BUCKETS, (b"b",), Bucket(name="b", owner_id="o", created_ms=1, epoch=1))
        for number in range(300):
            blob_id = f"{number:032x}"
            blob = Blob(size=10_000, references=1, holders=(), is_inline=True)
            await txn.put(BLOBS, (blob_id,), blob)
            await txn.put(INLINE, (blob_id,), Inline(data=bytes([number % 256]) * 10_000))
            await txn.put(VERSIONS, (b"b", b"\xff%d" % number, ORDER_MAX - number), version(number))
        await txn.put(MARKS, (APPLIED_INDEX,), Mark(value=index))

    await put_objects(store, b"b", *ODD_KEYS)
    await store.write(body)


async def test_export_then_replace_gives_equal_tables(opener: Opener) -> None:
    source, target = await opener(), await opener()
    await fill(source)
    await put_objects(target, b"old", b"gone", index=7)
    pieces = await export_all(source)
    assert len(pieces) > 2
    assert max(map(len, pieces)) <= 1 << 20
    assert await target.replace(pieces_of(pieces)) == 42
    assert await dump(target) == await dump(source)
    await put_objects(target, b"new", b"key", index=43)
    assert await get_object(target, b"new", b"key") == version(1)


async def test_export_is_the_same_from_every_backend(opener: Opener) -> None:
    store, memory = await opener(), MemoryMetadataStore()
    await fill(store)
    await fill(memory)
    assert b"".join(await export_all(store)) == b"".join(await export_all(memory))
    await store.replace(memory.export())
    await memory.replace(store.export())
    assert await dump(memory) == await dump(store)


async def test_export_of_an_empty_store_is_index_zero(opener: Opener) -> None:
    source, target = await opener(), await opener()
    await put_objects(target, b"old", b"gone")
    assert await target.replace(source.export()) == 0
    assert await dump(target) == []


async def test_export_shows_one_index_while_writes_go_on(opener: Opener) -> None:
    source, target = await opener(), await opener()
    await fill(source)
    before = await dump(source)
    export = source.export()
    pieces = [await anext(export)]
    await put_objects(source, b"b", b"late", index=43)
    pieces += [piece async for piece in export]
    assert await target.replace(pieces_of(pieces)) == 42
    assert await dump(target) == before


async def test_abandoned_export_does_no_harm(store: MetadataStore) -> None:
    await fill(store)
    export = store.export()
    await anext(export)
    assert hasattr(export, "aclose")
    await export.aclose()
    await put_objects(store, b"b", b"late", index=43)
    assert await store.check() is None


async def damaged(pieces: list[bytes], case: str) -> AsyncIterator[bytes]:
    whole = b"".join(pieces)
    if case == "cut":
        whole = whole[:-1]
    elif case == "cut in the middle":
        whole = whole[: len(whole) // 2]
    elif case == "flipped bit":
        middle = len(whole) // 2
        whole = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    elif case == "more behind":
        whole += b"x"
    elif case == "empty":
        whole = b""
    elif case == "no snapshot":
        whole = b"something else" * 10
    for start in range(0, len(whole), 1 << 20):
        yield whole[start : start + (1 << 20)]
    if case == "connection lost":
        raise ConnectionResetError


@pytest.mark.parametrize(
    "case",
    ["cut", "cut in the middle", "flipped bit", "more behind", "empty", "no snapshot",
     "connection lost"],
)  # fmt: skip
async def test_damaged_snapshot_changes_nothing(opener: Opener, case: str) -> None:
    source, target = await opener(), await opener()
    await fill(source)
    await put_objects(target, b"old", b"kept", index=7)
    before = await dump(target)
    pieces = await export_all(source)
    with pytest.raises(ConnectionResetError if case == "connection lost" else WireError):
        await target.replace(damaged(pieces, case))
    assert await dump(target) == before
    assert await target.replace(pieces_of(pieces)) == 42


async def test_newer_snapshot_format_is_refused(opener: Opener) -> None:
    source, target = await opener(), await opener()
    pieces = await export_all(source)
    newer = pieces[0][:8] + b"\x00\x63" + pieces[0][10:]
    with pytest.raises(UnknownFormat):
        await target.replace(pieces_of([newer, *pieces[1:]]))
