# ruff: noqa: S608 (statements are made of names of the model; values are parameters)
"""Verifies everything that a node keeps in its SQLite file: rows, log, ledger, pages.

Rules: reads only, through the reader threads. Each row is read where it stands and looked up by its
key, as a request would: a key in which a bit has flipped fails its row's checksum, and what such a
bit hides from a lookup is not found by it. A step begins with the row that the one before ended
with, whose lookup was right: what follows it is met one by one, also a row that has left its place.

`PRAGMA integrity_check` sees what no row shows (a page that nothing points to any more). It needs a
snapshot for as long as a table takes, which holds back the checkpoints: so it rests most of the
time, and gives up when the WAL has grown behind it. Then the rows were verified, and the pages will
be another time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from astra.errors import StoreError
from astra.log import get_logger
from astra.model import TABLES, Doc, Table
from node.ledger import Ledger
from node.metadata.raftrows import ENTRY_COLUMNS, META_GET, LogCheck, only_meta
from node.metadata.rows import INTEGER_MIN, DamagedRow, verify_row
from node.metadata.scrubbing import ROW_COST, STEP_COST, sure
from node.metadata.sqlite_engine import (
    WAL_PAGES_MAX,
    Connection,
    Readers,
    Worker,
    Writer,
    connect_reader,
    in_snapshot,
    wait_settled,
)
from node.metadata.tables import LARGE, SQLITE, table_statements

_CHECK_COST: Final = 64 * 1024  # of the structure of one table, which paces itself
_OTHER_TABLES: Final = ("raft_entry", "raft_meta", "ledger", "astra_store")
_ENTRIES: Final = f"SELECT {ENTRY_COLUMNS} FROM raft_entry WHERE idx >= ? ORDER BY idx"
_LOOK_S: Final = 0.25
_PACE_OPS: Final = 20_000  # of SQLite's machine: less than a millisecond
_REST: Final = 3.0  # times as long as it has worked
_REST_S_MAX: Final = 0.05

_SQL: Final = table_statements(SQLITE)
_log = get_logger("metadata")

_Place = tuple[Any, ...]  # of a row in its table's tree


class _Step(NamedTuple):
    cost: int
    last: _Place | None  # None: that was the end


async def verify(
    path: Path, readers: Readers, writer: Writer, ledger: Ledger
) -> AsyncGenerator[int, None]:
    """As MetadataStore.verify; raises one of DAMAGE."""
    walks: list[_Walk] = [*map(_TableWalk, TABLES), _LogWalk()]
    for walk in walks:
        step = _Step(0, walk.start)
        while step.last is not None:
            step = await sure(partial(readers.read_long, partial(walk.step, step.last)))
            yield step.cost
    await sure(ledger.read)
    async with aclosing(_check_structure(path, writer)) as checks:
        async for cost in checks:
            yield cost


class _Walk(Protocol):
    start: _Place

    def step(self, after: _Place, connection: Connection) -> _Step:
        """What comes after a place. Raises DamagedRow, DamagedLog."""
        ...


class _TableWalk:
    """The rows of one table in the order of its tree."""

    def __init__(self, table: Table[Doc]) -> None:
        self._table = table
        self._width = len(table.columns)
        columns = _SQL[table.name].columns
        stored = ", ".join(f"h.{column}" for column in columns)
        sought = ", ".join(f"i.{column}" for column in columns)
        where = f"FROM {table.name} AS i WHERE ({sought}) = ({stored})"
        if table.name in LARGE:  # a table by row number, and an index beside it
            self.start: _Place = (INTEGER_MIN,)
            found, place = f"(SELECT i.rowid {where}) IS h.rowid", "h.rowid"
        else:
            self.start = ()
            found, place = f"EXISTS (SELECT 1 {where})", stored
        self._select = f"SELECT {stored}, h.doc, h.crc, {found}, {place} FROM {table.name} AS h"
        self._place = place

    def step(self, after: _Place, connection: Connection) -> _Step:
        bound = f"WHERE ({self._place}) >= ({', '.join('?' * len(after))})" if after else ""
        rows = connection.execute(f"{self._select} {bound} ORDER BY {self._place}", after)
        cost, last = 0, after
        for row in rows:
            place = row[self._width + 3 :]
            if place == after:
                continue
            self._verify(row, place, last)
            last = place
            cost += ROW_COST + len(row[self._width])
            if cost >= STEP_COST:
                rows.close()
                return _Step(cost, last)
        return _Step(cost, None)

    def _verify(self, row: tuple[Any, ...], place: _Place, last: _Place) -> None:
        width, name = self._width, self._table.name
        verify_row(self._table, row[:width], row[width], row[width + 1])
        if not row[width + 2]:
            raise DamagedRow(f"a row of table {name} is not found by its key")
        if place <= last:
            raise DamagedRow(f"rows of table {name} are not in order")


class _LogWalk:
    """The hard state and the entries of the Raft log."""

    start: _Place = (0,)

    def step(self, after: _Place, connection: Connection) -> _Step:
        meta = only_meta(connection.execute(META_GET).fetchall())
        if meta is None:
            return _Step(0, None)
        check = LogCheck(meta, after[0])
        rows = connection.execute(_ENTRIES, after)
        cost = 0
        for row in rows:
            check.take(row)
            cost += ROW_COST + len(row[3])
            if cost >= STEP_COST and check.last > after[0]:
                rows.close()
                return _Step(cost, (check.last,))
        return _Step(cost, None)


# --- pages -----------------------------------------------------------------------------------


async def _check_structure(path: Path, writer: Writer) -> AsyncGenerator[int, None]:
    pace = _Pace()
    worker = Worker("sqlite-scrub")
    connection: Connection | None = None
    try:
        connection = await wait_settled(worker.call(lambda: connect_reader(path)))
        connection.set_progress_handler(pace, _PACE_OPS)
        for name in (*(table.name for table in TABLES), *_OTHER_TABLES):
            call = partial(in_snapshot, connection, partial(_check_table, name))
            await sure(partial(_watched, worker, call, writer, pace))
            yield _CHECK_COST
    except StoreError as error:
        if isinstance(error, DamagedRow) or not pace.is_over:
            raise
        _log.info("pages are not checked this time: too much is written", reason=str(error))
    finally:
        pace.is_over = True
        if connection is not None:
            worker.call(connection.close)
        worker.leave()


def _check_table(name: str, connection: Connection) -> None:
    (found,) = connection.execute(f"PRAGMA integrity_check({name})").fetchone()
    if found != "ok":
        raise DamagedRow(f"SQLite: table {name}: {' '.join(found.split())}")


async def _watched(worker: Worker, check: Callable[[], None], writer: Writer, pace: _Pace) -> None:
    """Until it is done. Raises StoreError when it is to give up, too."""
    pace.is_over = writer.wal_pages > WAL_PAGES_MAX
    if pace.is_over:
        raise StoreError("SQLite: the WAL has grown already")
    checking = worker.call(check)
    try:
        while not checking.done():
            await asyncio.wait((checking,), timeout=_LOOK_S)
            pace.is_over = pace.is_over or writer.wal_pages > WAL_PAGES_MAX
        checking.result()
    finally:
        checking.cancel()  # nobody waits for it any more: it ends by itself, once `is_over`


class _Pace:
    """What SQLite calls while it checks: rests, or has it give up."""

    def __init__(self) -> None:
        self.is_over = False
        self._since = time.monotonic()

    def __call__(self) -> bool:
        worked_s = time.monotonic() - self._since
        if not self.is_over:
            time.sleep(min(_REST * worked_s, _REST_S_MAX))
        self._since = time.monotonic()
        return self.is_over
