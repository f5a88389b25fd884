"""The checks that every implementation makes the same way: bytes against checksums.

Rules: no disk here. A subclass of CheckedReader brings `_load`, the plain read of a byte range
of its file; everything that leaves this file has been compared with the blob's footer.
A ChunkSequence accepts the chunks of one new blob, in order, and knows its footer.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator

from astra.constants import CHUNK_SIZE
from astra.errors import BadChunk, BlobConflict
from node.chunkstore.format import (
    BLOB_CHUNKS_MAX,
    Footer,
    chunk_length,
    crc32c,
    encode_footer,
    is_blob_id,
)
from node.chunkstore.ports import (
    LIST_LIMIT_MAX,
    READ_BATCH_CHUNKS_MAX,
    ChunkRefused,
    StoredBlob,
    VerifiedChunk,
)


def require_blob_id(blob_id: str) -> str:
    """The gate before any path is made. A ValueError is a caller's bug or a peer's attack."""
    if not is_blob_id(blob_id):
        raise ValueError("a blob id is 32 lowercase hex digits")
    return blob_id


def require_limit(limit: int) -> int:
    if not 1 <= limit <= LIST_LIMIT_MAX:
        raise ValueError(f"a listing has 1 to {LIST_LIMIT_MAX} ids")
    return limit


def check_repair(footer: Footer, index: int, data: bytes | memoryview, crc: int) -> None:
    """ChunkRefused unless `data` is what chunk `index` of this blob has always been."""
    if not 0 <= index < len(footer.chunk_crcs):
        raise ChunkRefused(f"blob {footer.blob_id} has no chunk {index}")
    is_same = crc == footer.chunk_crcs[index] and crc32c(data) == crc
    if not is_same or len(data) != chunk_length(footer.size, index):
        raise ChunkRefused(f"not the bytes of chunk {index} of blob {footer.blob_id}")


def resolve_conflict(new: Footer, old: Footer | None) -> None:
    """BlobConflict when the id is taken by other content. `old` is None when it is damaged.

    The new file replaces the old one in both allowed cases: equal content, freshly synced,
    can only be healthier than a file that has lain on the disk.
    """
    if old is not None and old != new:
        raise BlobConflict(f"blob {new.blob_id} exists with other content")


def cut(chunk: VerifiedChunk, *, start: int, end: int) -> memoryview:
    """The part of the blob's bytes [start, end) that this chunk has."""
    base = chunk.index * CHUNK_SIZE
    return chunk.data[max(0, start - base) : max(0, end - base)]


class ChunkSequence:
    """The chunks of one new blob so far."""

    __slots__ = ("_blob_id", "_crcs", "_size")

    def __init__(self, blob_id: str) -> None:
        self._blob_id = blob_id
        self._crcs: list[int] = []
        self._size = 0

    @property
    def size(self) -> int:
        return self._size

    def check(self, chunk: bytes | memoryview, crc: int) -> None:
        """ChunkRefused when this cannot be the next chunk; nothing changes."""
        if self._size % CHUNK_SIZE:
            raise ChunkRefused("only the last chunk of a blob may be short")
        if not 0 < len(chunk) <= CHUNK_SIZE:
            raise ChunkRefused(f"a chunk has 1 to {CHUNK_SIZE} bytes, not {len(chunk)}")
        if len(self._crcs) == BLOB_CHUNKS_MAX:
            raise ChunkRefused(f"a blob has at most {BLOB_CHUNKS_MAX} chunks")
        if crc32c(chunk) != crc:
            raise ChunkRefused(f"chunk {len(self._crcs)} does not have its checksum")

    def add(self, length: int, crc: int) -> None:
        """The chunk that was checked is in the file."""
        self._crcs.append(crc)
        self._size += length

    def footer(self) -> Footer:
        return Footer(blob_id=self._blob_id, size=self._size, chunk_crcs=tuple(self._crcs))

    def encoded_footer(self) -> bytes:
        return encode_footer(self.footer())

    def stored(self) -> StoredBlob:
        return StoredBlob(blob_id=self._blob_id, size=self._size, chunk_crcs=tuple(self._crcs))


class CheckedReader(abc.ABC):
    """The reading half of BlobReader over any source of bytes."""

    def __init__(self, footer: Footer) -> None:
        self._footer = footer

    @abc.abstractmethod
    def _load(self, offset: int, length: int) -> bytes:
        """The bytes of the file from `offset`; fewer when it ends. OSError when unreadable."""

    @property
    def blob_id(self) -> str:
        return self._footer.blob_id

    @property
    def size(self) -> int:
        return self._footer.size

    @property
    def chunk_crcs(self) -> tuple[int, ...]:
        return self._footer.chunk_crcs

    def read(self, index: int) -> VerifiedChunk:
        return self.read_batch(index, 1)[0]

    def read_batch(self, first: int, count: int) -> list[VerifiedChunk]:
        chunks = len(self.chunk_crcs)
        if not 0 <= first < chunks:
            raise IndexError(f"blob {self.blob_id} has no chunk {first}")
        if count < 1:
            raise ValueError("a batch has at least one chunk")
        last = min(first + min(count, READ_BATCH_CHUNKS_MAX), chunks)
        good = self._verified(first, last)
        if not good and last > first + 1:
            good = self._verified(first, first + 1)  # one bad sector fails the whole batch
        if not good:
            raise BadChunk(self.blob_id, first)
        return good

    def _verified(self, first: int, last: int) -> list[VerifiedChunk]:
        """The good chunks from `first` up to the first bad one."""
        start, end = first * CHUNK_SIZE, min(last * CHUNK_SIZE, self.size)
        try:
            data = memoryview(self._load(start, end - start))
        except OSError:
            return []  # a medium error is a bad chunk: another holder has it
        good: list[VerifiedChunk] = []
        for index in range(first, last):
            begin = index * CHUNK_SIZE - start
            length = chunk_length(self.size, index)
            piece = data[begin : begin + length]
            if len(piece) != length or crc32c(piece) != self.chunk_crcs[index]:
                break
            good.append(VerifiedChunk(index=index, data=piece, crc=self.chunk_crcs[index]))
        return good

    def read_range(self, offset: int, length: int) -> Iterator[memoryview]:
        if offset < 0 or length < 0 or offset + length > self.size:
            raise ValueError(f"[{offset}, +{length}) is not inside {self.size} bytes")
        return self._pieces(offset, offset + length)

    def _pieces(self, start: int, end: int) -> Iterator[memoryview]:
        last = -(-end // CHUNK_SIZE)
        while start < end:
            first = start // CHUNK_SIZE
            for chunk in self.read_batch(first, last - first):
                piece = cut(chunk, start=start, end=end)
                start += len(piece)
                yield piece

    def is_good(self, index: int) -> bool:
        try:
            self.read(index)
        except BadChunk:
            return False
        return True

    def bad_chunks(self) -> list[int]:
        """Reads everything; the indexes that fail."""
        bad: list[int] = []
        index = 0
        while index < len(self.chunk_crcs):
            try:
                index += len(self.read_batch(index, READ_BATCH_CHUNKS_MAX))
            except BadChunk:
                bad.append(index)
                index += 1
        return bad
