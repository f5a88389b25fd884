"""Blobs that need a look, each once per cause, most endangered first.

Rules: values only, the time is given by the clock; event loop only. The queue is bounded and
forgets: what does not fit pushes out what is less endangered, or is left to the next scan.
"""

from __future__ import annotations

import asyncio
import heapq
from collections import OrderedDict
from typing import Final

from astra.constants import REPLICAS
from astra.ports import Clock
from astra.wire import ReportBadBlob

QUEUE_MAX: Final = 10_000
_TRIES_MAX: Final = 5
_RETRY_MS: Final = 5000

Job = tuple[str, str]  # the blob, and whose copy is bad ("": copies are missing, or too many)


class RepairQueue:
    def __init__(self, clock: Clock, delay_ms: int) -> None:
        self._clock = clock
        self._delay_ms = delay_ms
        # By how many good copies are left: 0, 1, ..., REPLICAS (enough; somebody is leaving).
        self._ready: list[OrderedDict[Job, int]] = [OrderedDict() for _ in range(REPLICAS + 1)]
        self._later: list[tuple[int, int, Job, int, int]] = []  # due, serial, job, copies, tries
        self._jobs: dict[Job, int] = {}  # all of both, with the copies that are left
        self._serial = 0
        self.changed = asyncio.Event()

    def note_missing_copy(self, blob_id: str) -> None:
        """A blob was committed with too few holders; the last copy may still arrive."""
        self.add((blob_id, ""), copies=REPLICAS - 1, delay_ms=self._delay_ms)

    def note_bad_copy(self, report: ReportBadBlob) -> bool:
        """False: no room."""
        return self.add((report.blob_id, report.node_id), copies=REPLICAS - 1)

    def retry(self, job: Job, copies: int, tries: int) -> None:
        """Later, and not for ever: the next scan finds it again."""
        if tries < _TRIES_MAX:
            self.add(job, copies=copies, delay_ms=_RETRY_MS * tries, tries=tries)

    def add(self, job: Job, *, copies: int, delay_ms: int = 0, tries: int = 0) -> bool:
        """Whether it is in the queue now. `copies`: good ones that are left."""
        copies = min(max(copies, 0), REPLICAS)
        known = self._jobs.get(job)
        if known is not None:
            self._hurry(job, known, copies)
            return True
        if len(self._jobs) >= QUEUE_MAX and not self._push_out(copies):
            return False
        self._jobs[job] = copies
        if delay_ms > 0:
            self._serial += 1
            due = self._clock.monotonic_ms() + delay_ms
            heapq.heappush(self._later, (due, self._serial, job, copies, tries))
        else:
            self._ready[copies][job] = tries
        self.changed.set()
        return True

    def _hurry(self, job: Job, known: int, copies: int) -> None:
        """It is in more danger than was thought."""
        if copies < known and job in self._ready[known]:
            self._ready[copies][job] = self._ready[known].pop(job)
            self._jobs[job] = copies

    def _push_out(self, copies: int) -> bool:
        for level in range(REPLICAS, copies, -1):
            if self._ready[level]:
                job, _ = self._ready[level].popitem()
                del self._jobs[job]
                return True
        return False

    def take_due(self) -> tuple[Job, int, int] | None:
        """The most endangered job, its copies, and how often it was tried before."""
        now = self._clock.monotonic_ms()
        while self._later and self._later[0][0] <= now:
            _, _, job, copies, tries = heapq.heappop(self._later)
            self._ready[copies][job] = tries
        for copies, ready in enumerate(self._ready):
            if ready:
                job, tries = ready.popitem(last=False)
                del self._jobs[job]
                return job, copies, tries
        return None

    def clear(self) -> None:
        """Another node leads now."""
        for ready in self._ready:
            ready.clear()
        self._later.clear()
        self._jobs.clear()

    def __len__(self) -> int:
        return len(self._jobs)
