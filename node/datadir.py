"""The data directory: whose it is, and that only one process uses it.

A marker file names cluster and node. A directory with data but without the marker, or with
another name in it, is refused (an unmounted disk, or a mixed-up volume): starting on it would
make an empty node that claims to hold blobs.

A new directory is `is_new` until `settle`, which comes after the chunk store was made and before
the database: a crash in between starts over.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

import msgspec

from astra.decoding import UNREADABLE
from astra.errors import ConfigError, ForeignDirectory, UnknownFormat

MARKER: Final = "astra-node.json"
_LOCK: Final = "lock"
_FORMAT: Final = 1
_MARKER_BYTES_MAX: Final = 4096


class _Marker(msgspec.Struct, frozen=True, kw_only=True):
    format: int
    cluster_id: str
    node_id: str


class _AnyMarker(msgspec.Struct, frozen=True, kw_only=True):
    """Of every version, for ever."""

    format: int


class DataDirectory:
    """Claimed while open. Paths below it are made on demand by their owners."""

    def __init__(self, path: Path, *, cluster_id: str, node_id: str) -> None:
        """Raises ConfigError (not writable, in use), ForeignDirectory, UnknownFormat."""
        self.path = path
        with self._writing():
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock: IO[bytes] = (path / _LOCK).open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise ConfigError(f"the data directory {path} is used by another process") from error
        self._owner = _Marker(format=_FORMAT, cluster_id=cluster_id, node_id=node_id)
        try:
            self.is_new = self._check()
            with self._writing():
                if self.is_new:
                    self.chunks.mkdir(exist_ok=True)
        except BaseException:
            self._lock.close()
            raise

    @property
    def chunks(self) -> Path:
        return self.path / "chunks"

    @property
    def database(self) -> Path:
        return self.path / "metadata.sqlite"

    def close(self) -> None:
        self._lock.close()

    def settle(self) -> None:
        """Durable: from now on this is the directory of this node only. Raises ConfigError."""
        if self.is_new:
            with self._writing():
                _write_durably(self.path / MARKER, msgspec.json.encode(self._owner))
            self.is_new = False

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ConfigError(f"cannot write to the data directory {self.path}: {error}") from error

    def _check(self) -> bool:
        """True for a new directory. Raises ConfigError, ForeignDirectory, UnknownFormat."""
        marker = self.path / MARKER
        if not marker.exists():
            if self.database.exists():
                raise ForeignDirectory(f"{self.path} holds a database but no {MARKER}: not ours")
            return True
        try:
            with marker.open("rb") as file:
                data = file.read(_MARKER_BYTES_MAX)
        except OSError as error:
            raise ConfigError(f"cannot read {marker}: {error}") from error
        found = _decode_marker(data)
        if found != self._owner:
            raise ForeignDirectory(
                f"{self.path} belongs to node {found.node_id} of cluster {found.cluster_id},"
                f" not to {self._owner.node_id} of {self._owner.cluster_id}"
            )
        return False


def _decode_marker(data: bytes) -> _Marker:
    """Raises ForeignDirectory, UnknownFormat."""
    try:
        version = msgspec.json.decode(data, type=_AnyMarker).format
        if version != _FORMAT:
            raise UnknownFormat(
                f"{MARKER} has format {version}; this version knows {_FORMAT}:"
                " start the newer AstraStorage again"
            )
        return msgspec.json.decode(data, type=_Marker)
    except UNREADABLE as error:
        raise ForeignDirectory(f"the file {MARKER} cannot be read: {error}") from error


def _write_durably(path: Path, data: bytes) -> None:
    """All or nothing after a power loss."""
    temporary = path.with_suffix(".tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
