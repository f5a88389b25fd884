"""The broom: never deletes what is known, forgets what it deleted, sweeps what nobody named."""

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from awscrt.checksums import crc32c

from astra.commands import DropCopies, ForgetGarbage
from astra.constants import BLOB_ORPHAN_AGE_MS_MIN, READ_KEPT_S
from astra.errors import Unavailable
from astra.model import (
    BLOBS,
    CLOCK_MS,
    DROPPED,
    GARBAGE,
    MARKS,
    Blob,
    Dropped,
    Garbage,
    Mark,
)
from astra.ports import MetadataTxn
from astra.wire import Accepted, Commit, Message
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.memory import MemoryChunkStore, MemoryDisk
from node.metadata.memory import MemoryMetadataStore
from node.services.blobs import BlobService
from node.services.fence import CopyFence
from node.services.garbage import GarbageCollector
from node.services.readers import Readers

NOW_MS = 2_000_000_000_000
OLD_MS = NOW_MS - BLOB_ORPHAN_AGE_MS_MIN - 1


class WrongClock:
    """Of a machine whose wall clock is a day behind the cluster's time, or as far as is said."""

    def __init__(self) -> None:
        self.passed_ms = 0
        self.ahead_ms = -86_400_000

    def monotonic_ms(self) -> int:
        return 5000 + self.passed_ms

    def wall_ms(self) -> int:
        return NOW_MS + self.ahead_ms + self.passed_ms


@dataclass
class LeaderEnd:
    """What the leader was asked."""

    forgotten: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    is_away: bool = False

    def tell(self, message: Message) -> None:
        raise AssertionError("nothing is told here")

    async def ask(self, message: Message, *, timeout_s: float) -> Message:
        if self.is_away:
            raise Unavailable("no leader")
        assert isinstance(message, Commit)
        if isinstance(message.command, DropCopies):
            self.dropped += message.command.blob_ids
            return Accepted()
        assert isinstance(message.command, ForgetGarbage)
        self.forgotten += message.command.blob_ids
        return Accepted()


class Broom:
    """A collector over stores in memory."""

    def __init__(self) -> None:
        self.store = MemoryMetadataStore()
        self.chunks = AsyncChunkStore(MemoryChunkStore(MemoryDisk(random.Random(1))))
        self.leader = LeaderEnd()
        self.barrier_fails = False
        self.fence = CopyFence()
        self.clock = WrongClock()
        self.readers = Readers(self.clock, 0)
        self.on_barrier: Callable[[], Awaitable[None]] | None = None
        blobs = BlobService(node_id="n1", chunks=self.chunks, leader=self.leader, streams_max=4)
        self.collector = GarbageCollector(
            node_id="n1",
            store=self.store,
            chunks=self.chunks,
            blobs=blobs,
            leader=self.leader,
            barrier=self._barrier,
            clock=self.clock,
            grace_ms=60_000,
            fence=self.fence,
            readers=self.readers,
        )

    async def _barrier(self) -> int:
        if self.barrier_fails:
            raise Unavailable("no leader")
        if self.on_barrier is not None:
            await self.on_barrier()
        return 0

    async def set_clock(self, now_ms: int) -> None:
        """The cluster's clock."""
        await self.store.write(lambda txn: txn.put(MARKS, (CLOCK_MS,), Mark(value=now_ms)))

    async def store_blob(self, blob_id: str) -> None:
        writer = await self.chunks.create(blob_id)
        await writer.append(b"data", crc32c(b"data"))
        await writer.finish()

    async def put(self, blob_id: str, doc: Blob | Garbage) -> None:
        async def write(txn: MetadataTxn) -> None:
            if isinstance(doc, Blob):
                await txn.put(BLOBS, (blob_id,), doc)
            else:
                await txn.put(GARBAGE, (blob_id,), doc)

        await self.store.write(write)

    async def drop(self, blob_id: str, *, age_ms: int = 60_000) -> None:
        async def write(txn: MetadataTxn) -> None:
            await txn.put(DROPPED, ("n1", blob_id), Dropped(since_ms=NOW_MS - age_ms))

        await self.store.write(write)

    async def undrop(self, blob_id: str) -> None:
        await self.store.write(lambda txn: txn.delete(DROPPED, ("n1", blob_id)))

    async def ids(self) -> list[str]:
        return sorted(await self.chunks.list_ids(None, 100))


@pytest.fixture
async def broom() -> AsyncIterator[Broom]:
    broom = Broom()
    await broom.set_clock(NOW_MS)
    yield broom
    await broom.chunks.close()


def blob_id(placed_ms: int, number: int = 0) -> str:
    return f"{placed_ms:012x}{number:020x}"


def garbage(*holders: str, age_ms: int = 60_000) -> Garbage:
    return Garbage(holders=holders, since_ms=NOW_MS - age_ms, size=4)


async def test_collect_own_garbage_is_deleted_and_forgotten(broom: Broom) -> None:
    mine, other = blob_id(NOW_MS, 1), blob_id(NOW_MS, 2)
    for name in (mine, other):
        await broom.store_blob(name)
    await broom.put(mine, garbage("n1", "n2"))
    await broom.put(other, garbage("n2"))
    assert await broom.collector.collect_once() == 1
    assert await broom.ids() == [other]
    assert broom.leader.forgotten == [mine]


async def test_collect_within_the_grace_waits(broom: Broom) -> None:
    name = blob_id(NOW_MS)
    await broom.store_blob(name)
    await broom.put(name, garbage("n1", age_ms=59_999))
    assert await broom.collector.collect_once() == 0
    assert await broom.ids() == [name]


async def test_collect_while_nobody_writes_the_grace_passes_all_the_same(broom: Broom) -> None:
    name = blob_id(NOW_MS)
    await broom.put(name, garbage("n1", age_ms=0))
    assert await broom.collector.collect_once() == 0
    broom.clock.passed_ms += 59_999
    assert await broom.collector.collect_once() == 0
    broom.clock.passed_ms += 1
    assert await broom.collector.collect_once() == 1


async def test_collect_what_a_download_still_reads_waits_until_nobody_says_so(
    broom: Broom,
) -> None:
    read, dropped, other = (blob_id(NOW_MS, number) for number in (1, 2, 3))
    for name in (read, dropped, other):
        await broom.store_blob(name)
    await broom.put(read, garbage("n1"))
    await broom.put(other, garbage("n1"))
    await broom.put(dropped, Blob(size=4, references=1, holders=("n2", "n3")))
    await broom.drop(dropped)
    broom.readers.note([read, dropped])
    assert await broom.collector.collect_once() == 1
    assert await broom.collector.collect_dropped_once() == 0
    assert await broom.ids() == sorted([read, dropped])
    broom.clock.passed_ms += READ_KEPT_S * 1000
    await broom.collector.collect_once()
    await broom.collector.collect_dropped_once()
    assert await broom.ids() == []


async def test_collect_without_a_leader_is_done_again_later(broom: Broom) -> None:
    name = blob_id(NOW_MS)
    await broom.store_blob(name)
    await broom.put(name, garbage("n1"))
    broom.leader.is_away = True
    with pytest.raises(Unavailable):
        await broom.collector.collect_once()
    broom.leader.is_away = False
    assert await broom.collector.collect_once() == 1
    assert broom.leader.forgotten == [name]


async def test_collect_many_pages_finds_all(broom: Broom) -> None:
    names = [blob_id(NOW_MS, number) for number in range(1203)]
    for name in names:
        await broom.put(name, garbage("n1" if name != names[600] else "n2"))
    assert await broom.collector.collect_once() == 1202


async def test_sweep_deletes_only_what_is_old_and_unknown(broom: Broom) -> None:
    orphan, young = blob_id(OLD_MS, 1), blob_id(NOW_MS, 2)
    known, waiting = blob_id(OLD_MS, 3), blob_id(OLD_MS, 4)
    for name in (orphan, young, known, waiting):
        await broom.store_blob(name)
    # Known by others only: its holder entry may be on its way (repair), so it stays.
    await broom.put(known, Blob(size=4, references=1, holders=("n2",)))
    await broom.put(waiting, garbage("n1", age_ms=0))
    await broom.set_clock(NOW_MS)
    assert await broom.collector.sweep_once() == 1
    assert await broom.ids() == sorted([young, known, waiting])


async def test_sweep_by_a_clock_that_jumped_ahead_leaves_a_running_upload_alone(
    broom: Broom,
) -> None:
    """This machine's clock says that a day has passed; the cluster's does not."""
    running = blob_id(OLD_MS)
    await broom.store_blob(running)
    broom.clock.ahead_ms = 86_400_000
    await broom.set_clock(OLD_MS + 1000)
    assert await broom.collector.sweep_once() == 0
    assert await broom.ids() == [running]


async def test_sweep_without_a_barrier_deletes_nothing(broom: Broom) -> None:
    orphan = blob_id(OLD_MS)
    await broom.store_blob(orphan)
    broom.barrier_fails = True
    with pytest.raises(Unavailable):
        await broom.collector.sweep_once()
    assert await broom.ids() == [orphan]


# --- copies of living blobs ------------------------------------------------------------------


async def test_dropped_copy_is_deleted_and_forgotten_after_the_grace(broom: Broom) -> None:
    old, young = blob_id(NOW_MS, 1), blob_id(NOW_MS, 2)
    for name in (old, young):
        await broom.store_blob(name)
        await broom.put(name, Blob(size=4, references=1, holders=("n2", "n3")))
    await broom.drop(old)
    await broom.drop(young, age_ms=0)
    assert await broom.collector.collect_dropped_once() == 1
    assert await broom.ids() == [young]
    assert broom.leader.forgotten == [old]


async def test_dropped_copy_that_counts_again_by_the_barrier_stays(broom: Broom) -> None:
    """What was read before the barrier is old news: the copy is a new one by then."""
    name = blob_id(NOW_MS)
    await broom.store_blob(name)
    await broom.drop(name)

    async def catch_up() -> None:
        await broom.undrop(name)
        await broom.put(name, Blob(size=4, references=1, holders=("n1", "n2")))

    broom.on_barrier = catch_up
    assert await broom.collector.collect_dropped_once() == 0
    assert await broom.ids() == [name]


async def test_dropped_copy_is_not_deleted_while_a_repair_fills_it(broom: Broom) -> None:
    name = blob_id(NOW_MS)
    await broom.store_blob(name)
    await broom.drop(name)
    with broom.fence.fill(name):
        assert await broom.collector.collect_dropped_once() == 0
    assert await broom.ids() == [name]
    assert await broom.collector.collect_dropped_once() == 1


async def test_dropped_copy_without_a_barrier_stays(broom: Broom) -> None:
    name = blob_id(NOW_MS)
    await broom.store_blob(name)
    await broom.drop(name)
    broom.barrier_fails = True
    with pytest.raises(Unavailable):
        await broom.collector.collect_dropped_once()
    assert await broom.ids() == [name]


async def test_stray_copy_is_declared_dropped_when_seen_twice_and_never_deleted_here(
    broom: Broom,
) -> None:
    stray, mine, gone = (blob_id(NOW_MS, number) for number in (1, 2, 3))
    for name in (stray, mine, gone):
        await broom.store_blob(name)
    await broom.put(stray, Blob(size=4, references=1, holders=("n2", "n3")))
    await broom.put(mine, Blob(size=4, references=1, holders=("n1", "n2")))
    await broom.put(gone, Blob(size=4, references=1, holders=("n2",)))
    await broom.drop(gone)
    await broom.collector.sweep_once()
    assert broom.leader.dropped == []
    await broom.collector.sweep_once()
    assert broom.leader.dropped == [stray]
    assert await broom.ids() == sorted([stray, mine, gone])
