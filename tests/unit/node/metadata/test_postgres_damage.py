"""Bits flipped in the files of a PostgreSQL that has no data checksums (FAULTS row 36)."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import asyncpg
import pytest

from astra.errors import DamagedLog
from astra.model import MARKS, OBJECTS, Key, ObjectVersion
from astra.ports import MetadataView
from node.metadata.postgres import PostgresMetadataStore
from node.metadata.rows import DamagedRow, DamagedTables
from tests.support.databases import fresh_database
from tests.support.metadata import export_all, scan_objects
from tests.support.scrub import fill_all, key_of, verify_all
from tests.support.services import Services

# Restarted by each test; the conformance suites use the first one.
NAME, PLACE = "postgres-3", 2
PAGE_BYTES: Final = 8192
ROWS: Final = 700  # so that indexes have several pages
NUMBER: Final = 350
KEY: Final = key_of(OBJECTS, NUMBER)
TEXT: Final = b"objects-%05d" % NUMBER
LINE_POINTERS: Final = 24  # where they begin in a page
DEAD: Final = 3 << 15  # both flags of a line pointer

Change = Callable[[bytearray], None]


@pytest.fixture
async def dsn(services: Services) -> AsyncIterator[str]:
    await asyncio.to_thread(services.start_all)
    async with fresh_database(services.postgres[PLACE]) as dsn:
        store = await PostgresMetadataStore.open(dsn)
        await fill_all(store, ROWS)
        await store.close()
        yield dsn


async def damaged(
    services: Services, dsn: str, relation: str, change: Change
) -> PostgresMetadataStore:
    """A store on the database after its file of a table or index was changed."""
    connection = await asyncpg.connect(dsn)
    directory = await connection.fetchval("SHOW data_directory")
    path = Path(
        directory, await connection.fetchval("SELECT pg_relation_filepath($1::regclass)", relation)
    )
    await connection.close()
    await asyncio.to_thread(services.stop, NAME)
    try:
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)
    finally:
        await asyncio.to_thread(services.start, NAME)
    return await PostgresMetadataStore.open(dsn)


def flip_key(data: bytearray) -> None:
    """The last bit but one of its last byte."""
    place = data.index(TEXT) + len(TEXT) - 1
    assert data.count(TEXT) in (1, 2), "bucket and key of one row"
    data[place] ^= 2


def flip_text(data: bytearray) -> None:
    place = data.index(b"marks-00350")
    data[place] ^= 0x80


def hide(text: bytes) -> Change:
    """The line pointer of an index entry says that it is dead: one bit more."""

    def change(data: bytearray) -> None:
        place = data.index(text)
        page = place // PAGE_BYTES * PAGE_BYTES
        (lower,) = struct.unpack_from("<H", data, page + 12)
        for at in range(page + LINE_POINTERS, page + lower, 4):
            (pointer,) = struct.unpack_from("<I", data, at)
            start, length = page + (pointer & 0x7FFF), pointer >> 17
            if start <= place < start + length:
                struct.pack_into("<I", data, at, pointer | DEAD)
                return
        raise AssertionError("no line pointer leads there")

    return change


def skip_a_page(data: bytearray) -> None:
    """The first leaf of an index leads to the one behind the next."""
    for page in range(PAGE_BYTES, len(data), PAGE_BYTES):
        end = page + PAGE_BYTES - 16  # previous, next, level, flags
        before, after, level = struct.unpack_from("<III", data, end)
        if level == 0 and before == 0 and after != 0:
            struct.pack_into("<I", data, end + 4, next_of(data, after))
            return
    raise AssertionError("no leaf has two behind it")


def next_of(data: bytearray, page: int) -> int:
    (after,) = struct.unpack_from("<I", data, (page + 1) * PAGE_BYTES - 12)
    assert after
    return int(after)


async def get(store: PostgresMetadataStore, key: Key) -> ObjectVersion | None:
    async def body(view: MetadataView) -> ObjectVersion | None:
        return await view.get(OBJECTS, key)

    return await store.read(body)


async def is_found(store: PostgresMetadataStore) -> None:
    with pytest.raises(DamagedTables):
        await verify_all(store)
    assert "rebuild it" in (await store.check() or "")


async def test_bit_flipped_in_a_row_leaves_the_right_answer_or_none(
    services: Services, dsn: str
) -> None:
    """The index still has the right key."""
    store = await damaged(services, dsn, "objects", flip_key)
    assert await get(store, KEY) is not None
    with pytest.raises(DamagedRow):
        await scan_objects(store, KEY, None, 5)
    with pytest.raises(DamagedRow):
        await export_all(store)
    await is_found(store)
    await store.close()


@pytest.mark.parametrize("change", [flip_key, hide(TEXT)], ids=["flip", "hide"])
async def test_bit_flipped_in_an_index_hides_a_row_until_the_scrub_comes(
    services: Services, dsn: str, change: Change
) -> None:
    store = await damaged(services, dsn, "objects_pkey", change)
    with suppress(DamagedRow):
        assert await get(store, KEY) is None
    wrong = TEXT[:-1] + bytes([TEXT[-1] ^ 2])
    for key in ((wrong, KEY[1]), (KEY[0], wrong)):
        with suppress(DamagedRow):
            assert await get(store, key) is None, "never another row"
    if change is not flip_key:
        with pytest.raises(DamagedRow, match="700 rows, of which 699 are found"):
            await export_all(store)
    await is_found(store)
    await store.close()


async def test_pages_of_an_index_that_a_listing_passes_over_are_found(
    services: Services, dsn: str
) -> None:
    store = await damaged(services, dsn, "objects_pkey", skip_a_page)
    assert await get(store, KEY) is not None
    assert len(await scan_objects(store, (), None)) < ROWS, "every key is found, but not listed"
    with pytest.raises(DamagedRow):
        await export_all(store)
    await is_found(store)
    await store.close()


async def test_name_that_is_no_text_any_more_is_damage(services: Services, dsn: str) -> None:
    store = await damaged(services, dsn, "marks", flip_text)

    async def scan(view: MetadataView) -> None:
        await view.scan(MARKS, (), None, ROWS)

    for _ in range(10):  # the connection is good for the next one
        with pytest.raises(DamagedRow):
            await store.read(scan)
    assert await get(store, KEY) is not None
    await is_found(store)
    await store.close()


async def test_last_log_entry_that_its_index_hides_is_missed(services: Services, dsn: str) -> None:
    """No gap says so: it would be as if it had never been acknowledged."""
    store = await damaged(services, dsn, "raft_entry_pkey", hide(struct.pack("<q", ROWS)))
    with pytest.raises(DamagedLog, match="index of the log"):
        await store.raft().load(0, 1 << 20)
    with pytest.raises(DamagedLog, match="index of the log"):
        await verify_all(store)
    await store.close()
