"""The store of blobs for the event loop: every disk call runs in one sized pool of threads.

Rules: nothing here touches the disk on the loop's thread. At most `threads` calls run and
`queue_max` wait; beyond that a call is refused with Overloaded, so that a slow disk is seen by
the client and not by the memory. Closing and aborting are never refused (each handle does it
once, so they are bounded by the handles). One hop to a thread carries up to
READ_BATCH_CHUNKS_MAX chunks, because a hop costs as much as reading some 200 KiB from memory.

Invariants
- A cancelled caller leaks nothing: the call it left runs to its end, and a handle that it
  would have returned is closed or aborted.
- `close` returns when no thread touches the store any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final, TypeVar

from astra.constants import CHUNK_SIZE
from astra.errors import Overloaded, Unavailable
from node.chunkstore.checked import cut
from node.chunkstore.ports import (
    BlobReader,
    BlobWriter,
    ChunkStore,
    Space,
    StoredBlob,
    VerifiedChunk,
)

THREADS_DEFAULT: Final = 8  # most of them wait in a sync: reads must still find one
QUEUE_MAX_DEFAULT: Final = 256

T = TypeVar("T")


class _Pool:
    """A bounded bridge from the loop to the threads."""

    def __init__(self, threads: int, queue_max: int) -> None:
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="chunkstore")
        self._limit = threads + queue_max
        self._running = 0
        self._idle = asyncio.Event()
        self._is_closing = False

    async def run(self, call: Callable[[], T], *, undo: Callable[[T], None] | None = None) -> T:
        """Raises Overloaded, Unavailable before the call starts, else what the call raises."""
        if self._is_closing:
            raise Unavailable("the chunk store is closing")
        if self._running >= self._limit:
            raise Overloaded(f"{self._limit} disk calls are waiting")
        return await self._await(call, undo)

    async def run_always(self, call: Callable[[], None]) -> None:
        """For what ends a handle. After `drain` it runs at once: no thread is left to disturb."""
        if self._is_closing and not self._running:
            call()
            return
        await self._await(call, None)

    async def _await(self, call: Callable[[], T], undo: Callable[[T], None] | None) -> T:
        future = self._submit(call)
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            if undo is not None:
                future.add_done_callback(partial(self._undo, undo))
            raise

    def _submit(self, call: Callable[[], T]) -> asyncio.Future[T]:
        future = asyncio.get_running_loop().run_in_executor(self._threads, call)
        self._running += 1
        self._idle.clear()
        future.add_done_callback(self._forget)
        return future

    def _forget(self, future: asyncio.Future[T]) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()
        if not future.cancelled():
            future.exception()  # seen, also when the caller has gone

    def _undo(self, undo: Callable[[T], None], future: asyncio.Future[T]) -> None:
        if not future.cancelled() and future.exception() is None:
            self._submit(partial(undo, future.result()))

    async def drain(self) -> None:
        """Returns when the last thread has ended."""
        self._is_closing = True
        while self._running:
            await self._idle.wait()  # an undo may follow the last call: look again
        self._threads.shutdown(wait=True)


class AsyncBlobWriter:
    """See BlobWriter. One call at a time; `abort` may come at any time."""

    def __init__(self, pool: _Pool, writer: BlobWriter) -> None:
        self._pool = pool
        self._writer = writer

    @property
    def blob_id(self) -> str:
        return self._writer.blob_id

    async def append(self, chunk: bytes | memoryview, crc: int) -> None:
        """The buffer must not change until this returns, nor after it was cancelled."""
        await self._pool.run(partial(self._writer.append, chunk, crc))

    async def append_batch(self, chunks: Sequence[tuple[bytes | memoryview, int]]) -> None:
        """Several chunks in one hop. An error leaves those before it appended."""
        await self._pool.run(partial(self._append_all, chunks))

    def _append_all(self, chunks: Sequence[tuple[bytes | memoryview, int]]) -> None:
        for chunk, crc in chunks:
            self._writer.append(chunk, crc)

    async def finish(self) -> StoredBlob:
        """Cancelled: the blob may or may not become stored, as in a crash."""
        return await self._pool.run(self._writer.finish)

    async def abort(self) -> None:
        await self._pool.run_always(self._writer.abort)


class AsyncBlobReader:
    """See BlobReader. `async with` closes it."""

    def __init__(self, pool: _Pool, reader: BlobReader) -> None:
        self._pool = pool
        self._reader = reader

    @property
    def blob_id(self) -> str:
        return self._reader.blob_id

    @property
    def size(self) -> int:
        return self._reader.size

    @property
    def chunk_crcs(self) -> tuple[int, ...]:
        return self._reader.chunk_crcs

    async def read(self, index: int) -> VerifiedChunk:
        return await self._pool.run(partial(self._reader.read, index))

    async def read_batch(self, first: int, count: int) -> Sequence[VerifiedChunk]:
        return await self._pool.run(partial(self._reader.read_batch, first, count))

    async def read_range(self, offset: int, length: int) -> AsyncGenerator[memoryview, None]:
        """Exactly these bytes, verified, or BadChunk; at most one batch is in memory."""
        end = offset + length
        if offset < 0 or length < 0 or end > self.size:
            raise ValueError(f"[{offset}, +{length}) is not inside {self.size} bytes")
        last = -(-end // CHUNK_SIZE)
        while offset < end:
            first = offset // CHUNK_SIZE
            for chunk in await self.read_batch(first, last - first):
                piece = cut(chunk, start=offset, end=end)
                offset += len(piece)
                yield piece

    async def close(self) -> None:
        await self._pool.run_always(self._reader.close)

    async def __aenter__(self) -> AsyncBlobReader:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class AsyncChunkStore:
    """See ChunkStore. Takes over the store: `close` closes it too."""

    def __init__(
        self,
        store: ChunkStore,
        *,
        threads: int = THREADS_DEFAULT,
        queue_max: int = QUEUE_MAX_DEFAULT,
    ) -> None:
        self._store = store
        self._pool = _Pool(threads, queue_max)

    async def create(self, blob_id: str) -> AsyncBlobWriter:
        call = partial(self._store.create, blob_id)
        return AsyncBlobWriter(self._pool, await self._pool.run(call, undo=_abort))

    async def open(self, blob_id: str) -> AsyncBlobReader:
        call = partial(self._store.open, blob_id)
        return AsyncBlobReader(self._pool, await self._pool.run(call, undo=_close))

    async def delete(self, blob_id: str) -> None:
        await self._pool.run(partial(self._store.delete, blob_id))

    async def list_ids(self, after: str | None, limit: int) -> list[str]:
        return await self._pool.run(partial(self._store.list_ids, after, limit))

    async def verify(self, blob_id: str) -> list[int]:
        """Holds one thread for the whole blob; the Scrubber is the polite way."""
        return await self._pool.run(partial(self._store.verify, blob_id))

    async def quarantine(self, blob_id: str) -> None:
        await self._pool.run(partial(self._store.quarantine, blob_id))

    async def replace_chunk(
        self, blob_id: str, index: int, data: bytes | memoryview, crc: int
    ) -> None:
        await self._pool.run(partial(self._store.replace_chunk, blob_id, index, data, crc))

    async def free_space(self) -> Space:
        return await self._pool.run(self._store.free_space)

    async def sweep_temporaries(self) -> int:
        return await self._pool.run(self._store.sweep_temporaries)

    async def close(self) -> None:
        """Waits for the calls under way, then closes the store. Idempotent."""
        await self._pool.drain()
        self._store.close()


def _abort(writer: BlobWriter) -> None:
    writer.abort()


def _close(reader: BlobReader) -> None:
    reader.close()
