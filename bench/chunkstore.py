"""What the store of blobs costs over plain system calls, in the same run on the same disk.

    python bench/chunkstore.py [--dir DIR] [--mib 256] [--rounds 7] [--json]

Rounds of all cases are interleaved and medians compared, so that a disk that gets slower
slows everything. `raw` is write and fdatasync of 1 MiB pieces: no checksum, no rename.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))

from astra.constants import CHUNK_SIZE, KIB, MIB
from node.chunkstore.disk import Disk
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.format import crc32c, make_blob_id
from node.chunkstore.layout import initialise
from node.chunkstore.store import DiskChunkStore

SMALL = 64 * KIB
SMALL_COUNT = 50

T = TypeVar("T")


class NoWriteback(Disk):
    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        pass


class SyncWriteback(Disk):
    def start_writeback(self, fd: int, offset: int, length: int) -> None:
        os.fdatasync(fd)


def write_raw(path: Path, pieces: list[bytes]) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        for piece in pieces:
            os.write(fd, piece)
        os.fdatasync(fd)
    finally:
        os.close(fd)


def read_raw(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY)
    try:
        while os.read(fd, 4 * MIB):
            pass
    finally:
        os.close(fd)


def new_id() -> str:
    return make_blob_id(time_ms=time.time_ns() // 10**6, salt=os.urandom(10))


def write_blob(store: DiskChunkStore, pieces: list[tuple[bytes, int]]) -> str:
    writer = store.create(new_id())
    for piece, crc in pieces:
        writer.append(piece, crc)
    return writer.finish().blob_id


async def write_blob_async(store: AsyncChunkStore, pieces: list[tuple[bytes, int]]) -> str:
    writer = await store.create(new_id())
    for piece, crc in pieces:
        await writer.append(piece, crc)
    return (await writer.finish()).blob_id


def read_blob(store: DiskChunkStore, blob_id: str) -> None:
    with store.open(blob_id) as reader:
        for _ in reader.read_range(0, reader.size):
            pass


async def read_blob_async(store: AsyncChunkStore, blob_id: str) -> None:
    async with await store.open(blob_id) as reader:
        async for _ in reader.read_range(0, reader.size):
            pass


class Cases:
    """Every case leaves the disk as it found it; only `timed` is measured."""

    def __init__(self, root: Path, mib: int) -> None:
        self.raw = root / "raw"
        self.stores = {
            name: self._open(root / name, disk)
            for name, disk in (
                ("store", Disk()),
                ("store, no early write-back", NoWriteback()),
                ("store, fdatasync every 8 MiB", SyncWriteback()),
            )
        }
        self.store = self.stores["store"]
        self.pooled = AsyncChunkStore(self._open(root / "pooled", Disk()))
        data = [os.urandom(CHUNK_SIZE) for _ in range(mib)]
        self.pieces = [(piece, crc32c(piece)) for piece in data]
        small = os.urandom(SMALL)
        self.small = [(small, crc32c(small))]
        self.took: dict[str, list[float]] = {}

    def _open(self, path: Path, disk: Disk) -> DiskChunkStore:
        path.mkdir()
        initialise(str(path), cluster_id="bench", node_id="bench")
        return DiskChunkStore(str(path), cluster_id="bench", node_id="bench", disk=disk)

    def timed(self, name: str, call: Callable[[], T]) -> T:
        started = time.perf_counter()
        result = call()
        self.took.setdefault(name, []).append(time.perf_counter() - started)
        return result

    async def run_round(self) -> None:
        data = [piece for piece, _ in self.pieces]
        self.timed("write raw", partial(write_raw, self.raw, data))
        self.timed("read raw", partial(read_raw, self.raw))
        self.raw.unlink()
        for name, store in self.stores.items():
            blob_id = self.timed(f"write {name}", partial(write_blob, store, self.pieces))
            if store is self.store:
                self.timed("read store", partial(read_blob, store, blob_id))
            store.delete(blob_id)
        await self._round_pooled()
        self.timed("small raw", self._small_raw)
        self.timed("small store", self._small_store)

    async def _round_pooled(self) -> None:
        started = time.perf_counter()
        blob_id = await write_blob_async(self.pooled, self.pieces)
        written = time.perf_counter()
        await read_blob_async(self.pooled, blob_id)
        self.took.setdefault("write pooled", []).append(written - started)
        self.took.setdefault("read pooled", []).append(time.perf_counter() - written)
        await self.pooled.delete(blob_id)

    def _small_raw(self) -> None:
        for number in range(SMALL_COUNT):
            write_raw(self.raw.with_suffix(f".{number}"), [self.small[0][0]])

    def _small_store(self) -> None:
        for _ in range(SMALL_COUNT):
            write_blob(self.store, self.small)

    async def close(self) -> None:
        for store in self.stores.values():
            store.close()
        await self.pooled.close()


def report(took: dict[str, list[float]], mib: int) -> list[dict[str, str | float]]:
    medians = {name: statistics.median(values) for name, values in took.items()}
    rows: list[dict[str, str | float]] = []
    for name, seconds in medians.items():
        raw = medians[f"{name.split()[0]} raw"]
        is_small = name.startswith("small")
        value = 1e3 * seconds / SMALL_COUNT if is_small else mib / seconds
        rows.append(
            {
                "case": name,
                "value": round(value, 3),
                "unit": "ms each" if is_small else "MiB/s",
                "speed_to_raw": round(raw / seconds, 2),
            }
        )
    return rows


async def run(directory: str | None, mib: int, rounds: int) -> list[dict[str, str | float]]:
    with tempfile.TemporaryDirectory(dir=directory) as root:
        cases = Cases(Path(root), mib)
        await cases.run_round()  # warm up: directories, page cache
        cases.took.clear()
        for _ in range(rounds):
            await cases.run_round()
        await cases.close()
        return report(cases.took, mib)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--dir", help="on the disk to measure (default: the temporary directory)")
    parser.add_argument("--mib", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows = asyncio.run(run(options.dir, options.mib, options.rounds))
    if options.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['case']:38} {row['value']:>10} {row['unit']:8} {row['speed_to_raw']:>6} x raw")


main()
