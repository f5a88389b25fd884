"""What only SQLite can do wrong: crashes, damage, a full disk, other people's files."""

from __future__ import annotations

import asyncio
import resource
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astra.errors import (
    DamagedLog,
    Fatal,
    ForeignDirectory,
    FsyncFailed,
    StorageFull,
    StoreError,
    UnknownFormat,
)
from astra.model import (
    APPLIED_INDEX,
    INLINE,
    MARKS,
    OBJECTS,
    PARTS,
    Inline,
    Key,
    Mark,
    ObjectVersion,
    Part,
)
from astra.ports import MetadataStore, MetadataTxn, MetadataView
from astra.wire import Entry, EntryKind, Membership
from node.metadata.memory import MemoryMetadataStore
from node.metadata.rows import DamagedTables
from node.metadata.sqlite import SqliteMetadataStore
from node.metadata.sqlite_engine import CHECKPOINT_PAGES, PAGE_BYTES
from node.raft.types import HardState

ROOT = Path(__file__).resolve().parents[4]


def version(order: int) -> ObjectVersion:
    return ObjectVersion(version_id="null", order=order, modified_ms=1, owner_id="o")


async def apply(store: MetadataStore, index: int, data: bytes = b"") -> None:
    async def body(txn: MetadataTxn) -> None:
        await txn.put(OBJECTS, (b"b", b"%d" % (index % 50)), version(index))
        await txn.put(INLINE, (f"{index % 50:032x}",), Inline(data=data or b"%d" % index))
        await txn.put(MARKS, (APPLIED_INDEX,), Mark(value=index))

    await store.write(body)


async def applied_state(store: MetadataStore) -> tuple[int, int, int]:
    """Applied index, newest object, rows: from one snapshot."""

    async def body(view: MetadataView) -> tuple[int, int, int]:
        mark = await view.get(MARKS, (APPLIED_INDEX,))
        rows = await view.scan(OBJECTS, (), None, 1000)
        return mark.value if mark else 0, max((doc.order for _, doc in rows), default=0), len(rows)

    return await store.read(body)


# --- crashes ---------------------------------------------------------------------------------

CRASH_WRITER = """
import asyncio, sys
from pathlib import Path
from astra.wire import Entry, EntryKind, Membership
from node.metadata.sqlite import SqliteMetadataStore
from node.raft.types import HardState
from tests.unit.node.metadata.test_sqlite import applied_state, apply

async def main():
    store = await SqliteMetadataStore.open(Path(sys.argv[1]))
    raft = store.raft()
    await raft.initialize(Membership(voters=("a",)))
    applied, _, _ = await applied_state(store)
    index = (await raft.load(applied, 0)).last_index
    for late in range(applied + 1, index + 1):  # written to the log before the kill, not applied
        await apply(store, late, b"y" * 5000)
    while True:
        index += 1
        entry = Entry(index, 1, EntryKind.COMMAND, b"x" * 5000)
        await raft.append(HardState(term=1, commit=index - 1), None, [entry])
        await apply(store, index, b"y" * 5000)
        print(index, flush=True)

asyncio.run(main())
"""


async def run_until_killed(path: Path, script: str, lines: int) -> int:
    """Runs a writer, kills it once it has said `lines` lines; the last number it said."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, str(path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    for _ in range(lines):
        assert await process.stdout.readline()
    process.kill()
    rest = await process.stdout.read()
    assert await process.wait() == -signal.SIGKILL
    said = [int(line) for line in rest.split(b"\n")[:-1]]
    return said[-1] if said else lines


async def test_killed_writer_leaves_log_and_tables_that_agree(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    index = 0
    for lines in (30, 1, 700):
        await run_until_killed(path, CRASH_WRITER, lines)
        store = await SqliteMetadataStore.open(path)
        applied, newest, rows = await applied_state(store)
        state = await store.raft().load(applied, 1 << 20)
        assert applied == newest
        assert rows == min(applied, 50)
        assert applied >= index + lines
        assert applied <= state.last_index <= applied + 1
        index = state.last_index
        await store.close()


CRASH_IN_REPLACE = """
import asyncio, os, signal, sys
from pathlib import Path
from node.metadata.memory import MemoryMetadataStore
from node.metadata.sqlite import SqliteMetadataStore
from tests.unit.node.metadata.test_sqlite import apply

async def main():
    source = MemoryMetadataStore()
    for index in range(1, 101):
        await apply(source, index, b"z" * 100_000)
    store = await SqliteMetadataStore.open(Path(sys.argv[1]))
    async def pieces():
        number = 0
        async for piece in source.export():
            number += 1
            if number == 4:
                os.kill(os.getpid(), signal.SIGKILL)
            yield piece
    await store.replace(pieces())

asyncio.run(main())
"""


async def test_replace_killed_in_the_middle_leaves_the_old_tables(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    store = await SqliteMetadataStore.open(path)
    for index in range(1, 11):
        await apply(store, index)
    await store.close()
    await run_until_killed(path, CRASH_IN_REPLACE, 0)
    store = await SqliteMetadataStore.open(path)
    assert await applied_state(store) == (10, 10, 10)
    await store.close()
    tables = {name for (name,) in raw(path, "SELECT name FROM sqlite_schema")}
    assert not {name for name in tables if name.startswith(("new_", "old_"))}


def raw(path: Path, *statements: str) -> list[tuple[str]]:
    """What the last one gives."""
    connection = sqlite3.connect(path)
    try:
        rows: list[tuple[str]] = []
        for statement in statements:
            rows = connection.execute(statement).fetchall()
        connection.commit()
        return rows
    finally:
        connection.close()


# --- damage ----------------------------------------------------------------------------------


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteMetadataStore]:
    store = await SqliteMetadataStore.open(tmp_path / "node.db")
    yield store
    await store.close()


async def test_damaged_document_fails_the_read_and_stops_the_writes(
    store: SqliteMetadataStore, tmp_path: Path
) -> None:
    await apply(store, 1)
    raw(tmp_path / "node.db", "UPDATE objects SET doc = x'94a46e756c6c0201a16f'")

    async def get(view: MetadataView) -> ObjectVersion | None:
        return await view.get(OBJECTS, (b"b", b"1"))

    with pytest.raises(StoreError) as caught:
        await store.read(get)
    assert not isinstance(caught.value, Fatal)
    assert "rebuild it" in (await store.check() or "")
    with pytest.raises(DamagedTables):
        await store.write(get)
    with pytest.raises(DamagedTables):
        await apply(store, 2)
    assert await store.check() is not None


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE raft_entry SET data = x'00' WHERE idx = 3",
        "UPDATE raft_entry SET term = 2 WHERE idx = 3",
        "UPDATE raft_entry SET kind = 9 WHERE idx = 3",
        "DELETE FROM raft_entry WHERE idx = 3",
        "UPDATE raft_meta SET voted_for = NULL",
        "UPDATE raft_meta SET term = 7",
        "UPDATE raft_meta SET mark_membership = x'c1'",
        "UPDATE raft_meta SET note_crc = 1",
        "UPDATE raft_meta SET note = NULL",
        "DELETE FROM raft_meta",
    ],
)
async def test_damage_in_the_log_is_never_skipped(
    store: SqliteMetadataStore, tmp_path: Path, statement: str
) -> None:
    raft = store.raft()
    await raft.initialize(Membership(voters=("a",)))
    batch = [Entry(index, 3, EntryKind.COMMAND, b"data") for index in range(1, 6)]
    await raft.append(HardState(term=3, voted_for="a", commit=1), None, batch)
    mark = (await raft.load(0, 0)).mark
    await raft.prepare_install(mark)
    raw(tmp_path / "node.db", statement)
    with pytest.raises(DamagedLog):
        await raft.load(99, 1 << 20)


async def test_hard_state_under_another_key_is_never_left_behind(
    store: SqliteMetadataStore, tmp_path: Path
) -> None:
    """Else the next vote would be a second row, and the older one be read after a restart."""
    raft = store.raft()
    await raft.initialize(Membership(voters=("a",)))
    raw(
        tmp_path / "node.db", "PRAGMA ignore_check_constraints = ON", "UPDATE raft_meta SET one = 0"
    )
    with pytest.raises(DamagedLog):
        await raft.append(HardState(term=3, voted_for="a", commit=0), None, [])
    with pytest.raises(DamagedLog):
        await raft.load(0, 0)


async def test_damaged_entry_is_not_read(store: SqliteMetadataStore, tmp_path: Path) -> None:
    raft = store.raft()
    await raft.initialize(Membership(voters=("a",)))
    await raft.append(None, None, [Entry(1, 1, EntryKind.COMMAND, b"data")])
    raw(tmp_path / "node.db", "UPDATE raft_entry SET data = x'00'")
    with pytest.raises(DamagedLog):
        await raft.read_entries(1, 1, 100)


async def test_newer_schema_is_an_unknown_format(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    await (await SqliteMetadataStore.open(path)).close()
    raw(path, "UPDATE astra_store SET schema_version = 99")
    with pytest.raises(UnknownFormat):
        await SqliteMetadataStore.open(path)


async def test_file_of_another_program_is_refused_untouched(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    raw(path, "CREATE TABLE theirs (a)")
    with pytest.raises(ForeignDirectory):
        await SqliteMetadataStore.open(path)
    assert raw(path, "SELECT name FROM sqlite_schema") == [("theirs",)]


async def test_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    path.write_bytes(b"not a database" * 1000)
    with pytest.raises(DamagedTables):
        await SqliteMetadataStore.open(path)


async def test_missing_directory_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        await SqliteMetadataStore.open(tmp_path / "nowhere" / "node.db")


# --- a disk that fails -----------------------------------------------------------------------


async def test_full_disk_rolls_back_and_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    store = await SqliteMetadataStore.open(path)
    await apply(store, 1)
    connection = store._writer.connection  # the limit is one of the connection
    connection.execute("PRAGMA max_page_count = 1")  # SQLite makes it: not a page more than now
    with pytest.raises(StorageFull):
        await apply(store, 2, b"x" * 100_000)
    assert await applied_state(store) == (1, 1, 1)
    connection.execute("PRAGMA max_page_count = 1000000")
    await apply(store, 2, b"x" * 100_000)
    assert await applied_state(store) == (2, 2, 2)
    await store.close()


async def test_io_error_is_final(store: SqliteMetadataStore) -> None:
    await apply(store, 1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (PAGE_BYTES, limit[1]))  # write() fails: EFBIG
    try:
        with pytest.raises(FsyncFailed):
            await store.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, before)
    with pytest.raises(FsyncFailed):
        await apply(store, 2)
    assert await store.check() is not None
    assert (await applied_state(store))[0] == 1  # reads still answer


async def test_wal_stays_bounded_under_load(store: SqliteMetadataStore, tmp_path: Path) -> None:
    for index in range(1, 1500):
        await apply(store, index, b"x" * 60_000)
    size = (tmp_path / "node.db-wal").stat().st_size
    assert size < 4 * CHECKPOINT_PAGES * PAGE_BYTES


# --- long and abandoned transactions -----------------------------------------------------------


async def test_event_loop_runs_during_a_long_write(store: SqliteMetadataStore) -> None:
    ticks = 0
    done = asyncio.Event()

    async def tick() -> None:
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            await asyncio.sleep(0)

    async def body(txn: MetadataTxn) -> None:
        for number in range(5000):
            await txn.put(PARTS, ("u", number), Part(number=number, size=1, etag="", extents=()))

    ticking = asyncio.create_task(tick())
    await store.write(body)
    done.set()
    await ticking
    assert ticks > 10


async def test_error_late_in_a_long_write_rolls_back(store: SqliteMetadataStore) -> None:
    async def body(txn: MetadataTxn) -> None:
        for number in range(1000):
            await txn.put(PARTS, ("u", number), Part(number=number, size=1, etag="", extents=()))
        raise KeyError

    async def read(view: MetadataView) -> int:
        return len(await view.scan(PARTS, (), None, 10))

    with pytest.raises(KeyError):
        await store.write(body)
    assert await store.read(read) == 0
    await apply(store, 1)


async def test_cancelled_write_ends_before_the_next_begins(store: SqliteMetadataStore) -> None:
    async def slow(txn: MetadataTxn) -> None:
        for number in range(3000):
            await txn.put(PARTS, ("u", number), Part(number=number, size=1, etag="", extents=()))

    async def read(view: MetadataView) -> int:
        return len(await view.scan(PARTS, (), None, 10_000))

    writing = asyncio.create_task(store.write(slow))
    await asyncio.sleep(0)
    writing.cancel()
    following = asyncio.create_task(apply(store, 1))
    with pytest.raises(asyncio.CancelledError):
        await writing
    await following
    assert await store.read(read) in {0, 3000}


# --- the twin --------------------------------------------------------------------------------

KEYS = st.tuples(
    st.sampled_from([b"", b"a", b"a\x00", b"b", b"\xff"]),
    st.binary(max_size=2) | st.sampled_from([b"%", b"_", b"\xff\xff", "🦉".encode()]),
)
BOUNDS = KEYS | st.tuples(st.sampled_from([b"", b"a", b"b", b"\xff"])) | st.just(())
OPERATIONS = st.lists(
    st.tuples(st.just("put"), KEYS, st.integers(0, 9))
    | st.tuples(st.just("delete"), KEYS)
    | st.tuples(st.just("get"), KEYS)
    | st.tuples(st.just("scan"), BOUNDS, BOUNDS | st.none(), st.integers(0, 5))
    | st.tuples(st.just("commit"))
    | st.tuples(st.just("fail")),
    max_size=40,
)


class Abandon(Exception):
    """Rolls a transaction back."""


def body_of(
    operations: list[tuple[object, ...]], answers: list[object], *, fail: bool
) -> Callable[[MetadataTxn], Awaitable[None]]:
    async def body(txn: MetadataTxn) -> None:
        for name, *arguments in operations:
            if name == "put":
                await txn.put(OBJECTS, as_key(arguments[0]), version(as_int(arguments[1])))
            elif name == "delete":
                await txn.delete(OBJECTS, as_key(arguments[0]))
            elif name == "get":
                answers.append(await txn.get(OBJECTS, as_key(arguments[0])))
            else:
                start, end, limit = arguments
                until = None if end is None else as_key(end)
                rows = await txn.scan(OBJECTS, as_key(start), until, as_int(limit))
                answers.append(list(rows))
        if fail:
            raise Abandon

    return body


def as_key(value: object) -> Key:
    assert isinstance(value, tuple)
    return value


def as_int(value: object) -> int:
    assert isinstance(value, int)
    return value


async def answers_of(store: MetadataStore, operations: list[tuple[object, ...]]) -> list[object]:
    """Runs the operations in transactions that end at "commit" and "fail"."""
    answers: list[object] = []
    pending: list[tuple[object, ...]] = []
    for operation in [*operations, ("commit",)]:
        if operation[0] not in {"commit", "fail"}:
            pending.append(operation)
            continue
        try:
            await store.write(body_of(pending, answers, fail=operation[0] == "fail"))
        except Abandon:
            answers.append("abandoned")
        pending = []

    async def everything(view: MetadataView) -> object:
        return list(await view.scan(OBJECTS, (), None, 1000))

    answers.append(await store.read(everything))
    return answers


@given(operations=OPERATIONS)
def test_any_operations_answer_as_the_memory_twin(
    operations: list[tuple[object, ...]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    async def compare() -> None:
        store = await SqliteMetadataStore.open(tmp_path_factory.mktemp("twin") / "node.db")
        try:
            expected = await answers_of(MemoryMetadataStore(), operations)
            assert await answers_of(store, operations) == expected
        finally:
            await store.close()

    asyncio.run(compare())
