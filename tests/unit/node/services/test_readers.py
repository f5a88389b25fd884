"""What downloads still read: noted, renewed, forgotten, bounded; unknown after a start."""

import pytest

from astra.constants import READ_KEPT_S, READ_TOLD_S
from node.services import readers
from node.services.readers import Readers

KEPT_MS = READ_KEPT_S * 1000
A, B, C, D, E, F = (f"{number:032x}" for number in range(6))


class HandClock:
    def __init__(self) -> None:
        self.now_ms = 1_000

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        raise AssertionError("a wall clock may jump")


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


def test_noted_blob_is_read_until_it_is_not_named_for_a_while(clock: HandClock) -> None:
    known = Readers(clock, 0)
    known.note([A])
    assert known.unread([A, B]) == [B]
    clock.now_ms += KEPT_MS - 1
    known.note([A])
    clock.now_ms += KEPT_MS - 1
    assert known.unread([A]) == []
    clock.now_ms += 1
    assert known.unread([A]) == [A]
    known.forget_old()
    assert len(known) == 0


def test_after_a_start_everything_may_be_read_until_a_round_is_over(clock: HandClock) -> None:
    known = Readers(clock, 60_000)
    clock.now_ms += 2 * READ_TOLD_S * 1000
    assert known.unread([A]) == []
    clock.now_ms += READ_TOLD_S * 1000
    assert known.unread([A]) == [A]


def test_shorter_grace_than_a_round_is_waited_for_only_itself(clock: HandClock) -> None:
    known = Readers(clock, 1_000)
    assert known.unread([A]) == []
    clock.now_ms += 1_000
    assert known.unread([A]) == [A]


def test_memory_is_bounded_and_the_old_make_room(
    clock: HandClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(readers, "_BLOBS_MAX", 3)
    known = Readers(clock, 0)
    known.note([A, B, C, D])
    assert known.unread([A, B, C, D]) == [D]
    known.note([A])  # known already: renewed although it is full
    clock.now_ms += KEPT_MS
    known.note([E, F])
    assert len(known) == 2


def test_what_is_no_blob_id_is_not_kept(clock: HandClock) -> None:
    """A peer may say anything, of any length."""
    known = Readers(clock, 0)
    known.note(["x" * 1_000_000, "", A.upper() + "/", A])
    assert len(known) == 1
