"""Moves blobs onto a node that is clearly emptier than the others: one that has just joined.

Rules: the leader only, one blob at a time, and only while nothing needs repair and nobody drains;
the receiving node paces the bytes (throttle.py). Which node and whose copy is decided by copies.py.
The copy is made and verified first, then the holders change, then the giver deletes its own.

Nodes tell how full they are once a second, and a giver deletes its copy a grace later. What moved
meanwhile is counted here, or on a small disk everything would move to one node, then to the next.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Final

from astra.errors import AstraError, Fatal
from astra.log import get_logger
from astra.model import BLOBS, Blob
from astra.ports import Clock
from astra.wire import NodeReport
from node.lookup import rows_after
from node.services.copies import choose_giver, choose_receiver, with_moves
from node.services.ports import Consensus
from node.services.reads import Reads
from node.services.repair import RepairService
from node.services.scan import RepairScan
from node.services.standing import NodeWatch

_PAGE: Final = 100

_log = get_logger("rebalance")


class _Untold:
    """Bytes that nodes have more, or less, than they tell."""

    def __init__(self, clock: Clock, arrival_ms: int, departure_ms: int) -> None:
        self._clock = clock
        # By how long it takes until a report tells of it; each in the order of time.
        self._queues: tuple[tuple[int, deque[tuple[int, str, int]]], ...] = (
            (arrival_ms, deque()),
            (departure_ms, deque()),
        )
        self._bytes: dict[str, int] = {}

    def note(self, receiver: str, giver: str, size: int) -> None:
        now_ms = self._clock.monotonic_ms()
        changes = ((receiver, size), (giver, -size))
        for (for_ms, queue), (node_id, change) in zip(self._queues, changes, strict=True):
            queue.append((now_ms + for_ms, node_id, change))
            self._bytes[node_id] = self._bytes.get(node_id, 0) + change

    def is_empty(self) -> bool:
        """Every report tells everything by now."""
        self.by_node()
        return not any(queue for _, queue in self._queues)

    def by_node(self) -> Mapping[str, int]:
        now_ms = self._clock.monotonic_ms()
        for _, queue in self._queues:
            while queue and queue[0][0] <= now_ms:
                _, node_id, change = queue.popleft()
                self._bytes[node_id] -= change
        return self._bytes


class Balance:
    """Who gets blobs, by what the nodes tell and what has moved since. Values and a clock."""

    def __init__(self, clock: Clock, *, arrival_ms: int, departure_ms: int) -> None:
        """`arrival_ms`, `departure_ms`: after so long, a report tells of a copy that came, or
        went."""
        self._untold = _Untold(clock, arrival_ms, departure_ms)
        self._is_moving = False

    def note(self, receiver: str, giver: str, size: int) -> None:
        """A copy has moved."""
        self._untold.note(receiver, giver, size)

    def corrected(self, reports: Sequence[NodeReport]) -> list[NodeReport]:
        """With everything that moved, told or not."""
        return with_moves(reports, self._untold.by_node())

    def receiver(self, reports: Sequence[NodeReport]) -> str | None:
        """None: the disks are about equally full."""
        found = choose_receiver(self.corrected(reports), is_moving=self._is_moving)
        # What is told early counts twice for a while: near enough is judged after that.
        self._is_moving = found is not None or (self._is_moving and not self._untold.is_empty())
        return found


class Rebalancer:
    def __init__(
        self,
        *,
        reads: Reads,
        consensus: Consensus,
        repair: RepairService,
        scan: RepairScan,
        watch: NodeWatch,
        balance: Balance,
    ) -> None:
        self._reads = reads
        self._consensus = consensus
        self._repair = repair
        self._scan = scan
        self._watch = watch
        self._balance = balance
        self._after = ""
        self.moved = 0

    async def run(self, interval_s: float) -> None:
        """For ever, on every node."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.step()
            except Fatal:
                raise
            except AstraError as error:
                _log.info("not rebalanced now", reason=str(error))

    async def step(self) -> int:
        """A page of blobs; how many moved. 0 also when all is balanced, or must wait."""
        moved = 0
        if self._receiver() is None:
            return 0
        for blob_id, blob in await self._next_page():
            receiver = self._receiver()
            if receiver is None:
                break
            reports = self._balance.corrected(self._watch.reports())
            giver = choose_giver(blob.holders, reports, receiver)
            if giver is not None and await self._repair.move(blob_id, receiver, giver):
                self._balance.note(receiver, giver, blob.size)
                moved += 1
        self.moved += moved
        return moved

    def _receiver(self) -> str | None:
        last = self._scan.last
        may_move = self._consensus.is_leader and last is not None and last.is_settled
        if not may_move or not self._repair.is_idle:
            return None
        return self._balance.receiver(self._watch.reports())

    async def _next_page(self) -> Sequence[tuple[str, Blob]]:
        page = await self._reads.read(
            lambda view: rows_after(view, BLOBS, self._after, _PAGE), scans=True
        )
        self._after = page[-1][0] if len(page) == _PAGE else ""
        return [(blob_id, blob) for blob_id, blob in page if not blob.is_inline]
