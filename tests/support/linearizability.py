"""Is there an order in which these operations on one register explain all answers?

Wing and Gong's search, with Lowe's memory of configurations, for one register at a time (keys are
independent, so a store is linearizable when each key is). Values in, a verdict out: no IO.

An operation is what it demands of the state before it (`requires`) and what it leaves behind
(`result`): a read demands a state and keeps it, a conditional write demands and replaces. States
are whatever is hashable; the cheapest search has a state of its own for each write.

`returned=None` is an operation whose outcome nobody knows (a timeout, a 5xx): it may take effect
at any time after its call, or never. Such operations are taken only right before an answer that
they explain; nothing is lost by that, since whatever was applied and seen by nobody can be left out
of the order. So a history with many of them stays cheap.

Wing and Gong, "Testing and verifying concurrent objects", 1993; Lowe, "Testing for
linearizability", 2017.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

STEPS_MAX: Final = 400_000

State = Hashable


class Kept(enum.Enum):
    """The result of an operation that changes nothing."""

    KEPT = 0


KEPT: Final = Kept.KEPT


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The states before the operation: `states`, or with `negate` all others."""

    states: frozenset[State]
    negate: bool = False

    def allows(self, state: State) -> bool:
        return (state in self.states) is not self.negate


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operation; times from one clock, in any unit. `what` is for people."""

    called: float
    returned: float | None
    requires: Demand | None = None
    result: State | Kept = KEPT
    what: str = ""

    def apply(self, state: State) -> tuple[bool, State]:
        """Whether it can happen in `state`, and the state after it."""
        if self.requires is not None and not self.requires.allows(state):
            return False, state
        return True, state if self.result is KEPT else self.result


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """No order explains these operations. `ops` is a small part of the history that has none
    either, in time order; `is_proven` False: the search was given up."""

    ops: tuple[Op, ...]
    is_proven: bool = True

    def story(self, start: float | None = None) -> str:
        """For people: one line per operation, times from `start` or else from the first call."""
        if start is None:
            start = min(op.called for op in self.ops) if self.ops else 0.0
        lines = [_line(op, start) for op in sorted(self.ops, key=lambda op: op.called)]
        head = "no order explains" if self.is_proven else "search given up on"
        return "\n".join([f"{head} these {len(self.ops)} operations:", *lines])


def _line(op: Op, start: float) -> str:
    end = "   ?   " if op.returned is None else f"{op.returned - start:7.3f}"
    return f"  {op.called - start:7.3f} .. {end}  {op.what or op}"


def read(state: State, *, called: float, returned: float, what: str = "") -> Op:
    """An answer that shows `state`."""
    demand = Demand(states=frozenset({state}))
    return Op(called=called, returned=returned, requires=demand, what=what)


def write(state: State, *, called: float, returned: float | None, what: str = "") -> Op:
    """An unconditional write, or with `returned` None one of unknown outcome."""
    return Op(called=called, returned=returned, result=state, what=what)


def compare_and_set(
    old: State, new: State, *, called: float, returned: float | None, what: str = ""
) -> Op:
    """A write that was applied because the state was `old`."""
    demand = Demand(states=frozenset({old}))
    return Op(called=called, returned=returned, requires=demand, result=new, what=what)


def check(
    ops: Sequence[Op], *, initial: State = None, steps_max: int = STEPS_MAX
) -> Violation | None:
    """None when the history of one register is linearizable."""
    verdict = _Search(ops, initial, steps_max).run()
    if verdict is True:
        return None
    if verdict is None:
        return Violation(ops=tuple(ops), is_proven=False)
    return Violation(ops=_smaller(list(ops), initial))


def _smaller(ops: list[Op], initial: State) -> tuple[Op, ...]:
    """A part of the history that still has no order. What was answered to nobody's surprise goes:
    first all that was called after the first contradiction, then whatever is not needed."""
    known = sorted(op.returned for op in ops if op.returned is not None)
    low, high = 0, len(known) - 1
    while low < high:
        middle = (low + high) // 2
        if _fails(_until(ops, known[middle]), initial):
            high = middle
        else:
            low = middle + 1
    kept = _until(ops, known[low])
    size = len(kept)
    while size >= 1:
        index = 0
        while index < len(kept):
            shorter = kept[:index] + kept[index + size :]
            # Without the write of a state that is read, the rest fails for no good reason.
            if _is_closed(shorter, initial) and _fails(shorter, initial):
                kept = shorter
            else:
                index += size
        size //= 2
    return tuple(kept)


def _until(ops: Sequence[Op], end: float) -> list[Op]:
    """What was known at `end`: later answers are cut off."""
    kept = []
    for op in ops:
        if op.returned is not None and op.returned <= end:
            kept.append(op)
        elif op.called <= end and op.result is not KEPT:
            kept.append(replace(op, returned=None))
    return kept


def _is_closed(ops: Sequence[Op], initial: State) -> bool:
    """True when for each demand some state that satisfies it is written."""
    written = {initial, *(op.result for op in ops if op.result is not KEPT)}
    demands = [op.requires for op in ops if op.requires is not None and op.returned is not None]
    return all(any(demand.allows(state) for state in written) for demand in demands)


def _fails(ops: Sequence[Op], initial: State) -> bool:
    return _Search(ops, initial, STEPS_MAX // 10).run() is False


@dataclass(frozen=True, slots=True)
class _Spot:
    """A configuration: all known operations before `first` and those in `extra` are done."""

    first: int
    extra: frozenset[int]
    used: frozenset[int]  # of the operations of unknown outcome
    state: State


class _Search:
    def __init__(self, ops: Sequence[Op], initial: State, steps_max: int) -> None:
        known = [(op, op.returned) for op in ops if op.returned is not None]
        known.sort(key=lambda pair: pair[0].called)
        self._known = [op for op, _ in known]
        self._returns = [returned for _, returned in known]
        self._unknown = sorted((op for op in ops if op.returned is None), key=lambda op: op.called)
        self._kinds = _numbered([(op.requires, op.result) for op in self._unknown])
        self._initial = initial
        self._steps_left = steps_max

    def run(self) -> bool | None:
        """True: there is an order. False: there is none. None: too many steps."""
        start = _Spot(0, frozenset(), frozenset(), self._initial)
        seen = {start}
        stack = [self._next_spots(start)]
        if not self._known:
            return True
        while stack:
            spot = next(stack[-1], None)
            if self._steps_left < 0:
                return None
            if spot is None:
                stack.pop()
                continue
            if spot.first == len(self._known):
                return True
            self._steps_left -= 1
            if spot not in seen:
                seen.add(spot)
                stack.append(self._next_spots(spot))
        return False

    def _next_spots(self, spot: _Spot) -> Iterator[_Spot]:
        """Cheap steps first: the known operations that fit as it is, soonest returned first."""
        candidates, latest = self._candidates(spot)
        for index in candidates:
            fits, state = self._known[index].apply(spot.state)
            if fits:
                yield self._after(spot, index, spot.used, state)
        for used, state in self._chains(spot, latest):
            # Also those that fit without it: a condition may leave the new state in place.
            for index in candidates:
                fits, after = self._known[index].apply(state)
                if fits and self._known[index].requires is not None:
                    yield self._after(spot, index, used, after)

    def _candidates(self, spot: _Spot) -> tuple[list[int], float]:
        """Known operations that may come next: called before any that is left returned."""
        latest = float("inf")
        found = []
        for index in range(spot.first, len(self._known)):
            if self._known[index].called > latest:
                break
            if index not in spot.extra:
                found.append(index)
                latest = min(latest, self._returns[index])
        found = [index for index in found if self._known[index].called <= latest]
        found.sort(key=lambda index: self._returns[index])
        return found, latest

    def _chains(self, spot: _Spot, latest: float) -> Iterator[tuple[frozenset[int], State]]:
        """States that unknown operations can lead to, each with those it takes, shortest first.
        Only the first one of a chain may be unconditional: it would make those before it vain."""
        layer: list[tuple[frozenset[int], State]] = [(spot.used, spot.state)]
        reached = {spot.used}
        is_first = True
        while layer and self._steps_left >= 0:
            longer: list[tuple[frozenset[int], State]] = []
            for used, state in layer:
                for number in self._usable(used, latest):
                    op = self._unknown[number]
                    fits, after = op.apply(state)
                    with_it = used | {number}
                    if not fits or after == state or with_it in reached:
                        continue
                    if is_first or op.requires is not None:
                        self._steps_left -= 1
                        reached.add(with_it)
                        longer.append((with_it, after))
            yield from longer
            layer, is_first = longer, False

    def _usable(self, used: frozenset[int], latest: float) -> Iterator[int]:
        """Unknown operations that may be next. Of several that do the same, the one that was
        called first: whatever the others can be used for later, they still can."""
        kinds: set[int] = set()
        for number, op in enumerate(self._unknown):
            if op.called > latest:
                return
            if number not in used and self._kinds[number] not in kinds:
                kinds.add(self._kinds[number])
                yield number

    def _after(self, spot: _Spot, index: int, used: frozenset[int], state: State) -> _Spot:
        first, extra = spot.first, spot.extra
        if index != first:
            return _Spot(first, extra | {index}, used, state)
        first += 1
        while first in extra:
            extra -= {first}
            first += 1
        return _Spot(first, extra, used, state)


def _numbered(things: Sequence[Hashable]) -> list[int]:
    """A number for each, the same one for equal ones."""
    numbers: dict[Hashable, int] = {}
    return [numbers.setdefault(thing, len(numbers)) for thing in things]
