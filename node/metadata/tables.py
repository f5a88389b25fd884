# ruff: noqa: S608 (statements are made of names of the model; values are parameters)
"""The tables of astra.model as plain SQL, for both dialects.

Rules of this file: builds statements, runs none. Names come from the model only; every value
is a parameter. Each table has its key columns, `doc` (msgpack) and `crc` (rows.row_checksum).

Bounds are row values: `(bucket, key) >= (?, ?)`. A bound of fewer columns compares only those,
which is exactly "a shorter tuple sorts before every longer one that begins with it": as an
inclusive start it takes the whole group, as an exclusive end it leaves the whole group out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from astra.errors import OldFormat, UnknownFormat
from astra.model import INLINE, MANIFESTS, TABLES, Column, Doc, Key, Table
from node.metadata.rows import storable_bound

SCHEMA_VERSION: Final = 2  # 2: a checksum covers the whole row, not only its document
STAGING: Final = "new_"  # tables that `replace` is loading
RETIRED: Final = "old_"  # tables that `replace` has put aside, to be dropped

# Documents of many KiB: in a SQLite clustered table they would push keys apart.
LARGE: Final = frozenset((INLINE.name, MANIFESTS.name))


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    types: Mapping[Column, str]
    blob: str
    integer: str
    is_numbered: bool  # $1, $2 instead of ?
    clustered: str  # appended to tables that are their own index
    unindexed: str  # has a query read the table itself, whatever its index leads to

    def mark(self, number: int) -> str:
        return f"${number}" if self.is_numbered else "?"

    def marks(self, count: int, first: int = 1) -> str:
        return ", ".join(self.mark(first + offset) for offset in range(count))


SQLITE: Final = Dialect(
    types={Column.BYTES: "BLOB", Column.TEXT: "TEXT COLLATE BINARY", Column.INTEGER: "INTEGER"},
    blob="BLOB",
    integer="INTEGER",
    is_numbered=False,
    clustered=" WITHOUT ROWID",
    unindexed="NOT INDEXED",
)
POSTGRES: Final = Dialect(
    types={Column.BYTES: "BYTEA", Column.TEXT: 'TEXT COLLATE "C"', Column.INTEGER: "BIGINT"},
    blob="BYTEA",
    integer="BIGINT",
    is_numbered=True,
    clustered="",
    unindexed="WHERE ctid >= '(0,0)'::tid",
)


class TableSql:
    """All statements of one table."""

    __slots__ = ("_dialect", "_scans", "columns", "count", "delete", "get", "insert_new", "name",
                 "put", "select_all", "width")  # fmt: skip

    def __init__(self, table: Table[Doc], dialect: Dialect) -> None:
        columns = [f'"{name}"' for name, _ in table.columns]
        key = ", ".join(columns)
        width = len(columns)
        where = f"({key}) = ({dialect.marks(width)})"
        insert = f"({key}, doc, crc) VALUES ({dialect.marks(width + 2)})"
        self._dialect: Final = dialect
        self.columns: Final = columns
        self._scans: Final[dict[tuple[int, int], str]] = {}
        self.name: Final = table.name
        self.width: Final = width
        self.get: Final = f"SELECT doc, crc FROM {table.name} WHERE {where}"
        self.delete: Final = f"DELETE FROM {table.name} WHERE {where}"
        self.put: Final = (
            f"INSERT INTO {table.name} {insert} "
            f"ON CONFLICT ({key}) DO UPDATE SET doc = excluded.doc, crc = excluded.crc"
        )
        self.insert_new: Final = f"INSERT INTO {STAGING}{table.name} {insert}"
        self.select_all: Final = f"SELECT {key}, doc, crc FROM {table.name} ORDER BY {key}"
        self.count: Final = f"SELECT count(*) FROM {table.name} {dialect.unindexed}"

    def scan(self, start: Key, end: Key | None) -> str:
        """Takes the start columns, the end columns and the limit, in this order."""
        shape = (len(start), len(end or ()))
        statement = self._scans.get(shape)
        if statement is None:
            statement = self._scans[shape] = self._build_scan(*shape)
        return statement

    def _build_scan(self, start: int, end: int) -> str:
        bounds = [
            f"({', '.join(self.columns[:count])}) {sign} ({self._dialect.marks(count, first)})"
            for count, sign, first in ((start, ">=", 1), (end, "<", start + 1))
            if count
        ]
        where = f"WHERE {' AND '.join(bounds)} " if bounds else ""
        key = ", ".join(self.columns)
        limit = self._dialect.mark(start + end + 1)
        return f"SELECT {key}, doc, crc FROM {self.name} {where}ORDER BY {key} LIMIT {limit}"

    def trim(self, prefix: str, count: int) -> str:
        """Deletes the first `count` rows of a table that is on its way out."""
        key = ", ".join(self.columns)
        name = prefix + self.name
        return (
            f"DELETE FROM {name} WHERE ({key}) IN "
            f"(SELECT {key} FROM {name} ORDER BY {key} LIMIT {count:d})"
        )


def create_table(table: Table[Doc], dialect: Dialect, prefix: str = "") -> str:
    key = ", ".join(f'"{name}"' for name, _ in table.columns)
    columns = "".join(
        f'"{name}" {dialect.types[column]} NOT NULL, ' for name, column in table.columns
    )
    tail = "" if table.name in LARGE else dialect.clustered
    return (
        f"CREATE TABLE IF NOT EXISTS {prefix}{table.name} ({columns}doc {dialect.blob} NOT NULL, "
        f"crc {dialect.integer} NOT NULL, PRIMARY KEY ({key})){tail}"
    )


def drop_table(table: Table[Doc], prefix: str) -> str:
    return f"DROP TABLE IF EXISTS {prefix}{table.name}"


def table_statements(dialect: Dialect) -> dict[str, TableSql]:
    return {table.name: TableSql(table, dialect) for table in TABLES}


def check_schema(database: str, version: int) -> None:
    """Whether `database`, as people call it, is of this version. Raises UnknownFormat and
    OldFormat."""
    found = f"{database} has schema version {version}; this version knows {SCHEMA_VERSION}"
    if version > SCHEMA_VERSION:
        raise UnknownFormat(f"{found}: start the newer AstraStorage again")
    if version < SCHEMA_VERSION:
        raise OldFormat(f"{found}: there is no way to change it into one of this version")


def scan_parameters(start: Key, end: Key | None, limit: int) -> tuple[Key, Key | None, int]:
    """Bounds that the database can compare. A limit of 0 or an empty end means no rows."""
    if end is not None and not end:
        return (), None, 0
    return storable_bound(start), None if end is None else storable_bound(end), max(0, limit)
