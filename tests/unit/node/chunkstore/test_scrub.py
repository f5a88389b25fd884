"""The scrubber finds everything, goes on where it was, and keeps to its rate."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator

import pytest

from astra.constants import CHUNK_SIZE, MIB
from astra.errors import Overloaded
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.memory import MemoryChunkStore, MemoryDisk
from node.chunkstore.scrub import BLOB_COST_MIN, BUSY_WAIT_S, Finding, Scrubber
from tests.support.chunkstore import blob_id_of, pattern, store_bytes

IDS = [blob_id_of(n) for n in range(6)]


class Clock:
    """Time passes only in sleep."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds


class BusyStore(MemoryChunkStore):
    refusals = 0

    def list_ids(self, after: str | None, limit: int) -> list[str]:
        if self.refusals:
            self.refusals -= 1
            raise Overloaded("busy")
        return super().list_ids(after, limit)


@pytest.fixture
def plain() -> BusyStore:
    store = BusyStore(MemoryDisk(random.Random(1)))
    for blob_id in IDS:
        store_bytes(store, blob_id, pattern(2 * CHUNK_SIZE + 1))
    return store


@pytest.fixture
async def store(plain: BusyStore) -> AsyncIterator[AsyncChunkStore]:
    store = AsyncChunkStore(plain)
    yield store
    await store.close()


def make_scrubber(
    store: AsyncChunkStore, clock: Clock, *, rate: int = MIB, cursor: str | None = None
) -> Scrubber:
    return Scrubber(store, bytes_per_second=rate, clock=clock, sleep=clock.sleep, cursor=cursor)


async def test_pass_over_damage_finds_each_bad_chunk(
    store: AsyncChunkStore, plain: BusyStore
) -> None:
    plain.disk.flip_bit(IDS[1], 8 * CHUNK_SIZE)
    plain.disk.flip_bit(IDS[3], 0)
    plain.disk.flip_bit(IDS[3], 8 * 2 * CHUNK_SIZE)
    plain.disk.truncate(IDS[4], 10)
    scrubber = make_scrubber(store, Clock())
    assert [finding async for finding in scrubber.run_pass()] == [
        Finding(blob_id=IDS[1], bad_chunks=(1,), is_whole=False),
        Finding(blob_id=IDS[3], bad_chunks=(0, 2), is_whole=False),
        Finding(blob_id=IDS[4], bad_chunks=(), is_whole=True),
    ]
    assert (scrubber.checked, scrubber.cursor) == (6, None)


async def test_pass_keeps_to_its_rate(store: AsyncChunkStore) -> None:
    clock = Clock()
    async for _ in make_scrubber(store, clock, rate=MIB).run_pass():
        pytest.fail("nothing is damaged")
    assert clock.now - 100 == pytest.approx(6 * (2 * CHUNK_SIZE + 1) / MIB)


async def test_small_blobs_are_paced_too(store: AsyncChunkStore, plain: BusyStore) -> None:
    for blob_id in IDS:
        plain.delete(blob_id)
        store_bytes(plain, blob_id, b"")
    clock = Clock()
    async for _ in make_scrubber(store, clock, rate=BLOB_COST_MIN).run_pass():
        pytest.fail("nothing is damaged")
    assert clock.now - 100 == pytest.approx(6)


async def test_pass_goes_on_after_the_cursor(store: AsyncChunkStore, plain: BusyStore) -> None:
    for blob_id in IDS:
        plain.disk.flip_bit(blob_id, 0)
    first = make_scrubber(store, Clock())
    taken = first.run_pass()
    seen = [(await anext(taken)).blob_id for _ in range(3)]
    await taken.aclose()
    assert first.cursor == IDS[1]  # the third finding was not confirmed
    second = make_scrubber(store, Clock(), cursor=first.cursor)
    assert [finding.blob_id async for finding in second.run_pass()] == IDS[2:]
    assert seen == IDS[:3]


async def test_blob_deleted_during_the_pass_is_no_finding(
    store: AsyncChunkStore, plain: BusyStore
) -> None:
    plain.disk.flip_bit(IDS[0], 0)
    findings: list[str] = []
    async for finding in make_scrubber(store, Clock()).run_pass():
        findings.append(finding.blob_id)
        for blob_id in IDS[1:]:
            plain.delete(blob_id)
    assert findings == [IDS[0]]


async def test_busy_pool_makes_the_scrubber_wait(store: AsyncChunkStore, plain: BusyStore) -> None:
    plain.refusals = 3
    clock = Clock()
    scrubber = make_scrubber(store, clock, rate=2**60)
    async for _ in scrubber.run_pass():
        pytest.fail("nothing is damaged")
    assert scrubber.checked == 6
    assert clock.now - 100 == pytest.approx(3 * BUSY_WAIT_S, abs=0.01)
