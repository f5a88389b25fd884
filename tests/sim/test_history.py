"""What a history of one key means, by histories whose verdict is known."""

from __future__ import annotations

import random

import pytest

from tests.sim.history import Etag, History, Refusal, Violation, Write
from tests.support.linearizability import Op, check
from tests.support.linearizability import read as linear_read

NEVER = None  # the end of a write that was not answered


def write(begin: float, end: float | None, value: Etag, **more: object) -> Op:
    return Write(value=value, begin=begin, end=end, **more).op()  # type: ignore[arg-type]  # named fields


def read(begin: float, end: float, value: Etag) -> Op:
    return linear_read(value, called=begin, returned=end)


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
    assert check(GOOD[name]) is None


@pytest.mark.parametrize("name", BAD)
def test_check_history_of_no_register_is_broken(name: str) -> None:
    found = check(BAD[name])
    assert found is not None
    assert found.is_proven


@pytest.mark.parametrize("seed", range(20))
def test_check_history_made_by_a_register_is_linear_and_a_changed_read_is_not(seed: int) -> None:
    """Each operation takes effect at a moment inside of its interval, whatever overlaps."""
    rng = random.Random(seed)
    moments = sorted((rng.uniform(0, 1000), number) for number in range(60))
    state: Etag = None
    ops: list[Op] = []
    for at, number in moments:
        begin, end = at - rng.uniform(0, 20), at + rng.uniform(0, 20)
        if rng.random() < 0.4:
            state = f"v{number}"
            ops.append(write(begin, end if rng.random() < 0.9 else NEVER, state))
        else:
            ops.append(read(begin, end, state))
    assert check(ops) is None
    last = max(place for place, op in enumerate(ops) if op.requires is not None)
    ops[last] = read(ops[last].called, ops[last].called + 1, "what nobody wrote")
    assert check(ops) is not None


def test_judge_stale_read_is_told_by_the_operations_that_matter() -> None:
    now = [0.0]
    history = History(lambda: now[0])
    for place, value in enumerate(("a", "b", "c", "b")):
        now[0] = float(place)
        if place < 3:
            history.answer(history.write("k", value * 32, f"PUT #{place}"))
        history.read("k", history.begin(), value * 32, f"GET #{place}")
    with pytest.raises(Violation) as caught:
        history.judge()
    lines = str(caught.value).splitlines()
    assert lines[0] == "key k is not linearizable, no order explains these 3 operations:"
    assert [line.split()[3:5] for line in lines[1:]] == [
        ["PUT", "#1"], ["PUT", "#2"], ["GET", "#3"],
    ]  # fmt: skip
    assert caught.value.span(60.0) == pytest.approx((1.0, 3.0), abs=0.01)
