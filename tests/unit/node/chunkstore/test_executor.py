"""The asyncio side: bounded, never on the loop's thread, nothing leaks when callers go away."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

from astra.constants import CHUNK_SIZE
from astra.errors import BadChunk, BlobNotFound, Overloaded, Unavailable
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.format import crc32c
from node.chunkstore.memory import (
    MemoryBlobReader,
    MemoryBlobWriter,
    MemoryChunkStore,
    MemoryDisk,
)
from node.chunkstore.ports import Space
from tests.support.chunkstore import blob_id_of, pattern, store_bytes

ONE, TWO = blob_id_of(1), blob_id_of(2)


class GatedStore(MemoryChunkStore):
    """The twin, on a disk so slow that a test decides when it answers."""

    def __init__(self) -> None:
        super().__init__(MemoryDisk(random.Random(1)))
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Semaphore(0)
        self.threads: set[str] = set()
        self.readers: list[MemoryBlobReader] = []

    def _pass(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.entered.release()
        assert self.gate.wait(timeout=30)

    @contextmanager
    def stuck(self) -> Iterator[None]:
        self.gate.clear()
        try:
            yield
        finally:
            self.gate.set()

    def create(self, blob_id: str) -> MemoryBlobWriter:
        self._pass()
        return super().create(blob_id)

    def open(self, blob_id: str) -> MemoryBlobReader:
        self._pass()
        reader = super().open(blob_id)
        self.readers.append(reader)
        return reader

    def free_space(self) -> Space:
        self._pass()
        return super().free_space()


@pytest.fixture
def plain() -> GatedStore:
    return GatedStore()


@pytest.fixture
async def store(plain: GatedStore) -> AsyncIterator[AsyncChunkStore]:
    store = AsyncChunkStore(plain, threads=2, queue_max=3)
    yield store
    await store.close()


async def has_entered(plain: GatedStore) -> None:
    """A call has reached the disk."""
    await asyncio.to_thread(partial(plain.entered.acquire, timeout=30))


async def test_blob_written_and_read_through_the_pool_is_the_same(
    store: AsyncChunkStore, plain: GatedStore
) -> None:
    content = pattern(6 * CHUNK_SIZE + 5)
    chunks = [content[n : n + CHUNK_SIZE] for n in range(0, len(content), CHUNK_SIZE)]
    writer = await store.create(ONE)
    await writer.append(chunks[0], crc32c(chunks[0]))
    await writer.append_batch([(chunk, crc32c(chunk)) for chunk in chunks[1:]])
    stored = await writer.finish()
    await writer.abort()  # does nothing
    async with await store.open(ONE) as reader:
        assert (reader.size, reader.chunk_crcs) == (stored.size, stored.chunk_crcs)
        for start, end in ((0, len(content)), (5, CHUNK_SIZE), (CHUNK_SIZE - 1, 3 * CHUNK_SIZE)):
            pieces = [piece async for piece in reader.read_range(start, end - start)]
            assert b"".join(pieces) == content[start:end]
        with pytest.raises(ValueError):
            await anext(reader.read_range(0, len(content) + 1))
        assert bytes((await reader.read(6)).data) == chunks[6]
    assert await store.list_ids(None, 10) == [ONE]
    assert await store.verify(ONE) == []
    assert all(name.startswith("chunkstore") for name in plain.threads)


async def test_errors_of_the_store_arrive(store: AsyncChunkStore, plain: GatedStore) -> None:
    with pytest.raises(BlobNotFound):
        await store.open(ONE)
    store_bytes(plain, ONE, b"content")
    plain.disk.flip_bit(ONE, 0)
    async with await store.open(ONE) as reader:
        with pytest.raises(BadChunk):
            await reader.read(0)
    await store.replace_chunk(ONE, 0, b"content", crc32c(b"content"))
    assert await store.verify(ONE) == []
    await store.quarantine(ONE)
    await store.delete(ONE)
    assert await store.list_ids(None, 10) == []


async def test_more_calls_than_the_queue_holds_are_refused(
    store: AsyncChunkStore, plain: GatedStore
) -> None:
    with plain.stuck():
        waiting = [asyncio.create_task(store.free_space()) for _ in range(5)]
        await has_entered(plain)
        with pytest.raises(Overloaded):
            await store.free_space()
    assert len(await asyncio.gather(*waiting)) == 5
    await store.free_space()  # there is room again


async def test_close_of_a_handle_is_not_refused_when_the_queue_is_full(
    store: AsyncChunkStore, plain: GatedStore
) -> None:
    store_bytes(plain, ONE, b"content")
    reader, writer = await store.open(ONE), await store.create(TWO)
    with plain.stuck():
        waiting = [asyncio.create_task(store.free_space()) for _ in range(5)]
        ending = asyncio.gather(reader.close(), writer.abort())
        await has_entered(plain)
    await asyncio.gather(*waiting)
    await ending
    assert plain.writers == {}


async def cancel_inside(plain: GatedStore, task: asyncio.Task[object]) -> None:
    await has_entered(plain)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_cancelled_create_leaves_no_writer(store: AsyncChunkStore, plain: GatedStore) -> None:
    with plain.stuck():
        task: asyncio.Task[object] = asyncio.create_task(store.create(ONE))
        await cancel_inside(plain, task)
    await store.close()
    assert plain.writers == {}
    assert plain.disk.temporaries == {}


async def test_cancelled_open_leaves_no_reader(store: AsyncChunkStore, plain: GatedStore) -> None:
    store_bytes(plain, ONE, b"content")
    with plain.stuck():
        await has_entered(plain)  # of store_bytes
        task: asyncio.Task[object] = asyncio.create_task(store.open(ONE))
        await cancel_inside(plain, task)
    await store.close()
    assert [reader.is_closed for reader in plain.readers] == [True]


async def test_close_waits_for_the_call_under_way_and_refuses_new_ones(
    store: AsyncChunkStore, plain: GatedStore
) -> None:
    with plain.stuck():
        under_way = asyncio.create_task(store.free_space())
        await has_entered(plain)
        closing = asyncio.create_task(store.close())
        await asyncio.sleep(0)
        assert not closing.done()
        with pytest.raises(Unavailable):
            await store.free_space()
    await closing
    assert (await under_way).free > 0


async def test_handles_can_be_ended_after_the_store_was_closed(
    store: AsyncChunkStore, plain: GatedStore
) -> None:
    store_bytes(plain, ONE, b"content")
    reader, writer = await store.open(ONE), await store.create(TWO)
    await store.close()
    await reader.close()
    await writer.abort()
    assert plain.disk.temporaries == {}
