"""Verifying a whole database: one suite for every MetadataStore (FAULTS row 36)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from astra.errors import DamagedLog, Fatal, StoreError
from astra.model import BLOBS, INLINE, OBJECTS, TABLES, Inline, ObjectVersion
from astra.ports import MetadataStore, MetadataTxn, MetadataView
from astra.wire import Entry, EntryKind, Membership
from node.metadata.rows import DamagedRow, DamagedTables
from node.metadata.sqlite import SqliteMetadataStore
from node.raft.types import SnapshotMark
from tests.conformance.conftest import BACKENDS
from tests.support.metadata import Opener, export_all, put_objects, scan_objects, version
from tests.support.scrub import (
    SqlStore,
    change_behind,
    fill_all,
    key_of,
    verify_all,
    verify_some,
)

ROWS = 300


@pytest.fixture
async def store(opener: Opener) -> MetadataStore:
    store = await opener()
    await fill_all(store, ROWS)
    return store


@pytest.fixture
async def sql_store(store: MetadataStore) -> SqlStore:
    assert isinstance(store, SqlStore)
    return store


async def test_healthy_store_is_verified_whole_and_in_steps(store: MetadataStore) -> None:
    costs = await verify_all(store)
    assert len(costs) >= len(TABLES)
    assert sum(costs) > 0
    assert await store.check() is None


async def test_empty_store_is_well(opener: Opener) -> None:
    store = await opener()
    await verify_all(store)
    assert await store.check() is None


async def test_walk_that_is_given_up_anywhere_starts_over(store: MetadataStore) -> None:
    steps = len(await verify_all(store))
    for count in range(0, steps, max(1, steps // 7)):
        await verify_some(store, count)
    assert len(await verify_all(store)) == steps
    await put_objects(store, b"b", b"k")  # nothing is held
    assert await scan_objects(store, (b"b",), None, 1)


async def test_walk_that_is_cancelled_holds_nothing(store: MetadataStore) -> None:
    for _ in range(5):
        walking = asyncio.create_task(verify_all(store))
        await asyncio.wait((walking,), timeout=0.01)
        walking.cancel()
        await asyncio.wait((walking,))
    await put_objects(store, b"b", b"k")
    await verify_all(store)


async def test_rows_that_come_change_and_go_meanwhile_are_no_damage(store: MetadataStore) -> None:
    chance = random.Random(1)
    await verify_while(store, lambda: store.write(some_changes(chance)))


async def verify_while(store: MetadataStore, change: Callable[[], Awaitable[None]]) -> None:
    """Three walks find no damage, while changes follow each other."""
    is_over = False

    async def go_on() -> None:
        while not is_over:
            await change()
            await asyncio.sleep(0)  # a store in memory never waits by itself

    changing = asyncio.create_task(go_on())
    for _ in range(3):
        await verify_all(store)
    is_over = True
    await changing
    assert await store.check() is None


def some_changes(chance: random.Random) -> Callable[[MetadataTxn], Awaitable[None]]:
    async def body(txn: MetadataTxn) -> None:
        for _ in range(50):
            number = chance.randrange(2 * ROWS)
            if chance.random() < 0.5:
                await txn.put(OBJECTS, key_of(OBJECTS, number), version(number, "e" * number))
                await txn.put(INLINE, key_of(INLINE, number), Inline(data=bytes(10 * number)))
            else:
                await txn.delete(OBJECTS, key_of(OBJECTS, number))
                await txn.delete(INLINE, key_of(INLINE, number))
                await txn.delete(BLOBS, key_of(BLOBS, number))

    return body


@pytest.mark.parametrize("opener", BACKENDS[1:], indirect=True)
async def test_log_that_is_cut_compacted_and_written_meanwhile_is_no_damage(
    sql_store: SqlStore,
) -> None:
    raft, last, term = sql_store.raft(), ROWS, 1
    membership = Membership(voters=("a",))

    async def cut_write_and_compact() -> None:
        nonlocal last, term
        term += 1
        entries = [Entry(last - 2 + n, term, EntryKind.COMMAND, b"data") for n in range(5)]
        await raft.append(None, last - 2, entries)
        last += 2
        await raft.compact(SnapshotMark(index=last - 100, term=1, membership=membership))

    await verify_while(sql_store, cut_write_and_compact)


async def test_tables_that_are_replaced_meanwhile_are_no_damage(
    store: MetadataStore, opener: Opener
) -> None:
    other = await opener()
    await fill_all(other, ROWS // 2)
    walking = asyncio.create_task(verify_all(store))
    await store.replace(other.export())
    await walking
    await verify_all(store)
    assert await store.check() is None


async def test_closed_store_is_not_damaged(opener: Opener) -> None:
    store = await opener()
    await fill_all(store, 3)
    await store.close()
    with pytest.raises(StoreError) as caught:
        await verify_all(store)
    assert not isinstance(caught.value, Fatal)


# --- damage ----------------------------------------------------------------------------------


@pytest.mark.parametrize("opener", BACKENDS[1:], indirect=True)
@pytest.mark.parametrize(
    ("change", "error"),
    [
        ("UPDATE marks SET name = 'mbrks-00150' WHERE name = 'marks-00150'", DamagedTables),
        ("UPDATE blobs SET crc = crc + 1 WHERE blob_id = 'blobs-00000'", DamagedTables),
        (
            "UPDATE inline_data SET blob_id = 'zzz' WHERE blob_id = 'inline_data-00150'",
            DamagedTables,
        ),
        ("UPDATE parts SET number = number - 2000 WHERE number = 1150", DamagedTables),
        ("UPDATE manifests SET doc = substr(doc, 2) WHERE order_ = 1299", DamagedTables),
        ("UPDATE raft_entry SET data = substr(data, 2) WHERE idx = 150", DamagedLog),
        ("UPDATE raft_entry SET idx = 1000 WHERE idx = 300", DamagedLog),
        ("DELETE FROM raft_entry WHERE idx = 150", DamagedLog),
        ("UPDATE raft_meta SET term = 5", DamagedLog),
        ("UPDATE ledger SET name = 'n3' WHERE name = 'n2'", DamagedLog),
    ],
)
async def test_damage_anywhere_is_found_and_said(
    sql_store: SqlStore, change: str, error: type[Exception]
) -> None:
    await change_behind(sql_store, change)
    with pytest.raises(error):
        await verify_all(sql_store)
    assert "rebuild it" in (await sql_store.check() or "")


@pytest.mark.parametrize("opener", BACKENDS[1:], indirect=True)
async def test_row_of_another_table_is_damage(sql_store: SqlStore) -> None:
    """With its own key and its own document."""
    await change_behind(
        sql_store,
        "INSERT INTO garbage SELECT * FROM blobs WHERE blob_id = 'blobs-00150'",
    )
    with pytest.raises(DamagedTables, match="table garbage"):
        await verify_all(sql_store)


@pytest.mark.parametrize("opener", BACKENDS[1:], indirect=True)
async def test_row_under_a_key_that_is_not_its_own_is_never_an_answer(sql_store: SqlStore) -> None:
    own = key_of(OBJECTS, 150)
    wrong = (own[0], b"ocjects-00150")

    async def get(view: MetadataView) -> ObjectVersion | None:
        return await view.get(OBJECTS, wrong)

    kind = "BLOB" if isinstance(sql_store, SqliteMetadataStore) else "BYTEA"
    await change_behind(
        sql_store,
        f"UPDATE objects SET \"key\" = CAST('ocjects-00150' AS {kind}) "
        f"WHERE \"key\" = CAST('objects-00150' AS {kind})",
    )
    for long in (False, True):
        with pytest.raises(DamagedRow):
            await sql_store.read(get, long=long)
        with pytest.raises(DamagedRow):
            await scan_objects(sql_store, (own[0],), None, 1, long=long)
    with pytest.raises(DamagedRow):
        await export_all(sql_store)
    with pytest.raises(DamagedTables):
        await verify_all(sql_store)
    assert len(await scan_objects(sql_store, (), own)) == 150, "what is whole is read"
    with pytest.raises(DamagedTables):
        await sql_store.write(get)
