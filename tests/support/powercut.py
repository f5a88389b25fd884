"""A disk in memory that loses its power at a chosen call, as meanly as POSIX allows.

What was synced stays. Of everything else the seed decides, piece by piece: each name that was
added, removed or replaced without a sync of its directory is there or not, independently of
the other half of a rename; each unsynced page has its old bytes, its new ones or zeros; the
length is anything between the synced and the written one.
"""

from __future__ import annotations

import errno
import os
import random
from dataclasses import dataclass, field

from node.chunkstore.disk import Disk
from node.chunkstore.ports import Space

PAGE = 4096


class PowerCut(BaseException):
    """Nothing catches it and nothing works after it, as in life."""


@dataclass(slots=True, eq=False)
class Inode:
    is_dir: bool
    data: bytearray = field(default_factory=bytearray)
    synced: bytes = b""
    names: dict[str, Inode] = field(default_factory=dict)
    synced_names: dict[str, Inode] = field(default_factory=dict)


def fail(number: int) -> OSError:
    return OSError(number, os.strerror(number))


class PowerCutDisk(Disk):
    def __init__(self) -> None:
        self.top = Inode(is_dir=True)
        self.calls: list[str] = []
        self.cut_at: int | None = None
        self._open: dict[int, tuple[Inode, int]] = {}
        self._next = 1000

    def revive(self) -> None:
        """Only the process died: what it had written, synced or not, is still cached."""
        self.cut_at = None
        self._open.clear()

    def restart(self, rng: random.Random) -> None:
        """The power is back: only what survived is there."""
        self.revive()
        self._lose(self.top, rng)

    def _lose(self, inode: Inode, rng: random.Random) -> None:
        if not inode.is_dir:
            lose_pages(inode, rng)
            return
        survived: dict[str, Inode] = {}
        for name in sorted(inode.names.keys() | inode.synced_names.keys()):
            chosen = rng.choice((inode.names.get(name), inode.synced_names.get(name)))
            if chosen is not None:
                survived[name] = chosen
        inode.names, inode.synced_names = survived, dict(survived)
        for child in survived.values():
            self._lose(child, rng)

    def _count(self, call: str) -> None:
        if self.cut_at is not None and len(self.calls) >= self.cut_at:
            raise PowerCut
        self.calls.append(call)

    def _fd(self, inode: Inode) -> int:
        self._next += 1
        self._open[self._next] = (inode, 0)
        return self._next

    def _inode(self, fd: int) -> Inode:
        return self._open[fd][0]

    def _find(self, name: str, parent: int) -> Inode:
        found = self._inode(parent).names.get(name)
        if found is None:
            raise fail(errno.ENOENT)
        return found

    def open_root(self, path: str) -> int:
        return self._fd(self.top)

    def open_dir(self, name: str, parent: int) -> int:
        return self._fd(self._find(name, parent))

    def open_read(self, name: str, parent: int) -> int:
        return self._fd(self._find(name, parent))

    def open_repair(self, name: str, parent: int) -> int:
        return self._fd(self._find(name, parent))

    def create(self, name: str, parent: int) -> int:
        self._count("create")
        names = self._inode(parent).names
        if name in names:
            raise fail(errno.EEXIST)
        names[name] = Inode(is_dir=False)
        return self._fd(names[name])

    def mkdir(self, name: str, parent: int) -> None:
        self._count("mkdir")
        self._inode(parent).names[name] = Inode(is_dir=True)

    def lock(self, fd: int) -> bool:
        return True

    def write(self, fd: int, data: bytes | memoryview) -> int:
        self._count("write")
        inode, position = self._open[fd]
        inode.data[position : position + len(data)] = data
        self._open[fd] = (inode, position + len(data))
        return len(data)

    def pwrite(self, fd: int, data: bytes | memoryview, offset: int) -> int:
        self._count("pwrite")
        self._inode(fd).data[offset : offset + len(data)] = data
        return len(data)

    def pread(self, fd: int, length: int, offset: int) -> bytes:
        return bytes(self._inode(fd).data[offset : offset + length])

    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        self._count("start_writeback")

    def sync_data(self, fd: int) -> None:
        self._count("sync_data")
        self._inode(fd).synced = bytes(self._inode(fd).data)

    def sync_dir(self, fd: int) -> None:
        self._count("sync_dir")
        self._inode(fd).synced_names = dict(self._inode(fd).names)

    def rename(self, name: str, parent: int, new_parent: int) -> None:
        self._count("rename")
        moved = self._find(name, parent)
        del self._inode(parent).names[name]
        self._inode(new_parent).names[name] = moved

    def rename_within(self, old: str, new: str, parent: int) -> None:
        self._count("rename")
        moved = self._find(old, parent)
        del self._inode(parent).names[old]
        self._inode(parent).names[new] = moved

    def unlink(self, name: str, parent: int) -> None:
        self._find(name, parent)
        self._count("unlink")
        del self._inode(parent).names[name]

    def names(self, directory: int) -> list[str]:
        return list(self._inode(directory).names)

    def is_file(self, fd: int) -> bool:
        return not self._inode(fd).is_dir

    def size(self, fd: int) -> int:
        return len(self._inode(fd).data)

    def space(self, fd: int) -> Space:
        return Space(total=1, free=1)

    def close(self, fd: int) -> None:
        del self._open[fd]


def lose_pages(inode: Inode, rng: random.Random) -> None:
    """Synced bytes stay where nothing was written over them; the rest is anybody's guess."""
    if inode.synced == inode.data:
        return
    written, synced = bytes(inode.data), inode.synced
    length = rng.randint(min(len(synced), len(written)), max(len(synced), len(written)))
    pages: list[bytes] = []
    for start in range(0, length, PAGE):
        old = synced[start : start + PAGE].ljust(PAGE, b"\0")
        new = written[start : start + PAGE].ljust(PAGE, b"\0")
        pages.append(rng.choice((old, new, bytes(PAGE) if start >= len(synced) else old)))
    inode.data = bytearray(b"".join(pages)[:length])
    inode.synced = bytes(inode.data)
