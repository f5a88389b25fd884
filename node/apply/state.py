"""What applying works on: the transaction with a cache in front of it, and one command's turn.

Rules of this file: the tables after a batch depend on the entries only, never on how they were
batched; so the cache is a cache (every write goes through at once, only marks wait for
`flush_marks`), and it lives no longer than its transaction.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, cast

from astra.constants import ACL_GRANTS_MAX
from astra.errors import RefusalCode, Refused
from astra.model import (
    BLOBS,
    BUCKETS,
    DROPPED,
    GARBAGE,
    MARKS,
    NULL_VERSIONS,
    OBJECTS,
    REQUESTS,
    UPLOADS,
    Acl,
    Bucket,
    D,
    Doc,
    Key,
    Mark,
    Table,
)
from astra.ports import MetadataTxn
from node.lookup import check_bucket, get_many, reads_many

_TEXT_LENGTH_MAX: Final = 255
ORDERS_PER_INDEX: Final = 1024  # so a command has room for DELETE_KEYS_MAX versions

# Small documents that commands of one batch ask for again and again.
_CACHED: Final = frozenset(
    table.name
    for table in (
        REQUESTS,
        BUCKETS,
        OBJECTS,
        NULL_VERSIONS,
        UPLOADS,
        BLOBS,
        GARBAGE,
        DROPPED,
    )
)


class Batch:
    """A MetadataTxn that asks the store only once for each row of a batch."""

    __slots__ = ("_cache", "_changed_marks", "_marks", "_txn", "writes")

    def __init__(self, txn: MetadataTxn) -> None:
        self._txn: Final = txn
        self._cache: dict[tuple[str, Key], Doc | None] = {}
        self._marks: dict[str, int] = {}
        self._changed_marks: set[str] = set()
        self.writes = 0

    async def get(self, table: Table[D], key: Key) -> D | None:
        if table.name not in _CACHED:
            return await self._txn.get(table, key)
        place = (table.name, key)
        if place not in self._cache:
            self._cache[place] = await self._txn.get(table, key)
        return cast("D | None", self._cache[place])

    async def get_many(self, table: Table[D], keys: Iterable[Key]) -> dict[Key, D | None]:
        """As node.lookup.get_many, through the cache."""
        if table.name not in _CACHED:
            return await get_many(self._txn, table, keys)
        wanted = list(dict.fromkeys(keys))
        missing = [key for key in wanted if (table.name, key) not in self._cache]
        for key, doc in (await get_many(self._txn, table, missing)).items():
            self._cache[(table.name, key)] = doc
        return {key: cast("D | None", self._cache[(table.name, key)]) for key in wanted}

    async def read_ahead(self, table: Table[D], keys: Iterable[Key]) -> None:
        """Into the cache, when the store reads many rows at the price of one."""
        if reads_many(self._txn) is not None:
            await self.get_many(table, keys)

    async def scan(
        self, table: Table[D], start: Key, end: Key | None, limit: int
    ) -> Sequence[tuple[Key, D]]:
        return await self._txn.scan(table, start, end, limit)

    async def put(self, table: Table[D], key: Key, doc: D) -> None:
        self.writes += 1
        await self._txn.put(table, key, doc)
        if table.name in _CACHED:
            self._cache[(table.name, key)] = doc

    async def delete(self, table: Table[D], key: Key) -> None:
        self.writes += 1
        await self._txn.delete(table, key)
        if table.name in _CACHED:
            self._cache[(table.name, key)] = None

    async def mark(self, name: str) -> int:
        """0 when it was never set."""
        if name not in self._marks:
            stored = await self._txn.get(MARKS, (name,))
            self._marks[name] = 0 if stored is None else stored.value
        return self._marks[name]

    def set_mark(self, name: str, value: int) -> None:
        """Written by `flush_marks`: some change with every entry."""
        self._marks[name] = value
        self._changed_marks.add(name)

    async def flush_marks(self) -> None:
        for name in sorted(self._changed_marks):
            await self._txn.put(MARKS, (name,), Mark(value=self._marks[name]))
        self._changed_marks.clear()


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """One command's turn: its place in the log, its time, and the tables."""

    batch: Batch
    index: int
    now_ms: int  # never less than that of an earlier command
    salt: bytes

    def order(self, place: int = 0) -> int:
        return self.index * ORDERS_PER_INDEX + place

    async def bucket(self, name: str) -> Bucket:
        """Refused NO_SUCH_BUCKET."""
        return check_bucket(await self.batch.get(BUCKETS, (name.encode(),)), None, name)


def refuse_unless(condition: bool, code: RefusalCode, detail: str = "") -> None:
    """Commands decide all their refusals before their first write (entries.py checks it)."""
    if not condition:
        raise Refused(code, detail)


def check_acl(acl: Acl) -> None:
    """Refused INVALID_ARGUMENT above S3's limit."""
    is_short = acl is None or len(acl) <= ACL_GRANTS_MAX
    refuse_unless(is_short, RefusalCode.INVALID_ARGUMENT, "too many grants")


def is_text(text: str) -> bool:
    """Whether every store can keep it as a name."""
    return 0 < len(text) <= _TEXT_LENGTH_MAX and text.isprintable()
