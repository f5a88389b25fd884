# ruff: noqa: S608 (statements are made of names in this package; values are parameters)
"""RaftStorage in the node's PostgreSQL database, beside the metadata.

Rules: every change is one durable transaction on the link's durable connection. When the
connection breaks before the answer, the change is done again on the next session until it is
acknowledged: cut, insert-or-replace of the same rows and a whole hard state end in the same
state however often they run, and nothing else writes these tables (advisory lock). So
`append` returns only when its rows are durable, and a restart of PostgreSQL is no failure.

The one row beside the entries, and the last index, are kept here as they were last known to
be stored, so that an append is one round trip.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final, TypeVar, cast

from astra.errors import DamagedLog, InvariantBroken, invariant
from astra.wire import Entry, Membership
from node.metadata.postgres_link import Link
from node.metadata.raftrows import (
    ENTRY_COLUMNS,
    META_COLUMNS,
    META_GET,
    BatchCut,
    EntryRow,
    LogScan,
    RaftMeta,
    check_append,
    encode_entry,
    encode_meta,
    first_meta,
    only_meta,
)
from node.raft.types import HardState, RaftState, SnapshotMark

if TYPE_CHECKING:
    from node.metadata.postgres_link import Connection

T = TypeVar("T")

COMPACT_ROWS: Final = 1024
PAGE_ROWS: Final = 64  # entries fetched at once: each may have 2 MiB

_SET_META: Final = ", ".join(f"{name} = excluded.{name}" for name in META_COLUMNS.split(", "))


def _meta_put(first: int) -> str:
    values = ", ".join(f"${first + place}" for place in range(9))
    return (
        f"INSERT INTO raft_meta (one, {META_COLUMNS}) VALUES (1, {values}) "
        f"ON CONFLICT (one) DO UPDATE SET {_SET_META}"
    )


_META_PUT: Final = _meta_put(1)
_ENTRIES_PUT: Final = (
    f"INSERT INTO raft_entry ({ENTRY_COLUMNS}) SELECT * FROM "
    "unnest($1::BIGINT[], $2::BIGINT[], $3::BIGINT[], $4::BYTEA[], $5::BIGINT[]) "
    "ON CONFLICT (idx) DO UPDATE SET "
    "term = excluded.term, kind = excluded.kind, data = excluded.data, crc = excluded.crc"
)
_BOTH_PUT: Final = f"WITH entries AS ({_ENTRIES_PUT}) {_meta_put(6)}"
_LAST: Final = "SELECT max(idx) FROM raft_entry"
_TERM: Final = "SELECT term FROM raft_entry WHERE idx = $1"
_CUT: Final = "DELETE FROM raft_entry WHERE idx >= $1"
_PAGE: Final = (
    f"SELECT {ENTRY_COLUMNS} FROM raft_entry WHERE idx >= $1 AND idx <= $2 "
    f"ORDER BY idx LIMIT {PAGE_ROWS:d}"
)
_DROP_SOME: Final = (
    "DELETE FROM raft_entry WHERE idx <= $1 AND idx IN "
    f"(SELECT idx FROM raft_entry ORDER BY idx LIMIT {COMPACT_ROWS:d})"
)
# What lies in the table and what its index leads to. The plan is in the form of the conditions: no
# index has `idx + 0`, and only the table itself is read by place.
_IN_HEAP: Final = (
    "SELECT count(*), max(idx + 0) FROM raft_entry WHERE ctid >= '(0,0)'::tid AND idx + 0 > $1"
)
_IN_INDEX: Final = "SELECT count(*), max(idx) FROM raft_entry WHERE idx > $1"
_INDEX_MAX: Final = 2**63 - 1


class PostgresRaftStorage:
    """Implements node.raft.storage.RaftStorage."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._turn = asyncio.Lock()  # one change at a time, retries included
        self._meta: RaftMeta | None = None
        self._last_index = 0

    async def initialize(self, membership: Membership) -> None:
        async def body() -> None:
            await self._refresh()
            if self._meta is None:
                if self._last_index:
                    raise DamagedLog("there are log entries but no hard state")
                await self._store_meta(first_meta(membership))

        await self._in_turn(body)

    async def load(self, applied_index: int, tail_bytes_max: int) -> RaftState:
        async def body() -> RaftState:
            await self._refresh()
            if self._meta is None:
                raise DamagedLog("the log was never initialized")
            if self._meta.note is not None:
                await self._settle(self._meta, self._meta.note, applied_index)
            return await self._link.read_patiently(lambda c: self._scan(c, tail_bytes_max))

        return await self._in_turn(body)

    async def _settle(self, meta: RaftMeta, note: SnapshotMark, applied_index: int) -> None:
        term = await self._link.read_patiently(lambda c: c.fetchval(_TERM, note.index))
        settled = meta.settled(applied_index, term)
        if settled.mark != meta.mark:
            await self._install(note)
        else:
            await self._store_meta(settled)

    async def append(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
    ) -> None:
        async def body() -> None:
            old = self._require_meta()
            check_append(old.mark, self._last_index, truncate_from, entries)
            meta = old if hard_state is None else old.with_hard_state(hard_state)
            statement, arguments = _append_statement(meta if hard_state else None, entries)
            if truncate_from is None and statement is None:
                return
            await self._durably(truncate_from, statement, arguments)
            if truncate_from is not None:
                self._last_index = min(self._last_index, truncate_from - 1)
            self._last_index = entries[-1].index if entries else self._last_index
            self._meta = meta

        await self._in_turn(body)

    async def read_entries(self, lo: int, hi: int, bytes_max: int) -> tuple[Entry, ...]:
        async def body(connection: Connection) -> tuple[Entry, ...]:
            if lo <= self._require_meta().mark.index:
                return ()
            batch = BatchCut(lo, bytes_max)
            async for row in _pages(connection, lo, hi):
                if not batch.take(row):
                    break
            return tuple(batch.entries)

        return await self._link.read_patiently(body)

    async def compact(self, mark: SnapshotMark) -> None:
        async def move() -> bool:
            meta = self._require_meta()
            if mark.index <= meta.mark.index:
                return False
            invariant(mark.index <= self._last_index, "compacting past the end")
            await self._store_meta(meta.compacted(mark))
            return True

        async def drop_some() -> bool:
            done = await self._link.make_durable(lambda c: c.execute(_DROP_SOME, mark.index))
            return done != "DELETE 0"

        if await self._in_turn(move):
            while await self._in_turn(drop_some):
                pass

    async def prepare_install(self, mark: SnapshotMark) -> None:
        async def body() -> None:
            await self._store_meta(self._require_meta().with_note(mark))

        await self._in_turn(body)

    async def install(self, mark: SnapshotMark) -> None:
        await self._in_turn(lambda: self._install(mark))

    async def _install(self, mark: SnapshotMark) -> None:
        meta = self._require_meta().installed(mark)
        await self._durably(0, _META_PUT, encode_meta(meta))
        self._meta, self._last_index = meta, mark.index

    async def _store_meta(self, meta: RaftMeta) -> None:
        await self._durably(None, _META_PUT, encode_meta(meta))
        self._meta = meta

    async def _durably(
        self, truncate_from: int | None, statement: str | None, arguments: Sequence[object]
    ) -> None:
        async def use(connection: Connection) -> None:
            if truncate_from is None and statement is not None:
                await connection.execute(statement, *arguments)
                return
            async with connection.transaction():
                await connection.execute(_CUT, truncate_from)
                if statement is not None:
                    await connection.execute(statement, *arguments)

        await self._link.make_durable(use)

    async def _refresh(self) -> None:
        async def use(connection: Connection) -> tuple[RaftMeta | None, int]:
            meta = only_meta(await connection.fetch(META_GET))
            return meta, int(await connection.fetchval(_LAST) or 0)

        self._meta, last = await self._link.read_patiently(use)
        self._last_index = max(last, 0 if self._meta is None else self._meta.mark.index)

    async def _scan(self, connection: Connection, tail_bytes_max: int) -> RaftState:
        meta = self._require_meta()
        log = LogScan(meta, tail_bytes_max)
        async for row in _pages(connection, meta.mark.index + 1, _INDEX_MAX):
            log.feed((row,))
        await check_log_index(connection, meta.mark.index)
        return log.state()

    def _require_meta(self) -> RaftMeta:
        if self._meta is None:
            raise InvariantBroken("initialize() comes first")
        return self._meta

    async def _in_turn(self, body: Callable[[], Awaitable[T]]) -> T:
        async def work() -> T:
            async with self._turn:
                return await body()

        # A caller that gives up must not leave half of it: the work goes on without it.
        return await asyncio.shield(self._link.own(work()))


def _append_statement(
    meta: RaftMeta | None, entries: Sequence[Entry]
) -> tuple[str | None, Sequence[object]]:
    columns = [list(column) for column in zip(*map(encode_entry, entries), strict=True)]
    if columns and meta is not None:
        return _BOTH_PUT, (*columns, *encode_meta(meta))
    if columns:
        return _ENTRIES_PUT, columns
    return (None, ()) if meta is None else (_META_PUT, encode_meta(meta))


async def check_log_index(connection: Connection, mark_index: int) -> None:
    """Whether the index leads to every entry behind the mark: when it does not lead to the last
    one any more, no gap is seen. In one snapshot. Raises DamagedLog."""
    in_heap = await connection.fetchrow(_IN_HEAP, mark_index)
    in_index = await connection.fetchrow(_IN_INDEX, mark_index)
    if in_heap != in_index:
        raise DamagedLog("the index of the log does not lead to all of its entries")


async def _pages(connection: Connection, lo: int, hi: int) -> AsyncIterator[EntryRow]:
    while lo <= hi:
        rows = await connection.fetch(_PAGE, lo, hi)
        for row in rows:
            yield cast(EntryRow, tuple(row))
        if len(rows) < PAGE_ROWS:
            return
        lo = rows[-1][0] + 1
