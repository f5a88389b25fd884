"""One follower's progress: window, pauses, late answers."""

from __future__ import annotations

import pytest

from node.raft.progress import PeerState, Progress


def replicating(match: int = 5, *, window: int = 2) -> Progress:
    progress = Progress(next=match + 1, inflight_max=window, inflight_bytes_max=1000)
    progress.acknowledged(match)
    progress.become_replicate()
    return progress


def test_probe_sends_one_append_until_it_is_answered() -> None:
    progress = Progress(next=5, inflight_max=2, inflight_bytes_max=1000)
    assert not progress.is_paused
    progress.sent(last_index=7, byte_count=10)
    assert progress.is_paused
    assert progress.next == 5
    progress.acknowledged(7)
    assert not progress.is_paused


def test_replicate_pipelines_until_the_window_is_full() -> None:
    progress = replicating()
    progress.sent(last_index=6, byte_count=10)
    assert (progress.next, progress.is_paused) == (7, False)
    progress.sent(last_index=8, byte_count=10)
    assert (progress.next, progress.is_paused) == (9, True)
    progress.acknowledged(6)
    assert not progress.is_paused


def test_window_is_bounded_in_bytes_too() -> None:
    progress = replicating(window=100)
    progress.sent(last_index=6, byte_count=1000)
    assert progress.is_paused


def test_full_window_lets_one_through_after_a_heartbeat() -> None:
    progress = replicating()
    progress.sent(last_index=6, byte_count=10)
    progress.free_one()
    assert progress.inflight_count == 1
    progress.sent(last_index=7, byte_count=10)
    progress.sent(last_index=8, byte_count=10)
    progress.free_one()
    assert progress.inflight_count == 2


def test_acknowledgement_moves_match_only_forward() -> None:
    progress = replicating(match=5)
    assert not progress.acknowledged(3)
    assert (progress.match, progress.next) == (5, 6)
    assert progress.acknowledged(9)
    assert (progress.match, progress.next) == (9, 10)


@pytest.mark.parametrize(
    ("index", "next_index", "moved", "expected_next"),
    [
        (5, 3, False, 9),  # older than what we know to match
        (8, 3, True, 6),  # falls back to what is known
        (8, 8, True, 8),
        (8, 20, True, 8),
    ],
)
def test_rejection_while_replicating(
    index: int, next_index: int, moved: bool, expected_next: int
) -> None:
    progress = replicating(match=5)
    progress.sent(last_index=8, byte_count=1)
    assert progress.rejected(index=index, next_index=next_index) is moved
    assert progress.next == expected_next
    assert progress.state is (PeerState.PROBE if moved else PeerState.REPLICATE)


def test_rejection_of_another_probe_is_ignored() -> None:
    progress = Progress(next=10, inflight_max=2, inflight_bytes_max=1000)
    assert not progress.rejected(index=4, next_index=2)
    assert progress.next == 10
    assert progress.rejected(index=9, next_index=3)
    assert progress.next == 3


def test_rejection_never_goes_below_the_first_entry() -> None:
    progress = Progress(next=1, inflight_max=2, inflight_bytes_max=1000)
    progress.rejected(index=0, next_index=0)
    assert progress.next == 1


def test_snapshot_sends_nothing_until_caught_up() -> None:
    progress = Progress(next=2, inflight_max=2, inflight_bytes_max=1000)
    progress.become_snapshot(index=20, now_ms=1)
    assert progress.is_paused
    progress.become_probe()
    assert (progress.next, progress.is_paused) == (21, False)
