"""A ChunkStore in memory, on a disk that crashes, fills up and rots when it is told to.

Rules: same Protocol, same errors, same file bytes as store.py (format.py makes both), so that
a flipped bit means the same. The disk outlives its stores: after `crash()` every handle of
the old store is dead, and a new MemoryChunkStore on the same disk sees what a real one would.
All chance comes from the generator that the caller seeded.

Invariants: what `finish`, `replace_chunk` and `quarantine` returned from survives `crash()`;
what was only appended is torn at a point the seed chooses, under a temporary name.
"""

from __future__ import annotations

import random
from bisect import bisect_right

from astra.constants import CHUNK_SIZE, TIB
from astra.errors import BlobConflict, BlobNotFound, FsyncFailed, StorageFull, StoreError
from node.chunkstore.checked import (
    CheckedReader,
    ChunkSequence,
    check_repair,
    require_blob_id,
    require_limit,
    resolve_conflict,
)
from node.chunkstore.format import (
    TAIL_BYTES,
    Footer,
    FooterDamaged,
    decode_footer,
    listing_order,
    read_footer_length,
)
from node.chunkstore.ports import DamagedBlob, DiskFailed, Space, StoredBlob


class SimulatedCrash(Exception):
    """The power went away inside a call: the caller never learns how it ended."""


class MemoryDisk:
    """What survives. Tests and the simulator break it here."""

    def __init__(self, rng: random.Random, *, capacity: int = TIB) -> None:
        self.rng = rng
        self.capacity = capacity
        self.blobs: dict[str, bytearray] = {}
        self.temporaries: dict[str, bytearray] = {}
        self.quarantined: dict[str, bytearray] = {}
        self.generation = 0
        self._is_crash_armed = False
        self._is_sync_broken = False

    @property
    def used(self) -> int:
        files = (self.blobs, self.temporaries, self.quarantined)
        return sum(len(file) for group in files for file in group.values())

    def crash(self) -> None:
        """Power loss: appended bytes are torn, handles are dead, temporaries remain."""
        self.generation += 1
        for file in self.temporaries.values():
            del file[self.rng.randint(0, len(file)) :]

    def arm_crash(self) -> None:
        """The next durable step crashes, before or after its effect as the seed chooses."""
        self._is_crash_armed = True

    def break_sync(self) -> None:
        """The next fsync fails, once, as a real one does."""
        self._is_sync_broken = True

    def flip_bit(self, blob_id: str, bit: int | None = None) -> int:
        """Rots one bit of the file (footer included); which one."""
        file = self.blobs[blob_id]
        chosen = self.rng.randrange(8 * len(file)) if bit is None else bit
        file[chosen // 8] ^= 1 << (chosen % 8)
        return chosen

    def truncate(self, blob_id: str, length: int) -> None:
        del self.blobs[blob_id][length:]

    def swap(self, one: str, other: str) -> None:
        """Two files trade names: a misdirected write."""
        self.blobs[one], self.blobs[other] = self.blobs[other], self.blobs[one]

    def grow(self, file: bytearray, data: bytes | memoryview) -> None:
        if self.used + len(data) > self.capacity:
            raise StorageFull("the simulated disk is full")
        file += data

    def sync_point(self) -> bool:
        """Called before each durable effect. True: crash after it. Raises to crash before it."""
        if self._is_sync_broken:
            self._is_sync_broken = False
            raise FsyncFailed("simulated fsync error")
        if not self._is_crash_armed:
            return False
        self._is_crash_armed = False
        if self.rng.random() < 0.5:
            self.crash_now()
        return True

    def crash_now(self) -> None:
        self.crash()
        raise SimulatedCrash


def _footer_of(blob_id: str, file: bytearray) -> Footer:
    try:
        length = read_footer_length(bytes(file[-TAIL_BYTES:]), len(file))
        return decode_footer(bytes(file[-length:]), blob_id=blob_id, file_size=len(file))
    except FooterDamaged as error:
        raise DamagedBlob(blob_id, str(error)) from error


class _Handle:
    """What belongs to one run of the process."""

    def __init__(self, store: MemoryChunkStore) -> None:
        self._store = store
        self._disk = store.disk
        self._generation = store.disk.generation
        self.is_closed = False

    def _check_alive(self) -> None:
        if self.is_closed or self._generation != self._disk.generation:
            raise DiskFailed("this handle is closed")


class MemoryBlobReader(_Handle, CheckedReader):
    def __init__(self, store: MemoryChunkStore, footer: Footer, file: bytearray) -> None:
        _Handle.__init__(self, store)
        CheckedReader.__init__(self, footer)
        self._file = file

    def _load(self, offset: int, length: int) -> bytes:
        self._check_alive()
        return bytes(memoryview(self._file)[offset : offset + length])

    def close(self) -> None:
        self.is_closed = True

    def __enter__(self) -> MemoryBlobReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class MemoryBlobWriter(_Handle):
    def __init__(self, store: MemoryChunkStore, blob_id: str) -> None:
        super().__init__(store)
        self._blob_id = blob_id
        self._chunks = ChunkSequence(blob_id)
        self._file = self._disk.temporaries[blob_id] = bytearray()

    @property
    def blob_id(self) -> str:
        return self._blob_id

    def append(self, chunk: bytes | memoryview, crc: int) -> None:
        self._check_writable()
        self._chunks.check(chunk, crc)
        self._grow(chunk)
        self._chunks.add(len(chunk), crc)

    def finish(self) -> StoredBlob:
        self._check_writable()
        self._grow(self._chunks.encoded_footer())
        try:
            resolve_conflict(self._chunks.footer(), self._store.footer_if_readable(self._blob_id))
            self._publish()
        except (FsyncFailed, BlobConflict) as error:
            self.abort()
            self._store.note_failure(error)
            raise
        return self._chunks.stored()

    def _publish(self) -> None:
        crash_after = self._disk.sync_point()
        self._disk.blobs[self._blob_id] = self._disk.temporaries.pop(self._blob_id)
        self._store.writers.pop(self._blob_id, None)
        self.is_closed = True
        if crash_after:
            self._disk.crash_now()

    def abort(self) -> None:
        if self.is_closed or self._generation != self._disk.generation:
            return
        self.is_closed = True
        self._store.writers.pop(self._blob_id, None)
        self._disk.temporaries.pop(self._blob_id, None)

    def _grow(self, data: bytes | memoryview) -> None:
        try:
            self._disk.grow(self._file, data)
        except StorageFull:
            self.abort()
            raise

    def _check_writable(self) -> None:
        self._check_alive()
        try:
            self._store.check_writable()
        except StoreError:
            self.abort()
            raise


class MemoryChunkStore:
    """The twin of DiskChunkStore."""

    def __init__(self, disk: MemoryDisk) -> None:
        self.disk = disk
        self.writers: dict[str, MemoryBlobWriter] = {}
        self._generation = disk.generation
        self._failure: FsyncFailed | None = None
        self.is_closed = False

    def create(self, blob_id: str) -> MemoryBlobWriter:
        self.check_writable()
        if require_blob_id(blob_id) in self.writers:
            raise BlobConflict(f"blob {blob_id} is being written")
        self.writers[blob_id] = MemoryBlobWriter(self, blob_id)
        return self.writers[blob_id]

    def open(self, blob_id: str) -> MemoryBlobReader:
        self._check_alive()
        file = self.disk.blobs.get(require_blob_id(blob_id))
        if file is None:
            raise BlobNotFound(blob_id)
        return MemoryBlobReader(self, _footer_of(blob_id, file), file)

    def delete(self, blob_id: str) -> None:
        self._check_alive()
        self.disk.blobs.pop(require_blob_id(blob_id), None)

    def list_ids(self, after: str | None, limit: int) -> list[str]:
        self._check_alive()
        require_limit(limit)
        ids = sorted(self.disk.blobs, key=listing_order)
        start = 0
        if after is not None:
            start = bisect_right(ids, listing_order(require_blob_id(after)), key=listing_order)
        return ids[start : start + limit]

    def verify(self, blob_id: str) -> list[int]:
        with self.open(blob_id) as reader:
            return reader.bad_chunks()

    def quarantine(self, blob_id: str) -> None:
        self.check_writable()
        if require_blob_id(blob_id) not in self.disk.blobs:
            return
        crash_after = self._sync_point()
        self.disk.quarantined[blob_id] = self.disk.blobs.pop(blob_id)
        if crash_after:
            self.disk.crash_now()

    def replace_chunk(self, blob_id: str, index: int, data: bytes | memoryview, crc: int) -> None:
        self.check_writable()
        with self.open(blob_id) as reader:
            footer = _footer_of(blob_id, self.disk.blobs[blob_id])
            check_repair(footer, index, data, crc)
            if reader.is_good(index):
                return
        file, offset = self.disk.blobs[blob_id], index * CHUNK_SIZE
        crash_after = self._sync_point()
        torn = self.disk.rng.randint(0, len(data)) if crash_after else len(data)
        file[offset : offset + torn] = data[:torn]
        if crash_after:
            self.disk.crash_now()

    def free_space(self) -> Space:
        self._check_alive()
        return Space(total=self.disk.capacity, free=max(0, self.disk.capacity - self.disk.used))

    def sweep_temporaries(self) -> int:
        self.check_writable()
        dead = [blob_id for blob_id in self.disk.temporaries if blob_id not in self.writers]
        for blob_id in dead:
            del self.disk.temporaries[blob_id]
        return len(dead)

    def close(self) -> None:
        """Open writers are aborted."""
        self.is_closed = True
        for writer in list(self.writers.values()):
            writer.abort()

    def footer_if_readable(self, blob_id: str) -> Footer | None:
        """None: absent, or too damaged to be in conflict with anything."""
        file = self.disk.blobs.get(blob_id)
        if file is None:
            return None
        try:
            return _footer_of(blob_id, file)
        except DamagedBlob:
            return None

    def check_writable(self) -> None:
        self._check_alive()
        if self._failure is not None:
            raise FsyncFailed(str(self._failure))

    def note_failure(self, error: Exception) -> None:
        if isinstance(error, FsyncFailed):
            self._failure = error

    def _sync_point(self) -> bool:
        try:
            return self.disk.sync_point()
        except FsyncFailed as error:
            self.note_failure(error)
            raise

    def _check_alive(self) -> None:
        if self._generation != self.disk.generation:
            raise DiskFailed("this store crashed with its disk")
        if self.is_closed:
            raise DiskFailed("the store is closed")
