"""A MetadataStore in memory: the twin for tests and the simulator, and the reference meaning.

Rules: event loop only, no IO, no clock. A body runs to its end without suspending, so reads
see whole transactions and writes are one at a time by construction.

`crash` is a power loss: it forgets a suffix of the transactions since the last `flush` or
`mark_durable` (the simulator calls that one for each durable Raft append), as the real
stores may. Only a store made with `crashable` keeps what that needs.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Final, TypeVar, cast

from astra.errors import FsyncFailed, StoreError, WireError
from astra.model import APPLIED_INDEX, MARKS, TABLES, D, Doc, Key, Table
from astra.ports import MetadataTxn, MetadataView
from node.metadata.bodies import drive
from node.metadata.export import ExportDecoder, ExportEncoder, Recut, decode_pieces, group_rows
from node.metadata.rows import check_bound, check_key, check_put, decode_doc, encode_doc

T = TypeVar("T")

_Change = tuple[str, Key, Doc | None]  # table name, key, the document before


class _Rows:
    """One table: documents by key, and the keys in order."""

    __slots__ = ("docs", "keys")

    def __init__(self) -> None:
        self.docs: dict[Key, Doc] = {}
        self.keys: list[Key] = []

    def set(self, key: Key, doc: Doc | None) -> None:
        if doc is None:
            if self.docs.pop(key, None) is not None:
                del self.keys[bisect_left(self.keys, key)]
            return
        if key not in self.docs:
            insort(self.keys, key)
        self.docs[key] = doc

    def range(self, start: Key, end: Key | None) -> tuple[int, int]:
        stop = len(self.keys) if end is None else bisect_left(self.keys, end)
        return bisect_left(self.keys, start), stop


def _empty_tables() -> dict[str, _Rows]:
    return {table.name: _Rows() for table in TABLES}


class _MemoryTxn:
    """Reads and changes in place; `changes` undoes it."""

    __slots__ = ("_tables", "changes")

    def __init__(self, tables: dict[str, _Rows]) -> None:
        self._tables: Final = tables
        self.changes: list[_Change] = []

    async def get(self, table: Table[D], key: Key) -> D | None:
        key = check_key(table, key)
        return cast("D | None", self._tables[table.name].docs.get(key))

    async def scan(
        self, table: Table[D], start: Key, end: Key | None, limit: int
    ) -> Sequence[tuple[Key, D]]:
        check_bound(table, start)
        check_bound(table, end or ())
        rows = self._tables[table.name]
        first, stop = rows.range(start, end)
        keys = rows.keys[first : min(stop, first + max(0, limit))]
        return [(key, cast(D, rows.docs[key])) for key in keys]

    async def put(self, table: Table[D], key: Key, doc: D) -> None:
        self._set(table, check_put(table, key, doc), doc)

    async def delete(self, table: Table[D], key: Key) -> None:
        self._set(table, check_key(table, key), None)

    def _set(self, table: Table[Doc], key: Key, doc: Doc | None) -> None:
        rows = self._tables[table.name]
        self.changes.append((table.name, key, rows.docs.get(key)))
        rows.set(key, doc)


class MemoryMetadataStore:
    """Implements astra.ports.MetadataStore."""

    def __init__(self, *, crashable: bool = False) -> None:
        self._tables = _empty_tables()
        self._crashable = crashable
        self._undo: list[list[_Change]] = []  # since the last durable point, oldest first
        self._problem: str | None = None
        self._is_closed = False

    async def read(self, body: Callable[[MetadataView], Awaitable[T]], *, long: bool = False) -> T:
        self._check_readable()
        return drive(body(_MemoryTxn(self._tables)))

    async def write(self, body: Callable[[MetadataTxn], Awaitable[T]]) -> T:
        self._check_usable()
        txn = _MemoryTxn(self._tables)
        try:
            value = drive(body(txn))
        except BaseException:
            self._roll_back(txn.changes)
            raise
        if self._crashable:
            self._undo.append(txn.changes)
        return value

    async def flush(self) -> None:
        self._check_usable()
        self.mark_durable()

    def mark_durable(self) -> None:
        """Everything written so far survives `crash`."""
        self._undo.clear()

    def crash(self, survivors: int = 0) -> None:
        """Power loss: of the transactions that are not durable, the oldest `survivors` stay."""
        while len(self._undo) > survivors:
            self._roll_back(self._undo.pop())

    def break_disk(self, problem: str | None) -> None:
        """From now on the store fails (None: works again)."""
        self._problem = problem

    async def export(self) -> AsyncIterator[bytes]:
        self._check_usable()
        applied, tables = self._copy()
        encoder, recut = ExportEncoder(), Recut()
        for piece in recut.feed(encoder.head(applied)):
            yield piece
        for table in TABLES:
            rows = ((key, encode_doc(doc)) for key, doc in tables[table.name])
            for group in group_rows(rows):
                for piece in recut.feed(encoder.rows(table, group)):
                    yield piece
        for piece in recut.feed(encoder.end()):
            yield piece
        for piece in recut.rest():
            yield piece

    async def replace(self, pieces: AsyncIterator[bytes]) -> int:
        self._check_usable()
        decoder, tables = ExportDecoder(), _empty_tables()
        async for imported in decode_pieces(decoder, pieces):
            docs = tables[imported.table.name].docs
            for key, data in imported.rows:
                if key in docs:
                    raise WireError("the snapshot names a key twice")
                docs[key] = decode_doc(imported.table, data)
        for rows in tables.values():
            rows.keys = sorted(rows.docs)
        applied = decoder.finish()
        if _applied_index(tables) != applied:
            raise WireError("the snapshot's head and its tables disagree")
        self._tables = tables
        self._undo.clear()  # the real ones replace durably
        return applied

    async def verify(self) -> AsyncGenerator[int, None]:
        for table in TABLES:  # what is in memory has no checksum
            self._check_readable()
            yield len(self._tables[table.name].keys)

    async def check(self) -> str | None:
        return "closed" if self._is_closed else self._problem

    async def close(self) -> None:
        self._is_closed = True

    def _copy(self) -> tuple[int, dict[str, list[tuple[Key, Doc]]]]:
        tables = {
            name: [(key, rows.docs[key]) for key in rows.keys]
            for name, rows in self._tables.items()
        }
        return _applied_index(self._tables), tables

    def _roll_back(self, changes: list[_Change]) -> None:
        for name, key, before in reversed(changes):
            self._tables[name].set(key, before)

    def _check_readable(self) -> None:
        if self._problem is not None:
            raise StoreError(self._problem)
        self._check_usable()

    def _check_usable(self) -> None:
        if self._is_closed:
            raise StoreError("the metadata store is closed")
        if self._problem is not None:
            raise FsyncFailed(self._problem)


def _applied_index(tables: dict[str, _Rows]) -> int:
    mark = tables[MARKS.name].docs.get((APPLIED_INDEX,))
    return getattr(mark, "value", 0)
