# ruff: noqa: S608 (statements are made of names of the model; values are parameters)
"""Verifies everything that a node keeps in its PostgreSQL database: rows, indexes, log, ledger.

Rules: reads only, each step in one short snapshot on a reader's connection; needs no rights but
those of the tables' owner. A row and the index entry that leads to it are two copies of its key, on
two pages, and either may be the damaged one:

- The heap is read in its own order. Each row is compared with its checksum, and looked up by its
  key: a lookup that finds nothing, or another place, is what a damaged index does to a request.
- The index is read backwards. Rows out of order are entries that nothing in the heap asks for; and
  where the pages of the index do not lead to each other, so that a LIST would pass over some of
  them, PostgreSQL itself notices on the way back, and only there.

Where data checksums are on, PostgreSQL notices damaged pages earlier: the error is the same.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from astra.errors import StoreError
from astra.model import TABLES, Doc, Key, Table
from node.ledger import Ledger
from node.metadata.postgres_raft import check_log_index
from node.metadata.raftrows import ENTRY_COLUMNS, META_GET, LogCheck, only_meta
from node.metadata.rows import DamagedRow, verify_row
from node.metadata.scrubbing import ROW_COST, STEP_COST, sure
from node.metadata.tables import LARGE, POSTGRES, table_statements

if TYPE_CHECKING:
    from node.metadata.postgres_link import Connection

T = TypeVar("T")

_Tid = tuple[int, int]  # a block of the heap, and a place in it

_STEP_BLOCKS: Final = 128  # also when nothing is in them
_STEP_ROWS: Final = STEP_COST // ROW_COST
_STEP_LARGE_ROWS: Final = 4  # whose documents may have a MiB
_STEP_ENTRIES: Final = 64
_BLOCKS: Final = "SELECT pg_relation_size($1::text::regclass) / current_setting('block_size')::int"
_ENTRIES: Final = (
    f"SELECT {ENTRY_COLUMNS} FROM raft_entry WHERE idx >= $1 ORDER BY idx LIMIT {_STEP_ENTRIES:d}"
)
_SQL: Final = table_statements(POSTGRES)


class Read(Protocol):
    """Runs a body on one snapshot, as Link.read."""

    async def __call__(self, body: Callable[[Connection], Awaitable[T]], /) -> T: ...


async def verify(read: Read, ledger: Ledger) -> AsyncGenerator[int, None]:
    """As MetadataStore.verify; raises one of DAMAGE."""
    for table in TABLES:
        heap, index = _HeapWalk(table), _IndexWalk(table)
        blocks = await sure(partial(read, heap.blocks))
        tid: _Tid = (0, 0)
        while tid[0] < blocks:
            cost, tid = await sure(partial(read, partial(heap.step, tid, blocks)))
            yield cost
        key: Key | None = ()
        while key is not None:
            cost, key = await sure(partial(read, partial(index.step, key)))
            yield cost
    entry: int | None = 0
    while entry is not None:
        cost, entry = await sure(partial(read, partial(_log_step, entry)))
        yield cost
    yield await sure(partial(read, _log_index_step))
    await sure(ledger.read)


class _HeapWalk:
    """The rows of one table where they lie, each looked up by its key."""

    def __init__(self, table: Table[Doc]) -> None:
        self._table = table
        self._limit = _STEP_LARGE_ROWS if table.name in LARGE else _STEP_ROWS
        columns = _SQL[table.name].columns
        stored = ", ".join(f"h.{column}" for column in columns)
        sought = ", ".join(f"i.{column}" for column in columns)
        lookup = f"SELECT i.ctid FROM {table.name} AS i WHERE ({sought}) = ({stored})"
        self._select = (
            f"SELECT {stored}, h.doc, h.crc, ARRAY({lookup}) = ARRAY[h.ctid], h.ctid "
            f"FROM {table.name} AS h WHERE h.ctid > $1 AND h.ctid < $2 LIMIT {self._limit:d}"
        )

    async def blocks(self, connection: Connection) -> int:
        """A transaction that had begun before the tables were replaced first looks for the old one
        by its name, finds that it is gone, and knows better from then on."""
        for _ in range(2):
            blocks = await connection.fetchval(_BLOCKS, self._table.name)
            if blocks is not None:
                return int(blocks)
        raise StoreError(f"PostgreSQL: there is no table {self._table.name}")

    async def step(self, after: _Tid, blocks: int, connection: Connection) -> tuple[int, _Tid]:
        """What it cost, and after what to go on."""
        end = (min(after[0] + _STEP_BLOCKS, blocks), 0)
        rows = await connection.fetch(self._select, after, end)
        width = len(self._table.columns)
        cost = ROW_COST
        for row in rows:
            verify_row(self._table, row[:width], row[width], row[width + 1])
            if not row[width + 2]:
                raise DamagedRow(f"a row of table {self._table.name} is not found by its key")
            cost += ROW_COST + len(row[width])
        return cost, rows[-1][width + 3] if len(rows) == self._limit else end


class _IndexWalk:
    """The keys of one table from the last to the first, as its index has them."""

    def __init__(self, table: Table[Doc]) -> None:
        self._name = table.name
        columns = _SQL[table.name].columns
        key = ", ".join(columns)
        order = ", ".join(f"{column} DESC" for column in columns)
        tail = f"ORDER BY {order} LIMIT {_STEP_ROWS + 1:d}"
        self._first = f"SELECT {key} FROM {table.name} {tail}"
        bound = f"({key}) <= ({POSTGRES.marks(len(columns))})"
        self._next = f"SELECT {key} FROM {table.name} WHERE {bound} {tail}"

    async def step(self, after: Key, connection: Connection) -> tuple[int, Key | None]:
        """What it cost, and after what to go on. The last key is read again: from there on the
        index is followed from entry to entry."""
        rows = await connection.fetch(self._next if after else self._first, *after)
        keys: list[Key] = [row[:] for row in rows]
        if any(lower >= upper for upper, lower in pairwise(keys)):
            raise DamagedRow(f"the index of table {self._name} is not in order")
        return ROW_COST * len(keys) // 4, keys[-1] if len(keys) > _STEP_ROWS else None


async def _log_step(after: int, connection: Connection) -> tuple[int, int | None]:
    """The hard state and the next entries: what it cost, and after what to go on."""
    meta = only_meta(await connection.fetch(META_GET))
    if meta is None:
        return 0, None
    check = LogCheck(meta, after)
    rows = await connection.fetch(_ENTRIES, after)
    cost = ROW_COST
    for row in rows:
        check.take(row[:])
        cost += ROW_COST + len(row[3])
    return cost, check.last if len(rows) == _STEP_ENTRIES else None


async def _log_index_step(connection: Connection) -> int:
    meta = only_meta(await connection.fetch(META_GET))
    if meta is not None:
        await check_log_index(connection, meta.mark.index)
    return STEP_COST
