"""Files as targets: blobs, markers, notes; and the entries of the cache.

A blob file that was changed may be refused; what it gives is what was stored, or nothing.
"""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import inspect

from astra.errors import BadChunk, BlobNotFound, ForeignDirectory, OldFormat, UnknownFormat
from astra.wire import Epochs, ListObjects, Locate, Located, ObjectPage, VersionPage
from node.cache.memory import MemoryCache
from node.chunkstore import layout
from node.chunkstore.disk import Disk
from node.chunkstore.format import Footer, chunk_count, crc32c, encode_footer
from node.chunkstore.store import DiskChunkStore
from node.datadir import _decode_marker
from node.services.querycache import QueryCache, _Entry
from node.services.scrub import Progress, decode_progress
from node.services.witness import Witness
from tests.fuzz.targets import Target

_BLOB_ID: Final = "ab" * 16
_SIZES: Final = (1, 300, 5000, 65_536)
_LARGE: Final = (1 << 20) + 300
_LARGE_SHARE: Final = 0.01


class _QuietDisk(Disk):
    """A real disk that is in no hurry: nothing here must survive."""

    def sync_dir(self, fd: int) -> None:
        """Nothing."""

    def sync_data(self, fd: int) -> None:
        """Nothing."""


class BlobFiles(Target):
    """A whole blob file, changed anywhere, or another blob's file under this name."""

    name = "blobfile"
    cost = 10

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        self._directory = tempfile.TemporaryDirectory(prefix="fuzz-", dir=memory)
        layout.initialise(self._directory.name, cluster_id="c", node_id="n1", disk=_QuietDisk())
        self._store = DiskChunkStore(
            self._directory.name, cluster_id="c", node_id="n1", disk=_QuietDisk()
        )
        self._path = Path(self._directory.name) / layout.BLOBS / _BLOB_ID[-2:] / _BLOB_ID
        self._content = b""

    def make(self) -> bytes:
        size = _LARGE if self.chance.random() < _LARGE_SHARE else self.chance.choice(_SIZES)
        self._content = content = self.chance.randbytes(size)
        chunks = [content[start : start + (1 << 20)] for start in range(0, size, 1 << 20)]
        assert len(chunks) == chunk_count(size)
        blob_id = _BLOB_ID if self.chance.random() < 0.95 else "cd" * 16
        crcs = tuple(crc32c(chunk) for chunk in chunks)
        footer = encode_footer(Footer(blob_id=blob_id, size=size, chunk_crcs=crcs))
        return self.mutator.mutate(content + footer)

    def feed(self, data: bytes) -> None:
        self._path.write_bytes(data)
        try:
            with self._store.open(_BLOB_ID) as reader:
                assert reader.size <= len(data), "a blob larger than its file"
                read = b"".join(reader.read_range(0, reader.size))
            assert read == self._content, "wrong bytes"
            assert data.startswith(self._content), "bytes that are not in the file"
        except (BadChunk, BlobNotFound, UnknownFormat):
            pass

    def close(self) -> None:
        self._store.close()
        self._directory.cleanup()


class Markers(Target):
    """Whose directory it is, and how far the scrub has come: JSON of our own making."""

    name = "marker"
    _note = inspect.type_info(Progress)

    def make(self) -> bytes:
        kind = self.chance.randrange(3)
        if kind == 0:
            valid = b'{"layout":2,"cluster_id":"c","node_id":"n1"}\n'
        elif kind == 1:
            valid = b'{"format":1,"cluster_id":"c","node_id":"n1"}'
        else:
            valid = _json(self.maker.value(self._note))
        nested = self.chance.random() < 0.1
        return b"[" * self.chance.choice((100, 3000)) if nested else self.mutator.mutate(valid)

    def feed(self, data: bytes) -> None:
        try:
            layout._decode_marker(data)
        except (ForeignDirectory, UnknownFormat, OldFormat):
            pass
        try:
            _decode_marker(data)
        except (ForeignDirectory, UnknownFormat):
            pass
        try:
            decode_progress(data, now_ms=2_000_000_000_000)
        except ValueError as error:
            if type(error) is not ValueError:
                raise AssertionError(f"not as declared: {error!r}") from error


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


class CacheEntries(Target):
    """What a cache may give back for a key: only what this very process put there is an answer."""

    name = "cache"
    _entry = inspect.type_info(_Entry)
    _query = Locate(bucket="b", key=b"k", epochs=Epochs(access=1, bucket=1))
    _list = ListObjects(bucket="b", epochs=Epochs(access=1, bucket=1))

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self._memory = MemoryCache(1 << 24)
        self._cache = QueryCache(self._memory, Witness(64), "c")
        self._stranger = QueryCache(self._memory, Witness(64), "c")

    def make(self) -> bytes:
        """The first byte says who seals it: 0 this process, 1 another, 2 nobody."""
        seal = self.chance.choice((0, 1, 2))
        return bytes([seal]) + self.mutator.mutate(self.maker.encoded(self._entry))

    def feed(self, data: bytes) -> None:
        query = self.chance.choice((self._query, self._list))
        key = self._cache._key(query, 1)
        sealer = {0: self._cache, 1: self._stranger}.get(data[0])
        value = data[1:] if sealer is None else sealer._seal(key, data[1:]) + data[1:]
        _run(self._memory.put(key, value))
        answer = _run(self._cache.find(query, 1))
        if sealer is self._cache:
            assert answer is None or isinstance(answer, Located | ObjectPage | VersionPage)
        else:
            assert answer is None, f"a stranger's entry is an answer: {answer}"


def _run(work: Coroutine[Any, Any, object]) -> object:
    """The result of a coroutine that waits for nothing."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waits")
