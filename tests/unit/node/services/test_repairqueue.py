"""The repair queue: most endangered first, bounded, each job once."""

import pytest

from astra.wire import ReportBadBlob
from node.services import repairqueue
from node.services.repairqueue import RepairQueue
from tests.support.handclock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def queue(clock: HandClock) -> RepairQueue:
    return RepairQueue(clock, delay_ms=5000)


def names(queue: RepairQueue) -> list[str]:
    found: list[str] = []
    while (taken := queue.take_due()) is not None:
        found.append(taken[0][0])
    return found


def test_take_due_one_copy_left_comes_before_two(queue: RepairQueue) -> None:
    for name, copies in (("a", 2), ("b", 3), ("c", 1), ("d", 2), ("e", 1)):
        assert queue.add((name, ""), copies=copies)
    assert names(queue) == ["c", "e", "a", "d", "b"]
    assert len(queue) == 0


def test_add_again_in_more_danger_moves_it_ahead(queue: RepairQueue) -> None:
    queue.add(("a", ""), copies=2)
    queue.add(("b", ""), copies=2)
    queue.add(("b", ""), copies=1)
    queue.add(("a", ""), copies=3)
    assert names(queue) == ["b", "a"]


def test_note_missing_copy_gets_its_delay(queue: RepairQueue, clock: HandClock) -> None:
    queue.note_missing_copy("a")
    assert queue.take_due() is None
    clock.now_ms += 5000
    assert names(queue) == ["a"]


def test_add_to_a_full_queue_pushes_out_only_the_less_endangered(
    queue: RepairQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repairqueue, "QUEUE_MAX", 3)
    for name in "abc":
        assert queue.add((name, ""), copies=2)
    assert not queue.add(("d", ""), copies=2)
    assert not queue.note_bad_copy(ReportBadBlob(blob_id="d", node_id="n1"))
    assert queue.add(("e", ""), copies=1)
    assert names(queue) == ["e", "a", "b"]


def test_retry_waits_longer_each_time_and_ends(queue: RepairQueue, clock: HandClock) -> None:
    queue.add(("a", "n1"), copies=2)
    waits: list[int] = []
    while (taken := queue.take_due()) is not None:
        job, copies, tries = taken
        queue.retry(job, copies, tries + 1)
        began = clock.now_ms
        while len(queue) and clock.now_ms - began < 60_000:
            clock.now_ms += 1000
            if (again := queue.take_due()) is not None:
                queue.add(again[0], copies=again[1], tries=again[2])
                waits.append(clock.now_ms - began)
                break
    assert waits == [5000, 10_000, 15_000, 20_000]


def test_clear_forgets_everything(queue: RepairQueue, clock: HandClock) -> None:
    queue.add(("a", ""), copies=1)
    queue.note_missing_copy("b")
    queue.clear()
    clock.now_ms += 10_000
    assert queue.take_due() is None
    assert len(queue) == 0
