"""What survives a power loss, and what does not: one machine's storage, and the shared cache.

Raft log and metadata live in one database, so their durability follows one write-ahead log: an
append is durable when it returns, and with it everything applied before; a crash keeps some of
the newer transactions, oldest first. Chunks are on node.chunkstore.memory.MemoryDisk, which tears
what was not synced. All calls take simulated time; in the middle of it a crash may come.
"""

from __future__ import annotations

import asyncio
import copy
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from astra.errors import FsyncFailed
from astra.model import APPLIED_INDEX, MARKS, Mark
from astra.ports import MetadataTxn, MetadataView
from astra.wire import Entry, Membership
from node.chunkstore.memory import MemoryDisk
from node.ledger import MemoryLedger
from node.metadata.memory import MemoryMetadataStore
from node.raft.memory import MemoryLog
from node.raft.types import HardState, RaftState, SnapshotMark

T = TypeVar("T")

OnAppend = Callable[[str, Sequence[Entry], MemoryLog], None]


class Storage:
    """The disks of one node. They outlive its lives."""

    def __init__(self, name: str, rng: random.Random, on_append: OnAppend) -> None:
        self.name = name
        self.rng = rng
        self.log = MemoryLog()
        self.ledger = MemoryLedger()
        self.tables = SimMetadataStore(rng)
        self.chunks = MemoryDisk(rng, capacity=1 << 30)
        self.on_append = on_append
        self.sync_s = 0.001  # about how long an fsync takes
        self.is_sync_broken = False
        self.is_old = False  # an image that was put back, and its log goes on from there

    def imaged(self, rng: random.Random) -> Storage:
        """Another disk, with what a loss of power would leave on this one now."""
        image = Storage(self.name, rng, self.on_append)
        image.log = copy.copy(self.log)  # each of its changes was durable at once
        image.log._rows, image.log._undo = dict(self.log._rows), []
        image.ledger.rows = dict(self.ledger.rows)
        image.tables.take_from(self.tables)
        for mine, copied in (
            (self.chunks.blobs, image.chunks.blobs),
            (self.chunks.temporaries, image.chunks.temporaries),
            (self.chunks.quarantined, image.chunks.quarantined),
        ):
            copied.update((name, bytearray(file)) for name, file in mine.items())
        image.crash()
        return image

    def crash(self) -> None:
        """Power loss, or kill -9 with the same outcome for what had not returned."""
        self.tables.crash(self.rng.randint(0, self.tables.unflushed))
        self.chunks.crash()

    async def fsync(self) -> None:
        await asyncio.sleep(self.sync_s * self.rng.uniform(0.3, 2.0))
        if self.is_sync_broken:
            self.is_sync_broken = False
            raise FsyncFailed("simulated fsync error")


class SimMetadataStore(MemoryMetadataStore):
    """Transactions that take time, before and after they become visible."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(crashable=True)
        self._rng = rng
        self._turn = asyncio.Lock()
        self.slow = 0.15  # chance that a call takes time
        self.delay_s = 0.004  # at most so much

    @property
    def unflushed(self) -> int:
        return len(self._undo)

    @property
    def applied(self) -> int:
        """The index of the tables themselves; the process learns of it a moment later."""
        mark = self._tables[MARKS.name].docs.get((APPLIED_INDEX,))
        return mark.value if isinstance(mark, Mark) else 0

    def take_from(self, other: SimMetadataStore) -> None:
        """Has what the other has, durable or not."""
        for name, rows in other._tables.items():
            self._tables[name].docs, self._tables[name].keys = dict(rows.docs), list(rows.keys)
        self._undo = [list(changes) for changes in other._undo]

    def forget_waiters(self) -> None:
        """A new life begins: whoever held the turn is dead."""
        self._turn = asyncio.Lock()

    async def read(self, body: Callable[[MetadataView], Awaitable[T]], *, long: bool = False) -> T:
        await self._dawdle()
        value = await super().read(body, long=long)
        await self._dawdle()
        return value

    async def write(self, body: Callable[[MetadataTxn], Awaitable[T]]) -> T:
        async with self._turn:
            await self._dawdle()
            value = await super().write(body)
        await self._dawdle()
        return value

    async def flush(self) -> None:
        await self._dawdle()
        await super().flush()

    async def _dawdle(self) -> None:
        if self._rng.random() < self.slow:
            await asyncio.sleep(self._rng.uniform(0.0, self.delay_s))


class SimRaftStorage:
    """RaftStorage of one life on the machine's log."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._log = storage.log

    async def initialize(self, membership: Membership) -> None:
        self._log.initialize(membership)

    async def load(self, applied_index: int, tail_bytes_max: int) -> RaftState:
        return self._log.load(applied_index, tail_bytes_max)

    async def append(
        self, hard_state: HardState | None, truncate_from: int | None, entries: Sequence[Entry]
    ) -> None:
        """A crash during the first sleep loses it, during the second one only the answer."""
        await self._storage.fsync()
        self._log.append(hard_state, truncate_from, entries)
        self._storage.tables.mark_durable()
        self._storage.on_append(self._storage.name, entries, self._log)
        await asyncio.sleep(self._storage.sync_s * 0.1)

    async def read_entries(self, lo: int, hi: int, bytes_max: int) -> tuple[Entry, ...]:
        await asyncio.sleep(self._storage.sync_s * 0.2)
        return self._log.read_entries(lo, hi, bytes_max)

    async def compact(self, mark: SnapshotMark) -> None:
        await self._storage.fsync()
        self._log.compact(mark)
        self._storage.tables.mark_durable()

    async def prepare_install(self, mark: SnapshotMark) -> None:
        await self._storage.fsync()
        self._log.prepare_install(mark)
        self._storage.tables.mark_durable()
        self._storage.on_append(self._storage.name, (), self._log)

    async def install(self, mark: SnapshotMark) -> None:
        await self._storage.fsync()
        self._log.install(mark)
        self._storage.is_old = False
        self._storage.tables.mark_durable()


class SimLedger:
    """Ledger of one life on the machine's database."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    async def read(self) -> dict[str, bytes]:
        await asyncio.sleep(self._storage.sync_s * 0.2)
        return await self._storage.ledger.read()

    async def write(self, rows: Mapping[str, bytes]) -> None:
        """A crash during the first sleep loses it, during the second one only the answer."""
        await self._storage.fsync()
        await self._storage.ledger.write(rows)
        self._storage.tables.mark_durable()
        await asyncio.sleep(self._storage.sync_s * 0.1)


class SimRedis:
    """One cache for all nodes, which delays, loses and resurrects what it is told."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._values: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self.is_down = False

    async def _travel(self) -> bool:
        await asyncio.sleep(self._rng.uniform(0.0001, 0.004))
        return not self.is_down

    async def get(self, key: bytes) -> bytes | None:
        if not await self._travel():
            return None
        chance = self._rng.random()
        if chance < 0.05 and key in self._old:
            return self._old[key]  # a replica that lagged behind
        return self._values.get(key) if chance < 0.95 else None

    async def put(self, key: bytes, value: bytes) -> None:
        if not await self._travel():
            return
        if key in self._values:
            self._old[key] = self._values[key]
        self._values[key] = value

    async def delete(self, keys: Sequence[bytes]) -> None:
        if await self._travel() and self._rng.random() < 0.7:
            for key in keys:
                found = self._values.pop(key, None)
                if found is not None:
                    self._old[key] = found

    def state(self) -> str:
        return "ok"

    async def close(self) -> None:
        return None
