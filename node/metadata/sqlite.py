"""MetadataStore in one SQLite file per node: the embedded default.

Rules: SQL of the tables comes from tables.py; durability and threads are sqlite_engine.py's.
Short reads run on the event loop's thread (a point read is a few microseconds of page cache);
scans run in reader threads, each with its own connection and snapshot.

`replace` loads into staging tables in many small transactions, so that Raft appends go on
meanwhile, and swaps the names in one durable transaction: a crash anywhere leaves either the
old tables or the new ones. What was put aside is deleted in small steps afterwards.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Final, TypeVar

from astra.errors import StoreError, Unavailable, WireError
from astra.model import APPLIED_INDEX, MARKS, TABLES, D, Doc, Key, Mark, Table
from astra.ports import MetadataTxn, MetadataView
from node.metadata import sqlite_schema
from node.metadata.bodies import change_thread, drive
from node.metadata.export import (
    ExportDecoder,
    ExportEncoder,
    ImportedRows,
    Recut,
    applied_of,
    decode_pieces,
    group_rows,
)
from node.metadata.rows import (
    DamagedRow,
    DamagedTables,
    check_bound,
    check_count,
    check_key,
    check_put,
    damaged,
    encode_doc,
    read_row,
    read_rows,
    row_checksum,
    verify_row,
)
from node.metadata.sqlite_engine import (
    WAL_PAGES_MAX,
    Connection,
    Readers,
    Steps,
    Worker,
    Writer,
    connect,
    connect_reader,
    grow_wal,
    read_error,
    wait_settled,
)
from node.metadata.sqlite_ledger import SqliteLedger
from node.metadata.sqlite_raft import SqliteRaftStorage
from node.metadata.sqlite_scrub import verify
from node.metadata.tables import (
    LARGE,
    RETIRED,
    SQLITE,
    STAGING,
    create_table,
    drop_table,
    scan_parameters,
    table_statements,
)

T = TypeVar("T")

INLINE_STATEMENTS_MAX: Final = 200  # then a transaction goes on in the writer thread
_TRIM_ROWS: Final = 500
_WRITER_CACHE_MIB: Final = 64
_FLUSH: Final = "UPDATE astra_store SET flushes = flushes + 1"

_SQL: Final = table_statements(SQLITE)


class _View:
    """Implements astra.ports.MetadataView inside a transaction of its connection."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Connection) -> None:
        self._connection: Final = connection

    async def get(self, table: Table[D], key: Key) -> D | None:
        key = check_key(table, key)
        try:
            row = self._connection.execute(_SQL[table.name].get, key).fetchone()
        except (OverflowError, UnicodeEncodeError):
            return None  # no row can have this key
        return None if row is None else read_row(table, key, row[0], row[1])

    async def scan(
        self, table: Table[D], start: Key, end: Key | None, limit: int
    ) -> Sequence[tuple[Key, D]]:
        check_bound(table, start)
        check_bound(table, end or ())
        start, end, limit = scan_parameters(start, end, limit)
        statement = _SQL[table.name].scan(start, end)
        rows = self._connection.execute(statement, (*start, *(end or ()), limit))
        return read_rows(table, start, end, rows)


class _Txn(_View):
    """Implements astra.ports.MetadataTxn."""

    __slots__ = ("_statements", "_writer")

    def __init__(self, writer: Writer) -> None:
        super().__init__(writer.connection)
        self._writer: Final = writer
        self._statements = 0

    async def get(self, table: Table[D], key: Key) -> D | None:
        await self._count()
        return await super().get(table, key)

    async def put(self, table: Table[D], key: Key, doc: D) -> None:
        await self._count()
        key = check_put(table, key, doc)
        data = encode_doc(doc)
        self._writer.note_bytes(len(data))
        checksum = row_checksum(table, key, data)
        self._connection.execute(_SQL[table.name].put, (*key, data, checksum))

    async def delete(self, table: Table[D], key: Key) -> None:
        await self._count()
        key = check_key(table, key)
        try:
            self._connection.execute(_SQL[table.name].delete, key)
        except (OverflowError, UnicodeEncodeError):
            return  # no row can have this key

    async def _count(self) -> None:
        self._statements += 1
        if self._statements == INLINE_STATEMENTS_MAX:
            await change_thread


class SqliteMetadataStore:
    """Implements astra.ports.MetadataStore. Made by `open`."""

    def __init__(self, path: Path, writer: Writer, readers: Readers) -> None:
        self._path = path
        self._writer = writer
        self._readers = readers
        self._raft = SqliteRaftStorage(writer, readers)
        self._ledger = SqliteLedger(writer, readers)

    @classmethod
    async def open(cls, path: Path) -> SqliteMetadataStore:
        """Opens or creates the file; its directory must exist and belong to this node only.
        Raises UnknownFormat, OldFormat, ForeignDirectory, DamagedTables, StoreError."""
        try:
            connection = await asyncio.to_thread(_open_writer, path)
            return cls(path, Writer(connection, connect(path, cache_mib=1)), Readers(path))
        except sqlite3.DatabaseError as error:
            is_damaged = isinstance(read_error(error), DamagedRow)
            kind = DamagedTables if is_damaged else StoreError
            raise kind(f"SQLite cannot open {path}: {error}") from error

    def raft(self) -> SqliteRaftStorage:
        return self._raft

    def ledger(self) -> SqliteLedger:
        return self._ledger

    async def read(self, body: Callable[[MetadataView], Awaitable[T]], *, long: bool = False) -> T:
        def in_snapshot(connection: Connection) -> T:
            return drive(body(_View(connection)))

        if long:
            return await self._readers.read_long(in_snapshot)
        return self._readers.read(in_snapshot)

    async def write(self, body: Callable[[MetadataTxn], Awaitable[T]]) -> T:
        def in_transaction(_: Connection) -> Steps[T]:
            return body(_Txn(self._writer)).__await__()

        return await self._writer.run(in_transaction, durable=False)

    async def flush(self) -> None:
        # A commit without a change would not be fsynced.
        await self._run(lambda connection: connection.execute(_FLUSH), durable=True)

    async def export(self) -> AsyncIterator[bytes]:
        if self._readers.is_closed:
            raise StoreError("the metadata store is closed")
        worker = Worker("sqlite-export")
        connection: Connection | None = None
        try:
            connection = await wait_settled(worker.call(lambda: connect_reader(self._path)))
            pieces = _export_pieces(connection)
            while (piece := await self._next(worker, pieces)) is not None:
                yield piece
                if self._writer.wal_pages > WAL_PAGES_MAX:
                    raise Unavailable("the snapshot was too slow: the WAL has grown behind it")
        except sqlite3.Error as error:
            raise read_error(error) from error
        finally:
            if connection is not None:
                worker.call(connection.close)
            worker.stop()

    async def _next(self, worker: Worker, pieces: Iterator[bytes]) -> bytes | None:
        with self._readers.noting_damage():
            try:
                return await wait_settled(worker.call(lambda: next(pieces, None)))
            except sqlite3.Error as error:
                raise read_error(error) from error

    async def replace(self, pieces: AsyncIterator[bytes]) -> int:
        decoder = ExportDecoder()
        applied = 0
        await self._run(_make_staging)
        try:
            async for imported in decode_pieces(decoder, pieces):
                applied = applied_of(imported, applied)
                await self._stage(imported)
            if decoder.finish() != applied:
                raise WireError("the snapshot's head and its tables disagree")
            await self._run(_swap, durable=True)
        except BaseException:
            if self._writer.failure is None:
                await self._run(lambda connection: _drop(connection, STAGING))
            raise
        await self._drop_retired()
        return applied

    async def verify(self) -> AsyncGenerator[int, None]:
        with self._readers.noting_damage():
            try:
                walk = verify(self._path, self._readers, self._writer, self._ledger)
                async with aclosing(walk) as steps:
                    async for cost in steps:
                        yield cost
            except DamagedRow as error:
                raise DamagedTables(str(error)) from error

    async def check(self) -> str | None:
        if self._writer.failure is not None:
            return str(self._writer.failure)
        try:
            self._readers.read(lambda connection: connection.execute(_SQL["marks"].get, ("",)))
        except DamagedRow:
            pass  # noted, like any that was met before
        except StoreError as error:
            return str(error)
        return damaged(self._readers.damage)

    async def close(self) -> None:
        self._readers.close()
        await self._writer.close()

    async def _run(self, body: Callable[[Connection], object], *, durable: bool = False) -> None:
        def steps(connection: Connection) -> Steps[None]:
            body(connection)
            return
            yield  # makes this a generator

        await self._writer.run(steps, durable=durable)

    async def _stage(self, imported: ImportedRows) -> None:
        table = imported.table
        statement = _SQL[table.name].insert_new
        rows = [(*key, data, row_checksum(table, key, data)) for key, data in imported.rows]
        self._writer.note_bytes(sum(len(data) for _, data in imported.rows))

        def insert(connection: Connection) -> None:
            try:
                connection.executemany(statement, rows)
            except sqlite3.IntegrityError as error:
                raise WireError("the snapshot names a key twice") from error

        await self._run(insert)

    async def _drop_retired(self) -> None:
        for table in TABLES:
            trim = _SQL[table.name].trim(RETIRED, _TRIM_ROWS)
            deleted = [_TRIM_ROWS]

            def step(connection: Connection, trim: str = trim, left: list[int] = deleted) -> None:
                left[0] = connection.execute(trim).rowcount

            while deleted[0] == _TRIM_ROWS:
                await self._run(step)
        await self._run(lambda connection: _drop(connection, RETIRED))


def _open_writer(path: Path) -> Connection:
    connection = connect(path, cache_mib=1)
    try:
        sqlite_schema.prepare(connection)
    finally:
        connection.close()  # the last one: takes the WAL with it, when all of it is copied
    grow_wal(path)
    return connect(path, cache_mib=_WRITER_CACHE_MIB)


def _make_staging(connection: Connection) -> None:
    for table in TABLES:
        connection.execute(drop_table(table, STAGING))
        connection.execute(create_table(table, SQLITE, STAGING))


def _swap(connection: Connection) -> None:
    for table in TABLES:
        connection.execute(drop_table(table, RETIRED))
        connection.execute(f"ALTER TABLE {table.name} RENAME TO {RETIRED}{table.name}")
        connection.execute(f"ALTER TABLE {STAGING}{table.name} RENAME TO {table.name}")


def _drop(connection: Connection, prefix: str) -> None:
    for table in TABLES:
        connection.execute(drop_table(table, prefix))


def _export_pieces(connection: Connection) -> Iterator[bytes]:
    """One snapshot, from its first step to the end of the connection."""
    connection.execute("BEGIN")
    encoder, recut = ExportEncoder(), Recut()
    row = connection.execute(_SQL[MARKS.name].get, (APPLIED_INDEX,)).fetchone()
    mark = Mark(value=0) if row is None else read_row(MARKS, (APPLIED_INDEX,), row[0], row[1])
    yield from recut.feed(encoder.head(mark.value))
    for table in TABLES:
        for group in group_rows(_verified_rows(connection, table)):
            yield from recut.feed(encoder.rows(table, group))
    yield from recut.feed(encoder.end())
    yield from recut.rest()


def _verified_rows(connection: Connection, table: Table[Doc]) -> Iterator[tuple[Key, bytes]]:
    sql = _SQL[table.name]
    count = 0
    for row in connection.execute(sql.select_all):
        key, data = row[: sql.width], row[sql.width]
        verify_row(table, key, data, row[sql.width + 1])
        count += 1
        yield key, data
    if table.name in LARGE:  # the others are their own index
        check_count(table, count, connection.execute(sql.count).fetchone()[0])
