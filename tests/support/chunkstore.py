"""Two stores of blobs under one handle, each on a disk that a test can break."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from astra.constants import CHUNK_SIZE
from node.chunkstore.disk import Disk
from node.chunkstore.format import crc32c
from node.chunkstore.layout import BLOBS, QUARANTINE, TEMPORARIES
from node.chunkstore.memory import MemoryChunkStore, MemoryDisk
from node.chunkstore.ports import BlobReader, BlobWriter, ChunkStore, Space, StoredBlob
from node.chunkstore.store import DiskChunkStore

CLUSTER, NODE = "cluster-a", "node-1"


def blob_id_of(number: int, *, directory: str = "abc") -> str:
    return f"{number:029x}{directory}"


def pattern(size: int, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(size)


def append_bytes(writer: BlobWriter, content: bytes) -> None:
    for start in range(0, len(content), CHUNK_SIZE):
        chunk = content[start : start + CHUNK_SIZE]
        writer.append(chunk, crc32c(chunk))


def store_bytes(store: ChunkStore, blob_id: str, content: bytes) -> StoredBlob:
    writer = store.create(blob_id)
    append_bytes(writer, content)
    return writer.finish()


def read_bytes(reader: BlobReader) -> bytes:
    return b"".join(reader.read_range(0, reader.size))


class FaultyDisk(Disk):
    """A real disk whose next calls of one kind fail, or write little."""

    def __init__(self) -> None:
        self.failures: dict[str, OSError] = {}
        self.write_limit: int | None = None
        self.is_full = False

    def fail_next(self, call: str, number: int) -> None:
        self.failures[call] = OSError(number, os.strerror(number))

    def _check(self, call: str) -> None:
        error = self.failures.pop(call, None)
        if error is not None:
            raise error

    def create(self, name: str, parent: int) -> int:
        self._check("create")
        return super().create(name, parent)

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._check("write")
        if self.is_full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return super().write(fd, memoryview(data)[: self.write_limit])

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._check("pwrite")
        return super().pwrite(fd, memoryview(data)[: self.write_limit], offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        self._check("pread")
        return super().pread(fd, min(length, self.write_limit or length), offset)

    def sync_data(self, fd: int) -> None:
        self._check("sync_data")
        super().sync_data(fd)

    def sync_dir(self, fd: int) -> None:
        self._check("sync_dir")
        super().sync_dir(fd)

    def rename(self, name: str, parent: int, new_parent: int) -> None:
        self._check("rename")
        super().rename(name, parent, new_parent)

    def space(self, fd: int) -> Space:
        found = super().space(fd)
        return Space(total=found.total, free=0) if self.is_full else found


class Bench(Protocol):
    """A store and the ways to hurt it."""

    @property
    def store(self) -> ChunkStore: ...

    def kill(self) -> None:
        """The process dies; `store` is a new one on the same disk."""

    def edit(self, blob_id: str, change: Callable[[bytearray], None]) -> None:
        """Changes the file of a blob behind the store's back."""

    def swap(self, one: str, other: str) -> None: ...

    def break_sync(self) -> None: ...

    def set_full(self, is_full: bool) -> None: ...

    def temporaries(self) -> int: ...

    def quarantined(self) -> list[str]: ...

    def close(self) -> None: ...


class MemoryBench:
    def __init__(self, seed: int = 1) -> None:
        self.disk = MemoryDisk(random.Random(seed))
        self._capacity = self.disk.capacity
        self.store: ChunkStore = MemoryChunkStore(self.disk)

    def kill(self) -> None:
        self.disk.crash()
        self.store = MemoryChunkStore(self.disk)

    def edit(self, blob_id: str, change: Callable[[bytearray], None]) -> None:
        change(self.disk.blobs[blob_id])

    def swap(self, one: str, other: str) -> None:
        self.disk.swap(one, other)

    def break_sync(self) -> None:
        self.disk.break_sync()

    def set_full(self, is_full: bool) -> None:
        self.disk.capacity = self.disk.used if is_full else self._capacity

    def temporaries(self) -> int:
        return len(self.disk.temporaries)

    def quarantined(self) -> list[str]:
        return list(self.disk.quarantined)

    def close(self) -> None:
        self.store.close()


class DiskBench:
    """On a directory that was initialised before, and is emptied after use."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.disk = FaultyDisk()
        self._current = self._open()

    @property
    def store(self) -> DiskChunkStore:
        return self._current

    def _open(self) -> DiskChunkStore:
        return DiskChunkStore(str(self.root), cluster_id=CLUSTER, node_id=NODE, disk=self.disk)

    def kill(self) -> None:
        self._current.directories.close()  # what the kernel does: no abort, the lock is gone
        self.disk = FaultyDisk()
        self._current = self._open()

    def path(self, blob_id: str) -> Path:
        return self.root / BLOBS / blob_id[-2:] / blob_id

    def edit(self, blob_id: str, change: Callable[[bytearray], None]) -> None:
        content = bytearray(self.path(blob_id).read_bytes())
        change(content)
        self.path(blob_id).write_bytes(content)

    def swap(self, one: str, other: str) -> None:
        first, second = self.path(one), self.path(other)
        spare = first.with_suffix(".swap")
        first.rename(spare)
        second.rename(first)
        spare.rename(second)

    def break_sync(self) -> None:
        self.disk.fail_next("sync_data", errno.EIO)

    def set_full(self, is_full: bool) -> None:
        self.disk.is_full = is_full

    def temporaries(self) -> int:
        return len(os.listdir(self.root / TEMPORARIES))

    def quarantined(self) -> list[str]:
        return os.listdir(self.root / QUARANTINE)

    def close(self) -> None:
        self._current.close()
        for pattern_ in (f"{TEMPORARIES}/*", f"{QUARANTINE}/*", f"{BLOBS}/??/*"):
            for path in self.root.glob(pattern_):
                path.unlink()
