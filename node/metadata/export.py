"""The snapshot format: all tables at one applied index, the same from every backend.

    magic 8 bytes | version u16 | frames
    frame = kind u8 | length u32 | crc32c u32 (of kind, length and payload) | payload
    HEAD    msgpack [applied_index]
    ROWS    msgpack [table name, [[[key columns...], document bytes], ...]]
    END     msgpack [number of rows, crc32c of all frames before]

All integers are big-endian. The stream is cut into pieces without regard to frames. Rules of
this file: no IO, no SQL; both ends hold at most one frame and one piece in memory.

Invariant: a decoder that accepted END has seen every row of one whole export, unchanged.
A newer version, or a table that this program does not know, is UnknownFormat; anything else
that does not fit is WireError.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Final

import msgspec
from awscrt.checksums import crc32c as _crc32c

from astra.constants import FRAME_PAYLOAD_BYTES_MAX, KIB, MIB
from astra.decoding import UNREADABLE
from astra.errors import UnknownFormat, WireError
from astra.model import APPLIED_INDEX, MARKS, Doc, Key, Table
from node.metadata.rows import TABLES_BY_NAME, DamagedRow, decode_doc, whole_key

MAGIC: Final = b"ASTRMETA"
VERSION: Final = 1
PIECE_BYTES_MAX: Final = FRAME_PAYLOAD_BYTES_MAX
ROWS_FRAME_BYTES: Final = 256 * KIB  # a frame is closed once it is at least this large
FRAME_BYTES_MAX: Final = 64 * MIB  # one huge manifest still fits

_START: Final = struct.Struct("!8sH")
_FRAME: Final = struct.Struct("!BI")
_CRC: Final = struct.Struct("!I")
_PREFIX_BYTES: Final = _FRAME.size + _CRC.size

StoredRow = tuple[Key, bytes]
_WireRows = tuple[str, list[tuple[tuple[object, ...], bytes]]]

_encoder: Final = msgspec.msgpack.Encoder()
_head_decoder: Final = msgspec.msgpack.Decoder(tuple[int])
_end_decoder: Final = msgspec.msgpack.Decoder(tuple[int, int])
_rows_decoder: Final[msgspec.msgpack.Decoder[_WireRows]] = msgspec.msgpack.Decoder(_WireRows)


class FrameKind(enum.IntEnum):
    HEAD = 1
    ROWS = 2
    END = 3


class ExportEncoder:
    """Makes the stream. Call head, then rows as often as needed, then end."""

    def __init__(self) -> None:
        self._crc = 0
        self._count = 0

    def head(self, applied_index: int) -> bytes:
        start = _START.pack(MAGIC, VERSION)
        return start + self._frame(FrameKind.HEAD, _encoder.encode((applied_index,)))

    def rows(self, table: Table[Doc], rows: Sequence[StoredRow]) -> bytes:
        self._count += len(rows)
        return self._frame(FrameKind.ROWS, _encoder.encode((table.name, rows)))

    def end(self) -> bytes:
        return self._frame(FrameKind.END, _encoder.encode((self._count, self._crc)))

    def _frame(self, kind: FrameKind, payload: bytes) -> bytes:
        prefix = _FRAME.pack(kind, len(payload))
        crc = int(_crc32c(payload, _crc32c(prefix)))
        self._crc = int(_crc32c(_CRC.pack(crc), self._crc))
        return prefix + _CRC.pack(crc) + payload


class RowGroup:
    """Collects rows into groups of about ROWS_FRAME_BYTES: the same frames from every backend."""

    def __init__(self) -> None:
        self.rows: list[StoredRow] = []
        self._size = 0

    def add(self, row: StoredRow) -> list[StoredRow] | None:
        """A full group, or None."""
        self.rows.append(row)
        self._size += len(row[1]) + 64
        if self._size < ROWS_FRAME_BYTES:
            return None
        full, self.rows, self._size = self.rows, [], 0
        return full


def group_rows(rows: Iterable[StoredRow]) -> Iterator[list[StoredRow]]:
    group = RowGroup()
    for row in rows:
        full = group.add(row)
        if full is not None:
            yield full
    if group.rows:
        yield group.rows


class Recut:
    """Cuts a byte stream into pieces of at most PIECE_BYTES_MAX."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._buffer += data
        while len(self._buffer) >= PIECE_BYTES_MAX:
            yield bytes(self._buffer[:PIECE_BYTES_MAX])
            del self._buffer[:PIECE_BYTES_MAX]

    def rest(self) -> Iterator[bytes]:
        if self._buffer:
            yield bytes(self._buffer)
            self._buffer.clear()


class ImportedRows(msgspec.Struct, frozen=True):
    """Verified rows of one table."""

    table: Table[Doc]
    rows: list[StoredRow]


class ExportDecoder:
    """Sans-IO: `feed` bytes, get verified rows; `finish` says that the export was whole."""

    def __init__(self) -> None:
        self.applied_index: int | None = None
        self._buffer = bytearray()
        self._started = False
        self._ended = False
        self._crc = 0
        self._count = 0

    def feed(self, data: bytes) -> Iterator[ImportedRows]:
        """Raises WireError, UnknownFormat."""
        if self._ended and data:
            raise WireError("the snapshot goes on after its end")
        self._buffer += data
        if not self._started and not self._read_start():
            return
        while (frame := self._next_frame()) is not None:
            kind, payload = frame
            imported = self._handle(kind, payload)
            if imported is not None:
                yield imported

    def finish(self) -> int:
        """The applied index of a whole export. Raises WireError when it was cut short."""
        if not self._ended or self.applied_index is None:
            raise WireError("the snapshot ends too early")
        return self.applied_index

    def _read_start(self) -> bool:
        if len(self._buffer) < _START.size:
            return False
        magic, version = _START.unpack_from(self._buffer)
        if magic != MAGIC:
            raise WireError("not a metadata snapshot")
        if version != VERSION:
            raise UnknownFormat(f"snapshot format {version} is not known (mine is {VERSION})")
        del self._buffer[: _START.size]
        self._started = True
        return True

    def _next_frame(self) -> tuple[int, bytes] | None:
        if len(self._buffer) < _PREFIX_BYTES:
            return None
        kind, length = _FRAME.unpack_from(self._buffer)
        if length > FRAME_BYTES_MAX:
            raise WireError("a snapshot frame is larger than allowed")
        if len(self._buffer) < _PREFIX_BYTES + length:
            return None
        if self._ended:
            raise WireError("the snapshot goes on after its end")
        prefix = bytes(self._buffer[: _FRAME.size])
        (crc,) = _CRC.unpack_from(self._buffer, _FRAME.size)
        payload = bytes(self._buffer[_PREFIX_BYTES : _PREFIX_BYTES + length])
        if _crc32c(payload, _crc32c(prefix)) != crc:
            raise WireError("a snapshot frame fails its checksum")
        del self._buffer[: _PREFIX_BYTES + length]
        if kind != FrameKind.END:
            self._crc = int(_crc32c(_CRC.pack(crc), self._crc))
        return kind, payload

    def _handle(self, kind: int, payload: bytes) -> ImportedRows | None:
        if (kind == FrameKind.HEAD) is not (self.applied_index is None):
            raise WireError("a snapshot has one head, at its start")
        try:
            if kind == FrameKind.HEAD:
                (self.applied_index,) = _head_decoder.decode(payload)
            elif kind == FrameKind.ROWS:
                return self._imported(*_rows_decoder.decode(payload))
            elif kind == FrameKind.END:
                self._check_end(*_end_decoder.decode(payload))
            else:
                raise WireError(f"snapshot frame kind {kind} is not known")
        except UNREADABLE as error:
            raise WireError(f"a snapshot frame cannot be read: {error}") from error
        return None

    def _imported(self, name: str, rows: list[tuple[tuple[object, ...], bytes]]) -> ImportedRows:
        table = TABLES_BY_NAME.get(name)
        if table is None:
            raise UnknownFormat(f"the snapshot has a table {name!r} that this version lacks")
        self._count += len(rows)
        return ImportedRows(table, [_checked_row(table, key, data) for key, data in rows])

    def _check_end(self, count: int, crc: int) -> None:
        if count != self._count or crc != self._crc or self._buffer:
            raise WireError("the snapshot is not whole")
        self._ended = True


def _checked_row(table: Table[Doc], columns: tuple[object, ...], data: bytes) -> StoredRow:
    try:
        key = whole_key(table, columns)
        if key is not None:
            decode_doc(table, data)
            return key, data
    except DamagedRow as error:
        raise WireError(str(error)) from error
    raise WireError(f"a snapshot row does not fit table {table.name}")


def applied_of(imported: ImportedRows, before: int) -> int:
    """The applied index, once its row has come by."""
    if imported.table.name == MARKS.name:
        for key, data in imported.rows:
            if key == (APPLIED_INDEX,):
                return decode_doc(MARKS, data).value
    return before


async def decode_pieces(
    decoder: ExportDecoder, pieces: AsyncIterator[bytes]
) -> AsyncIterator[ImportedRows]:
    """All verified rows; on its end the export was whole. Raises WireError, UnknownFormat."""
    async for piece in pieces:
        if len(piece) > PIECE_BYTES_MAX:
            raise WireError("a snapshot piece is larger than allowed")
        for imported in decoder.feed(piece):
            yield imported
    decoder.finish()
