"""Repair, decided by the leader: back to REPLICAS good copies.

Causes: a commit with fewer holders than REPLICAS (the third copy may still arrive by itself: it
gets a delay), and a report that a holder's copy is bad or missing. One blob is repaired at a
time by one task; the queue is bounded and forgets, because whoever reads the blob next reports
it again.

- bad copy: the same node repairs it from the other holders. When it cannot, and is not merely
  silent for a moment, another node takes its place (SetHolders, which loses against any change
  made meanwhile).
- missing copy: a live node that is not a holder yet gets one, then AddHolder.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from astra.commands import AddHolder, AnyCommand, SetHolders
from astra.constants import REPLICAS
from astra.errors import AstraError, Fatal, Unavailable
from astra.log import get_logger
from astra.model import BLOBS, Blob
from astra.net import Dialer
from astra.placement import place_blob
from astra.ports import Clock
from astra.wire import Commit, Epochs, NodeReport, RepairBlob, ReportBadBlob
from node.membership import ClusterMap
from node.services.ports import LeaderLink
from node.services.reads import Reads

QUEUE_MAX: Final = 10_000
_REPAIR_TIMEOUT_S: Final = 600.0
_COMMIT_TIMEOUT_S: Final = 10.0
_TRIES_MAX: Final = 5
_RETRY_MS: Final = 5000

_log = get_logger("repair")


class RepairQueue:
    """Blobs that need a look, each once, with the time when. Event loop only."""

    def __init__(self, clock: Clock, delay_ms: int) -> None:
        self._clock = clock
        self._delay_ms = delay_ms
        self._due: OrderedDict[tuple[str, str], tuple[int, int]] = OrderedDict()
        self.changed = asyncio.Event()

    def note_missing_copy(self, blob_id: str) -> None:
        """A blob was committed with too few holders."""
        self._add((blob_id, ""), self._delay_ms, tries=0)

    def note_bad_copy(self, report: ReportBadBlob) -> None:
        self._add((report.blob_id, report.node_id), 0, tries=0)

    def retry(self, job: tuple[str, str], tries: int) -> None:
        if tries < _TRIES_MAX:
            self._add(job, _RETRY_MS * tries, tries=tries)

    def _add(self, job: tuple[str, str], delay_ms: int, *, tries: int) -> None:
        if job in self._due or len(self._due) >= QUEUE_MAX:
            return
        self._due[job] = (self._clock.monotonic_ms() + delay_ms, tries)
        self.changed.set()

    def take_due(self) -> tuple[tuple[str, str], int] | None:
        """A job (blob, bad holder or "") and how often it was tried before."""
        now = self._clock.monotonic_ms()
        for job, (due_ms, tries) in self._due.items():
            if due_ms <= now:
                del self._due[job]
                return job, tries
        return None

    def clear(self) -> None:
        """Another node leads now."""
        self._due.clear()

    def __len__(self) -> int:
        return len(self._due)


class RepairService:
    def __init__(
        self,
        *,
        queue: RepairQueue,
        reads: Reads,
        cluster: ClusterMap,
        dialer: Dialer,
        leader: LeaderLink,
        parallel_max: int,
    ) -> None:
        self._queue = queue
        self._reads = reads
        self._cluster = cluster
        self._dialer = dialer
        self._leader = leader
        self._parallel_max = parallel_max

    async def run(self) -> None:
        """For ever, on every node; followers have an empty queue."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._parallel_max):
                group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            taken = self._queue.take_due()
            if taken is None:
                await self._wait_for_work()
                continue
            job, tries = taken
            try:
                await self.repair_once(*job)
            except Fatal:
                raise
            except AstraError as error:
                _log.info("repair failed", blob_id=job[0], node=job[1], reason=str(error))
                self._queue.retry(job, tries + 1)

    async def _wait_for_work(self) -> None:
        if len(self._queue) == 0:
            self._queue.changed.clear()
            await self._queue.changed.wait()
        else:
            await asyncio.sleep(0.2)  # only delayed jobs

    async def repair_once(self, blob_id: str, bad_holder: str) -> None:
        """Raises what kept it from being repaired."""
        blob = await self._reads.read(lambda view: view.get(BLOBS, (blob_id,)))
        if blob is None or blob.is_inline:
            return
        if bad_holder and bad_holder in blob.holders:
            await self._repair_copy(blob_id, blob, bad_holder)
        elif len(blob.holders) < REPLICAS:
            await self._add_copy(blob_id, blob)

    async def _repair_copy(self, blob_id: str, blob: Blob, node_id: str) -> None:
        sources = [holder for holder in blob.holders if holder != node_id]
        try:
            await self._make_copy(blob_id, blob, node_id, sources)
        except AstraError:
            replacement = self._choose_node(blob)
            if self._cluster.is_live(node_id) or replacement is None or not sources:
                raise  # alive: tried again later
            await self._make_copy(blob_id, blob, replacement, sources)
            holders = (*sources, replacement)
            await self._propose(SetHolders(blob_id=blob_id, expected=blob.holders, holders=holders))

    async def _add_copy(self, blob_id: str, blob: Blob) -> None:
        node_id = self._choose_node(blob)
        if node_id is None:
            return  # nobody to give it to: the next issue's scan finds it when nodes join
        await self._make_copy(blob_id, blob, node_id, blob.holders)
        await self._propose(AddHolder(blob_id=blob_id, node_id=node_id))

    async def _make_copy(
        self, blob_id: str, blob: Blob, node_id: str, sources: Sequence[str]
    ) -> None:
        live_first = sorted(sources, key=lambda source: not self._cluster.is_live(source))
        request = RepairBlob(
            blob_id=blob_id, size=blob.size, sources=self._cluster.refs(live_first)
        )
        address = self._cluster.address_of(node_id)
        if address is None:
            raise Unavailable(f"the address of {node_id} is not known")
        client = self._dialer.control(address)
        await client.call(request, timeout_s=_REPAIR_TIMEOUT_S)
        _log.info("copy repaired", blob_id=blob_id, node=node_id)

    def _choose_node(self, blob: Blob) -> str | None:
        candidates: list[NodeReport] = [
            report for report in self._cluster.live_reports() if report.node_id not in blob.holders
        ]
        zones = {
            report.zone for report in self._cluster.live_reports() if report.node_id in blob.holders
        }
        chosen = place_blob(candidates, self._cluster.node_id, blob.size, count=1, zones_used=zones)
        return chosen[0] if chosen else None

    async def _propose(self, command: AnyCommand) -> None:
        commit = Commit(request_id=uuid.uuid4().hex, epochs=Epochs(), command=command)
        await self._leader.ask(commit, timeout_s=_COMMIT_TIMEOUT_S)
