"""The bytes of a blob file: chunks in order, then a footer. Pure: values in, values out.

    chunk 0 | chunk 1 | ... | footer

    footer  = crc table  n x u32       CRC32C of each chunk
            | blob id    16 bytes      the file knows its name: a swapped file is found out
            | size       u64           bytes of the blob
            | chunk size u32, count u32
            | block crc  u32           CRC32C of the footer up to here
            | tail
    tail    = footer length u32 (tail included) | version u16 | reserved u16
            | magic 8 bytes | tail crc u32 (of the tail before it)

All integers are little-endian. The tail is the same in every version, for ever, so that a
newer file is told apart (UnknownFormat) from a damaged one (FooterDamaged). Byte k of the
blob is byte k of the file: a range is a plain read. Why a footer: docs/adr/0003-blob-file.md.

Invariant: a footer that decodes names exactly one blob, one size and one checksum per chunk,
and the file that carries it has exactly the length that follows from them.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass
from typing import Final

from awscrt.checksums import crc32c as _crc32c

from astra.constants import CHUNK_SIZE, PUT_SIZE_MAX
from astra.errors import UnknownFormat, invariant

FORMAT_VERSION: Final = 1
MAGIC: Final = b"ASTRBLOB"
BLOB_CHUNKS_MAX: Final = PUT_SIZE_MAX // CHUNK_SIZE  # one blob is at most one part or PUT
BLOB_SIZE_MAX: Final = BLOB_CHUNKS_MAX * CHUNK_SIZE

_FIELDS: Final = struct.Struct("<16sQIII")  # blob id, size, chunk size, count, block crc
_TAIL: Final = struct.Struct("<IHH8sI")  # footer length, version, reserved, magic, tail crc
TAIL_BYTES: Final = _TAIL.size
FOOTER_BYTES_MIN: Final = _FIELDS.size + _TAIL.size
FOOTER_BYTES_MAX: Final = FOOTER_BYTES_MIN + 4 * BLOB_CHUNKS_MAX
FILE_BYTES_MAX: Final = BLOB_SIZE_MAX + FOOTER_BYTES_MAX

_BLOB_ID: Final = re.compile(r"[0-9a-f]{32}")


class FooterDamaged(Exception):
    """The file's description of itself cannot be trusted: none of its bytes can be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Footer:
    """What a blob file says about itself."""

    blob_id: str
    size: int
    chunk_crcs: tuple[int, ...]


def crc32c(data: bytes | memoryview) -> int:
    """The checksum of a chunk, as clients, the wire and the disk see it."""
    return int(_crc32c(data))


def is_blob_id(text: str) -> bool:
    """Exactly 32 lowercase hex digits: nothing else ever becomes part of a path."""
    return _BLOB_ID.fullmatch(text) is not None


def make_blob_id(*, time_ms: int, salt: bytes) -> str:
    """A new id: 6 bytes of time, 10 of randomness. The caller brings both."""
    invariant(len(salt) == 10, "a blob id has 10 random bytes")
    return time_ms.to_bytes(6, "big").hex() + salt.hex()


def blob_time_ms(blob_id: str) -> int:
    """When the id was made: the sweep of orphans goes by it."""
    return int(blob_id[:12], 16)


def listing_order(blob_id: str) -> tuple[str, str]:
    """The order of `list_ids`: by directory (the random end of the id), then by id."""
    return blob_id[-2:], blob_id


def chunk_count(size: int) -> int:
    return -(-size // CHUNK_SIZE)


def chunk_length(size: int, index: int) -> int:
    """Bytes of chunk `index` in a blob of `size` bytes."""
    invariant(0 <= index < chunk_count(size), "a chunk index is inside its blob")
    return min(CHUNK_SIZE, size - index * CHUNK_SIZE)


def footer_length(size: int) -> int:
    return FOOTER_BYTES_MIN + 4 * chunk_count(size)


def encode_footer(footer: Footer) -> bytes:
    count = len(footer.chunk_crcs)
    invariant(count == chunk_count(footer.size), "one checksum per chunk")
    invariant(footer.size <= BLOB_SIZE_MAX, "a blob is bounded")
    table = struct.pack(f"<{count}I", *footer.chunk_crcs)
    fields = _FIELDS.pack(bytes.fromhex(footer.blob_id), footer.size, CHUNK_SIZE, count, 0)[:-4]
    block = table + fields
    length = footer_length(footer.size)
    tail = _TAIL.pack(length, FORMAT_VERSION, 0, MAGIC, 0)[:-4]
    return b"".join(
        (block, crc32c(block).to_bytes(4, "little"), tail, crc32c(tail).to_bytes(4, "little"))
    )


def read_footer_length(tail: bytes, file_size: int) -> int:
    """How many bytes at the end of the file are its footer; `tail` is its last TAIL_BYTES.

    Raises FooterDamaged; UnknownFormat only when the tail is intact and says so.
    """
    if file_size < FOOTER_BYTES_MIN or len(tail) != TAIL_BYTES:
        raise FooterDamaged("the file is shorter than any footer")
    length, version, _reserved, magic, tail_crc = _TAIL.unpack(tail)
    if magic != MAGIC or crc32c(tail[:-4]) != tail_crc:
        raise FooterDamaged("the tail is not that of a blob file")
    if version != FORMAT_VERSION:
        raise UnknownFormat(f"blob format {version}; this program knows {FORMAT_VERSION}")
    if not FOOTER_BYTES_MIN <= length <= min(file_size, FOOTER_BYTES_MAX):
        raise FooterDamaged("the footer length cannot be")
    return int(length)


def decode_footer(block: bytes, *, blob_id: str, file_size: int) -> Footer:
    """The footer of the file that is stored as `blob_id`. Raises FooterDamaged, UnknownFormat."""
    length = read_footer_length(block[-TAIL_BYTES:], file_size)
    if length != len(block):
        raise FooterDamaged("the footer has another length")
    table_end = length - FOOTER_BYTES_MIN
    raw_id, size, chunk_size, count, block_crc = _FIELDS.unpack_from(block, table_end)
    if crc32c(block[: table_end + _FIELDS.size - 4]) != block_crc:
        raise FooterDamaged("the footer fails its checksum")
    if raw_id.hex() != blob_id:
        raise FooterDamaged(f"the file is that of blob {raw_id.hex()}")
    if chunk_size != CHUNK_SIZE or count != chunk_count(size) or table_end != 4 * count:
        raise FooterDamaged("size and chunks do not fit")
    if file_size != size + length:
        raise FooterDamaged(f"the file has {file_size} bytes, its footer says {size + length}")
    crcs = struct.unpack_from(f"<{count}I", block)
    return Footer(blob_id=blob_id, size=size, chunk_crcs=crcs)
