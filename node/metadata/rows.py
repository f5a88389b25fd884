"""What all metadata stores share: keys, and documents as bytes.

Rules of this file: values only, no IO. A document is stored as msgpack beside a CRC32C over the
name of its table, its key and that msgpack, so that a flipped bit in a database page is an error
and never an answer, also when it makes a row one of another key (FAULTS row 36). A row that such a
bit hides from a lookup is found by the scrub (services/metadata_scrub.py). Keys are checked at the
seam: a key of the wrong type would silently miss.

Keys hold what every backend can hold: no NUL and no lone surrogates in text, no integer of
2^63 - 1 or more. A lookup of anything else finds nothing; storing one is our own bug.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Final, Protocol, cast, overload

import msgspec
from awscrt.checksums import crc32c as _crc32c

from astra.decoding import UNREADABLE
from astra.errors import Fatal, StoreError, invariant
from astra.model import TABLES, Column, D, Doc, Key, Table

INTEGER_MIN: Final = -(2**63)
INTEGER_MAX: Final = 2**63 - 1  # only as a bound: stored integers are smaller

_PYTHON_TYPES: Final[dict[Column, type[bytes] | type[str] | type[int]]] = {
    Column.BYTES: bytes,
    Column.TEXT: str,
    Column.INTEGER: int,
}
_KEY_TYPES: Final = {
    table.name: tuple(_PYTHON_TYPES[column] for _, column in table.columns) for table in TABLES
}
# What makes a plain value of that of a subclass, whatever the subclass overrides.
_PLAIN: Final[dict[type, Callable[[Any], bytes | str | int]]] = {
    bytes: lambda part: b"".join((part,)),
    str: lambda part: "".join((part,)),
    int: int.__int__,
}
TABLES_BY_NAME: Final[dict[str, Table[Doc]]] = {table.name: table for table in TABLES}

_encoder: Final = msgspec.msgpack.Encoder()
_decoders: Final[dict[str, msgspec.msgpack.Decoder[Doc]]] = {
    table.name: msgspec.msgpack.Decoder(table.doc) for table in TABLES
}
_SEEDS: Final[dict[str, int]] = {table.name: _crc32c(table.name.encode()) for table in TABLES}


class StoredColumns(Protocol):
    """A row as a database driver gives it."""

    @overload
    def __getitem__(self, place: int, /) -> Any: ...

    @overload
    def __getitem__(self, places: slice, /) -> tuple[Any, ...]: ...


class DamagedRow(StoreError):
    """A stored row, or the page it is on, is damaged: another node has to answer."""


class DamagedTables(Fatal):
    """A write or the scrub met a damaged row or page: this node must be rebuilt from its peers."""


def damaged(what: str | None) -> str | None:
    """For people: what a read has met, and what to do."""
    if what is None:
        return None
    return f"{what}: its database is damaged. Stop this node and rebuild it from the others"


def crc32c(data: bytes, before: int = 0) -> int:
    """`before`: that of what comes before."""
    return int(_crc32c(data, before))


def encode_doc(doc: Doc) -> bytes:
    return _encoder.encode(doc)


def decode_doc(table: Table[D], data: bytes) -> D:
    """Raises DamagedRow. The checksum is compared by the caller or by read_row."""
    try:
        return cast(D, _decoders[table.name].decode(data))
    except UNREADABLE as error:
        raise DamagedRow(f"a document of table {table.name} cannot be read: {error}") from error


def row_checksum(table: Table[Doc], key: Key, data: bytes) -> int:
    """Of a whole row. `key` is as check_key gives it, or as the database has it."""
    checksum: int = _crc32c(data, _crc32c(_encoder.encode(key), _SEEDS[table.name]))
    return checksum


def verify_row(table: Table[Doc], key: Key, data: bytes, checksum: int) -> None:
    """Raises DamagedRow when this is not what was stored under this key."""
    try:
        if row_checksum(table, key, data) == checksum:
            return
    except TypeError:  # a damaged page may give a column any type
        pass
    raise DamagedRow(f"a row of table {table.name} fails its checksum")


def read_row(table: Table[D], key: Key, data: bytes, checksum: int) -> D:
    """The verified document of a stored row. Raises DamagedRow."""
    try:  # as verify_row, in one go: every read comes by here
        if _crc32c(data, _crc32c(_encoder.encode(key), _SEEDS[table.name])) == checksum:
            return cast(D, _decoders[table.name].decode(data))
    except (*UNREADABLE, TypeError) as error:
        raise DamagedRow(f"a row of table {table.name} cannot be read: {error}") from error
    raise DamagedRow(f"a row of table {table.name} fails its checksum")


def read_rows(
    table: Table[D], start: Key, end: Key | None, rows: Iterable[StoredColumns]
) -> list[tuple[Key, D]]:
    """The verified rows of a scan: each as it was stored, in ascending order, within the bounds. A
    damaged index may give whole rows that do not belong there. Raises DamagedRow."""
    width = len(table.columns)
    found: list[tuple[Key, D]] = []
    before: Key | None = None
    for row in rows:
        key: Key = row[:width]
        doc = read_row(table, key, row[width], row[width + 1])
        if key < start if before is None else key <= before:
            raise DamagedRow(f"rows of table {table.name} are not in order")
        found.append((key, doc))
        before = key
    if before is not None and end is not None and before >= end:
        raise DamagedRow(f"rows of table {table.name} are not in order")
    return found


def check_count(table: Table[Doc], read: int, stored: int) -> None:
    """Rows that a damaged index does not lead to must be missing on no other node. Raises
    DamagedRow."""
    if read != stored:
        raise DamagedRow(f"table {table.name} has {stored} rows, of which {read} are found")


def is_storable(key: Key) -> bool:
    """Whether every backend can hold this key."""
    for part in key:
        if isinstance(part, str):
            if "\0" in part or not (part.isascii() or _is_utf8(part)):
                return False
        elif isinstance(part, int) and not INTEGER_MIN <= part < INTEGER_MAX:
            return False
    return True


def storable_bound(bound: Key) -> Key:
    """A bound that every backend can compare, and that divides storable keys as `bound` does."""
    if is_storable(bound):
        return bound
    parts: list[bytes | str | int] = []
    for part in bound:
        if is_storable((part,)):
            parts.append(part)
            continue
        if isinstance(part, str):
            parts.append(_next_storable_text(part))
        elif isinstance(part, int) and part > 0:
            parts.append(INTEGER_MAX)
        break
    return tuple(parts)


def _next_storable_text(text: str) -> str:
    """The smallest storable text above `text`, which is not storable itself."""
    for place, char in enumerate(text):
        if char == "\0":
            return text[:place] + "\x01"
        if "\ud800" <= char <= "\udfff":
            return text[:place] + "\ue000"
    return text


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_key(table: Table[Doc], key: Key) -> Key:
    """A whole key of this table, in plain bytes, str and int. Raises InvariantBroken."""
    types = _KEY_TYPES[table.name]
    if tuple(map(type, key)) == types:
        return key
    invariant(len(key) == len(types), f"a key of table {table.name} names all its columns")
    check_bound(table, key)
    return tuple(_PLAIN[wanted](part) for part, wanted in zip(key, types, strict=True))


def whole_key(table: Table[Doc], columns: tuple[object, ...]) -> Key | None:
    """The columns as a key that could be in this table, or None."""
    if tuple(map(type, columns)) != _KEY_TYPES[table.name]:
        return None
    key = cast(Key, columns)
    return key if is_storable(key) else None


def check_bound(table: Table[Doc], bound: Key) -> None:
    """The first columns of a key of this table. Raises InvariantBroken."""
    types = _KEY_TYPES[table.name]
    invariant(len(bound) <= len(types), f"a bound has too many columns for table {table.name}")
    for part, wanted in zip(bound, types, strict=False):
        invariant(isinstance(part, wanted), f"a key of table {table.name} has the wrong type")


def check_put(table: Table[D], key: Key, doc: D) -> Key:
    """As check_key. Raises InvariantBroken for what could not be stored the same way everywhere."""
    key = check_key(table, key)
    invariant(is_storable(key), f"a key of table {table.name} cannot be stored")
    invariant(isinstance(doc, table.doc), f"table {table.name} holds {table.doc.__name__}")
    return key
