"""Is there an order of these operations that a single register could have had? (Linearizability)

The algorithm is Wing and Gong's with Lowe's memo: try every operation that may come next, remember
(set of operations done, state) and never try the same twice. A write without an answer may happen
at any time after it began, or never. The register of a key holds the ETag of its object, or None.

Herlihy and Wing 1990; Lowe, "Testing for linearizability", 2017.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

State = str | None

NEVER: Final = 1 << 60  # the end of an operation that was not answered
STEPS_MAX: Final = 300_000


class Kind(enum.Enum):
    READ = "read"
    WRITE = "write"


class Verdict(enum.Enum):
    LINEAR = "linear"
    BROKEN = "broken"
    UNDECIDED = "undecided"  # too many steps


class Refusal(enum.Enum):
    """How a conditional write was refused: each says something of the state."""

    PRECONDITION = "precondition"
    NO_SUCH_KEY = "no-such-key"


@dataclass(slots=True, kw_only=True)
class Step:
    """One operation on one key. `value`: what a read saw, or what a write puts (None: nothing
    is there). `begin` < `end` are moments of one global order."""

    kind: Kind
    value: State
    begin: int
    end: int = NEVER
    if_match: str | None = None
    if_none_match: bool = False
    refused: Refusal | None = None
    label: str = ""

    def apply(self, state: State) -> tuple[bool, State]:
        """Whether the operation, with the answer it had, fits `state`; and the state after it."""
        if self.kind is Kind.READ:
            return state == self.value, state
        outcome = self._refusal(state)
        if self.end == NEVER:
            return True, (state if outcome is not None else self.value)
        return outcome is self.refused, (state if outcome is not None else self.value)

    def _refusal(self, state: State) -> Refusal | None:
        if self.if_none_match and state is not None:
            return Refusal.PRECONDITION
        if self.if_match is not None:
            if state is None:
                return Refusal.NO_SUCH_KEY
            if state != self.if_match:
                return Refusal.PRECONDITION
        return None


def check(steps: Sequence[Step], initial: State = None) -> Verdict:
    """Depth first over the operations that could come next."""
    order = sorted(steps, key=lambda step: step.begin)
    must = sum(1 << place for place, step in enumerate(order) if step.end != NEVER)
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, initial)]
    budget = STEPS_MAX
    while stack:
        done, state = stack.pop()
        if done & must == must:
            return Verdict.LINEAR
        if (done, state) in seen:
            continue
        seen.add((done, state))
        for place in _next(order, done):
            budget -= 1
            fits, after = order[place].apply(state)
            if fits and not (order[place].end == NEVER and after == state):
                stack.append((done | 1 << place, after))
        if budget < 0:
            return Verdict.UNDECIDED
    return Verdict.BROKEN


def _next(order: Sequence[Step], done: int) -> list[int]:
    """Those not done that began before every other one not done ended; the earliest on top."""
    places: list[int] = []
    first_end = NEVER
    for place, step in enumerate(order):
        if done >> place & 1:
            continue
        if step.begin > first_end:
            break
        places.append(place)
        first_end = min(first_end, step.end)
    places = [place for place in places if order[place].begin < first_end]
    # Answered ones first: unanswered writes are tried only where nothing else fits.
    places.sort(key=lambda place: (order[place].end, place), reverse=True)
    return places
