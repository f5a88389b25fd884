# ruff: noqa: S608 (statements are made of names in this package; values are parameters)
"""RaftStorage in the node's SQLite file, beside the metadata.

Rules: every change is one durable transaction of the one writer (see sqlite_engine.py for
what that also makes durable). Compaction moves the mark first, in its own durable
transaction, and deletes the rows below it in small ones, so that appends never wait long.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from astra.errors import DamagedLog, InvariantBroken, invariant
from astra.wire import Entry, Membership
from node.metadata.raftrows import (
    ENTRY_COLUMNS,
    META_COLUMNS,
    META_GET,
    BatchCut,
    LogScan,
    RaftMeta,
    check_append,
    encode_entry,
    encode_meta,
    first_meta,
    only_meta,
)
from node.metadata.sqlite_engine import (
    Connection,
    DuplicateKey,
    Readers,
    Steps,
    Writer,
    needed_to_vote,
)
from node.raft.types import HardState, RaftState, SnapshotMark

T = TypeVar("T")

COMPACT_ROWS: Final = 256  # deleted in one transaction

_META_PUT: Final = f"INSERT OR REPLACE INTO raft_meta (one, {META_COLUMNS}) VALUES (1{', ?' * 9})"
_LAST: Final = "SELECT max(idx) FROM raft_entry"
_TERM: Final = "SELECT term FROM raft_entry WHERE idx = ?"
_INSERT: Final = f"INSERT INTO raft_entry ({ENTRY_COLUMNS}) VALUES (?, ?, ?, ?, ?)"
_CUT: Final = "DELETE FROM raft_entry WHERE idx >= ?"
_RANGE: Final = f"SELECT {ENTRY_COLUMNS} FROM raft_entry WHERE idx BETWEEN ? AND ? ORDER BY idx"
_ALL: Final = f"SELECT {ENTRY_COLUMNS} FROM raft_entry ORDER BY idx"
_DROP_SOME: Final = (
    "DELETE FROM raft_entry WHERE idx IN "
    f"(SELECT idx FROM raft_entry WHERE idx <= ? ORDER BY idx LIMIT {COMPACT_ROWS:d})"
)


def _read_meta(connection: Connection) -> RaftMeta | None:
    return only_meta(connection.execute(META_GET).fetchall())


def _require_meta(connection: Connection) -> RaftMeta:
    meta = _read_meta(connection)
    if meta is None:
        raise InvariantBroken("initialize() comes first")
    return meta


def _write_meta(connection: Connection, meta: RaftMeta) -> None:
    connection.execute(_META_PUT, encode_meta(meta))


def _last_index(connection: Connection, mark: SnapshotMark) -> int:
    (last,) = connection.execute(_LAST).fetchone()
    return mark.index if last is None else max(mark.index, int(last))


class SqliteRaftStorage:
    """Implements node.raft.storage.RaftStorage."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    async def initialize(self, membership: Membership) -> None:
        def body(connection: Connection) -> None:
            if _read_meta(connection) is None:
                (last,) = connection.execute(_LAST).fetchone()
                if last is not None:
                    raise DamagedLog("there are log entries but no hard state")
                _write_meta(connection, first_meta(membership))

        await self._durably(body)

    async def load(self, applied_index: int, tail_bytes_max: int) -> RaftState:
        def settle(connection: Connection) -> None:
            meta = _read_meta(connection)
            if meta is None:
                raise DamagedLog("the log was never initialized")
            if meta.note is None:
                return
            row = connection.execute(_TERM, (meta.note.index,)).fetchone()
            settled = meta.settled(applied_index, None if row is None else row[0])
            if settled.mark != meta.mark:
                connection.execute(_CUT, (0,))
            _write_meta(connection, settled)

        def scan(connection: Connection) -> RaftState:
            meta = _require_meta(connection)
            log = LogScan(meta, tail_bytes_max)
            log.feed(connection.execute(_ALL))
            return log.state()

        await self._durably(settle)
        with needed_to_vote():
            return await self._readers.read_long(scan)

    async def append(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
    ) -> None:
        def body(connection: Connection) -> None:
            meta = _require_meta(connection)
            check_append(meta.mark, _last_index(connection, meta.mark), truncate_from, entries)
            if truncate_from is not None:
                connection.execute(_CUT, (truncate_from,))
            for entry in entries:
                connection.execute(_INSERT, encode_entry(entry))
            if hard_state is not None:
                _write_meta(connection, meta.with_hard_state(hard_state))

        self._writer.note_bytes(sum(len(entry.data) for entry in entries))
        await self._durably(body)

    async def read_entries(self, lo: int, hi: int, bytes_max: int) -> tuple[Entry, ...]:
        def body(connection: Connection) -> tuple[Entry, ...]:
            if lo <= _require_meta(connection).mark.index:
                return ()
            batch = BatchCut(lo, bytes_max)
            rows = connection.execute(_RANGE, (lo, hi))
            for row in rows:
                if not batch.take(row):
                    break
            rows.close()
            return tuple(batch.entries)

        with needed_to_vote():
            return await self._readers.read_long(body)

    async def compact(self, mark: SnapshotMark) -> None:
        def move(connection: Connection) -> bool:
            meta = _require_meta(connection)
            if mark.index <= meta.mark.index:
                return False
            last = _last_index(connection, meta.mark)
            invariant(mark.index <= last, "compacting past the end")
            _write_meta(connection, meta.compacted(mark))
            return True

        def drop_some(connection: Connection) -> int:
            return connection.execute(_DROP_SOME, (mark.index,)).rowcount

        if await self._durably(move):
            while await self._writer.run(_as_steps(drop_some), durable=False) == COMPACT_ROWS:
                pass

    async def prepare_install(self, mark: SnapshotMark) -> None:
        def body(connection: Connection) -> None:
            _write_meta(connection, _require_meta(connection).with_note(mark))

        await self._durably(body)

    async def install(self, mark: SnapshotMark) -> None:
        def body(connection: Connection) -> None:
            connection.execute(_CUT, (0,))
            _write_meta(connection, _require_meta(connection).installed(mark))

        await self._durably(body)

    async def _durably(self, body: Callable[[Connection], T]) -> T:
        try:
            return await self._writer.run(_as_steps(body), durable=True)
        except DamagedLog as error:
            self._writer.failure = error
            raise


def _as_steps(body: Callable[[Connection], T]) -> Callable[[Connection], Steps[T]]:
    """A plain function as a body that never changes threads."""

    def steps(connection: Connection) -> Steps[T]:
        try:
            return body(connection)
        except DuplicateKey as error:
            raise InvariantBroken(f"the stored log has that entry already: {error}") from error
        yield  # makes this a generator

    return steps
