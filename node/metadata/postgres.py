"""MetadataStore in the node's own PostgreSQL database: for clusters.

Rules: SQL of the tables comes from tables.py and postgres_batch.py; connections, durability
and what happens when PostgreSQL restarts are postgres_link.py's.

A write reads through the connection that writes (nobody else writes, so it sees one state
without a transaction) and keeps its changes in an overlay; they are sent as one statement at
its end. So an apply costs one round trip per row it had to read and one more. A read costs
one round trip per statement (see Link.read).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Final, TypeVar, cast

import asyncpg

from astra.errors import AstraError, StoreError, Unavailable, WireError
from astra.model import APPLIED_INDEX, MARKS, TABLES, D, Doc, Key, Mark, Table
from astra.ports import MetadataTxn, MetadataView
from node.metadata.export import (
    ExportDecoder,
    ExportEncoder,
    ImportedRows,
    Recut,
    RowGroup,
    applied_of,
    decode_pieces,
)
from node.metadata.postgres_batch import build_batch
from node.metadata.postgres_ledger import PostgresLedger
from node.metadata.postgres_link import (
    DATABASE_ERRORS,
    Batch,
    Link,
    Session,
    connect,
    is_broken,
    judged,
)
from node.metadata.postgres_raft import PostgresRaftStorage
from node.metadata.postgres_schema import prepare
from node.metadata.postgres_scrub import verify
from node.metadata.rows import (
    DamagedRow,
    DamagedTables,
    check_bound,
    check_count,
    check_key,
    check_put,
    damaged,
    is_storable,
    read_row,
    read_rows,
    row_checksum,
    verify_row,
)
from node.metadata.scrubbing import DAMAGE
from node.metadata.tables import (
    POSTGRES,
    STAGING,
    create_table,
    drop_table,
    scan_parameters,
    table_statements,
)

if TYPE_CHECKING:
    from node.metadata.postgres_link import Connection

T = TypeVar("T")

LONG_READS_MAX: Final = 3  # so that point reads always find a connection
_EXPORT_ROWS: Final = 64
_COUNT_SECONDS: Final = 3600.0  # of the largest table, from a slow disk
_SQL: Final = table_statements(POSTGRES)
_FLUSH: Final = "UPDATE astra_store SET flushes = flushes + 1"
_SWAPS: Final = "SELECT swaps FROM astra_store"

Fetch = Callable[[str, tuple[object, ...]], Awaitable[Sequence[asyncpg.Record]]]


class _View:
    """Implements astra.ports.MetadataView; `fetch` decides where."""

    __slots__ = ("_fetch",)

    def __init__(self, fetch: Fetch) -> None:
        self._fetch: Final = fetch

    async def get(self, table: Table[D], key: Key) -> D | None:
        key = check_key(table, key)
        if not is_storable(key):
            return None
        rows = await self._fetch(_SQL[table.name].get, key)
        return read_row(table, key, rows[0][0], rows[0][1]) if rows else None

    async def scan(
        self, table: Table[D], start: Key, end: Key | None, limit: int
    ) -> Sequence[tuple[Key, D]]:
        check_bound(table, start)
        check_bound(table, end or ())
        start, end, limit = scan_parameters(start, end, limit)
        if limit == 0:
            return []
        statement = _SQL[table.name].scan(start, end)
        rows = await self._fetch(statement, (*start, *(end or ()), limit))
        return read_rows(table, start, end, rows)


class _Txn(_View):
    """Implements astra.ports.MetadataTxn: reads meet the changes made so far first."""

    __slots__ = ("changes",)

    def __init__(self, fetch: Fetch) -> None:
        super().__init__(fetch)
        self.changes: Final[dict[str, dict[Key, Doc | None]]] = {}

    async def get(self, table: Table[D], key: Key) -> D | None:
        changed = self.changes.get(table.name, {})
        if key in changed:
            return cast("D | None", changed[key])
        return await super().get(table, key)

    async def scan(
        self, table: Table[D], start: Key, end: Key | None, limit: int
    ) -> Sequence[tuple[Key, D]]:
        changed = {
            key: cast("D | None", doc)
            for key, doc in self.changes.get(table.name, {}).items()
            if start <= key and (end is None or key < end)
        }
        if limit <= 0:
            return []
        # As many more as could be deleted or pushed out by what was put.
        rows = dict(await super().scan(table, start, end, limit + len(changed)))
        for key, doc in changed.items():
            if doc is None:
                rows.pop(key, None)
            else:
                rows[key] = doc
        return sorted(rows.items(), key=lambda row: row[0])[:limit]

    async def put(self, table: Table[D], key: Key, doc: D) -> None:
        key = check_put(table, key, doc)
        self.changes.setdefault(table.name, {})[key] = doc

    async def delete(self, table: Table[D], key: Key) -> None:
        key = check_key(table, key)
        if is_storable(key):
            self.changes.setdefault(table.name, {})[key] = None


class PostgresMetadataStore:
    """Implements astra.ports.MetadataStore. Made by `open`."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._raft = PostgresRaftStorage(link)
        self._ledger = PostgresLedger(link)
        self._turn = asyncio.Lock()
        self._long_reads = asyncio.Semaphore(LONG_READS_MAX)
        self._batches = 0
        self._damage: str | None = None  # the first that a read has met

    @classmethod
    async def open(cls, dsn: str) -> PostgresMetadataStore:
        """Connects and brings the schema up to date. Raises ConfigError, UnknownFormat,
        OldFormat, ForeignDirectory (another node uses the database), Unavailable (not up yet)."""
        link = Link(dsn, prepare)
        await link.start()
        return cls(link)

    def raft(self) -> PostgresRaftStorage:
        return self._raft

    def ledger(self) -> PostgresLedger:
        return self._ledger

    async def read(self, body: Callable[[MetadataView], Awaitable[T]], *, long: bool = False) -> T:
        """As the Protocol says; Unavailable at once while PostgreSQL is away."""

        async def on_connection(connection: Connection) -> T:
            return await body(_View(lambda sql, arguments: connection.fetch(sql, *arguments)))

        try:
            return await (self._read_long if long else self._link.read)(on_connection)
        except DamagedRow as error:
            self._damage = self._damage or str(error)
            raise

    async def write(self, body: Callable[[MetadataTxn], Awaitable[T]]) -> T:
        """As the Protocol says; waits while PostgreSQL is away. When the caller gives up, the
        transaction still ends one way or the other."""
        return await asyncio.shield(self._link.own(self._write(body)))

    async def flush(self) -> None:
        await self._link.make_durable(lambda connection: connection.execute(_FLUSH))

    async def export(self) -> AsyncIterator[bytes]:
        self._link.current()  # fails early while PostgreSQL is away
        connection: Connection | None = None
        try:
            connection = await connect(self._link.dsn, synchronous_commit="off")
            transaction = connection.transaction(isolation="repeatable_read", readonly=True)
            await transaction.start()
            async for piece in _export_pieces(connection):
                yield piece
        except DATABASE_ERRORS as error:
            raise _meaning(error) from error
        except DamagedRow as error:
            self._damage = self._damage or str(error)
            raise
        finally:
            if connection is not None:
                connection.terminate()

    async def replace(self, pieces: AsyncIterator[bytes]) -> int:
        self._link.current()
        decoder = ExportDecoder()
        applied = 0
        connection = await self._staging_connection()
        try:
            await connection.execute(_make_staging())
            async for imported in decode_pieces(decoder, pieces):
                applied = applied_of(imported, applied)
                await _stage(connection, imported)
            if decoder.finish() != applied:
                raise WireError("the snapshot's head and its tables disagree")
            await asyncio.shield(self._link.own(self._swap()))
        except asyncpg.UniqueViolationError as error:
            raise WireError("the snapshot names a key twice") from error
        except (
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        ) as error:
            raise _meaning(error) from error
        finally:
            connection.terminate()
        return applied

    async def verify(self) -> AsyncGenerator[int, None]:
        try:
            async with aclosing(verify(self._read_long, self._ledger)) as steps:
                async for cost in steps:
                    yield cost
        except DAMAGE as error:
            self._damage = self._damage or str(error)
            if isinstance(error, DamagedRow):
                raise DamagedTables(str(error)) from error
            raise

    async def check(self) -> str | None:
        return self._link.state() or damaged(self._damage)

    async def close(self) -> None:
        await self._link.close()

    async def _read_long(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        async with self._long_reads:
            return await self._link.read(body)

    async def _write(self, body: Callable[[MetadataTxn], Awaitable[T]]) -> T:
        async with self._turn:
            await self._link.wait()
            txn = _Txn(self._fetch_to_write)
            try:
                value = await body(txn)
            except DamagedRow as error:
                await self._link.fail(DamagedTables(str(error)))
                raise DamagedTables(str(error)) from error
            built = build_batch(txn.changes)
            if built is not None:
                await self._commit(*built)
            return value

    async def _fetch_to_write(
        self, sql: str, arguments: tuple[object, ...]
    ) -> Sequence[asyncpg.Record]:
        """Goes on with the next session when one breaks: it has the same state."""
        return await self._link.persist(lambda session: session.meta.fetch(sql, *arguments))

    async def _commit(self, statement: str, arguments: Sequence[object], size: int) -> None:
        if self._link.is_redo_full():
            await self.flush()
        self._batches += 1
        batch = Batch(statement=statement, arguments=arguments, size=size, number=self._batches)
        self._link.remember(batch)
        try:
            await self._link.persist(lambda session: session.meta.execute(statement, *arguments))
        except StoreError:
            self._link.retract(batch)
            raise
        self._link.acknowledged = batch.number

    async def _staging_connection(self) -> Connection:
        try:
            return await connect(self._link.dsn, synchronous_commit="off")
        except DATABASE_ERRORS as error:
            raise Unavailable(f"PostgreSQL: {error}") from error

    async def _swap(self) -> None:
        """The staging tables become the tables: one durable transaction, with no read and no
        write under way. Whether it happened is counted in the same transaction, so that a lost
        answer is found out."""
        async with self._turn:
            await self.flush()  # nothing is left to be done again on the new tables
            before = await self._link.make_durable(lambda c: c.fetchval(_SWAPS))
            await self._link.persist(lambda session: _swap_once(session, int(before)))


def _meaning(error: Exception) -> AstraError:
    if isinstance(error, asyncpg.PostgresError) and not is_broken(error):
        return judged(error)
    return Unavailable(f"PostgreSQL: {error}")


async def _swap_once(session: Session, before: int) -> None:
    async with session.no_readers(), session.raft_turn:
        if await session.raft.fetchval(_SWAPS) != before:
            return
        if (
            await session.raft.fetchval("SELECT to_regclass($1)::text", STAGING + MARKS.name)
            is None
        ):
            raise Unavailable("PostgreSQL restarted while a snapshot was loaded")
        await session.raft.execute(_swap_statements())


def _swap_statements() -> str:
    """Sent at once, so PostgreSQL runs them as one transaction."""
    statements = ["UPDATE astra_store SET swaps = swaps + 1"]
    for table in TABLES:
        statements.append(f"DROP TABLE {table.name}")
        statements.append(f"ALTER TABLE {STAGING}{table.name} RENAME TO {table.name}")
    return ";".join(statements)


def _make_staging() -> str:
    statements = ["SET client_min_messages = warning"]
    for table in TABLES:
        statements += [drop_table(table, STAGING), create_table(table, POSTGRES, STAGING)]
    return ";".join(statements)


async def _stage(connection: Connection, imported: ImportedRows) -> None:
    table = imported.table
    await connection.copy_records_to_table(
        STAGING + table.name,
        records=[(*key, data, row_checksum(table, key, data)) for key, data in imported.rows],
        columns=[*(name for name, _ in table.columns), "doc", "crc"],
    )


async def _export_pieces(connection: Connection) -> AsyncIterator[bytes]:
    encoder, recut = ExportEncoder(), Recut()
    row = await connection.fetchrow(_SQL[MARKS.name].get, APPLIED_INDEX)
    mark = Mark(value=0) if row is None else read_row(MARKS, (APPLIED_INDEX,), row[0], row[1])
    for piece in recut.feed(encoder.head(mark.value)):
        yield piece
    for table in TABLES:
        async for frame in _frames(connection, table, encoder):
            for piece in recut.feed(frame):
                yield piece
    for piece in recut.feed(encoder.end()):
        yield piece
    for piece in recut.rest():
        yield piece


async def _frames(
    connection: Connection, table: Table[Doc], encoder: ExportEncoder
) -> AsyncIterator[bytes]:
    sql = _SQL[table.name]
    group = RowGroup()
    count = 0
    async for row in connection.cursor(sql.select_all, prefetch=_EXPORT_ROWS):
        key, data = cast(Key, row[: sql.width]), cast(bytes, row[sql.width])
        verify_row(table, key, data, row[sql.width + 1])
        count += 1
        full = group.add((key, data))
        if full is not None:
            yield encoder.rows(table, full)
    check_count(table, count, await connection.fetchval(sql.count, timeout=_COUNT_SECONDS))
    if group.rows:
        yield encoder.rows(table, group.rows)
