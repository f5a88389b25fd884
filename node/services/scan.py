"""The leader's walk over all blobs: which have too few copies, too many, or copies that leave.

Rules: page by page at a bounded rate, for ever; what it finds goes into the repair queue, most
endangered first. When the queue is full the walk goes on (it may find something worse, and it
counts), and what did not fit is found by the next walk, which starts early once the queue is empty.

Also tidies up after nodes that are no members any more: what they should delete is forgotten.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from astra.constants import REPLICAS
from astra.errors import AstraError, Fatal
from astra.log import get_logger
from astra.model import BLOBS, DROPPED, GARBAGE, Blob, Key
from astra.ports import Clock, MetadataView
from node.lookup import rows_after, successor
from node.membership import ClusterMap
from node.services.copies import Copies
from node.services.ports import Consensus
from node.services.reads import Reads
from node.services.repair import RepairService
from node.services.repairqueue import RepairQueue
from node.services.standing import NodeWatch

PAGE: Final = 500
ROWS_PER_S_MAX: Final = 20_000
_WATCH_S: Final = 0.5
_RETRY_S: Final = 2.0

_log = get_logger("scan")


@dataclass(slots=True, kw_only=True)
class Found:
    """What one walk saw."""

    blobs: int = 0
    short: int = 0  # fewer safe copies than there should be
    short_bytes: int = 0
    stuck: int = 0  # of these: no further node to give a copy to
    unreachable: int = 0  # no copy can be read now
    leaving: int = 0  # copies on draining nodes
    extra: int = 0  # more copies than there should be

    @property
    def is_settled(self) -> bool:
        return not (self.short or self.unreachable or self.leaving or self.extra)


class RepairScan:
    def __init__(
        self,
        *,
        reads: Reads,
        consensus: Consensus,
        cluster: ClusterMap,
        queue: RepairQueue,
        repair: RepairService,
        watch: NodeWatch,
        clock: Clock,
        interval_s: float,
        young_ms: int,
    ) -> None:
        """`young_ms`: the last copy of a new blob may still arrive by itself for so long."""
        self._reads = reads
        self._consensus = consensus
        self._cluster = cluster
        self._queue = queue
        self._repair = repair
        self._watch = watch
        self._clock = clock
        self._interval_s = interval_s
        self._young_ms = young_ms
        self.last: Found | None = None  # of the newest whole walk in this leadership

    async def run_watch(self) -> None:
        """Who is silent since when; on every node, so that a new leader knows."""
        while True:
            self._watch.observe()
            if not self._consensus.is_leader:
                self.last = None
            await asyncio.sleep(_WATCH_S)

    async def run(self) -> None:
        """For ever, on every node; only the leader walks."""
        while True:
            ground = self._ground()
            if self._consensus.is_leader:
                try:
                    self.last = await self.walk()
                    await self._forget_strangers()
                except Fatal:
                    raise
                except AstraError as error:
                    _log.info("scan interrupted", reason=str(error))
                    await asyncio.sleep(min(_RETRY_S, self._interval_s))
                    continue
            await self._rest(ground)

    def _ground(self) -> tuple[object, ...]:
        """What a walk judges by, besides the blobs."""
        return (self._consensus.is_leader, *self._watch.standings())

    async def _rest(self, ground: tuple[object, ...]) -> None:
        """Until the next walk: early when all that was found is done, and when the last walk is
        out of date because a node joins, leaves or is given up, or another node leads."""
        rested, step = 0.0, min(1.0, self._interval_s)
        while rested < self._interval_s:
            await asyncio.sleep(step)
            rested += step
            is_open = self.last is not None and self.last.short > self.last.stuck
            if (is_open and self._repair.is_idle) or self._ground() != ground:
                return

    # --- the walk ---

    async def walk(self) -> Found:
        """All blobs once. Raises NotLeader, Unavailable, StoreError."""
        found, after = Found(), ""
        while True:
            page = await self._page(after)
            for blob_id, blob in page:
                if not blob.is_inline:
                    self._look_at(blob_id, blob, found)
            if len(page) < PAGE:
                return found
            after = page[-1][0]
            await asyncio.sleep(PAGE / ROWS_PER_S_MAX)

    async def _page(self, after: str) -> Sequence[tuple[str, Blob]]:
        return await self._reads.read(lambda view: rows_after(view, BLOBS, after, PAGE), scans=True)

    def _look_at(self, blob_id: str, blob: Blob, found: Found) -> None:
        found.blobs += 1
        copies = self._watch.judge(blob.holders)
        if copies.is_right or self._is_arriving(blob, copies):
            return
        has_target = any(report.node_id not in blob.holders for report in self._watch.reports())
        is_short = len(copies.safe) < min(REPLICAS, self._watch.staying())
        found.leaving += len(copies.leaving)
        found.extra += len(copies.safe) > REPLICAS
        if is_short:
            found.short += 1
            found.short_bytes += blob.size * (REPLICAS - len(copies.safe))
            found.stuck += not has_target
        if not copies.sources:
            found.unreachable += 1
        elif len(copies.safe) >= REPLICAS or has_target:
            self._queue.add((blob_id, ""), copies=copies.left)

    def _is_arriving(self, blob: Blob, copies: Copies) -> bool:
        # Its time is the cluster's: below zero when another leader's clock was ahead for a while.
        is_young = 0 <= self._clock.wall_ms() - blob.created_ms < self._young_ms
        return is_young and len(copies.safe) == len(blob.holders) < REPLICAS

    # --- after nodes that are gone for good ---

    async def _forget_strangers(self) -> None:
        members = set(self._cluster.node_ids())
        for node_id, blob_ids in (await self._reads.read(_garbage_holders, scans=True)).items():
            if node_id not in members:
                await self._repair.forget_for(node_id, tuple(blob_ids))
        for node_id, blob_ids in (await self._reads.read(_droppers, scans=True)).items():
            if node_id not in members:
                await self._repair.forget_for(node_id, tuple(blob_ids))

    # --- for people ---

    def problems(self) -> list[str]:
        found, problems = self.last, self._repair.problems()
        if found is None:
            return problems
        if found.short > found.stuck:
            problems.append(
                f"{found.short} blobs have fewer than {REPLICAS} copies;"
                f" {found.short_bytes} bytes to copy, {self._time_left(found.short_bytes)}"
            )
        elif found.short:
            problems.append(
                f"{found.short} blobs have fewer than {REPLICAS} copies,"
                " and there is no further node to take one"
            )
        if found.unreachable:
            problems.append(f"{found.unreachable} blobs have no copy on a node that answers")
        if found.leaving:
            problems.append(f"{found.leaving} copies have to move off draining nodes")
        return problems

    def _time_left(self, size: int) -> str:
        speed = self._repair.speed.bytes_per_s()
        if speed <= 0:
            return "not started yet"
        seconds = size / speed
        return (
            f"about {seconds:.0f} s left" if seconds < 120 else f"about {seconds / 60:.0f} min left"
        )


async def _garbage_holders(view: MetadataView) -> dict[str, list[str]]:
    """Of the oldest garbage: a page per walk is enough, it is for ever otherwise."""
    by_node: dict[str, list[str]] = {}
    for blob_id, garbage in await rows_after(view, GARBAGE, "", PAGE):
        for node_id in garbage.holders:
            by_node.setdefault(node_id, []).append(blob_id)
    return by_node


async def _droppers(view: MetadataView) -> dict[str, list[str]]:
    """A page of each node that has copies to delete."""
    by_node: dict[str, list[str]] = {}
    start: Key = ()
    while first := await view.scan(DROPPED, start, None, 1):
        node_id = str(first[0][0][0])
        rows = await rows_after(view, DROPPED, "", PAGE, within=(node_id,))
        by_node[node_id] = [blob_id for blob_id, _ in rows]
        start = successor((node_id,))
    return by_node
