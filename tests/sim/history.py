"""What the clients asked and were told, and the judgement: linear per key, whole bodies only."""

from __future__ import annotations

import enum
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from tests.support.linearizability import Demand, Op, check, read

Etag = str | None  # the state of a key: None is nothing
NOTHING: Final = frozenset({None})
TICK_S: Final = 0.000001


class Violation(AssertionError):
    """A promise was broken. The message is the whole verdict; `ops`: whose answers are wrong."""

    def __init__(self, text: str, *, ops: Sequence[Op] = (), waited_s: float = 0.0) -> None:
        super().__init__(text)
        self._ops = ops
        self._waited_s = waited_s

    def span(self, now_s: float) -> tuple[float, float]:
        """From when to when it happened, if it was found just now."""
        if not self._ops:
            return now_s - self._waited_s, now_s
        since_s = min(op.called for op in self._ops)
        return since_s, max(op.returned or op.called for op in self._ops)


class Refusal(enum.Enum):
    """How a conditional write was refused: each says something of the state."""

    PRECONDITION = "precondition"
    NO_SUCH_KEY = "no-such-key"


@dataclass(slots=True, kw_only=True)
class Write:
    """A write of one key, whose answer may come later. `value`: what it puts (None: a delete)."""

    value: Etag
    begin: float
    end: float | None = None
    if_match: str | None = None
    if_none_match: bool = False
    refused: Refusal | None = None
    label: str = ""

    def op(self) -> Op:
        """What its answer, if there was one, says of the key."""
        if self.refused is not None:
            return Op(called=self.begin, returned=self.end, requires=self._excuse(), what=self.what)
        return Op(
            called=self.begin,
            returned=self.end,
            requires=self._condition(),
            result=self.value,
            what=self.what,
        )

    def _condition(self) -> Demand | None:
        if self.if_none_match:
            return Demand(states=NOTHING)
        return None if self.if_match is None else Demand(states=frozenset({self.if_match}))

    def _excuse(self) -> Demand:
        """The states in which it is right to refuse: none of them without a condition."""
        if self.if_match is not None and self.refused is Refusal.NO_SUCH_KEY:
            return Demand(states=NOTHING)
        if self.if_match is not None:
            return Demand(states=frozenset({None, self.if_match}), negate=True)
        is_right = self.if_none_match and self.refused is Refusal.PRECONDITION
        return Demand(states=NOTHING, negate=True) if is_right else Demand(states=frozenset())

    @property
    def what(self) -> str:
        condition = " if-none-match" if self.if_none_match else ""
        if self.if_match is not None:
            condition = f" if-match {self.if_match[:8]}"
        outcome = "ok" if self.refused is None else f"refused: {self.refused.value}"
        if self.end is None:
            outcome = "no answer"
        return f"{self.label}{condition} writes {_short(self.value)}: {outcome}"


def _short(value: Etag) -> str:
    return "nothing" if value is None else value[:8]


class History:
    """Times are the simulation's, moved a little where needed: no two events are at the same."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.reads: dict[str, list[Op]] = defaultdict(list)
        self.writes: dict[str, list[Write]] = defaultdict(list)
        self.bodies: dict[str, bytes] = {}  # by ETag: every body that was ever sent
        self.answered = 0
        self.unanswered = 0
        self._moment = 0.0
        self._clock = clock

    def moment(self) -> float:
        self._moment = max(self._moment + TICK_S, self._clock())
        return self._moment

    def new_body(self, name: str, size: int) -> bytes:
        """Bytes that no other operation sends."""
        head = f"<{name}>".encode()
        body = (head * (size // len(head) + 1))[: max(size, len(head))]
        self.know_body(hashlib.md5(body).hexdigest(), body)
        return body

    def know_body(self, etag: str, body: bytes) -> None:
        self.bodies[etag] = body

    # --- recording -----------------------------------------------------------------------------

    def begin(self) -> float:
        return self.moment()

    def read(self, key: str, begin: float, value: Etag, label: str) -> None:
        self.answered += 1
        what = f"{label} saw {_short(value)}"
        self.reads[key].append(read(value, called=begin, returned=self.moment(), what=what))

    def write(
        self,
        key: str,
        value: Etag,
        label: str,
        *,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> Write:
        """Begins a write, which is unanswered until `answer` is called."""
        step = Write(
            value=value,
            begin=self.moment(),
            if_match=if_match,
            if_none_match=if_none_match,
            label=label,
        )
        self.writes[key].append(step)
        self.unanswered += 1
        return step

    def answer(self, step: Write, refused: Refusal | None = None) -> None:
        step.end = self.moment()
        step.refused = refused
        self.answered += 1
        self.unanswered -= 1

    def drop(self, key: str, step: Write) -> None:
        """It certainly did nothing (refused for another reason than its condition)."""
        self.writes[key].remove(step)
        self.unanswered -= 1

    def check_body(self, key: str, etag: str, body: bytes) -> None:
        """I4: a GET is exactly one PUT."""
        if self.bodies.get(etag) != body:
            raise Violation(
                f"GET {key}: ETag {etag} came with {len(body)} bytes that are not that body: "
                f"{body[:60]!r}"
            )

    # --- judging -------------------------------------------------------------------------------

    def judge(self) -> int:
        """Raises Violation. How many keys could not be decided."""
        undecided = 0
        for key in sorted({*self.reads, *self.writes}):
            found = check([*self.reads[key], *(step.op() for step in self.writes[key])])
            if found is not None and found.is_proven:
                raise Violation(
                    f"key {key} is not linearizable, {found.story(start=0.0)}",
                    ops=found.ops,
                )
            undecided += found is not None
        return undecided
