"""The broom: never deletes what is known, forgets what it deleted, sweeps what nobody named."""

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
from awscrt.checksums import crc32c

from astra.commands import ForgetGarbage
from astra.constants import BLOB_ORPHAN_AGE_MS_MIN
from astra.errors import Unavailable
from astra.model import BLOBS, GARBAGE, Blob, Garbage
from astra.ports import MetadataTxn
from astra.wire import Accepted, Commit, Message
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.memory import MemoryChunkStore, MemoryDisk
from node.metadata.memory import MemoryMetadataStore
from node.services.blobs import BlobService
from node.services.fence import CopyFence
from node.services.garbage import GarbageCollector

NOW_MS = 2_000_000_000_000
OLD_MS = NOW_MS - BLOB_ORPHAN_AGE_MS_MIN - 1


class FixedClock:
    def monotonic_ms(self) -> int:
        return NOW_MS

    def wall_ms(self) -> int:
        return NOW_MS


@dataclass
class LeaderEnd:
    """What the leader was asked."""

    forgotten: list[str] = field(default_factory=list)
    is_away: bool = False

    def tell(self, message: Message) -> None:
        raise AssertionError("nothing is told here")

    async def ask(self, message: Message, *, timeout_s: float) -> Message:
        if self.is_away:
            raise Unavailable("no leader")
        assert isinstance(message, Commit)
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
        blobs = BlobService(node_id="n1", chunks=self.chunks, leader=self.leader, streams_max=4)
        self.collector = GarbageCollector(
            node_id="n1",
            store=self.store,
            chunks=self.chunks,
            blobs=blobs,
            leader=self.leader,
            barrier=self._barrier,
            clock=FixedClock(),
            grace_ms=60_000,
            fence=CopyFence(),
        )

    async def _barrier(self) -> int:
        if self.barrier_fails:
            raise Unavailable("no leader")
        return 0

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

    async def ids(self) -> list[str]:
        return sorted(await self.chunks.list_ids(None, 100))


@pytest.fixture
async def broom() -> AsyncIterator[Broom]:
    broom = Broom()
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
    assert await broom.collector.sweep_once() == 1
    assert await broom.ids() == sorted([young, known, waiting])


async def test_sweep_without_a_barrier_deletes_nothing(broom: Broom) -> None:
    orphan = blob_id(OLD_MS)
    await broom.store_blob(orphan)
    broom.barrier_fails = True
    with pytest.raises(Unavailable):
        await broom.collector.sweep_once()
    assert await broom.ids() == [orphan]
