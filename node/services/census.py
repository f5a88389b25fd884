"""Disks against metadata, in both directions.

`SelfCensus` is each node's own: it looks for a file for every blob that the metadata says is here
(a wiped or exchanged disk, a lost or truncated file) and reports what is missing or damaged, so
that the leader has it copied again. Bytes are the scrub's business (scrub.py); what lies here
without being known is the sweep's (garbage.py).

`CensusService` answers the pages from which `astra doctor` and the tests make the same comparison
for the whole cluster.

Invariants
- Only after a read barrier: metadata that is behind would call new copies strange, or dropped ones
  missing.
- A report is a request to look, never to delete: the leader decides on newer metadata, and the
  repair reads the copy first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from astra.errors import (
    AstraError,
    BadChunk,
    BlobNotFound,
    Fatal,
    Overloaded,
    RefusalCode,
    Refused,
)
from astra.log import get_logger
from astra.model import BLOBS, DROPPED, GARBAGE, Blob, D, Key, Table
from astra.ports import MetadataStore, MetadataView
from astra.wire import (
    Accepted,
    BlobPage,
    DroppedPage,
    GarbagePage,
    HeldPage,
    ListBlobs,
    ListDropped,
    ListGarbage,
    ListHeld,
    ReportBadBlob,
    ReportBadBlobs,
)
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.ports import READ_BATCH_CHUNKS_MAX
from node.lookup import rows_after
from node.services.ports import LeaderLink
from node.services.reads import Reads
from node.services.repairqueue import RepairQueue
from node.services.throttle import TokenBucket

PAGE: Final = 500
PAGE_MAX: Final = 1000
_VERIFIED_PAGE_MAX: Final = 20
_PAUSE_S: Final = 0.05  # after each page: 10,000 blobs a second at most
_REPORT_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 2.0
_LOOK_AGAIN_S: Final = 10.0  # at what was missing
_REMEMBERED_MAX: Final = 1000

_log = get_logger("census")


async def report_bad(leader: LeaderLink, node_id: str, blob_ids: Sequence[str]) -> None:
    """Returns when a leader has taken note. At most PAGE ids."""
    while True:
        try:
            report = ReportBadBlobs(node_id=node_id, blob_ids=tuple(blob_ids))
            await leader.ask(report, timeout_s=_REPORT_TIMEOUT_S)
        except Fatal:
            raise
        except AstraError as error:
            _log.debug("bad copies not reported yet", reason=str(error))
            await asyncio.sleep(_RETRY_S)
        else:
            return


class SelfCensus:
    def __init__(
        self,
        *,
        node_id: str,
        store: MetadataStore,
        chunks: AsyncChunkStore,
        leader: LeaderLink,
        barrier: Callable[[], Awaitable[int]],
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._chunks = chunks
        self._leader = leader
        self._barrier = barrier
        self.missing = 0  # as far as is known
        self.has_looked = False  # at the first blobs: an empty disk shows at once
        self._remembered: list[str] = []  # of these

    async def run(self, interval_s: float) -> None:
        """For ever; the first time at once."""
        while True:
            try:
                self.missing = await self.walk()
                await self._until_due(interval_s)
            except Fatal:
                raise
            except AstraError as error:
                _log.debug("not now", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(min(interval_s, _RETRY_S))

    async def _until_due(self, interval_s: float) -> None:
        """Meanwhile looks whether what was missing is back: status must not say for an hour what
        was repaired within seconds."""
        left_s = interval_s
        while left_s > 0 and self._remembered:
            await asyncio.sleep(min(left_s, _LOOK_AGAIN_S))
            left_s -= _LOOK_AGAIN_S
            still = [blob_id for blob_id in self._remembered if await self._lacks(blob_id)]
            self.missing -= len(self._remembered) - len(still)
            self._remembered = still
        if not self.missing:
            await asyncio.sleep(max(left_s, 0))

    async def _lacks(self, blob_id: str) -> bool:
        async def get(view: MetadataView) -> Blob | None:
            return await view.get(BLOBS, (blob_id,))

        blob = await self._store.read(get)
        is_mine = blob is not None and self._node_id in blob.holders
        return is_mine and not await is_whole(self._chunks, blob_id)

    async def walk(self) -> int:
        """How many copies that should be here are not, or not whole. All are reported."""
        await self._barrier()
        missing, after = 0, ""
        self._remembered = []
        while True:
            page = await self._page(after)
            mine = [
                blob_id
                for blob_id, blob in page
                if self._node_id in blob.holders and not await is_whole(self._chunks, blob_id)
            ]
            missing += len(mine)
            self.missing = max(self.missing, missing)
            if mine:  # to tell the leader may take as long as to copy them
                _log.warning("copies are missing or damaged", count=len(mine), first=mine[0])
                await report_bad(self._leader, self._node_id, mine)
            self._remembered += mine[: _REMEMBERED_MAX - len(self._remembered)]
            self.has_looked = True
            if len(page) < PAGE:
                return missing
            after = page[-1][0]
            await asyncio.sleep(_PAUSE_S)

    async def _page(self, after: str) -> Sequence[tuple[str, Blob]]:
        return await self._store.read(lambda view: rows_after(view, BLOBS, after, PAGE), long=True)


async def is_whole(chunks: AsyncChunkStore, blob_id: str) -> bool:
    """By its footer and its size."""
    while True:
        try:
            await (await chunks.open(blob_id)).close()
        except (BlobNotFound, BadChunk):
            return False
        except Overloaded:
            await asyncio.sleep(_PAUSE_S)  # clients first
        else:
            return True


class CensusService:
    def __init__(
        self,
        *,
        node_id: str,
        reads: Reads,
        chunks: AsyncChunkStore,
        queue: RepairQueue,
        leader: LeaderLink,
        rate: TokenBucket,
    ) -> None:
        self._node_id = node_id
        self._leader = leader
        self._reads = reads
        self._chunks = chunks
        self._queue = queue
        self._rate = rate

    async def note_bad(self, report: ReportBadBlobs) -> Accepted:
        """Raises NotLeader, Overloaded (some were noted; the same report may come again)."""
        self._reads.require_leader()
        _check_limit(len(report.blob_ids))
        for blob_id in report.blob_ids:
            if not self._queue.note_bad_copy(
                ReportBadBlob(blob_id=blob_id, node_id=report.node_id)
            ):
                raise Overloaded("the repair queue is full")
        return Accepted()

    async def list_blobs(self, request: ListBlobs) -> BlobPage:
        _check_limit(request.limit)

        rows = await self._rows(BLOBS, request.after, request.limit)
        held = tuple((blob_id, blob) for blob_id, blob in rows if not blob.is_inline)
        return BlobPage(blobs=held, resume=_resume(rows, request.limit))

    async def list_garbage(self, request: ListGarbage) -> GarbagePage:
        _check_limit(request.limit)

        rows = await self._rows(GARBAGE, request.after, request.limit)
        return GarbagePage(blobs=tuple(rows), resume=_resume(rows, request.limit))

    async def list_dropped(self, request: ListDropped) -> DroppedPage:
        _check_limit(request.limit)

        rows = await self._rows(DROPPED, request.after, request.limit, within=(request.node_id,))
        ids = tuple(blob_id for blob_id, _ in rows)
        return DroppedPage(blob_ids=ids, resume=_resume(rows, request.limit))

    async def _rows(
        self, table: Table[D], after: str, limit: int, *, within: Key = ()
    ) -> list[tuple[str, D]]:
        return await self._reads.read(
            lambda view: rows_after(view, table, after, limit, within=within), scans=True
        )

    async def list_held(self, request: ListHeld) -> HeldPage:
        """What is on this node's disk, whatever the metadata says. What is found damaged is
        reported to the leader at once."""
        _check_limit(request.limit)
        limit = min(request.limit, _VERIFIED_PAGE_MAX) if request.verify else request.limit
        ids = await self._chunks.list_ids(request.after, limit)
        damaged = [each for each in ids if not await self._is_good(each, request.verify)]
        for blob_id in damaged:
            self._leader.tell(ReportBadBlob(blob_id=blob_id, node_id=self._node_id))
        return HeldPage(
            blob_ids=tuple(ids),
            damaged=tuple(damaged),
            resume=None if len(ids) < limit else ids[-1],
        )

    async def _is_good(self, blob_id: str, verify: bool) -> bool:
        """A blob that was deleted meanwhile is not bad."""
        try:
            async with await self._chunks.open(blob_id) as reader:
                index, count = 0, len(reader.chunk_crcs) if verify else 0
                while index < count:
                    batch = await reader.read_batch(index, READ_BATCH_CHUNKS_MAX)
                    index += len(batch)
                    await self._rate.take(sum(len(chunk.data) for chunk in batch))
        except BlobNotFound:
            return True
        except BadChunk:
            return False
        return True


def _resume(rows: Sequence[tuple[str, object]], limit: int) -> str | None:
    return None if len(rows) < limit else rows[-1][0]


def _check_limit(limit: int) -> None:
    if not 0 < limit <= PAGE_MAX:
        raise Refused(RefusalCode.INVALID_ARGUMENT, f"from 1 to {PAGE_MAX} at a time")
