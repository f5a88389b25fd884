"""What the clients asked and were told, and the judgement: linear per key, whole bodies only."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

from tests.sim.linear import NEVER, Kind, Refusal, State, Step, Verdict, check


class Violation(AssertionError):
    """A promise was broken. The message is the whole verdict."""


class History:
    """Every moment that is recorded has its own number, in the order of the events."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.steps: dict[str, list[Step]] = defaultdict(list)
        self.bodies: dict[str, bytes] = {}  # by ETag: every body that was ever sent
        self.answered = 0
        self.unanswered = 0
        self._moment = 0
        self._clock = clock

    def moment(self) -> int:
        self._moment += 1
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

    def begin(self) -> int:
        return self.moment()

    def read(self, key: str, begin: int, value: State, label: str) -> None:
        self.answered += 1
        text = f"{self._clock():.3f} {label}"
        self.steps[key].append(
            Step(kind=Kind.READ, value=value, begin=begin, end=self.moment(), label=text)
        )

    def write(
        self,
        key: str,
        value: State,
        label: str,
        *,
        if_match: str | None = None,
        if_none_match: bool = False,
    ) -> Step:
        """Begins a write, which is unanswered until `answer` is called."""
        step = Step(
            kind=Kind.WRITE,
            value=value,
            begin=self.moment(),
            if_match=if_match,
            if_none_match=if_none_match,
            label=f"{self._clock():.3f} {label}",
        )
        self.steps[key].append(step)
        self.unanswered += 1
        return step

    def answer(self, step: Step, refused: Refusal | None = None) -> None:
        step.end = self.moment()
        step.refused = refused
        step.label += f" -> {self._clock():.3f} {refused.value if refused else 'ok'}"
        self.answered += 1
        self.unanswered -= 1

    def drop(self, key: str, step: Step) -> None:
        """It certainly did nothing (refused for another reason than its condition)."""
        self.steps[key].remove(step)
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
        for key in sorted(self.steps):
            verdict = check(self.steps[key])
            if verdict is Verdict.BROKEN:
                raise Violation(f"key {key} is not linearizable:\n" + self.story(key))
            undecided += verdict is Verdict.UNDECIDED
        return undecided

    def story(self, key: str) -> str:
        """The operations of the shortest prefix that is already broken."""
        steps = sorted(self.steps[key], key=lambda step: step.begin)
        short = _shortest_broken(steps)
        names = {step.value: f"v{place}" for place, step in enumerate(steps) if step.value}
        return "\n".join("  " + _describe(step, names) for step in short[-25:])


def _shortest_broken(steps: Sequence[Step]) -> Sequence[Step]:
    """By the end of the answers: what is answered later is unknown yet."""
    for moment in sorted(step.end for step in steps if step.end != NEVER):
        prefix = [_as_of(step, moment) for step in steps if step.begin < moment]
        kept = [step for step in prefix if step is not None]
        if check(kept) is Verdict.BROKEN:
            return kept
    return steps


def _as_of(step: Step, moment: int) -> Step | None:
    if step.end <= moment:
        return step
    if step.kind is Kind.READ:
        return None
    return Step(
        kind=step.kind, value=step.value, begin=step.begin, if_match=step.if_match,
        if_none_match=step.if_none_match, label=step.label + " (open)",
    )  # fmt: skip


def _describe(step: Step, names: Mapping[str, str]) -> str:
    value = "nothing" if step.value is None else f"{names.get(step.value, '?')} {step.value[:8]}"
    condition = " if-none-match" if step.if_none_match else ""
    if step.if_match is not None:
        condition = f" if-match {step.if_match[:8]}"
    end = "-" if step.end == NEVER else step.end
    return f"[{step.begin:>5} {end:>5}] {step.kind.value:5} {value:16}{condition} {step.label}"
