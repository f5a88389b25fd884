"""What only PostgreSQL can do wrong: restart, vanish, lie about fsync, be somebody else's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import asyncpg
import pytest

from astra.errors import (
    AstraError,
    ConfigError,
    DamagedLog,
    ForeignDirectory,
    OldFormat,
    StoreError,
    Unavailable,
    UnknownFormat,
)
from astra.model import APPLIED_INDEX, MARKS, OBJECTS, Mark, ObjectVersion
from astra.ports import MetadataTxn, MetadataView
from astra.wire import Entry, EntryKind, Membership
from node.metadata.postgres import PostgresMetadataStore
from node.metadata.postgres_batch import build_batch
from node.metadata.postgres_link import REDO_COUNT_MAX
from node.metadata.rows import DamagedTables
from node.raft.types import HardState
from tests.support.databases import fresh_database
from tests.support.scrub import fill_all, verify_all
from tests.support.services import Services

# Servers that these tests restart; the conformance suites use the first one.
NAME, PLACE = "postgres-3", 2


@pytest.fixture
async def dsn(services: Services) -> AsyncIterator[str]:
    await asyncio.to_thread(services.start_all)  # whatever a failed test left
    async with fresh_database(services.postgres[PLACE]) as dsn:
        yield dsn


@pytest.fixture
async def store(dsn: str) -> AsyncIterator[PostgresMetadataStore]:
    store = await PostgresMetadataStore.open(dsn)
    yield store
    await store.close()


@asynccontextmanager
async def services_running(services: Services) -> AsyncIterator[None]:
    """Whatever happens inside, the server runs afterwards."""
    try:
        yield
    finally:
        await asyncio.to_thread(services.start_all)


async def raw(dsn: str, statement: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def apply(store: PostgresMetadataStore, index: int) -> None:
    async def body(txn: MetadataTxn) -> None:
        before = await txn.get(MARKS, (APPLIED_INDEX,))
        assert (before.value if before else 0) == index - 1
        doc = ObjectVersion(version_id="null", order=index, modified_ms=1, owner_id="o")
        await txn.put(OBJECTS, (b"b", b"%05d" % index), doc)
        await txn.put(MARKS, (APPLIED_INDEX,), Mark(value=index))

    await store.write(body)


async def applied(store: PostgresMetadataStore) -> tuple[int, int]:
    """Applied index and number of objects, from one snapshot."""

    async def body(view: MetadataView) -> tuple[int, int]:
        mark = await view.get(MARKS, (APPLIED_INDEX,))
        return mark.value if mark else 0, len(await view.scan(OBJECTS, (), None, 100_000))

    return await store.read(body)


@pytest.mark.parametrize("kill", [True, False])
async def test_restart_under_load_loses_and_doubles_nothing(
    services: Services, store: PostgresMetadataStore, kill: bool
) -> None:
    raft = store.raft()
    await raft.initialize(Membership(voters=("a",)))
    await raft.load(0, 0)
    stop = asyncio.Event()
    index = appended = 0
    seen: set[int] = set()
    refusals: list[AstraError] = []

    async def write() -> None:
        nonlocal index
        while not stop.is_set():
            index += 1
            await apply(store, index)  # asserts that its predecessor is there

    async def append() -> None:
        nonlocal appended
        while not stop.is_set():
            entry = Entry(appended + 1, 1, EntryKind.COMMAND, b"x" * 1000)
            await raft.append(HardState(term=1, commit=appended), None, [entry])
            appended += 1
            await asyncio.sleep(0.02)  # so that several applies are not durable yet

    async def read() -> None:
        while not stop.is_set():
            floor = index - 1  # acknowledged before the read begins
            try:
                mark, rows = await applied(store)
            except Unavailable as error:
                refusals.append(error)
                await asyncio.sleep(0.005)
            else:
                assert mark == rows
                assert mark >= floor
                seen.add(mark)

    async with services_running(services), asyncio.TaskGroup() as tasks:
        for work in (write(), append(), read()):
            tasks.create_task(work)
        for _ in range(3):
            before = index
            await asyncio.to_thread(services.kill if kill else services.stop, NAME)
            await asyncio.to_thread(services.start, NAME)
            async with asyncio.timeout(30):
                while index < before + 20:
                    await asyncio.sleep(0.01)
        stop.set()
    assert await applied(store) == (index, index)
    assert (await raft.load(0, 1 << 20)).last_index == appended
    assert refusals
    assert seen


async def test_reads_fail_at_once_and_writes_wait_while_it_is_down(
    services: Services, store: PostgresMetadataStore
) -> None:
    await apply(store, 1)
    await asyncio.to_thread(services.stop, NAME)
    try:
        with pytest.raises(Unavailable):
            async with asyncio.timeout(10):
                while True:  # the first may still be answered by a connection about to end
                    await applied(store)
        assert await store.check() is not None
        writing = asyncio.create_task(apply(store, 2))
        given_up = asyncio.create_task(apply(store, 3))
        done, _ = await asyncio.wait((writing, given_up), timeout=0.2)
        assert not done
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
    finally:
        await asyncio.to_thread(services.start, NAME)
    await writing
    assert (await applied(store))[0] >= 2
    assert await store.check() is None


async def test_walk_over_a_server_that_goes_away_says_nothing_of_the_rows(
    services: Services, store: PostgresMetadataStore
) -> None:
    await fill_all(store, 300)
    async with aclosing(store.verify()) as steps:
        await anext(steps)
        await asyncio.to_thread(services.kill, NAME)
        try:
            with pytest.raises(Unavailable):
                async for _ in steps:
                    pass
            with pytest.raises(Unavailable):
                await verify_all(store)
        finally:
            await asyncio.to_thread(services.start, NAME)
    await store.flush()  # waits until it is back
    await verify_all(store)
    assert await store.check() is None


async def test_close_while_it_is_down_ends_what_waits(services: Services, dsn: str) -> None:
    store = await PostgresMetadataStore.open(dsn)
    await asyncio.to_thread(services.stop, NAME)
    try:
        writing = asyncio.create_task(apply(store, 1))
        await asyncio.wait((writing,), timeout=0.2)
        async with asyncio.timeout(30):
            await store.close()
        with pytest.raises((StoreError, asyncio.CancelledError)):
            await writing
    finally:
        await asyncio.to_thread(services.start, NAME)


async def test_killed_connections_are_made_again(store: PostgresMetadataStore, dsn: str) -> None:
    for index in range(1, 20):
        await raw(
            dsn,
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE application_name = 'astrastorage' AND datname = current_database()",
        )
        await apply(store, index)
    await store.flush()
    assert await applied(store) == (19, 19)


async def test_redo_is_bounded_and_ends_at_a_durable_commit(store: PostgresMetadataStore) -> None:
    for index in range(1, REDO_COUNT_MAX + 20):
        await apply(store, index)
        assert len(store._link.redo) <= REDO_COUNT_MAX
    await store.flush()
    assert not store._link.redo


async def test_server_without_fsync_is_refused(services: Services, dsn: str) -> None:
    await raw(services.postgres[PLACE], "ALTER SYSTEM SET full_page_writes = off")
    try:
        await reload_and_wait(dsn, "full_page_writes", "off")
        with pytest.raises(ConfigError, match="full_page_writes"):
            await PostgresMetadataStore.open(dsn)
    finally:
        await raw(services.postgres[PLACE], "ALTER SYSTEM RESET full_page_writes")
        await reload_and_wait(dsn, "full_page_writes", "on")
    await (await PostgresMetadataStore.open(dsn)).close()


async def reload_and_wait(dsn: str, name: str, value: str) -> None:
    await raw(dsn, "SELECT pg_reload_conf()")
    async with asyncio.timeout(10):
        while True:
            connection = await asyncpg.connect(dsn)
            found = await connection.fetchval(f"SHOW {name}")
            await connection.close()
            if found == value:
                return


async def test_second_node_on_one_database_is_refused(
    store: PostgresMetadataStore, dsn: str
) -> None:
    with pytest.raises(ForeignDirectory):
        await PostgresMetadataStore.open(dsn)
    assert await store.check() is None


@pytest.mark.parametrize(("version", "error"), [(99, UnknownFormat), (1, OldFormat)])
async def test_schema_of_another_version_is_refused(
    dsn: str, version: int, error: type[Exception]
) -> None:
    await (await PostgresMetadataStore.open(dsn)).close()
    await raw(dsn, f"UPDATE astra_store SET schema_version = {version}")
    with pytest.raises(error, match=f"schema version {version}; this version knows 2"):
        await PostgresMetadataStore.open(dsn)


async def test_another_database_behind_the_same_address_is_refused(
    store: PostgresMetadataStore, dsn: str
) -> None:
    await apply(store, 1)
    await raw(
        dsn,
        "UPDATE astra_store SET store_id = gen_random_uuid(); "
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE application_name = 'astrastorage' AND datname = current_database()",
    )
    with pytest.raises(ForeignDirectory):
        await apply(store, 2)


async def test_unusable_addresses_say_so(dsn: str) -> None:
    with pytest.raises(Unavailable):
        await PostgresMetadataStore.open("postgresql://astra@127.0.0.1:1/none")
    with pytest.raises(ConfigError):
        await PostgresMetadataStore.open(dsn.rpartition("/")[0] + "/no_such_database")
    with pytest.raises(ConfigError):
        await PostgresMetadataStore.open("http://127.0.0.1/none")


async def test_damaged_document_fails_the_read_and_stops_the_writes(
    store: PostgresMetadataStore, dsn: str
) -> None:
    await apply(store, 1)
    await raw(dsn, "UPDATE objects SET doc = doc || '\\x00'::bytea")
    with pytest.raises(StoreError):
        await applied(store)
    assert "rebuild it" in (await store.check() or "")

    async def get(view: MetadataView) -> ObjectVersion | None:
        return await view.get(OBJECTS, (b"b", b"00001"))

    with pytest.raises(DamagedTables):
        await store.write(get)
    with pytest.raises(DamagedTables):
        await apply(store, 2)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE raft_entry SET data = '\\x00' WHERE idx = 3",
        "UPDATE raft_entry SET kind = 9 WHERE idx = 3",
        "DELETE FROM raft_entry WHERE idx = 3",
        "UPDATE raft_meta SET voted_for = NULL",
        "ALTER TABLE raft_meta DROP CONSTRAINT raft_meta_one_check; UPDATE raft_meta SET one = 0",
        "DELETE FROM raft_meta",
    ],
)
async def test_damage_in_the_log_is_never_skipped(
    store: PostgresMetadataStore, dsn: str, statement: str
) -> None:
    raft = store.raft()
    await raft.initialize(Membership(voters=("a",)))
    batch = [Entry(index, 3, EntryKind.COMMAND, b"data") for index in range(1, 6)]
    await raft.append(HardState(term=3, voted_for="a", commit=1), None, batch)
    await raw(dsn, statement)
    with pytest.raises(DamagedLog):
        await raft.load(0, 1 << 20)


def test_build_batch_is_one_statement_for_all_tables() -> None:
    doc = Mark(value=1)
    built = build_batch({"marks": {("a",): doc, ("b",): None}, "request_order": {(1, "r"): doc}})
    assert built is not None
    statement, arguments, size = built
    assert statement.count("INSERT INTO") == 2
    assert statement.count("DELETE FROM") == 1
    assert [len(argument) for argument in arguments] == [1] * 8
    assert size > 0
    assert build_batch({}) is None
