"""Repair, decided by the leader: back to REPLICAS good copies, and to no more than that.

Causes: a commit with fewer holders than REPLICAS (the third copy may still arrive by itself: it
gets a delay), a report that a holder's copy is bad or missing, and the scan of all blobs (scan.py).
One blob is worked on by one task at a time; the queue (repairqueue.py) hands out the most
endangered first.

- bad copy: the same node repairs it from the other holders. When it cannot, another node takes
  its place.
- too few safe copies (copies.py): a node that holds none gets one; what is gone or leaving drops
  out when enough safe ones are there.
- too many: each is read through first, then one is dropped.

Every change is a SetHolders that loses against any change made meanwhile, even one that was made
and undone. Nothing is deleted here: who drops out deletes its own copy (garbage.py).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence
from typing import Final

from astra.commands import AnyCommand, ForgetGarbage, Refusal, SetHolders
from astra.constants import MIB, REPLICAS
from astra.errors import AstraError, Fatal, Refused, Unavailable
from astra.log import get_logger
from astra.model import BLOBS, DROPPED, Blob
from astra.net import Dialer
from astra.ports import Clock, MetadataView
from astra.wire import Commit, Committed, Epochs, Message, RepairBlob
from node.membership import ClusterMap
from node.services.copies import Copies, Standing, choose_extra, choose_target, holders_after
from node.services.ports import LeaderLink
from node.services.reads import Reads
from node.services.repairqueue import Job, RepairQueue
from node.services.standing import NodeWatch

__all__ = ["RepairQueue", "RepairService", "SpeedOfRepair"]

_REPAIR_TIMEOUT_MIN_S: Final = 120.0
_COMMIT_TIMEOUT_S: Final = 10.0
_BUSY_MS: Final = 500
_LOOK_S: Final = 1.0
_HOPELESS_MAX: Final = 1000
_SPEED_WINDOW_MS: Final = 30_000

_log = get_logger("repair")


class SpeedOfRepair:
    """How much was copied in the last half minute or so, for the time that is left."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic_ms()
        self._bytes = 0
        self._last = 0.0

    def note(self, size: int) -> None:
        self._turn_over()
        self._bytes += size

    def bytes_per_s(self) -> float:
        """0: nothing was copied lately."""
        self._turn_over()
        passed_s = (self._clock.monotonic_ms() - self._since) / 1000
        now = self._bytes / passed_s if passed_s > 1 else 0.0
        return max(now, self._last)

    def _turn_over(self) -> None:
        passed_ms = self._clock.monotonic_ms() - self._since
        if passed_ms > _SPEED_WINDOW_MS:
            self._last = self._bytes / passed_ms * 1000 if passed_ms < 2 * _SPEED_WINDOW_MS else 0.0
            self._bytes, self._since = 0, self._clock.monotonic_ms()


class RepairService:
    def __init__(
        self,
        *,
        queue: RepairQueue,
        reads: Reads,
        cluster: ClusterMap,
        watch: NodeWatch,
        dialer: Dialer,
        leader: LeaderLink,
        clock: Clock,
        parallel_max: int,
        mib_per_s: float,
    ) -> None:
        """`mib_per_s`: the rate of each copying node, for how long to wait."""
        self._queue = queue
        self._reads = reads
        self._cluster = cluster
        self._watch = watch
        self._dialer = dialer
        self._leader = leader
        self._parallel_max = parallel_max
        self._mib_per_s = mib_per_s
        self._busy: set[str] = set()
        self._hopeless: dict[str, None] = {}
        self.speed = SpeedOfRepair(clock)

    async def run(self) -> None:
        """For ever, on every node; followers have an empty queue."""
        async with asyncio.TaskGroup() as group:
            for _ in range(self._parallel_max):
                group.create_task(self._work())

    @property
    def is_idle(self) -> bool:
        return not self._busy and len(self._queue) == 0

    async def _work(self) -> None:
        while True:
            taken = self._queue.take_due()
            if taken is None:
                await self._wait_for_work()
                continue
            job, copies, tries = taken
            if job[0] in self._busy:
                self._queue.add(job, copies=copies, delay_ms=_BUSY_MS, tries=tries)
                continue
            try:
                await self.repair_once(job)
                self._hopeless.pop(job[0], None)
            except Fatal:
                raise
            except AstraError as error:
                _log.info("repair failed", blob_id=job[0], node=job[1], reason=str(error))
                self._note_failure(job)
                self._queue.retry(job, copies, tries + 1)

    def _note_failure(self, job: Job) -> None:
        if job[1] and len(self._hopeless) < _HOPELESS_MAX:
            self._hopeless[job[0]] = None

    def problems(self) -> list[str]:
        """Blobs whose bad copies could not be repaired from any other copy, so far."""
        if not self._hopeless:
            return []
        some = ", ".join(list(self._hopeless)[:3])
        return [f"{len(self._hopeless)} blobs have a bad copy and no good one to repair it: {some}"]

    def forget(self) -> None:
        """Another node leads now."""
        self._hopeless.clear()

    async def _wait_for_work(self) -> None:
        if len(self._queue) == 0:
            self._queue.changed.clear()
            await self._queue.changed.wait()
        else:
            await asyncio.sleep(0.2)  # only delayed jobs

    async def repair_once(self, job: Job) -> None:
        """One step towards REPLICAS copies. Raises what kept it from being taken."""
        blob_id, bad_holder = job
        self._busy.add(blob_id)
        try:
            blob = await self._find(blob_id)
            if blob is None:
                return
            if bad_holder in blob.holders:
                await self._repair_copy(blob_id, blob, bad_holder)
            else:
                await self._restore(blob_id, blob)
        finally:
            self._busy.discard(blob_id)

    async def _find(self, blob_id: str) -> Blob | None:
        """None: gone, or inline."""
        blob = await self._reads.read(lambda view: view.get(BLOBS, (blob_id,)))
        return None if blob is None or blob.is_inline else blob

    async def _repair_copy(self, blob_id: str, blob: Blob, node_id: str) -> None:
        copies = self._watch.judge(blob.holders)
        sources = [source for source in copies.sources if source != node_id]
        try:
            await self._make_copy(blob_id, blob, node_id, sources)
        except AstraError:
            if not sources or self._watch.standing(node_id) in (Standing.LIVE, Standing.LATE):
                raise  # here, or soon back: tried again later, and read from the others meanwhile
            await self._restore(blob_id, blob)

    async def _restore(self, blob_id: str, blob: Blob) -> None:
        copies = self._watch.judge(blob.holders)
        if len(copies.safe) > REPLICAS:
            await self._drop_extra(blob_id, blob, copies)
        elif len(copies.safe) < REPLICAS:
            await self._add_copy(blob_id, blob, copies)
        elif not copies.is_right:
            await self._set_holders(blob_id, blob, copies.safe)

    async def _add_copy(self, blob_id: str, blob: Blob, copies: Copies) -> None:
        target = await self._choose_target(blob_id, blob, copies)
        if target is None or not copies.sources:
            return  # nobody to give it to, or to take it from: the scan says so
        await self._make_copy(blob_id, blob, target, copies.sources)
        now = self._watch.judge(blob.holders)  # somebody may have come back meanwhile
        holders = holders_after(now, target)
        await self._set_holders(blob_id, blob, holders)
        if len(now.safe) + 1 != REPLICAS:
            self._queue.add((blob_id, ""), copies=len(now.safe) + 1)

    async def _choose_target(self, blob_id: str, blob: Blob, copies: Copies) -> str | None:
        reports = self._watch.reports()
        banned = await self._with_old_copies(blob_id, [report.node_id for report in reports])
        return choose_target(
            reports, copies, blob.size, leader_id=self._cluster.node_id, banned=banned
        )

    async def _with_old_copies(self, blob_id: str, names: Sequence[str]) -> list[str]:
        """Who still has to delete a copy, and must not be taken for having a new one."""

        async def find(view: MetadataView) -> list[str]:
            return [n for n in names if await view.get(DROPPED, (n, blob_id)) is not None]

        return await self._reads.read(find)

    async def _drop_extra(self, blob_id: str, blob: Blob, copies: Copies) -> None:
        """Only when each of the copies that stay was read through just now."""
        extra = choose_extra(copies.safe, self._watch.reports())
        if extra is None:
            return
        left = tuple(holder for holder in copies.safe if holder != extra)
        for holder in left:
            sources = [source for source in copies.sources if source != holder]
            await self._make_copy(blob_id, blob, holder, sources)
        await self._set_holders(blob_id, blob, left)
        _log.info("a copy too many is dropped", blob_id=blob_id, node=extra)

    async def move(self, blob_id: str, receiver: str, giver: str) -> bool:
        """Rebalancing: the copy of `giver` goes to `receiver`. False: it cannot, now."""
        if blob_id in self._busy:
            return False
        self._busy.add(blob_id)
        try:
            blob = await self._find(blob_id)
            if blob is None or receiver in blob.holders or giver not in blob.holders:
                return False
            copies = self._watch.judge(blob.holders)
            if not copies.is_right or await self._with_old_copies(blob_id, [receiver]):
                return False
            await self._make_copy(blob_id, blob, receiver, copies.sources)
            left = tuple(holder for holder in blob.holders if holder != giver)
            await self._set_holders(blob_id, blob, (*left, receiver))
        finally:
            self._busy.discard(blob_id)
        return True

    async def _make_copy(
        self, blob_id: str, blob: Blob, node_id: str, sources: Sequence[str]
    ) -> None:
        """On return the node has read every byte of its copy and found it good. Raises Unavailable
        also when it falls silent meanwhile."""
        address = self._cluster.address_of(node_id)
        if address is None:
            raise Unavailable(f"the address of {node_id} is not known")
        refs = self._cluster.refs(sources)
        request = RepairBlob(blob_id=blob_id, size=blob.size, sources=refs)
        expected_s = blob.size * self._parallel_max / (self._mib_per_s * MIB)
        timeout_s = _REPAIR_TIMEOUT_MIN_S + 4 * expected_s
        call = self._dialer.control(address).call(request, timeout_s=timeout_s)
        await self._while_live(node_id, asyncio.ensure_future(call))
        self.speed.note(blob.size)
        _log.info("copy is good", blob_id=blob_id, node=node_id)

    async def _while_live(self, node_id: str, work: asyncio.Future[Message]) -> None:
        """A machine without power refuses nothing and answers nothing, and a large copy may take
        long: its reports tell the one from the other."""
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=_LOOK_S)
                if not (work.done() or self._cluster.is_live(node_id)):
                    raise Unavailable(f"{node_id} fell silent")
            await work
        finally:
            work.cancel()

    async def _set_holders(self, blob_id: str, blob: Blob, holders: tuple[str, ...]) -> None:
        command = SetHolders(
            blob_id=blob_id,
            expected=blob.holders,
            holders=holders,
            expected_index=blob.placed_index,
        )
        await self.propose(command)

    async def forget_for(self, node_id: str, blob_ids: tuple[str, ...]) -> None:
        """For a node that is no member any more: nobody waits for its deletions."""
        await self.propose(ForgetGarbage(node_id=node_id, blob_ids=blob_ids))

    async def propose(self, command: AnyCommand) -> None:
        """Raises Refused too."""
        commit = Commit(request_id=uuid.uuid4().hex, epochs=Epochs(), command=command)
        answer = await self._leader.ask(commit, timeout_s=_COMMIT_TIMEOUT_S)
        if isinstance(answer, Committed) and isinstance(answer.result, Refusal):
            raise Refused(answer.result.code, answer.result.detail)
