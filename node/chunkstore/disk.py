"""The system calls that the store makes, and what their errors mean to us.

Rules: the only file of the store that calls `os`. Every name is opened relative to a directory
that is already open, with O_NOFOLLOW, so no link inside the data directory leads out of it.
A `Disk` has no state: tests give the store one whose n-th call fails.

What errors mean: no space -> StorageFull; an fsync error -> FsyncFailed, whatever its number,
except that "no space" from the sync of a file that is thrown away is only StorageFull (delayed
allocation); all else -> DiskFailed. An fsync is never tried again: after an error the kernel
may have marked the lost pages clean, so the second call would succeed and lie.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from astra.errors import FsyncFailed, StorageFull, StoreError
from node.chunkstore.ports import DiskFailed, Space

_COMMON: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_NO_SPACE: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_DIR_MODE: Final = 0o700
_FILE_MODE: Final = 0o600


def is_no_space(error: OSError) -> bool:
    return error.errno in _NO_SPACE


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turns OSError into the errors that the Protocol promises."""
    try:
        yield
    except OSError as error:
        raise translate(error, what) from error


def translate(error: OSError, what: str) -> StoreError:
    if is_no_space(error):
        return StorageFull(f"{what}: no space left")
    return DiskFailed(f"{what}: {error.strerror}")


class Disk:
    """Thin and total: each method is one system call (or one until done)."""

    def open_root(self, path: str) -> int:
        """The data directory itself may be reached through the operator's own links."""
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def open_dir(self, name: str, parent: int) -> int:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | _COMMON, dir_fd=parent)

    def open_read(self, name: str, parent: int) -> int:
        """O_NONBLOCK: a foreign fifo of that name must not hang us. `is_file` refuses it."""
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | _COMMON, dir_fd=parent)

    def open_repair(self, name: str, parent: int) -> int:
        return os.open(name, os.O_RDWR | os.O_NONBLOCK | _COMMON, dir_fd=parent)

    def create(self, name: str, parent: int) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _COMMON
        return os.open(name, flags, _FILE_MODE, dir_fd=parent)

    def mkdir(self, name: str, parent: int) -> None:
        os.mkdir(name, _DIR_MODE, dir_fd=parent)

    def lock(self, fd: int) -> bool:
        """Held until the fd is closed, also by a crash. False: another process has it."""
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def write(self, fd: int, data: bytes | memoryview) -> int:
        return os.write(fd, data)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        return os.pwrite(fd, data, offset)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return os.pread(fd, length, offset)

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        """Asks the kernel to begin writing these dirty pages, and does not wait for it.

        Linux does that on FADV_DONTNEED; pages that are dirty or under way stay cached.
        """
        os.posix_fadvise(fd, offset, length, os.POSIX_FADV_DONTNEED)

    def sync_data(self, fd: int) -> None:
        os.fdatasync(fd)

    def sync_dir(self, fd: int) -> None:
        os.fsync(fd)

    def rename(self, name: str, parent: int, new_parent: int) -> None:
        os.rename(name, name, src_dir_fd=parent, dst_dir_fd=new_parent)

    def rename_within(self, old: str, new: str, parent: int) -> None:
        os.rename(old, new, src_dir_fd=parent, dst_dir_fd=parent)

    def unlink(self, name: str, parent: int) -> None:
        os.unlink(name, dir_fd=parent)

    def names(self, directory: int) -> list[str]:
        return os.listdir(directory)

    def is_file(self, fd: int) -> bool:
        return stat.S_ISREG(os.fstat(fd).st_mode)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def space(self, fd: int) -> Space:
        found = os.fstatvfs(fd)
        return Space(total=found.f_blocks * found.f_frsize, free=found.f_bavail * found.f_frsize)

    def close(self, fd: int) -> None:
        os.close(fd)


def write_all(disk: Disk, fd: int, data: bytes | memoryview) -> None:
    """Short writes are continued; a write that makes no progress is an error."""
    rest = memoryview(data)
    while rest:
        done = disk.write(fd, rest)
        if done <= 0:
            raise OSError(errno.EIO, "write made no progress")
        rest = rest[done:]


def pwrite_all(disk: Disk, fd: int, data: bytes | memoryview, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        done = disk.pwrite(fd, rest, offset)
        if done <= 0:
            raise OSError(errno.EIO, "write made no progress")
        rest, offset = rest[done:], offset + done


def pread_all(disk: Disk, fd: int, length: int, offset: int) -> bytes:
    """Fewer bytes than asked only at the end of the file."""
    data = disk.pread(fd, length, offset)
    if len(data) in {0, length}:
        return data
    parts = [data]
    while data and length > len(data):
        length, offset = length - len(data), offset + len(data)
        data = disk.pread(fd, length, offset)
        parts.append(data)
    return b"".join(parts)


def sync_new_file(disk: Disk, fd: int) -> None:
    """Makes a file durable that is unlinked on any error."""
    try:
        disk.sync_data(fd)
    except OSError as error:
        if is_no_space(error):
            raise StorageFull("sync of a new file: no space left") from error
        raise FsyncFailed(f"fdatasync: {error.strerror}") from error


def sync_in_place(disk: Disk, fd: int) -> None:
    try:
        disk.sync_data(fd)
    except OSError as error:
        raise FsyncFailed(f"fdatasync: {error.strerror}") from error


def sync_directory(disk: Disk, fd: int) -> None:
    try:
        disk.sync_dir(fd)
    except OSError as error:
        raise FsyncFailed(f"fsync of a directory: {error.strerror}") from error
