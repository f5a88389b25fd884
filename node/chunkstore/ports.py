"""What a store of blobs promises, whoever implements it (store.py on disk, memory.py).

Rules: every call is synchronous and may block on the disk; executor.py keeps them off the
event loop. One process owns a store. Calls on different handles may come from any thread.

Invariants
- A blob is visible only when it is complete and durable: `finish` returned, or it is absent
  (a crash inside `finish` may leave either, never anything between).
- No byte leaves `read`, `read_batch` or `read_range` that fails its checksum.
- After FsyncFailed the store accepts no writes any more: the owner stops the process.
- Errors are those of astra.errors; a blob id that is not 32 lowercase hex digits is ValueError.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from astra.constants import MIB
from astra.errors import BadChunk, StoreError

LIST_LIMIT_MAX: Final = 10_000
READ_BATCH_CHUNKS_MAX: Final = 4 * MIB // MIB  # verified per call: one hop to a thread


class DamagedBlob(BadChunk):
    """The file's footer cannot be trusted, so no chunk can: quarantine it and fetch it anew."""

    def __init__(self, blob_id: str, reason: str) -> None:
        super().__init__(blob_id, 0, reason)
        self.reason = reason


class ChunkRefused(StoreError):
    """The bytes handed in are not those that their checksum, or the blob, promises."""


class DiskFailed(StoreError):
    """The disk refused a call for a reason other than space; nothing half-written is visible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlob:
    """A blob that is durable on this node."""

    blob_id: str
    size: int
    chunk_crcs: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """Bytes of the file system under the store. `free` is what this process may use."""

    total: int
    free: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifiedChunk:
    """A whole chunk whose bytes were just checked against `crc`."""

    index: int
    data: memoryview
    crc: int


class BlobWriter(Protocol):
    """Writes one blob, in order. Ends with `finish` or `abort`, after which it is closed."""

    @property
    def blob_id(self) -> str: ...

    def append(self, chunk: bytes | memoryview, crc: int) -> None:
        """Adds the next chunk: exactly CHUNK_SIZE bytes, except the last of the blob.

        Not durable yet. Raises ChunkRefused (nothing was added; the writer is still usable)
        when the bytes do not have that checksum or length; StorageFull, DiskFailed,
        FsyncFailed (the writer has aborted itself).
        """

    def finish(self) -> StoredBlob:
        """Durable on return, data and name. Idempotent by blob id and content.

        Raises BlobConflict when the id exists with other content, StorageFull, DiskFailed,
        FsyncFailed. After any error nothing is reported stored and the writer is aborted.
        """

    def abort(self) -> None:
        """Leaves nothing behind. Idempotent, also after `finish` (then it does nothing)."""


class BlobReader(Protocol):
    """An open blob. Survives `delete` and `quarantine`, until it is closed."""

    @property
    def blob_id(self) -> str: ...

    @property
    def size(self) -> int: ...

    @property
    def chunk_crcs(self) -> tuple[int, ...]: ...

    def read(self, index: int) -> VerifiedChunk:
        """One whole chunk, verified. Raises BadChunk; IndexError outside the blob."""

    def read_batch(self, first: int, count: int) -> Sequence[VerifiedChunk]:
        """From 1 to min(count, READ_BATCH_CHUNKS_MAX) whole chunks from `first`, in order.

        Stops before a bad chunk; raises BadChunk when `first` itself is bad.
        """

    def read_range(self, offset: int, length: int) -> Iterator[memoryview]:
        """Exactly the bytes [offset, offset + length), in verified pieces, or BadChunk.

        Raises ValueError, before any piece, when the range is not inside the blob.
        """

    def close(self) -> None:
        """Idempotent."""

    def __enter__(self) -> BlobReader: ...

    def __exit__(self, *exc: object) -> None: ...


class ChunkStore(Protocol):
    """All blobs of one node."""

    def create(self, blob_id: str) -> BlobWriter:
        """One writer per id: BlobConflict while another one is open."""

    def open(self, blob_id: str) -> BlobReader:
        """Raises BlobNotFound, DamagedBlob (a BadChunk), UnknownFormat."""

    def delete(self, blob_id: str) -> None:
        """Gone for new readers on return; idempotent. A crash may bring it back: swept later."""

    def list_ids(self, after: str | None, limit: int) -> list[str]:
        """Up to `limit` ids that follow `after` in `format.listing_order`; empty at the end.

        An id that is there during a whole walk is seen exactly once.
        """

    def verify(self, blob_id: str) -> list[int]:
        """The indexes of all bad chunks. Raises as `open` does."""

    def quarantine(self, blob_id: str) -> None:
        """Durably out of sight, kept for inspection (one file per id). Idempotent.

        The caller has just seen DamagedBlob, or has nobody else repairing the same blob.
        """

    def replace_chunk(self, blob_id: str, index: int, data: bytes | memoryview, crc: int) -> None:
        """Repairs one chunk with the bytes it had; durable on return. A good one is left alone.

        ChunkRefused when the data is not what the blob's own footer promises: content never
        changes. A crash leaves the chunk bad or good, never wrong. Raises as `open` does.
        """

    def free_space(self) -> Space: ...

    def sweep_temporaries(self) -> int:
        """Removes what writers left that died; how many. Call at start; open writers are kept."""

    def close(self) -> None:
        """Open readers go on; writes end. Idempotent."""
