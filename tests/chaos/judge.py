"""The verdict on a history: one register per key, in an order that explains every answer.

The state of a key is the write that stands there (None: nothing). GET and HEAD name it; LIST and
If-Match know its ETag only, so they demand one of the writes with that ETag. A list is a read of
every key: of those that it lacks, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.chaos.history import Event, Fault, History, Outcome
from tests.support.linearizability import Demand, Op, check

WRITES = frozenset({"PUT", "MULTIPART", "COPY"})


def judge(history: History, keys: Sequence[str]) -> list[str]:
    """What is wrong, in words; empty when every promise was kept."""
    found = list(history.wrong)
    etags = _ops_by_etag(history.events)
    for key, ops in _registers(history.events, keys, etags).items():
        violation = check(ops)
        if violation is not None:
            rule = "not linearizable" if violation.is_proven else "undecided (too many steps)"
            faults = _faults_around(history, violation.ops)
            found.append(f"key {key} is {rule}\n{violation.story()}\nfaults meanwhile:\n{faults}")
    return found


def _faults_around(history: History, ops: Iterable[Op]) -> str:
    """In the times of the story."""
    ops = list(ops)
    start = min(op.called for op in ops)
    end = max(op.returned or op.called for op in ops)
    near: list[Fault] = [
        fault
        for fault in history.faults
        if fault.began <= end and (fault.ended or end) >= start - 5.0
    ]
    return "\n".join(fault.line(start) for fault in near) or "  none"


class _Etags:
    """Which writes a given ETag may belong to."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str], set[str]] = defaultdict(set)
        self.open: dict[str, set[str]] = defaultdict(set)  # copies whose answer was lost

    def demand(self, key: str, etag: str) -> Demand:
        return Demand(states=frozenset(self.known[key, etag] | self.open[key]))

    def demand_other(self, key: str, etag: str) -> Demand:
        """Something is there, but not that."""
        return Demand(states=frozenset({None, *self.known[key, etag]}), negate=True)


def _ops_by_etag(events: Iterable[Event]) -> _Etags:
    etags = _Etags()
    for event in events:
        if event.kind in WRITES and event.etag:
            etags.known[event.key, event.etag].add(event.op)
        elif event.kind in WRITES:
            etags.open[event.key].add(event.op)
    return etags


def _registers(events: Iterable[Event], keys: Sequence[str], etags: _Etags) -> dict[str, list[Op]]:
    registers: dict[str, list[Op]] = {key: [] for key in keys}
    for event in events:
        if event.kind == "LIST":
            if event.listed is not None:
                for key in keys if event.covered is None else event.covered:
                    registers[key].append(_listed(event, key, etags))
            continue
        op = _op(event, etags)
        if op is not None:
            registers[event.key].append(op)
        if event.kind == "COPY" and event.source in registers:
            registers[event.source] += _source_read(event, etags)
    return registers


def _listed(event: Event, key: str, etags: _Etags) -> Op:
    assert event.listed is not None
    etag = event.listed.get(key)
    demand = Demand(states=frozenset({None})) if etag is None else etags.demand(key, etag)
    what = f"{event.client} LIST shows {etag or 'nothing'}"
    return Op(called=event.called, returned=event.returned, requires=demand, what=what)


def _source_read(event: Event, etags: _Etags) -> list[Op]:
    """A copy was a read of its source: of nothing, or of what it copied."""
    if event.outcome is Outcome.MISSING:
        demand = Demand(states=frozenset({None}))
    elif event.outcome is Outcome.OK and event.etag:
        demand = etags.demand(event.source, event.etag)
    else:
        return []
    what = f"{event.client} COPY to {event.key} reads this: {event.outcome} {event.etag}"
    return [Op(called=event.called, returned=event.returned, requires=demand, what=what)]


def _op(event: Event, etags: _Etags) -> Op | None:
    """What the event says of its own key; None when it says nothing."""
    outcome, what = event.outcome, event.line(event.called)[24:]
    if event.kind in {"GET", "HEAD"}:
        if outcome not in {Outcome.OK, Outcome.MISSING}:
            return None
        seen = event.seen_op if outcome is Outcome.OK else None
        demand = Demand(states=frozenset({seen}))
        return Op(called=event.called, returned=event.returned, requires=demand, what=what)
    if outcome is Outcome.NOTHING or (event.kind == "COPY" and outcome is Outcome.MISSING):
        return None
    if outcome in {Outcome.REFUSED, Outcome.MISSING}:
        return _refused(event, etags, what)
    return Op(
        called=event.called,
        returned=event.returned if outcome is Outcome.OK else None,
        requires=_condition(event, etags),
        result=None if event.kind == "DELETE" else event.op,
        what=what,
    )


def _condition(event: Event, etags: _Etags) -> Demand | None:
    if event.if_match:
        return etags.demand(event.key, event.if_match)
    return Demand(states=frozenset({None})) if event.if_none_match else None


def _refused(event: Event, etags: _Etags, what: str) -> Op:
    if event.outcome is Outcome.MISSING:
        demand = Demand(states=frozenset({None}))
    elif event.if_none_match:
        demand = Demand(states=frozenset({None}), negate=True)
    else:
        demand = etags.demand_other(event.key, event.if_match)
    return Op(called=event.called, returned=event.returned, requires=demand, what=what)
