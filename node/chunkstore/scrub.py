"""Walks all blobs of a node and finds the bad ones, slowly enough to stay out of the way.

Rules: finds, does not repair: the repair service decides from where to fetch. Reads go through
the same pool as everybody's; when that is full the scrubber is the one that waits. Clock and
sleep are handed in.

Invariants: never faster than `bytes_per_second`, averaged from the start of the pass (small
blobs count as BLOB_COST_MIN each); after a restart with the last `cursor`, every blob that was
there all the time is still visited in this pass.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from astra.constants import KIB
from astra.errors import BadChunk, BlobNotFound, Overloaded, invariant
from node.chunkstore.executor import AsyncBlobReader, AsyncChunkStore
from node.chunkstore.ports import READ_BATCH_CHUNKS_MAX, DamagedBlob

BLOB_COST_MIN: Final = 64 * KIB  # a seek costs about as much as reading this
BUSY_WAIT_S: Final = 1.0
_PAGE: Final = 256

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A blob that needs repair: some chunks, or all of it when its footer is damaged."""

    blob_id: str
    bad_chunks: tuple[int, ...]
    is_whole: bool


class Scrubber:
    def __init__(
        self,
        store: AsyncChunkStore,
        *,
        bytes_per_second: int,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        cursor: str | None = None,
    ) -> None:
        invariant(bytes_per_second > 0, "the scrub has a rate")
        self._store = store
        self._rate = bytes_per_second
        self._clock = clock
        self._sleep = sleep
        self._started = 0.0
        self._spent = 0
        self.cursor = cursor  # the last blob that was checked; None: at the beginning
        self.checked = 0

    async def run_pass(self) -> AsyncGenerator[Finding, None]:
        """From the cursor to the end; then the cursor is at the beginning again.

        The cursor moves past a blob only when its finding was taken.
        """
        self._started, self._spent = self._clock(), 0
        while page := await self._patiently(lambda: self._store.list_ids(self.cursor, _PAGE)):
            for blob_id in page:
                finding = await self._check(blob_id)
                if finding is not None:
                    yield finding
                self.cursor = blob_id
                self.checked += 1
        self.cursor = None

    async def _check(self, blob_id: str) -> Finding | None:
        try:
            reader = await self._patiently(lambda: self._store.open(blob_id))
        except BlobNotFound:
            return None  # deleted since it was listed
        except DamagedBlob:
            await self._pay(BLOB_COST_MIN)
            return Finding(blob_id=blob_id, bad_chunks=(), is_whole=True)
        async with reader:
            bad = await self._bad_chunks(reader)
        return Finding(blob_id=blob_id, bad_chunks=tuple(bad), is_whole=False) if bad else None

    async def _bad_chunks(self, reader: AsyncBlobReader) -> list[int]:
        bad: list[int] = []
        index, before = 0, self._spent
        while index < len(reader.chunk_crcs):
            index, cost = await self._read_some(reader, index, bad)
            await self._pay(cost)
        await self._pay(max(0, BLOB_COST_MIN - (self._spent - before)))
        return bad

    async def _read_some(
        self, reader: AsyncBlobReader, index: int, bad: list[int]
    ) -> tuple[int, int]:
        """The next index, and the bytes that were read."""
        try:
            chunks = await self._patiently(lambda: reader.read_batch(index, READ_BATCH_CHUNKS_MAX))
        except BadChunk:
            bad.append(index)
            return index + 1, BLOB_COST_MIN
        return index + len(chunks), sum(len(chunk.data) for chunk in chunks)

    async def _pay(self, cost: int) -> None:
        """Sleeps until the rate allows what was just spent."""
        self._spent += cost
        ahead = self._started + self._spent / self._rate - self._clock()
        if ahead > 0:
            await self._sleep(ahead)

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except Overloaded:
                await self._sleep(BUSY_WAIT_S)
