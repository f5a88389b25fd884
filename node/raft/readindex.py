"""ReadIndex (thesis 6.4): reads wait for one heartbeat round that proves leadership.

Rules: pure. A read joins the first round that *starts* after it arrived, so one round serves all
the reads that were waiting. Its index is the commit index when that round starts. A follower's
answer to round n confirms every round up to n. Bounded by the caller.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Read:
    origin: str  # the node that asked
    context: int


@dataclass(slots=True)
class _Round:
    number: int
    index: int
    reads: list[Read]


class ReadQueue:
    __slots__ = ("_rounds", "_waiting", "number")

    def __init__(self) -> None:
        self.number = 0  # the last round started
        self._waiting: dict[Read, None] = {}  # an ordered set
        self._rounds: deque[_Round] = deque()

    def __len__(self) -> int:
        return len(self._waiting) + sum(len(each.reads) for each in self._rounds)

    @property
    def wants_round(self) -> bool:
        """Reads wait and no round that a read waits for is under way."""
        return bool(self._waiting) and not self._rounds

    def add(self, read: Read) -> None:
        """The same read twice is kept once."""
        self._waiting[read] = None

    def start_round(self, commit: int | None) -> int:
        """The number for the heartbeats sent now. Takes the waiting reads along unless `commit`
        is None: no entry of this leader's own term is committed yet, so its commit index may
        be old (Raft section 8)."""
        self.number += 1
        if self._waiting and commit is not None:
            self._rounds.append(_Round(self.number, commit, list(self._waiting)))
            self._waiting.clear()
        return self.number

    def confirm(self, number: int) -> list[tuple[Read, int]]:
        """A majority has answered round `number`: these reads may be answered at their index."""
        confirmed: list[tuple[Read, int]] = []
        while self._rounds and self._rounds[0].number <= number:
            done = self._rounds.popleft()
            confirmed.extend((read, done.index) for read in done.reads)
        return confirmed

    def drain(self) -> list[Read]:
        """All reads, to be refused: leadership is over."""
        reads = [read for each in self._rounds for read in each.reads]
        reads.extend(self._waiting)
        self._rounds.clear()
        self._waiting.clear()
        return reads
