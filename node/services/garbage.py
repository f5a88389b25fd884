"""Each holder's broom: deletes the blobs that nothing refers to any more.

Four kinds. *Garbage* is what a committed command unlinked: every node reads it from its own
metadata, waits a grace and for the downloads that still read it (readers.py), deletes its copies
and has the leader forget them. *Dropped* copies are those of living blobs that moved to another
node, or were too many. *Strays* are copies of living blobs that name other holders (a repair that
lost a race, a node that was replaced): they are declared dropped first. *Orphans* are files that no
command ever named: a client or gateway died before its commit.

Invariants
- A copy of a blob in use is only deleted while DROPPED says so, as seen after a read barrier, and
  while nobody can give this node a new one: DROPPED keeps it from becoming a holder (only this node
  takes the row away), the fence keeps repairs off from before the barrier until the row is gone.
- Orphans are only looked for after a read barrier, and only among ids older than
  BLOB_ORPHAN_AGE_MS_MIN: a blob may be committed for BLOB_COMMIT_AGE_MS_MAX after it was placed,
  so one that old and unknown now stays unknown for ever.
- A grace is measured by the cluster's time: by a wall clock that is a day behind, a node would keep
  its dropped copy for a day, and could not be given the third copy of that blob.
- Deleting twice is harmless; garbage becomes garbage once and is never used again.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from astra.commands import DropCopies, ForgetGarbage
from astra.constants import BLOB_ORPHAN_AGE_MS_MIN
from astra.errors import AstraError, Fatal
from astra.log import get_logger
from astra.model import BLOBS, CLOCK_MS, DROPPED, GARBAGE, MARKS, Dropped, Garbage
from astra.ports import Clock, MetadataStore, MetadataView
from astra.wire import Commit, Epochs
from node.chunkstore.executor import AsyncChunkStore
from node.lookup import rows_after
from node.services.blobs import BlobService
from node.services.clustertime import ClusterTime
from node.services.fence import CopyFence
from node.services.ports import LeaderLink
from node.services.readers import Readers

_PAGE: Final = 500
_FORGET_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 2.0
_STRAYS_PER_PAGE_MAX: Final = 50  # remembered; the others wait for a later sweep

_log = get_logger("garbage")


class GarbageCollector:
    def __init__(
        self,
        *,
        node_id: str,
        store: MetadataStore,
        chunks: AsyncChunkStore,
        blobs: BlobService,
        leader: LeaderLink,
        barrier: Callable[[], Awaitable[int]],
        clock: Clock,
        grace_ms: int,
        fence: CopyFence,
        readers: Readers,
    ) -> None:
        """`barrier` returns when everything committed before is applied here, or raises."""
        self._fence = fence
        self._readers = readers
        self._strays: set[str] = set()  # of the sweep before: seen twice, it is one
        self._node_id = node_id
        self._store = store
        self._chunks = chunks
        self._blobs = blobs
        self._leader = leader
        self._barrier = barrier
        self._time = ClusterTime(store, clock)
        self._grace_ms = grace_ms

    async def run(self, interval_s: float) -> None:
        """Collects for ever; what fails is tried again next time."""
        while True:
            await asyncio.sleep(interval_s)
            self._readers.forget_old()
            await _attempt(self.collect_once)
            await _attempt(self.collect_dropped_once)

    async def run_sweep(self, interval_s: float) -> None:
        """Sweeps for ever; the first time soon after the start, for the blob count."""
        while True:
            is_done = await _attempt(self.sweep_once)
            await asyncio.sleep(interval_s if is_done else min(interval_s, _RETRY_S))

    # --- garbage ---

    async def collect_once(self) -> int:
        """How many of this node's copies were deleted and forgotten."""
        collected, after = 0, ""
        due_ms = await self._time.now_ms() - self._grace_ms
        while True:
            page = await self._garbage_page(after)
            mine = [
                blob_id
                for blob_id, garbage in page
                if self._node_id in garbage.holders and garbage.since_ms <= due_ms
            ]
            collected += await self._delete_and_forget(self._readers.unread(mine))
            if len(page) < _PAGE:
                return collected
            after = page[-1][0]

    async def _garbage_page(self, after: str) -> list[tuple[str, Garbage]]:
        return await self._store.read(
            lambda view: rows_after(view, GARBAGE, after, _PAGE), long=True
        )

    async def _delete_and_forget(self, blob_ids: Sequence[str]) -> int:
        if not blob_ids:
            return 0
        for blob_id in blob_ids:
            await self._chunks.delete(blob_id)
        self._blobs.blob_count = max(0, self._blobs.blob_count - len(blob_ids))
        await self._propose(ForgetGarbage(node_id=self._node_id, blob_ids=tuple(blob_ids)))
        return len(blob_ids)

    async def _propose(self, command: ForgetGarbage | DropCopies) -> None:
        commit = Commit(request_id=uuid.uuid4().hex, epochs=Epochs(), command=command)
        await self._leader.ask(commit, timeout_s=_FORGET_TIMEOUT_S)

    # --- dropped copies ---

    async def collect_dropped_once(self) -> int:
        """How many of this node's dropped copies were deleted and forgotten."""
        collected, after = 0, ""
        due_ms = await self._time.now_ms() - self._grace_ms
        while True:
            page = await self._dropped_page(after)
            old = [blob_id for blob_id, dropped in page if dropped.since_ms <= due_ms]
            if old := self._readers.unread(old):
                with self._fence.drop(old) as free:
                    await self._barrier()
                    collected += await self._delete_and_forget(await self._still_dropped(free))
            if len(page) < _PAGE:
                return collected
            after = page[-1][0]

    async def _dropped_page(self, after: str) -> list[tuple[str, Dropped]]:
        return await self._store.read(
            lambda view: rows_after(view, DROPPED, after, _PAGE, within=(self._node_id,)),
            long=True,
        )

    async def _still_dropped(self, blob_ids: Sequence[str]) -> list[str]:
        """Those with a row, of which this node is no holder: the second follows from the first,
        and is looked at all the same before bytes go."""

        async def find(view: MetadataView) -> list[str]:
            found: list[str] = []
            for blob_id in blob_ids:
                blob = await view.get(BLOBS, (blob_id,))
                is_holder = blob is not None and self._node_id in blob.holders
                row = await view.get(DROPPED, (self._node_id, blob_id))
                if row is not None and not is_holder:
                    found.append(blob_id)
            return found

        return await self._store.read(find, long=True)

    # --- orphans ---

    async def sweep_once(self) -> int:
        """How many orphans were deleted. Counts the blobs on the way."""
        await self._barrier()
        count, deleted, after = 0, 0, None
        strays: set[str] = set()
        while page := await self._chunks.list_ids(after, _PAGE):
            strays.update(await self._declare_strays(page))
            orphans = await self._find_orphans(page)
            for blob_id in orphans:
                await self._chunks.delete(blob_id)
            count += len(page) - len(orphans)
            deleted += len(orphans)
            after = page[-1]
        self._blobs.blob_count = count
        self._strays = strays
        if deleted:
            _log.info("orphaned blobs deleted", count=deleted)
        return deleted

    async def _declare_strays(self, blob_ids: Sequence[str]) -> list[str]:
        """Copies here of blobs that are held elsewhere. A copy that is just being made looks the
        same, so they are declared when they are seen by two sweeps."""

        async def find(view: MetadataView) -> list[str]:
            return [each for each in blob_ids if await self._is_stray(view, each)]

        strays = await self._store.read(find, long=True)
        again = tuple(blob_id for blob_id in strays if blob_id in self._strays)
        if again:
            await self._propose(DropCopies(node_id=self._node_id, blob_ids=again))
            _log.info("copies that count no more are dropped", count=len(again))
        return strays[:_STRAYS_PER_PAGE_MAX]

    async def _is_stray(self, view: MetadataView, blob_id: str) -> bool:
        blob = await view.get(BLOBS, (blob_id,))
        if blob is None or self._node_id in blob.holders:
            return False
        return await view.get(DROPPED, (self._node_id, blob_id)) is None

    async def _find_orphans(self, blob_ids: Sequence[str]) -> list[str]:
        """Their age is judged by the cluster's clock, as apply judges whether a blob may still be
        committed: by a clock of this machine that jumps, an upload under way would be an orphan."""

        async def unknown(view: MetadataView) -> list[str]:
            clock = await view.get(MARKS, (CLOCK_MS,))
            newest_ms = (0 if clock is None else clock.value) - BLOB_ORPHAN_AGE_MS_MIN
            old = [blob_id for blob_id in blob_ids if placed_ms(blob_id) < newest_ms]
            return [blob_id for blob_id in old if not await _is_known(view, blob_id)]

        return await self._store.read(unknown, long=True)


async def _is_known(view: MetadataView, blob_id: str) -> bool:
    if await view.get(BLOBS, (blob_id,)) is not None:
        return True
    return await view.get(GARBAGE, (blob_id,)) is not None  # its turn comes in collect_once


def placed_ms(blob_id: str) -> int:
    """When the leader made this id: its first 12 hex digits."""
    return int(blob_id[:12], 16)


async def _attempt(work: Callable[[], Awaitable[int]]) -> bool:
    """False when it has to be tried again."""
    try:
        await work()
    except Fatal:
        raise
    except AstraError as error:
        _log.debug("not now", reason=f"{type(error).__name__}: {error}")
        return False
    return True
