"""One suite for every RaftStorage: memory, SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from astra.errors import DamagedLog, InvariantBroken
from astra.wire import Entry, EntryKind, Membership
from node.metadata.postgres import PostgresMetadataStore
from node.metadata.sqlite import SqliteMetadataStore
from node.raft.memory import MemoryLog, MemoryStorage
from node.raft.storage import RaftStorage
from node.raft.types import HardState, SnapshotMark, TermRun
from tests.support.databases import fresh_database
from tests.support.services import Services

MEMBERS = Membership(voters=("a", "b", "c"))
OTHERS = Membership(voters=("a", "b"), learners=("d",))
TAIL = 1 << 20

BACKENDS = ["memory", "sqlite", pytest.param("postgres", marks=pytest.mark.services)]


class Disk:
    """One backend's log that can be closed and opened again."""

    def __init__(self, open_again: Callable[[], Awaitable[RaftStorage]]) -> None:
        self._open_again = open_again

    async def reopen(self) -> RaftStorage:
        return await self._open_again()


@pytest.fixture(params=BACKENDS)
async def disk(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Disk]:
    stores: list[SqliteMetadataStore | PostgresMetadataStore] = []
    log = MemoryLog()
    dsn = ""

    async def open_again() -> RaftStorage:
        if request.param == "memory":
            log.crash()
            return MemoryStorage(log)
        for store in stores:
            await store.close()
        if dsn:
            stores.append(await PostgresMetadataStore.open(dsn))
        else:
            stores.append(await SqliteMetadataStore.open(tmp_path / "raft.db"))
        return stores[-1].raft()

    async with AsyncExitStack() as databases:
        if request.param == "postgres":
            services: Services = request.getfixturevalue("services")
            dsn = await databases.enter_async_context(fresh_database(services.postgres[0]))
        yield Disk(open_again)
        for store in stores:
            await store.close()


@pytest.fixture
async def storage(disk: Disk) -> RaftStorage:
    storage = await disk.reopen()
    await storage.initialize(MEMBERS)
    return storage


def entry(index: int, term: int = 1, data: bytes = b"x", kind: int = 0) -> Entry:
    return Entry(index, term, EntryKind(kind), data)


def entries(first: int, last: int, term: int = 1, data: bytes = b"x") -> list[Entry]:
    return [entry(index, term, data) for index in range(first, last + 1)]


def mark(index: int, term: int = 1, membership: Membership = MEMBERS) -> SnapshotMark:
    return SnapshotMark(index=index, term=term, membership=membership)


async def test_load_before_initialize_is_a_damaged_log(disk: Disk) -> None:
    with pytest.raises(DamagedLog):
        await (await disk.reopen()).load(0, TAIL)


async def test_initialize_stores_the_membership_once(disk: Disk, storage: RaftStorage) -> None:
    state = await storage.load(0, TAIL)
    assert state.mark == mark(0, 0)
    assert state.hard_state == HardState()
    assert (state.last_index, state.tail, state.term_runs, state.configs) == (0, (), (), ())
    await storage.initialize(OTHERS)
    assert (await (await disk.reopen()).load(0, TAIL)).mark.membership == MEMBERS


async def test_append_survives_reopening(disk: Disk, storage: RaftStorage) -> None:
    written = [entry(1, 1, b""), entry(2, 1, b"\x00\xff" * 4096), entry(3, 4, b"c", 2)]
    hard_state = HardState(term=4, voted_for="b", commit=2)
    await storage.append(hard_state, None, written)
    state = await (await disk.reopen()).load(0, TAIL)
    assert state.hard_state == hard_state
    assert state.last_index == 3
    assert state.tail == tuple(written)
    assert state.configs == (written[2],)
    assert state.term_runs == (TermRun(index=1, term=1), TermRun(index=3, term=4))


@pytest.mark.parametrize("data", [b"\n", b"\x0a" * 9, b"", bytes(range(256)), b'{"x": 10}\n'])
async def test_any_bytes_and_any_term_survive_reopening(
    disk: Disk, storage: RaftStorage, data: bytes
) -> None:
    """No byte inside of an entry is taken for the end of it."""
    log = [entry(index, 10 * index, data) for index in range(1, 4)]
    await storage.append(HardState(term=2570, voted_for="a\nb"), None, log)
    state = await (await disk.reopen()).load(0, TAIL)
    assert state.tail == tuple(log)
    assert state.hard_state == HardState(term=2570, voted_for="a\nb")


async def test_hard_state_alone_and_entries_alone_keep_the_other(storage: RaftStorage) -> None:
    await storage.append(HardState(term=2, voted_for="c"), None, [])
    await storage.append(None, None, entries(1, 2, 2))
    await storage.append(HardState(term=3, voted_for=None, commit=1), None, [])
    state = await storage.load(0, TAIL)
    assert state.hard_state == HardState(term=3, voted_for=None, commit=1)
    assert state.last_index == 2


async def test_truncate_and_append_are_one_step(disk: Disk, storage: RaftStorage) -> None:
    await storage.append(HardState(term=1), None, entries(1, 10))
    await storage.append(HardState(term=2), 4, entries(4, 5, 2, b"new"))
    state = await (await disk.reopen()).load(0, TAIL)
    assert state.last_index == 5
    assert state.term_runs == (TermRun(index=1, term=1), TermRun(index=4, term=2))
    assert [each.data for each in state.tail] == [b"x"] * 3 + [b"new"] * 2


async def test_append_with_a_gap_is_refused_whole(storage: RaftStorage) -> None:
    await storage.append(None, None, entries(1, 3))
    for batch in ([entry(5)], [entry(3)]):
        with pytest.raises(InvariantBroken):
            await storage.append(HardState(term=9), None, batch)
    state = await storage.load(0, TAIL)
    assert state.last_index == 3
    assert state.hard_state == HardState()


async def test_tail_is_the_newest_entries_and_at_least_one(storage: RaftStorage) -> None:
    await storage.append(None, None, entries(1, 10, data=b"x" * 100))
    assert [each.index for each in (await storage.load(0, 250)).tail] == [9, 10]
    assert [each.index for each in (await storage.load(0, 0)).tail] == [10]


async def test_read_entries_is_cut_by_range_and_bytes(storage: RaftStorage) -> None:
    written = entries(1, 10, data=b"x" * 100)
    await storage.append(None, None, written)
    assert await storage.read_entries(3, 5, TAIL) == tuple(written[2:5])
    assert await storage.read_entries(3, 10, 250) == tuple(written[2:4])
    assert await storage.read_entries(3, 10, 0) == (written[2],)
    assert await storage.read_entries(9, 99, TAIL) == tuple(written[8:])
    assert await storage.read_entries(11, 12, TAIL) == ()
    assert await storage.read_entries(0, 5, TAIL) == ()


async def test_compact_drops_entries_and_moves_the_mark(disk: Disk, storage: RaftStorage) -> None:
    await storage.append(HardState(term=1), None, entries(1, 1000))
    await storage.compact(mark(990, membership=OTHERS))
    await storage.compact(mark(5))
    state = await (await disk.reopen()).load(990, TAIL)
    assert state.mark == mark(990, membership=OTHERS)
    assert state.term_runs == (TermRun(index=991, term=1),)
    assert [each.index for each in state.tail] == list(range(991, 1001))


async def test_compacted_entries_are_not_read(storage: RaftStorage) -> None:
    await storage.append(None, None, entries(1, 10))
    await storage.compact(mark(6))
    assert await storage.read_entries(6, 10, TAIL) == ()
    assert await storage.read_entries(7, 7, TAIL) == (entry(7),)


async def test_compact_of_everything_leaves_an_appendable_log(storage: RaftStorage) -> None:
    await storage.append(None, None, entries(1, 10))
    await storage.compact(mark(10))
    state = await storage.load(10, TAIL)
    assert (state.last_index, state.tail) == (10, ())
    await storage.append(None, None, entries(11, 12))
    assert (await storage.load(10, TAIL)).last_index == 12


async def test_appends_beside_compaction_all_survive(disk: Disk, storage: RaftStorage) -> None:
    await storage.append(None, None, entries(1, 1000))

    async def append_more() -> None:
        for index in range(1001, 1021):
            await storage.append(HardState(term=1, commit=index), None, [entry(index)])

    await asyncio.gather(storage.compact(mark(900)), append_more())
    state = await (await disk.reopen()).load(900, TAIL)
    assert state.last_index == 1020
    assert state.tail[0].index == 901
    assert state.hard_state.commit == 1020


async def test_install_drops_the_log_and_raises_commit(disk: Disk, storage: RaftStorage) -> None:
    await storage.append(HardState(term=5, voted_for="a", commit=3), None, entries(1, 10))
    await storage.install(mark(50, 4, OTHERS))
    state = await (await disk.reopen()).load(50, TAIL)
    assert state.mark == mark(50, 4, OTHERS)
    assert state.hard_state == HardState(term=5, voted_for="a", commit=50)
    assert (state.last_index, state.tail) == (50, ())


async def test_install_raises_the_term_to_that_of_the_mark(
    disk: Disk, storage: RaftStorage
) -> None:
    await storage.append(HardState(term=2, voted_for="a"), None, entries(1, 3))
    await storage.install(mark(50, 4))
    state = await (await disk.reopen()).load(50, TAIL)
    assert state.hard_state == HardState(term=4, voted_for=None, commit=50)


@pytest.mark.parametrize(("applied", "index"), [(50, 50), (3, 10)])
async def test_prepared_install_is_settled_at_load(
    disk: Disk, storage: RaftStorage, applied: int, index: int
) -> None:
    await storage.append(HardState(term=5, commit=3), None, entries(1, 10))
    await storage.prepare_install(mark(50, 4))
    reopened = await disk.reopen()
    assert (await reopened.load(applied, TAIL)).last_index == index
    assert (await reopened.load(50, TAIL)).last_index == index  # settled once and for all


@pytest.mark.parametrize("compacted", [0, 3, 9])
async def test_note_of_a_broken_off_install_takes_nothing_from_a_log_that_went_on(
    disk: Disk, storage: RaftStorage, compacted: int
) -> None:
    """The entries came after all, were acknowledged, and the tables happen to be at the note."""
    await storage.append(HardState(term=1), None, entries(1, 3))
    await storage.prepare_install(mark(9))
    await storage.append(None, None, entries(4, 12))
    if compacted:
        await storage.compact(mark(compacted))
    state = await (await disk.reopen()).load(9, TAIL)
    assert (state.mark.index, state.last_index) == (compacted, 12)
    assert (await (await disk.reopen()).load(9, TAIL)).last_index == 12


async def test_note_whose_entry_differs_from_the_logs_is_the_newer_one(
    disk: Disk, storage: RaftStorage
) -> None:
    """The tables were replaced; what the log has there was never committed."""
    await storage.append(HardState(term=2), None, entries(1, 12))
    await storage.prepare_install(mark(9, 2))
    state = await (await disk.reopen()).load(9, TAIL)
    assert (state.mark, state.last_index) == (mark(9, 2), 9)


async def test_note_survives_appends_until_install(storage: RaftStorage) -> None:
    await storage.append(HardState(term=1), None, entries(1, 3))
    await storage.prepare_install(mark(9))
    await storage.append(HardState(term=2), None, entries(4, 4, 2))
    assert (await storage.load(9, TAIL)).mark == mark(9)


async def test_long_log_is_verified_whole(storage: RaftStorage) -> None:
    for term in range(1, 6):
        first = (term - 1) * 500 + 1
        await storage.append(HardState(term=term), None, entries(first, first + 499, term))
    state = await storage.load(0, 100)
    assert state.last_index == 2500
    assert state.term_runs == tuple(TermRun(index=500 * n + 1, term=n + 1) for n in range(5))
