"""Where things are in the data directory of the store, and whose directory it is.

    ASTRA-CHUNKS          the marker: layout version, cluster id, node id (JSON); also the lock
    blobs/<yz>/<id>       yz = the last two digits of the id, which are random
    tmp/<id>              a blob that is being written
    quarantine/<id>       a damaged blob, kept for a look

All 256 directories are made once, so that storing a blob never makes (and syncs) one. The first
digits of an id are its time and would put all new blobs into one directory.

Rules: names come from checked blob ids and from the constants here, never from a client.
Invariant: no marker of ours, no store. An unmounted disk leaves an empty directory, and
writing there would fill the root disk (FAULTS row 40); `initialise` is therefore a decision
of the caller and never happens by itself.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import msgspec

from astra.decoding import UNREADABLE
from astra.errors import ForeignDirectory, OldFormat, UnknownFormat
from node.chunkstore.disk import Disk, sync_directory, sync_new_file, translated, write_all
from node.chunkstore.format import is_blob_id, listing_order

LAYOUT_VERSION: Final = 2
MARKER: Final = "ASTRA-CHUNKS"
_MARKER_TEMPORARY: Final = "ASTRA-CHUNKS.new"
_MARKER_BYTES_MAX: Final = 4096
BLOBS: Final = "blobs"
TEMPORARIES: Final = "tmp"
QUARANTINE: Final = "quarantine"
LEAVES: Final = tuple(f"{value:02x}" for value in range(256))
_OWN_NAMES: Final = frozenset({BLOBS, TEMPORARIES, QUARANTINE, _MARKER_TEMPORARY, "lost+found"})


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Whose directory it is."""

    layout: int = LAYOUT_VERSION
    cluster_id: str
    node_id: str


def initialise(path: str, *, cluster_id: str, node_id: str, disk: Disk | None = None) -> None:
    """Makes an empty directory into a store; durable on return, idempotent for the same owner.

    Raises ForeignDirectory when it holds anything else. The marker comes last, so that a crash
    leaves either no store (call again) or a whole one.
    """
    disk = disk or Disk()
    wanted = Marker(cluster_id=cluster_id, node_id=node_id)
    with translated(f"cannot initialise {path}"):
        root = disk.open_root(path)
        try:
            names = set(disk.names(root))
            if MARKER in names:
                _check_marker(_read_marker(disk, root), wanted)
                return
            if not names <= _OWN_NAMES:
                raise ForeignDirectory(f"{path} is not empty and has no {MARKER} file")
            _make_directories(disk, root)
            _refuse_blobs_without_marker(disk, root)
            _write_marker(disk, root, wanted)
        finally:
            disk.close(root)


def _make_directories(disk: Disk, root: int) -> None:
    _make_missing(disk, root, (BLOBS, TEMPORARIES, QUARANTINE))
    with _opened(disk, BLOBS, root) as blobs:
        _make_missing(disk, blobs, LEAVES)


def _make_missing(disk: Disk, parent: int, names: tuple[str, ...]) -> None:
    present = set(disk.names(parent))
    for name in names:
        if name not in present:
            disk.mkdir(name, parent)
    # Also when none is missing: they may be of a process that died before this line.
    sync_directory(disk, parent)


def _refuse_blobs_without_marker(disk: Disk, root: int) -> None:
    """Blobs without a marker are somebody's data: only a person may decide whose."""
    with _opened(disk, BLOBS, root) as blobs:
        if not set(disk.names(blobs)) <= set(LEAVES):
            raise ForeignDirectory(f"{BLOBS} holds what is not ours, without a {MARKER} file")
        for leaf in LEAVES:
            with _opened(disk, leaf, blobs) as directory:
                if disk.names(directory):
                    raise ForeignDirectory(f"blobs without a {MARKER} file")


@contextmanager
def _opened(disk: Disk, name: str, parent: int) -> Iterator[int]:
    fd = disk.open_dir(name, parent)
    try:
        yield fd
    finally:
        disk.close(fd)


def _write_marker(disk: Disk, root: int, marker: Marker) -> None:
    if _MARKER_TEMPORARY in disk.names(root):
        disk.unlink(_MARKER_TEMPORARY, root)
    fd = disk.create(_MARKER_TEMPORARY, root)
    try:
        write_all(disk, fd, msgspec.json.encode(marker) + b"\n")
        sync_new_file(disk, fd)
    finally:
        disk.close(fd)
    disk.rename_within(_MARKER_TEMPORARY, MARKER, root)
    sync_directory(disk, root)


def _read_marker(disk: Disk, root: int) -> Marker:
    fd = disk.open_read(MARKER, root)
    try:
        return _decode_marker(disk.pread(fd, _MARKER_BYTES_MAX, 0))
    finally:
        disk.close(fd)


def _decode_marker(data: bytes) -> Marker:
    try:
        layout = msgspec.json.decode(data, type=dict[str, msgspec.Raw])["layout"]
        version = msgspec.json.decode(layout, type=int)
        if version != LAYOUT_VERSION:
            refusal = UnknownFormat if version > LAYOUT_VERSION else OldFormat
            raise refusal(f"chunk directory layout {version}; known is {LAYOUT_VERSION}")
        return msgspec.json.decode(data, type=Marker)
    except (*UNREADABLE, KeyError) as error:
        raise ForeignDirectory(f"the {MARKER} file is damaged") from error


def _check_marker(found: Marker, wanted: Marker) -> None:
    if found != wanted:
        raise ForeignDirectory(
            f"the directory is that of node {found.node_id!r} in cluster {found.cluster_id!r}, "
            f"this is node {wanted.node_id!r} in cluster {wanted.cluster_id!r}"
        )


class Directories:
    """The open directories of a store that is ours; everything is reached through them."""

    def __init__(self, path: str, *, cluster_id: str, node_id: str, disk: Disk) -> None:
        """Raises ForeignDirectory, UnknownFormat, OldFormat; locks the store to this process."""
        self.disk = disk
        self._fds: list[int] = []
        try:
            with translated(f"cannot open {path}"):
                self._open_all(path, Marker(cluster_id=cluster_id, node_id=node_id))
        except BaseException:
            self.close()
            raise

    def _open_all(self, path: str, wanted: Marker) -> None:
        disk = self.disk
        try:
            self.root = self._keep(disk.open_root(path))
            marker = self._keep(disk.open_read(MARKER, self.root))
        except FileNotFoundError as error:
            raise ForeignDirectory(
                f"{path} has no {MARKER} file: is its disk mounted? (a new node: initialise it)"
            ) from error
        _check_marker(_decode_marker(disk.pread(marker, _MARKER_BYTES_MAX, 0)), wanted)
        if not disk.lock(marker):
            raise ForeignDirectory(f"{path} is in use by another process")
        _make_directories(disk, self.root)  # only what is missing
        self.temporaries = self._keep(disk.open_dir(TEMPORARIES, self.root))
        self.quarantine = self._keep(disk.open_dir(QUARANTINE, self.root))
        self._blobs = self._keep(disk.open_dir(BLOBS, self.root))

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd

    @contextmanager
    def leaf(self, blob_id: str) -> Iterator[int]:
        """The open directory of a blob. OSError when it is not there."""
        with _opened(self.disk, blob_id[-2:], self._blobs) as fd:
            yield fd

    def ids_after(self, after: str | None) -> Iterator[str]:
        """All blob ids in listing order, one directory in memory at a time."""
        first = after[-2:] if after is not None else LEAVES[0]
        for leaf in LEAVES[LEAVES.index(first) :]:
            for blob_id in sorted(self._ids_in(leaf)):
                if after is None or listing_order(blob_id) > listing_order(after):
                    yield blob_id

    def _ids_in(self, leaf: str) -> list[str]:
        """Foreign names, and blobs in a directory that is not theirs, are not ours to list."""
        try:
            with _opened(self.disk, leaf, self._blobs) as directory:
                names = self.disk.names(directory)
        except OSError as error:
            if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}:
                return []
            raise
        return [name for name in names if is_blob_id(name) and name.endswith(leaf)]

    def close(self) -> None:
        """Gives up the lock. Idempotent."""
        while self._fds:
            self.disk.close(self._fds.pop())
