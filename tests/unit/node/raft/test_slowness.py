"""When a leader with a slow disk hands over, and when not."""

from node.raft.slowness import RecentTimes, faster_leader


def test_slow_leader_hands_over_to_the_fastest_disk() -> None:
    assert faster_leader(220.0, {"n2": 9.0, "n3": 4.0}) == "n3"


def test_equally_slow_disks_move_nobody() -> None:
    assert faster_leader(220.0, {"n2": 200.0, "n3": 180.0}) is None


def test_fast_enough_leader_stays_whatever_the_others_do() -> None:
    assert faster_leader(100.0, {"n2": 0.1, "n3": 0.1}) is None


def test_factor_is_against_the_median_of_the_others() -> None:
    assert faster_leader(150.0, {"n2": 0.5, "n3": 15.0, "n4": 16.0}) is None
    assert faster_leader(151.0, {"n2": 0.5, "n3": 15.0, "n4": 16.0}) == "n2"


def test_nobody_measured_is_nobody_to_hand_over_to() -> None:
    assert faster_leader(500.0, {}) is None
    assert faster_leader(500.0, {"n2": 0.0}) is None
    assert faster_leader(500.0, {"n2": 0.0, "n3": 1.0}) == "n3"


def test_median_needs_a_few_samples_and_forgets_old_ones() -> None:
    times = RecentTimes()
    for _ in range(7):
        times.add(300.0)
    assert times.median_ms == 0.0
    times.add(300.0)
    assert times.median_ms == 300.0
    for _ in range(17):
        times.add(2.0)
    assert times.median_ms == 2.0
    for _ in range(32):
        times.add(5.0)
    assert times.median_ms == 5.0


def test_one_stall_does_not_move_the_median() -> None:
    times = RecentTimes()
    for duration in (2.0,) * 10 + (4000.0,):
        times.add(duration)
    assert times.median_ms == 2.0
