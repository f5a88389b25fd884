# ruff: noqa: S608 (statements are made of names of the model; values are parameters)
"""All changes of one write transaction as one PostgreSQL statement.

Rules of this file: builds statements, runs none. One statement is one round trip and one
transaction. Changes of a table travel as one array per column (unnest); a key has one change
at most, so the parts of the statement, which all see the state before it, do not meet. The
text depends only on which tables are changed, so it is prepared once per such shape.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final

from astra.model import Doc, Key
from node.metadata.rows import TABLES_BY_NAME, encode_doc, row_checksum
from node.metadata.tables import POSTGRES

Changes = Mapping[str, Mapping[Key, Doc | None]]
_Part = tuple[str, bool]  # table name, whether it puts (or deletes)

_ARRAYS: Final = {column: f"{POSTGRES.types[column].split()[0]}[]" for column in POSTGRES.types}


def build_batch(changes: Changes) -> tuple[str, list[Sequence[object]], int] | None:
    """Statement, arguments and size in bytes; None when nothing changes."""
    parts: list[_Part] = []
    arguments: list[Sequence[object]] = []
    size = 0
    for name, docs in changes.items():
        puts = [(key, encode_doc(doc)) for key, doc in docs.items() if doc is not None]
        deletes = [key for key, doc in docs.items() if doc is None]
        if puts:
            parts.append((name, True))
            arguments += _transposed([key for key, _ in puts])
            table = TABLES_BY_NAME[name]
            checksums = [row_checksum(table, key, data) for key, data in puts]
            arguments += [[data for _, data in puts], checksums]
            size += sum(len(data) + 100 for _, data in puts)
        if deletes:
            parts.append((name, False))
            arguments += _transposed(deletes)
            size += 100 * len(deletes)
    return (_statement(tuple(parts)), arguments, size) if parts else None


def _transposed(keys: list[Key]) -> list[Sequence[object]]:
    return [list(column) for column in zip(*keys, strict=True)]


@lru_cache(maxsize=512)
def _statement(parts: tuple[_Part, ...]) -> str:
    made: list[str] = []
    first = 1
    for name, is_put in parts:
        width = len(TABLES_BY_NAME[name].columns)
        made.append(_put(name, first) if is_put else _delete(name, first))
        first += width + 2 if is_put else width
    if len(made) == 1:
        return made[0]
    steps = ", ".join(f"step{number} AS ({part})" for number, part in enumerate(made))
    return f"WITH {steps} SELECT 1"


def _arrays(name: str, first: int) -> list[str]:
    columns = TABLES_BY_NAME[name].columns
    return [f"${first + place}::{_ARRAYS[kind]}" for place, (_, kind) in enumerate(columns)]


def _put(name: str, first: int) -> str:
    key = ", ".join(f'"{column}"' for column, _ in TABLES_BY_NAME[name].columns)
    arrays = _arrays(name, first)
    last = first + len(arrays)
    unnest = ", ".join([*arrays, f"${last}::BYTEA[]", f"${last + 1}::BIGINT[]"])
    return (
        f"INSERT INTO {name} ({key}, doc, crc) SELECT * FROM unnest({unnest}) "
        f"ON CONFLICT ({key}) DO UPDATE SET doc = excluded.doc, crc = excluded.crc"
    )


def _delete(name: str, first: int) -> str:
    columns = [f'"{column}"' for column, _ in TABLES_BY_NAME[name].columns]
    gone = ", ".join(f"gone{place}" for place in range(len(columns)))
    where = " AND ".join(f"t.{column} = gone{place}" for place, column in enumerate(columns))
    return (
        f"DELETE FROM {name} AS t USING unnest({', '.join(_arrays(name, first))}) AS g({gone}) "
        f"WHERE {where}"
    )
