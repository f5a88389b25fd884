"""The store of blobs on a disk: temporary name, sync, rename, sync of the directory.

Rules: blocking; the asyncio side is executor.py. System calls only through disk.py, names only
through layout.py, checks only through checked.py. A handle may be used from any thread, one
call at a time: its lock orders a `close` after a read that is still under way, so that no
number of a closed file is ever read (the kernel gives it to somebody else at once).

Invariants
- A file under blobs/ was whole and synced before it got that name.
- One writer per id and one process per directory, so nobody else renames to that name.
- An fsync error ends all writing (see disk.py), and what it was for is removed.
"""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final

from astra.constants import CHUNK_SIZE, MIB
from astra.errors import (
    BlobConflict,
    BlobNotFound,
    FsyncFailed,
    StoreError,
)
from node.chunkstore.checked import (
    CheckedReader,
    ChunkSequence,
    check_repair,
    require_blob_id,
    require_limit,
    resolve_conflict,
)
from node.chunkstore.disk import (
    Disk,
    pread_all,
    pwrite_all,
    sync_directory,
    sync_in_place,
    sync_new_file,
    translated,
    write_all,
)
from node.chunkstore.format import (
    FOOTER_BYTES_MAX,
    TAIL_BYTES,
    Footer,
    FooterDamaged,
    decode_footer,
    footer_length,
    is_blob_id,
    read_footer_length,
)
from node.chunkstore.layout import Directories
from node.chunkstore.ports import DamagedBlob, DiskFailed, Space, StoredBlob

# Write-back is started this often, so that the sync at the end finds little left to write.
# bench/chunkstore.py: the sync of 256 MiB falls from 76 to 3 ms, the whole from 135 to 86 ms.
WRITEBACK_BYTES: Final = 8 * MIB

_NOT_A_FILE: Final = frozenset({errno.ELOOP, errno.ENXIO, errno.EISDIR})


def _read_footer(disk: Disk, fd: int, blob_id: str) -> Footer:
    """One read: the footer of a file of this size cannot be longer than the guess."""
    if not disk.is_file(fd):
        raise DamagedBlob(blob_id, "not a regular file")
    file_size = disk.size(fd)
    guess = min(file_size, footer_length(file_size), FOOTER_BYTES_MAX)
    try:
        block = pread_all(disk, fd, guess, file_size - guess)
        length = read_footer_length(block[-TAIL_BYTES:], file_size)
        return decode_footer(block[-length:], blob_id=blob_id, file_size=file_size)
    except FooterDamaged as error:
        raise DamagedBlob(blob_id, str(error)) from error
    except OSError as error:
        raise DamagedBlob(blob_id, f"footer unreadable: {error.strerror}") from error


class DiskBlobReader(CheckedReader):
    def __init__(self, disk: Disk, fd: int, footer: Footer) -> None:
        super().__init__(footer)
        self._disk = disk
        self._fd: int | None = fd
        self._lock = threading.Lock()

    def _load(self, offset: int, length: int) -> bytes:
        with self._lock:
            if self._fd is None:
                raise DiskFailed("this reader is closed")
            return pread_all(self._disk, self._fd, length, offset)

    def close(self) -> None:
        with self._lock:
            fd, self._fd = self._fd, None
            if fd is not None:
                self._disk.close(fd)

    def __enter__(self) -> DiskBlobReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class DiskBlobWriter:
    def __init__(self, store: DiskChunkStore, blob_id: str, fd: int) -> None:
        self._store = store
        self._disk = store.disk
        self._blob_id = blob_id
        self._fd: int | None = fd
        self._chunks = ChunkSequence(blob_id)
        self._writeback_from = 0
        self._lock = threading.Lock()

    @property
    def blob_id(self) -> str:
        return self._blob_id

    def append(self, chunk: bytes | memoryview, crc: int) -> None:
        with self._lock:
            fd = self._open_fd()
            self._chunks.check(chunk, crc)
            with self._aborting():
                write_all(self._disk, fd, chunk)
                self._chunks.add(len(chunk), crc)
                self._start_writeback(fd)

    def finish(self) -> StoredBlob:
        with self._lock:
            fd = self._open_fd()
            with self._aborting():
                write_all(self._disk, fd, self._chunks.encoded_footer())
                sync_new_file(self._disk, fd)
                self._store.publish(self._chunks.footer())
            self._release()
            return self._chunks.stored()

    def abort(self) -> None:
        with self._lock:
            self._discard()

    def _open_fd(self) -> int:
        if self._fd is None:
            raise DiskFailed("this writer is closed")
        try:
            self._store.check_writable()
        except StoreError:
            self._discard()
            raise
        return self._fd

    def _start_writeback(self, fd: int) -> None:
        length = self._chunks.size - self._writeback_from
        if length >= WRITEBACK_BYTES:
            self._disk.start_writeback(fd, self._writeback_from, length)
            # What was begun one or two windows ago is on its way to the disk or there: asked
            # again, the kernel drops the clean pages, and the next ones of this file take their
            # place. So a large upload does not push everything else out of the cache.
            if self._writeback_from:
                self._disk.start_writeback(fd, 0, self._writeback_from)
            self._writeback_from = self._chunks.size

    @contextmanager
    def _aborting(self) -> Iterator[None]:
        """Any error ends this writer and leaves nothing behind."""
        try:
            with self._store.failing_stop(), translated(f"blob {self._blob_id}"):
                yield
        except BaseException:
            self._discard()
            raise

    def _discard(self) -> None:
        if self._fd is None:
            return
        with suppress(OSError):  # what stays is swept at the next start
            self._disk.unlink(self._blob_id, self._store.directories.temporaries)
        self._release()

    def _release(self) -> None:
        fd, self._fd = self._fd, None
        if fd is not None:
            with suppress(OSError):  # synced already, or thrown away
                self._disk.close(fd)
            self._store.forget_writer(self._blob_id)


class DiskChunkStore:
    """All blobs of one node, in one directory. See ports.ChunkStore for the contract."""

    def __init__(
        self, path: str, *, cluster_id: str, node_id: str, disk: Disk | None = None
    ) -> None:
        """Raises ForeignDirectory when the directory is not this node's (see layout)."""
        self.disk = disk or Disk()
        self.directories = Directories(path, cluster_id=cluster_id, node_id=node_id, disk=self.disk)
        self._lock = threading.Lock()  # guards the two below
        self._writers: dict[str, DiskBlobWriter | None] = {}  # None: just being made
        self._is_closed = False
        self._failure: FsyncFailed | None = None

    def create(self, blob_id: str) -> DiskBlobWriter:
        self.check_writable()
        temporaries = self.directories.temporaries
        self._claim(require_blob_id(blob_id))
        try:
            with translated(f"blob {blob_id}"):
                with suppress(FileNotFoundError):  # of a writer that died before the sweep
                    self.disk.unlink(blob_id, temporaries)
                writer = DiskBlobWriter(self, blob_id, self.disk.create(blob_id, temporaries))
                self._writers[blob_id] = writer
                return writer
        except BaseException:
            self.forget_writer(blob_id)
            raise

    def _claim(self, blob_id: str) -> None:
        with self._lock:
            if blob_id in self._writers:
                raise BlobConflict(f"blob {blob_id} is being written")
            self._writers[blob_id] = None

    def forget_writer(self, blob_id: str) -> None:
        with self._lock:
            self._writers.pop(blob_id, None)

    def publish(self, footer: Footer) -> None:
        """Gives the synced temporary file its name, durably. OSError, FsyncFailed."""
        blob_id = footer.blob_id
        with self.directories.leaf(blob_id) as leaf:
            is_replacing = self._check_conflict(footer)
            self.disk.rename(blob_id, self.directories.temporaries, leaf)
            try:
                sync_directory(self.disk, leaf)
            except FsyncFailed:
                if not is_replacing:  # not durable, so nobody may count it as a copy
                    with suppress(OSError):
                        self.disk.unlink(blob_id, leaf)
                raise

    def _check_conflict(self, footer: Footer) -> bool:
        """Whether the blob is there already (equal, or damaged). Raises BlobConflict."""
        try:
            with self.open(footer.blob_id) as old:
                found = Footer(blob_id=old.blob_id, size=old.size, chunk_crcs=old.chunk_crcs)
        except BlobNotFound:
            return False
        except DamagedBlob:
            found = None
        resolve_conflict(footer, found)
        return True

    def open(self, blob_id: str) -> DiskBlobReader:
        self._check_open()
        require_blob_id(blob_id)
        with translated(f"blob {blob_id}"):
            try:
                with self.directories.leaf(blob_id) as leaf:
                    fd = self.disk.open_read(blob_id, leaf)
            except FileNotFoundError as error:
                raise BlobNotFound(blob_id) from error
            except OSError as error:
                if error.errno in _NOT_A_FILE:
                    raise DamagedBlob(blob_id, "not a regular file") from error
                raise
            try:
                return DiskBlobReader(self.disk, fd, _read_footer(self.disk, fd, blob_id))
            except BaseException:
                self.disk.close(fd)
                raise

    def delete(self, blob_id: str) -> None:
        self._check_open()
        require_blob_id(blob_id)
        with (
            translated(f"blob {blob_id}"),
            suppress(FileNotFoundError),
            self.directories.leaf(blob_id) as leaf,
        ):
            self.disk.unlink(blob_id, leaf)

    def list_ids(self, after: str | None, limit: int) -> list[str]:
        self._check_open()
        require_limit(limit)
        if after is not None:
            require_blob_id(after)
        found: list[str] = []
        with translated("listing blobs"):
            for blob_id in self.directories.ids_after(after):
                found.append(blob_id)
                if len(found) == limit:
                    break
        return found

    def verify(self, blob_id: str) -> list[int]:
        with self.open(blob_id) as reader:
            return reader.bad_chunks()

    def quarantine(self, blob_id: str) -> None:
        self.check_writable()
        require_blob_id(blob_id)
        target = self.directories.quarantine
        with (
            self.failing_stop(),
            translated(f"quarantine of blob {blob_id}"),
            self.directories.leaf(blob_id) as leaf,
        ):
            try:
                self.disk.rename(blob_id, leaf, target)
            except FileNotFoundError:
                return
            sync_directory(self.disk, target)
            sync_directory(self.disk, leaf)

    def replace_chunk(self, blob_id: str, index: int, data: bytes | memoryview, crc: int) -> None:
        self.check_writable()
        with self.open(blob_id) as reader:
            footer = Footer(blob_id=blob_id, size=reader.size, chunk_crcs=reader.chunk_crcs)
            check_repair(footer, index, data, crc)
            if reader.is_good(index):
                return
        with self.failing_stop(), translated(f"repair of blob {blob_id}"):
            with self.directories.leaf(blob_id) as leaf:
                fd = self.disk.open_repair(blob_id, leaf)
            try:
                pwrite_all(self.disk, fd, data, index * CHUNK_SIZE)
                sync_in_place(self.disk, fd)
            finally:
                self.disk.close(fd)

    def free_space(self) -> Space:
        self._check_open()
        with translated("free space"):
            return self.disk.space(self.directories.root)

    def sweep_temporaries(self) -> int:
        self.check_writable()
        removed = 0
        with translated("sweep of temporary files"):
            for name in self.disk.names(self.directories.temporaries):
                with self._lock:
                    if name in self._writers or not is_blob_id(name):
                        continue
                    self.disk.unlink(name, self.directories.temporaries)
                    removed += 1
        return removed

    def close(self) -> None:
        """All other calls on the store have returned; open writers are aborted here."""
        with self._lock:
            self._is_closed = True
            writers = [writer for writer in self._writers.values() if writer is not None]
        for writer in writers:
            writer.abort()
        self.directories.close()

    def check_writable(self) -> None:
        self._check_open()
        if self._failure is not None:
            raise FsyncFailed(str(self._failure)) from self._failure

    def _check_open(self) -> None:
        if self._is_closed:
            raise DiskFailed("the store is closed")

    @contextmanager
    def failing_stop(self) -> Iterator[None]:
        """An fsync error inside ends all writing of this store."""
        try:
            yield
        except FsyncFailed as error:
            self._failure = self._failure or error
            raise
