"""Moves blobs onto a node that is clearly emptier than the others: one that has just joined.

Rules: the leader only, one blob at a time, and only while nothing needs repair and nobody drains;
the receiving node paces the bytes (throttle.py). Which node and whose copy is decided by copies.py.
The copy is made and verified first, then the holders change, then the giver deletes its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from astra.errors import AstraError, Fatal
from astra.log import get_logger
from astra.model import BLOBS, Blob
from node.lookup import rows_after
from node.services.copies import choose_giver, choose_receiver
from node.services.ports import Consensus
from node.services.reads import Reads
from node.services.repair import RepairService
from node.services.scan import RepairScan
from node.services.standing import NodeWatch

_PAGE: Final = 100

_log = get_logger("rebalance")


class Rebalancer:
    def __init__(
        self,
        *,
        reads: Reads,
        consensus: Consensus,
        repair: RepairService,
        scan: RepairScan,
        watch: NodeWatch,
    ) -> None:
        self._reads = reads
        self._consensus = consensus
        self._repair = repair
        self._scan = scan
        self._watch = watch
        self._is_moving = False
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
            giver = choose_giver(blob.holders, self._watch.reports(), receiver)
            if giver is not None and await self._repair.move(blob_id, receiver, giver):
                moved += 1
        self.moved += moved
        return moved

    def _receiver(self) -> str | None:
        last = self._scan.last
        may_move = self._consensus.is_leader and last is not None and last.is_settled
        if not may_move or not self._repair.is_idle:
            return None
        receiver = choose_receiver(self._watch.reports(), is_moving=self._is_moving)
        self._is_moving = receiver is not None
        return receiver

    async def _next_page(self) -> Sequence[tuple[str, Blob]]:
        page = await self._reads.read(
            lambda view: rows_after(view, BLOBS, self._after, _PAGE), scans=True
        )
        self._after = page[-1][0] if len(page) == _PAGE else ""
        return [(blob_id, blob) for blob_id, blob in page if not blob.is_inline]
