"""The judge of the histories, judged by histories whose verdict is known."""

from __future__ import annotations

import random

import pytest

from tests.sim.linear import NEVER, Kind, Refusal, Step, Verdict, check


def write(begin: int, end: int, value: str | None, **more: object) -> Step:
    return Step(kind=Kind.WRITE, value=value, begin=begin, end=end, **more)  # type: ignore[arg-type]  # named fields of Step


def read(begin: int, end: int, value: str | None) -> Step:
    return Step(kind=Kind.READ, value=value, begin=begin, end=end)


PUT = write(1, 2, "a")
GOOD = {
    "reads see the last write": [PUT, read(3, 4, "a"), write(5, 6, "b"), read(7, 8, "b")],
    "a read beside a write sees either": [PUT, write(3, 8, "b"), read(4, 5, "a"), read(6, 7, "b")],
    "an unanswered write may happen": [PUT, write(3, NEVER, "b"), read(4, 5, "b")],
    "an unanswered write may happen late": [
        PUT, write(3, NEVER, "b"), read(4, 5, "a"), read(6, 7, "a"), read(8, 9, "b"),
    ],
    "an unanswered write may never happen": [PUT, write(3, NEVER, "b"), read(4, 5, "a")],
    "a delete leaves nothing": [PUT, write(3, 4, None), read(5, 6, None)],
    "one of two racing creates wins": [
        write(1, 5, "a", if_none_match=True),
        write(2, 6, "b", if_none_match=True, refused=Refusal.PRECONDITION),
        read(7, 8, "a"),
    ],
    "if-match of nothing": [write(1, 2, "b", if_match="a", refused=Refusal.NO_SUCH_KEY)],
}  # fmt: skip
BAD = {
    "a stale read": [PUT, write(3, 4, "b"), read(5, 6, "a")],
    "a lost write": [PUT, read(3, 4, None)],
    "a value from nowhere": [PUT, read(3, 4, "z")],
    "reads that go back": [PUT, write(3, 9, "b"), read(4, 5, "b"), read(6, 7, "a")],
    "an unanswered write that comes and goes": [
        PUT, write(3, NEVER, "b"), read(4, 5, "b"), read(6, 7, "a"),
    ],
    "a write that happens twice": [
        PUT, write(3, NEVER, "b"), read(4, 5, "b"), write(6, 7, "c"), read(8, 9, "b"),
    ],
    "both racing creates win": [
        write(1, 5, "a", if_none_match=True), write(2, 6, "b", if_none_match=True),
    ],
    "a refusal without a reason": [
        write(1, 2, "a", if_none_match=True, refused=Refusal.PRECONDITION),
    ],
    "a swap that nothing stood in the way of, refused": [
        PUT, write(3, 4, "b", if_match="a", refused=Refusal.PRECONDITION),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_check_history_of_a_register_is_linear(name: str) -> None:
    assert check(GOOD[name]) is Verdict.LINEAR


@pytest.mark.parametrize("name", BAD)
def test_check_history_of_no_register_is_broken(name: str) -> None:
    assert check(BAD[name]) is Verdict.BROKEN


@pytest.mark.parametrize("seed", range(20))
def test_check_history_made_by_a_register_is_linear_and_a_changed_read_is_not(seed: int) -> None:
    """Each operation takes effect at a moment inside of its interval, whatever overlaps."""
    rng = random.Random(seed)
    moments = sorted((rng.uniform(0, 1000), number) for number in range(60))
    state: str | None = None
    steps: list[Step] = []
    for at, number in moments:
        begin, end = int(at * 1000) - rng.randrange(20_000), int(at * 1000) + rng.randrange(20_000)
        if rng.random() < 0.4:
            state = f"v{number}"
            steps.append(write(begin, end if rng.random() < 0.9 else NEVER, state))
        else:
            steps.append(read(begin, end, state))
    assert check(steps) is Verdict.LINEAR
    last = next(step for step in reversed(steps) if step.kind is Kind.READ)
    last.value = "what nobody wrote"
    assert check(steps) is Verdict.BROKEN
