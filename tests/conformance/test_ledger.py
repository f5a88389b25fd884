"""One suite for every Ledger: memory, SQLite and PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest

from astra.errors import DamagedLog
from node.ledger import Ledger, MemoryLedger
from node.metadata.postgres import PostgresMetadataStore
from node.metadata.sqlite import SqliteMetadataStore
from tests.conformance.conftest import BACKENDS
from tests.support.databases import fresh_database
from tests.support.metadata import put_objects
from tests.support.services import Services

Open = Callable[[], Awaitable[SqliteMetadataStore | PostgresMetadataStore | None]]


@pytest.fixture
async def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the one database again, after closing it; None for memory."""
    opened: list[SqliteMetadataStore | PostgresMetadataStore] = []
    async with AsyncExitStack() as databases:
        dsn = ""
        if request.param == "postgres":
            services: Services = request.getfixturevalue("services")
            dsn = await databases.enter_async_context(fresh_database(services.postgres[0]))

        async def open_again() -> SqliteMetadataStore | PostgresMetadataStore | None:
            for store in opened:
                await store.close()
            if request.param == "memory":
                return None
            if dsn:
                opened.append(await PostgresMetadataStore.open(dsn))
            else:
                opened.append(await SqliteMetadataStore.open(tmp_path / "node.db"))
            return opened[-1]

        yield open_again
        for store in opened:
            await store.close()


@pytest.mark.parametrize("open_store", BACKENDS, indirect=True)
async def test_rows_are_kept_replaced_and_left_alone(open_store: Open) -> None:
    memory = MemoryLedger()

    async def reopened() -> Ledger:
        store = await open_store()
        return memory if store is None else store.ledger()

    ledger = await reopened()
    assert await ledger.read() == {}
    await ledger.write({"/own": b"1", "n1": b"\x00\xff" * 100, "n2": b""})
    ledger = await reopened()
    assert await ledger.read() == {"/own": b"1", "n1": b"\x00\xff" * 100, "n2": b""}
    await ledger.write({"n2": b"2"})
    await ledger.write({})
    assert await (await reopened()).read() == {"/own": b"1", "n1": b"\x00\xff" * 100, "n2": b"2"}


@pytest.mark.parametrize("open_store", BACKENDS[1:], indirect=True)
async def test_snapshot_of_another_node_takes_nothing_from_the_ledger(open_store: Open) -> None:
    store = await open_store()
    assert store is not None
    await put_objects(store, b"b", b"k")
    await store.ledger().write({"n2": b"mine"})
    await store.replace(store.export())
    assert await store.ledger().read() == {"n2": b"mine"}


@pytest.mark.parametrize("open_store", BACKENDS[1:], indirect=True)
@pytest.mark.parametrize("change", ["doc = substr(doc, 2)", "name = 'n3'"])
async def test_damaged_row_is_a_damaged_log(open_store: Open, change: str) -> None:
    """What was seen of one node would pass for what was seen of another."""
    store = await open_store()
    assert store is not None
    await store.ledger().write({"n2": b"mine"})
    if isinstance(store, SqliteMetadataStore):
        store._writer.connection.execute("UPDATE ledger SET " + change)
    else:
        connection = await asyncpg.connect(store._link.dsn)
        await connection.execute("UPDATE ledger SET " + change)
        await connection.close()
    with pytest.raises(DamagedLog):
        await store.ledger().read()
