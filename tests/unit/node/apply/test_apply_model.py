"""Random commands agree with the model of tests/support/s3_model.py, in any batches and on every
store."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from astra.model import (
    D,
    Key,
    Table,
)
from astra.ports import MetadataStore, MetadataTxn
from node.apply import apply_entries
from node.metadata.memory import MemoryMetadataStore
from node.metadata.postgres import PostgresMetadataStore
from node.metadata.sqlite import SqliteMetadataStore
from tests.support.metadata_entries import apply_to, dump
from tests.support.s3_model import BUCKET, random_history


@pytest.mark.parametrize("seed", range(20))
async def test_apply_random_commands_agree_with_the_model(seed: int) -> None:
    await random_history(seed, 200, check_every=1)


@pytest.mark.parametrize("seed", range(100, 105))
async def test_apply_same_log_in_any_batches_gives_equal_tables(seed: int) -> None:
    run = await random_history(seed, 300, check_every=300)
    chance = random.Random(seed)
    expected = await dump(run.tables.store)
    for largest in (1, 7, len(run.tables.log)):
        store = MemoryMetadataStore()
        start = 0
        while start < len(run.tables.log):
            count = chance.randrange(1, largest + 1)
            await apply_to(store, run.tables.log[start : start + count])
            start += count
        assert await dump(store) == expected


class _ReadingMany:
    """A transaction of a store that reads many rows in one call; counts the calls."""

    def __init__(self, txn: MetadataTxn) -> None:
        self._txn = txn
        self.put, self.delete = txn.put, txn.delete
        self.calls = 0

    async def get(self, table: Table[D], key: Key) -> D | None:
        self.calls += 1
        return await self._txn.get(table, key)

    async def get_many(self, table: Table[D], keys: Sequence[Key]) -> dict[Key, D | None]:
        self.calls += 1
        return {key: await self._txn.get(table, key) for key in keys}

    async def scan(
        self, table: Table[D], start: Key, end: Key | None, limit: int
    ) -> Sequence[tuple[Key, D]]:
        self.calls += 1
        return await self._txn.scan(table, start, end, limit)


async def test_apply_on_a_store_that_reads_many_at_once_is_equal_in_few_calls() -> None:
    run = await random_history(300, 300, check_every=300)
    puts = [run.tables.entry(run.tables.put(BUCKET, b"new-%d" % n)) for n in range(100)]
    log, start = run.tables.log, len(run.tables.log) - len(puts)
    plain, many = MemoryMetadataStore(), MemoryMetadataStore()
    await apply_to(plain, log)

    async def apply_some(first: int, last: int) -> int:
        async def body(txn: MetadataTxn) -> int:
            counted = _ReadingMany(txn)
            await apply_entries(counted, log[first:last])
            return counted.calls

        return await many.write(body)

    await apply_some(0, start)
    assert await apply_some(start, len(log)) <= 10
    assert await dump(many) == await dump(plain)


async def _check_on(store: MetadataStore) -> None:
    run = await random_history(200, 400, check_every=400)
    for start in range(0, len(run.tables.log), 11):
        await apply_to(store, run.tables.log[start : start + 11])
    assert await dump(store) == await dump(run.tables.store)


async def test_apply_on_sqlite_gives_the_tables_of_memory(tmp_path: Path) -> None:
    store = await SqliteMetadataStore.open(tmp_path / "node.db")
    try:
        await _check_on(store)
    finally:
        await store.close()


async def test_apply_on_postgres_gives_the_tables_of_memory(postgres_dsn: str) -> None:
    store = await PostgresMetadataStore.open(postgres_dsn)
    try:
        await _check_on(store)
    finally:
        await store.close()
