"""Stores full of rows, raw changes behind their backs, and walks over them."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import aclosing, closing
from typing import Final

import asyncpg

from astra.model import (
    APPLIED_INDEX,
    MARKS,
    TABLES,
    AccessKey,
    Blob,
    Bucket,
    Column,
    Doc,
    Dropped,
    Garbage,
    Inline,
    Key,
    Manifest,
    Mark,
    NodeInfo,
    ObjectVersion,
    Part,
    Remembered,
    Table,
    Upload,
    User,
    VersionRef,
)
from astra.ports import MetadataStore, MetadataTxn
from astra.wire import Entry, EntryKind, Membership
from node.metadata.postgres import PostgresMetadataStore
from node.metadata.sqlite import SqliteMetadataStore
from node.raft.types import HardState
from tests.support.metadata import version

SqlStore = SqliteMetadataStore | PostgresMetadataStore

_DOCS: Final[dict[type[Doc], Doc]] = {
    Mark: Mark(value=7),
    User: User(user_id="u", display_name="d"),
    AccessKey: AccessKey(access_key="a", user_id="u", secret="s"),
    NodeInfo: NodeInfo(node_id="n", address="h:1"),
    Bucket: Bucket(name="b", owner_id="o", created_ms=1, epoch=1),
    ObjectVersion: version(1),
    VersionRef: VersionRef(order=1),
    Manifest: Manifest(
        parts=tuple(Part(number=n, size=1, etag="e", extents=()) for n in range(99))
    ),
    Upload: Upload(upload_id="u", owner_id="o", initiated_ms=1),
    Part: Part(number=1, size=1, etag="e", extents=()),
    Blob: Blob(size=1, references=1, holders=("n1", "n2", "n3")),
    Inline: Inline(data=b"some bytes" * 50),
    Garbage: Garbage(holders=("n1",), since_ms=1),
    Remembered: Remembered(index=1, result=b"r"),
    Dropped: Dropped(since_ms=1),
}


def key_of(table: Table[Doc], number: int) -> Key:
    """Its text and bytes are in no other table."""
    text = f"{table.name}-{number:05d}"
    parts: dict[Column, bytes | str | int] = {
        Column.BYTES: text.encode(),
        Column.TEXT: text,
        Column.INTEGER: 1000 + number,
    }
    return tuple(parts[column] for _, column in table.columns)


async def fill_all(store: MetadataStore, rows: int) -> None:
    """So many rows in each table, and in the log of an SQL store."""

    async def body(txn: MetadataTxn) -> None:
        for table in TABLES:
            for number in range(rows):
                await txn.put(table, key_of(table, number), _DOCS[table.doc])
        await txn.put(MARKS, (APPLIED_INDEX,), Mark(value=rows))

    await store.write(body)
    if isinstance(store, SqlStore):
        raft = store.raft()
        await raft.initialize(Membership(voters=("a",)))
        await raft.load(0, 0)
        entries = [Entry(index, 1, EntryKind.COMMAND, b"data") for index in range(1, rows + 1)]
        await raft.append(HardState(term=1, voted_for="a", commit=0), None, entries)
        await store.ledger().write({"n1": b"mine", "n2": b"yours"})


async def verify_all(store: MetadataStore) -> list[int]:
    """What each step of a whole walk cost."""
    async with aclosing(store.verify()) as steps:
        return [cost async for cost in steps]


async def verify_some(store: MetadataStore, count: int) -> None:
    """The first steps of a walk that is then given up."""
    async with aclosing(store.verify()) as steps:
        for _ in range(count):
            await anext(steps)


async def change_behind(store: SqlStore, *statements: str) -> None:
    """Runs SQL on a connection of its own: the store does not know."""
    if isinstance(store, SqliteMetadataStore):
        await asyncio.to_thread(_change_sqlite, store, statements)
        return
    connection = await asyncpg.connect(store._link.dsn)
    try:
        await connection.execute(";".join(statements))
    finally:
        await connection.close()


def _change_sqlite(store: SqliteMetadataStore, statements: tuple[str, ...]) -> None:
    with closing(sqlite3.connect(store._path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
