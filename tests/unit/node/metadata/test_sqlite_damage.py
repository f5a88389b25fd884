"""SQLite files that came out of a crash torn, that are damaged, or that another process holds."""

from __future__ import annotations

import random
import re
import shutil
import sqlite3
import threading
from collections import Counter
from contextlib import closing, suppress
from pathlib import Path

import pytest

from astra.errors import Fatal, StoreError
from astra.model import INLINE, MANIFESTS, OBJECTS, TABLES, Doc, Key, Table
from astra.ports import MetadataView
from astra.wire import Entry, EntryKind, Membership
from node.metadata.rows import DamagedRow, DamagedTables
from node.metadata.sqlite import SqliteMetadataStore
from node.metadata.sqlite_engine import PAGE_BYTES, WAL_PAGES_MAX
from node.raft.types import HardState
from tests.support.scrub import fill_all, key_of, verify_all
from tests.unit.node.metadata.test_sqlite import applied_state, apply


@pytest.fixture
async def crashed(tmp_path: Path) -> Path:
    """The files of a store after kill -9, with 20 entries and applies in the WAL."""
    source = await SqliteMetadataStore.open(tmp_path / "source.db")
    raft = source.raft()
    await raft.initialize(Membership(voters=("a",)))
    for index in range(1, 21):
        entry = Entry(index, index // 5, EntryKind.COMMAND, b"x" * 500)
        hard_state = HardState(term=index // 5, voted_for="a", commit=index - 1)
        await raft.append(hard_state, None, [entry])
        await apply(source, index)
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"source.db{suffix}", tmp_path / f"crashed.db{suffix}")
    await source.close()
    return tmp_path / "crashed.db"


def used_bytes(wal: bytes) -> int:
    """The WAL is longer than what is in it."""
    return len(wal.rstrip(b"\0"))


@pytest.mark.parametrize("torn", ["cut", "zeros", "flip"])
async def test_wal_torn_anywhere_leaves_a_consistent_beginning(crashed: Path, torn: str) -> None:
    """FAULTS row 31: whatever is lost is the newest, in the log as in the tables."""
    files = [crashed, crashed.with_name(crashed.name + "-wal")]
    database, wal = (file.read_bytes() for file in files)
    ends = []
    for offset in range(0, used_bytes(wal) + 1, used_bytes(wal) // 23):
        body = bytearray(wal[:offset])
        if torn == "zeros":
            body += bytes(len(wal) - offset)
        elif torn == "flip":  # of an older write, or of none: only what follows is new
            body += bytes(byte ^ 0x5A for byte in wal[offset : offset + 4096])
        files[0].write_bytes(database)
        files[1].write_bytes(body)
        crashed.with_name(crashed.name + "-shm").unlink(missing_ok=True)
        store = await SqliteMetadataStore.open(crashed)
        applied, newest, _ = await applied_state(store)
        raft = store.raft()
        await raft.initialize(Membership(voters=("a",)))
        state = await raft.load(applied, 1 << 20)
        assert applied == newest <= state.last_index <= 20
        assert [each.index for each in state.tail] == list(range(1, state.last_index + 1))
        assert state.hard_state.term == state.last_index // 5
        ends.append(state.last_index)
        await store.close()
    assert ends == sorted(ends)
    assert len(set(ends)) > 10


async def test_damaged_page_is_never_an_answer(crashed: Path) -> None:
    """FAULTS row 36: each page in turn. What opens still answers right, or with an error."""
    store = await SqliteMetadataStore.open(crashed)
    await store.close()  # all of the WAL is in the file now
    database = crashed.read_bytes()
    outcomes: set[str] = set()
    for page in range(len(database) // PAGE_BYTES):
        for damage in (bytes(PAGE_BYTES), bytes(range(256)) * (PAGE_BYTES // 256)):
            start = page * PAGE_BYTES
            for file in crashed.parent.glob("crashed.db*"):
                file.unlink()
            crashed.write_bytes(database[:start] + damage + database[start + PAGE_BYTES :])
            outcomes.add(await read_everything(crashed))
    assert outcomes == {"DamagedTables", "DamagedRow", "DamagedLog", "right"}


async def read_everything(path: Path) -> str:
    """The name of the error, or: right."""
    store = None
    try:
        store = await SqliteMetadataStore.open(path)
        state = await store.raft().load((await applied_state(store))[0], 1 << 20)
        assert (await applied_state(store), state.last_index) == ((20, 20, 20), 20)
    except StoreError as error:
        if isinstance(error, DamagedRow):
            assert store is not None
            assert "rebuild it" in (await store.check() or "")
        return type(error).__name__
    finally:
        if store is not None:
            await store.close()
    return "right"


# --- flipped bits ----------------------------------------------------------------------------

ROWS = 150
Rows = dict[tuple[str, Key], Doc]


@pytest.fixture
async def whole(tmp_path: Path) -> Path:
    """The one file of a store with rows in all tables, in trees of more than one level."""
    path = tmp_path / "whole.db"
    store = await SqliteMetadataStore.open(path)
    await fill_all(store, ROWS)
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("VACUUM")  # no copies of what has moved to another page
    return path


async def all_rows(store: SqliteMetadataStore) -> Rows:
    """What scans give; of a table in which one fails, nothing."""
    rows: Rows = {}
    for table in TABLES:

        async def body(view: MetadataView, table: Table[Doc] = table) -> None:
            found = await view.scan(table, (), None, 10_000)
            rows.update({(table.name, key): doc for key, doc in found})

        with suppress(StoreError):
            await store.read(body)
    return rows


@pytest.mark.parametrize("table", [OBJECTS, INLINE, MANIFESTS], ids=lambda table: table.name)
async def test_bit_flipped_in_a_key_is_never_an_answer_and_is_found(
    whole: Path, table: Table[Doc]
) -> None:
    """FAULTS row 36: in the tree of the table and, where there is one, of its index, in the middle
    of a page and at its ends."""
    data, right = whole.read_bytes(), await rows_of(whole)
    hidden = 0
    for number in (0, ROWS // 2, ROWS // 2 + 1, ROWS - 1):
        for place in ends_of(data, f"{table.name}-{number:05d}".encode()):
            for bit in (0, 3, 6):
                damaged = bytearray(data)
                damaged[place] ^= 1 << bit
                whole.write_bytes(damaged)
                hidden += await is_hidden_and_found(whole, right, table, key_of(table, number))
    assert hidden, "some of them only the scrub has noticed"


def ends_of(data: bytes, text: bytes) -> list[int]:
    found = [match.end() - 1 for match in re.finditer(re.escape(text), data)]
    assert found
    return found


async def rows_of(path: Path) -> Rows:
    store = await SqliteMetadataStore.open(path)
    try:
        return await all_rows(store)
    finally:
        await store.close()


async def is_hidden_and_found(path: Path, right: Rows, table: Table[Doc], key: Key) -> bool:
    """Whether a lookup of the row finds nothing. Fails on any wrong answer, and when the damage
    is not found."""
    store = await SqliteMetadataStore.open(path)
    try:
        rows = await all_rows(store)
        assert rows.items() <= right.items(), "no row that was never stored"

        async def body(view: MetadataView) -> Doc | None:
            return await view.get(table, key)

        found = None
        is_refused = False
        try:
            found = await store.read(body)
        except DamagedRow:
            is_refused = True
        assert found in (None, right[table.name, key])
        with pytest.raises(DamagedTables):
            await verify_all(store)
        assert "rebuild it" in (await store.check() or "")
        return found is None and not is_refused
    finally:
        await store.close()


async def test_bit_flipped_anywhere_gives_no_wrong_row_and_hides_none_from_the_scrub(
    whole: Path,
) -> None:
    data, right, chance = whole.read_bytes(), await rows_of(whole), random.Random(36)
    outcomes = Counter[str]()
    for _ in range(120):
        damaged = bytearray(data)
        damaged[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        whole.write_bytes(damaged)
        outcomes[await outcome_of(whole, right)] += 1
    assert outcomes["found"] > 20
    assert outcomes["nothing lost"] > 20, "where nothing is"
    assert outcomes.total() == 120


async def outcome_of(path: Path, right: Rows) -> str:
    store = None
    try:
        store = await SqliteMetadataStore.open(path)
        rows = await all_rows(store)
        assert rows.items() <= right.items(), "no row that was never stored"
        await verify_all(store)
        assert rows == right, "what a read does not find, the scrub has to"
        return "nothing lost"
    except Fatal:
        return "found"
    finally:
        if store is not None:
            await store.close()
        for file in path.parent.glob(path.name + "-*"):
            file.unlink()


async def test_page_that_nothing_leads_to_any_more_is_found(whole: Path) -> None:
    """The rows that are left are whole, in order, and each is found."""
    with closing(sqlite3.connect(whole)) as connection:
        sql = "SELECT rootpage FROM sqlite_schema WHERE name = 'objects'"
        (root,) = connection.execute(sql).fetchone()
    data = bytearray(whole.read_bytes())
    page = memoryview(data)[(root - 1) * PAGE_BYTES : root * PAGE_BYTES]
    assert page[0] == 2, "an interior page"
    page[4] -= 1  # the number of its cells: the last one, and the page below it, are gone
    whole.write_bytes(data)
    store = await SqliteMetadataStore.open(whole)
    assert len(await all_rows(store)) < len(TABLES) * ROWS
    store._writer.wal_pages = WAL_PAGES_MAX + 1  # so much is written: no snapshot for so long
    await verify_all(store)
    store._writer.wal_pages = 0
    with pytest.raises(DamagedTables, match="SQLite: table objects"):
        await verify_all(store)
    await store.close()


async def test_lock_of_another_process_is_waited_for_and_then_an_error(
    tmp_path: Path,
) -> None:
    """FAULTS row 51: bounded, and nothing is half done."""
    store = await SqliteMetadataStore.open(tmp_path / "node.db")
    await apply(store, 1)
    store._writer.connection.execute("PRAGMA busy_timeout = 200")
    other = sqlite3.connect(tmp_path / "node.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked") as caught:
        await apply(store, 2)
    assert not isinstance(caught.value, Fatal)
    assert await applied_state(store) == (1, 1, 1), "reads go on"
    release = threading.Timer(0.05, other.execute, ("ROLLBACK",))
    release.start()
    await apply(store, 2)
    release.join()
    other.close()
    assert await applied_state(store) == (2, 2, 2)
    await store.close()
