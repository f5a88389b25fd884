"""One suite for every MetadataStore: memory, SQLite and PostgreSQL must answer the same."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from astra.errors import InvariantBroken, StoreError
from astra.model import (
    ACCESS_KEYS,
    APPLIED_INDEX,
    MARKS,
    OBJECTS,
    ORDER_MAX,
    PARTS,
    UPLOADS,
    VERSIONS,
    AccessKey,
    Key,
    Mark,
    Part,
    Upload,
)
from astra.ports import MetadataStore, MetadataTxn, MetadataView
from tests.support.metadata import (
    ODD_KEYS,
    Opener,
    dump,
    get_object,
    put_objects,
    scan_objects,
    version,
)


@pytest.fixture
async def store(opener: Opener) -> MetadataStore:
    return await opener()


# --- points ----------------------------------------------------------------------------------


async def test_get_of_a_missing_key_is_none(store: MetadataStore) -> None:
    assert await get_object(store, b"b", b"k") is None


async def test_put_then_get_returns_an_equal_document(store: MetadataStore) -> None:
    doc = Upload(
        upload_id="u1",
        owner_id="ö",
        initiated_ms=7,
        headers=(("content-type", "text/plain"),),
        tags=(("a", ""), ("b", "🦉")),
    )

    async def write(txn: MetadataTxn) -> None:
        await txn.put(UPLOADS, (b"b", b"k", "u1"), doc)

    async def read(view: MetadataView) -> Upload | None:
        return await view.get(UPLOADS, (b"b", b"k", "u1"))

    await store.write(write)
    assert await store.read(read) == doc
    assert await store.read(read, long=True) == doc


async def test_put_twice_replaces(store: MetadataStore) -> None:
    await put_objects(store, b"b", b"k")

    async def body(txn: MetadataTxn) -> None:
        await txn.put(OBJECTS, (b"b", b"k"), version(9, "new"))

    await store.write(body)
    assert await get_object(store, b"b", b"k") == version(9, "new")
    assert await scan_objects(store, (), None) == [(b"b", b"k")]


async def test_delete_removes_and_is_idempotent(store: MetadataStore) -> None:
    await put_objects(store, b"b", b"k", b"l")

    async def body(txn: MetadataTxn) -> None:
        await txn.delete(OBJECTS, (b"b", b"k"))
        await txn.delete(OBJECTS, (b"b", b"k"))
        await txn.delete(OBJECTS, (b"never", b"there"))

    await store.write(body)
    assert await scan_objects(store, (), None) == [(b"b", b"l")]


async def test_write_reads_its_own_writes(store: MetadataStore) -> None:
    await put_objects(store, b"b", b"a", b"c", b"e")

    async def body(txn: MetadataTxn) -> list[Key]:
        await txn.put(OBJECTS, (b"b", b"b"), version(5))
        await txn.put(OBJECTS, (b"b", b"c"), version(6))
        await txn.delete(OBJECTS, (b"b", b"e"))
        assert await txn.get(OBJECTS, (b"b", b"b")) == version(5)
        assert await txn.get(OBJECTS, (b"b", b"c")) == version(6)
        assert await txn.get(OBJECTS, (b"b", b"e")) is None
        await txn.put(OBJECTS, (b"b", b"e"), version(7))
        assert await txn.get(OBJECTS, (b"b", b"e")) == version(7)
        await txn.delete(OBJECTS, (b"b", b"e"))
        return [key for key, _ in await txn.scan(OBJECTS, (b"b",), (b"c",), 2)]

    assert await store.write(body) == [(b"b", b"a"), (b"b", b"b")]
    assert await scan_objects(store, (), None) == [(b"b", b"a"), (b"b", b"b"), (b"b", b"c")]


async def test_scan_in_a_write_fills_its_limit_past_deleted_rows(store: MetadataStore) -> None:
    await put_objects(store, b"b", *(b"%02d" % n for n in range(20)))

    async def body(txn: MetadataTxn) -> list[Key]:
        for n in range(10):
            await txn.delete(OBJECTS, (b"b", b"%02d" % n))
        return [key for key, _ in await txn.scan(OBJECTS, (b"b",), None, 3)]

    assert await store.write(body) == [(b"b", b"10"), (b"b", b"11"), (b"b", b"12")]


async def test_failed_write_changes_nothing(store: MetadataStore) -> None:
    await put_objects(store, b"b", b"k")
    before = await dump(store)

    async def body(txn: MetadataTxn) -> None:
        await txn.put(OBJECTS, (b"b", b"z"), version(1))
        await txn.delete(OBJECTS, (b"b", b"k"))
        await txn.scan(OBJECTS, (), None, 10)
        raise KeyError("stop")

    with pytest.raises(KeyError):
        await store.write(body)
    assert await dump(store) == before
    await put_objects(store, b"b", b"after")
    assert (b"b", b"after") in await scan_objects(store, (), None)


async def test_writes_run_in_call_order_one_at_a_time(store: MetadataStore) -> None:
    async def add(txn: MetadataTxn, digit: int) -> None:
        mark = await txn.get(MARKS, ("digits",))
        await txn.put(MARKS, ("digits",), Mark(value=(mark.value if mark else 0) * 10 + digit))

    async def read(view: MetadataView) -> Mark | None:
        return await view.get(MARKS, ("digits",))

    def adder(digit: int) -> Callable[[MetadataTxn], Awaitable[None]]:
        return lambda txn: add(txn, digit)

    await asyncio.gather(*(store.write(adder(digit)) for digit in range(1, 10)))
    assert await store.read(read) == Mark(value=123456789)


async def test_wrong_keys_and_documents_are_refused(store: MetadataStore) -> None:
    async def short(txn: MetadataTxn) -> None:
        await txn.put(OBJECTS, (b"b",), version(1))

    async def typed(txn: MetadataTxn) -> None:
        await txn.get(OBJECTS, ("b", b"k"))

    async def other(txn: MetadataTxn) -> None:
        await txn.put(MARKS, ("a\0b",), Mark(value=1))

    async def bound(txn: MetadataTxn) -> None:
        await txn.scan(MARKS, ("a", "b"), None, 1)

    for body in (short, typed, other, bound):
        with pytest.raises(InvariantBroken):
            await store.write(body)


async def test_unstorable_text_is_never_found(store: MetadataStore) -> None:
    async def write(txn: MetadataTxn) -> None:
        for upload_id in ("a", "a\x01", "b"):
            doc = Upload(upload_id=upload_id, owner_id="o", initiated_ms=1)
            await txn.put(UPLOADS, (b"b", b"k", upload_id), doc)

    async def read(view: MetadataView) -> list[Key]:
        assert await view.get(UPLOADS, (b"b", b"k", "a\0")) is None
        assert await view.get(PARTS, ("u", 2**70)) is None
        after = await view.scan(UPLOADS, (b"b", b"k", "a\0"), None, 10)
        until = await view.scan(UPLOADS, (b"b",), (b"b", b"k", "a\0z"), 10)
        return [key for key, _ in (*after, *until)]

    await store.write(write)
    expected = [(b"b", b"k", "a\x01"), (b"b", b"k", "b"), (b"b", b"k", "a")]
    assert await store.read(read) == expected


async def test_access_key_lookup_takes_any_client_text(store: MetadataStore) -> None:
    async def body(view: MetadataView) -> list[AccessKey | None]:
        names = ("", "\0", "é", "🦉", "'; drop table users; --", "x" * 5000)
        return [await view.get(ACCESS_KEYS, (name,)) for name in names]

    assert await store.read(body) == [None] * 6


# --- order and bounds ------------------------------------------------------------------------


async def test_keys_sort_by_bytes(store: MetadataStore) -> None:
    await put_objects(store, b"b", *ODD_KEYS)
    assert await scan_objects(store, (), None) == [(b"b", key) for key in sorted(ODD_KEYS)]
    for key in ODD_KEYS:
        assert await get_object(store, b"b", key) is not None


@pytest.mark.parametrize("low", [b"", b"\x00", b"%", b"_", b"a", b"\x80", b"\xff", b"\xff" * 1024])
async def test_range_from_any_key_is_the_sorted_range(store: MetadataStore, low: bytes) -> None:
    await put_objects(store, b"b", *ODD_KEYS)
    for high in ODD_KEYS:
        expected = [(b"b", key) for key in sorted(ODD_KEYS) if low <= key < high]
        assert await scan_objects(store, (b"b", low), (b"b", high)) == expected


async def test_partial_bounds_name_whole_groups(store: MetadataStore) -> None:
    await put_objects(store, b"a", b"1", b"2")
    await put_objects(store, b"b", b"", b"1", b"2")
    await put_objects(store, b"b\x00", b"1")
    await put_objects(store, b"c", b"1")
    in_b = [(b"b", b""), (b"b", b"1"), (b"b", b"2")]
    assert await scan_objects(store, (b"b",), (b"b\x00",)) == in_b
    assert await scan_objects(store, (b"b", b""), (b"b\x00",)) == in_b
    assert await scan_objects(store, (b"b",), (b"b", b"")) == []
    assert await scan_objects(store, (b"b", b"1"), (b"b", b"2")) == [(b"b", b"1")]
    assert await scan_objects(store, (b"b", b"2"), (b"c",)) == [(b"b", b"2"), (b"b\x00", b"1")]
    assert await scan_objects(store, (b"b",), (b"b",)) == []
    assert await scan_objects(store, (b"c",), (b"a",)) == []
    assert await scan_objects(store, (), ()) == []
    assert await scan_objects(store, (), (b"b",)) == [(b"a", b"1"), (b"a", b"2")]
    assert await scan_objects(store, (b"b\x00",), None) == [(b"b\x00", b"1"), (b"c", b"1")]


async def test_three_column_bounds_with_integers(store: MetadataStore) -> None:
    ages = [0, 1, 255, 256, ORDER_MAX - 1, ORDER_MAX]

    async def write(txn: MetadataTxn) -> None:
        for key in (b"j", b"k", b"l"):
            for age in ages:
                await txn.put(VERSIONS, (b"b", key, age), version(age))

    async def read(view: MetadataView) -> list[list[int]]:
        after = await view.scan(VERSIONS, (b"b", b"k", 256), (b"b", b"k", ORDER_MAX), 10)
        group = await view.scan(VERSIONS, (b"b", b"k"), (b"b", b"k\x00"), 10)
        rest = await view.scan(VERSIONS, (b"b", b"k", ORDER_MAX), None, 3)
        return [[int(key[2]) for key, _ in rows] for rows in (after, group, rest)]

    await store.write(write)
    assert await store.read(read) == [[256, ORDER_MAX - 1], ages, [ORDER_MAX, 0, 1]]


async def test_text_and_integer_columns_sort_by_bytes_and_value(store: MetadataStore) -> None:
    async def write(txn: MetadataTxn) -> None:
        for upload in ("B", "a", "Z", "é", "_"):
            for number in (10_000, 2, 10, 1):
                part = Part(number=number, size=1, etag="e", extents=())
                await txn.put(PARTS, (upload, number), part)

    async def read(view: MetadataView) -> list[Key]:
        return [key for key, _ in await view.scan(PARTS, (), None, 100)]

    await store.write(write)
    numbers = (1, 2, 10, 10_000)
    expected = [(upload, n) for upload in ("B", "Z", "_", "a", "é") for n in numbers]
    assert await store.read(read) == expected


async def test_scan_of_ten_thousand_rows_honours_limits(store: MetadataStore) -> None:
    keys = [b"%05d" % n for n in range(10_000)]
    await put_objects(store, b"b", *keys)
    assert len(await scan_objects(store, (b"b",), None, 20_000, long=True)) == 10_000
    assert await scan_objects(store, (b"b",), None, 0) == []
    walked: list[Key] = []
    start: Key = (b"b",)
    while page := await scan_objects(store, start, (b"b\x00",), 999, long=True):
        assert len(page) <= 999
        walked += page
        start = (b"b", bytes(page[-1][1]) + b"\x00" if isinstance(page[-1][1], bytes) else b"")
    assert walked == [(b"b", key) for key in keys]


# --- consistency -----------------------------------------------------------------------------


async def test_reads_during_writes_see_one_index(store: MetadataStore) -> None:
    async def write(txn: MetadataTxn, index: int) -> None:
        await txn.put(MARKS, (APPLIED_INDEX,), Mark(value=index))
        for name in range(10):
            await txn.put(OBJECTS, (b"b", b"%d" % name), version(index))

    async def read(view: MetadataView) -> set[int]:
        seen = {doc.order for _, doc in await view.scan(OBJECTS, (b"b",), None, 5)}
        mark = await view.get(MARKS, (APPLIED_INDEX,))
        last = await view.get(OBJECTS, (b"b", b"9"))
        assert mark is not None
        assert last is not None
        return seen | {mark.value, last.order}

    def writer(index: int) -> Callable[[MetadataTxn], Awaitable[None]]:
        return lambda txn: write(txn, index)

    async def write_all() -> None:
        for index in range(2, 60):
            await store.write(writer(index))

    await store.write(writer(1))
    writing = asyncio.create_task(write_all())
    rounds = 0
    while not writing.done() or rounds < 5:
        long, short = await asyncio.gather(store.read(read, long=True), store.read(read))
        assert len(long) == 1
        assert len(short) == 1
        rounds += 1
    await writing
    assert await store.read(read) == {59}


async def test_write_is_visible_to_the_next_read(store: MetadataStore) -> None:
    for index in range(30):
        await put_objects(store, b"b", b"%d" % index, index=index)
        assert await get_object(store, b"b", b"%d" % index) is not None
        assert len(await scan_objects(store, (), None, long=True)) == index + 1


async def test_flush_and_check_of_a_healthy_store(store: MetadataStore) -> None:
    await put_objects(store, b"b", b"k")
    await store.flush()
    assert await store.check() is None


async def test_closed_store_refuses(opener: Opener) -> None:
    store = await opener()
    await store.close()
    with pytest.raises(StoreError):
        await get_object(store, b"b", b"k")
    with pytest.raises(StoreError):
        await put_objects(store, b"b", b"k")
    assert await store.check() is not None
