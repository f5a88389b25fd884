"""What the others remember of a node, and when its disk must be an old one (FAULTS row 39)."""

import random

import pytest

from astra.errors import DamagedLog, StorageFull
from astra.wire import Sighting
from node.ledger import MemoryLedger
from node.sightings import (
    OWN_ROW,
    Known,
    OwnLife,
    Sightings,
    accept_old,
    after_report,
    after_start,
    judge,
)

OWN = OwnLife(life=6, token=66, took_part=False)


@pytest.mark.parametrize(
    ("seen", "doubt"),
    [
        (Sighting(), ""),  # never heard of it
        (Sighting(life=5, token=55, index=100, term=3), ""),  # an ordinary restart
        (Sighting(life=6, token=66, index=100, term=3), ""),  # it asked before, and crashed
        (Sighting(life=6, token=67), "start number 6"),  # an image of life 5, or a twin
        (Sighting(life=9, token=99), "start number 9"),
        (Sighting(life=5, index=101), "entry 101, and here it ends at 100"),
        (Sighting(life=5, term=4), "term 4, and here its newest is 3"),
    ],
)
def test_judge_doubts_a_disk_that_lacks_what_was_seen(seen: Sighting, doubt: str) -> None:
    found = judge(OWN, last_index=100, term=3, seen=seen)
    assert doubt in found
    assert bool(found) == bool(doubt)


def told(life: int, index: int, term: int = 1) -> Sighting:
    return Sighting(life=life, token=10 * life, index=index, term=term)


@pytest.mark.parametrize(
    ("known", "report", "after"),
    [
        (Known(), told(1, 5), Known(life=1, token=10, index=5, term=1, reported=1)),
        # Late reports of the same life take nothing back.
        (
            Known(life=2, token=20, index=9, term=2, reported=2),
            told(2, 7),
            Known(life=2, token=20, index=9, term=2, reported=2),
        ),
        # A start was told of already; a report of the life before is still news.
        (
            Known(life=3, token=30, index=4, term=1, reported=2),
            told(2, 6),
            Known(life=3, token=30, index=6, term=1, reported=2),
        ),
        # A newer life may have less: a person has accepted an old disk.
        (
            Known(life=3, token=30, index=90, term=7, reported=2),
            told(3, 50),
            Known(life=3, token=30, index=50, term=1, reported=3),
        ),
        # An older life that is behind is an old process, or an old disk.
        (
            Known(life=5, token=50, index=90, term=1, reported=5),
            told(3, 89),
            Known(life=5, token=50, index=90, term=1, reported=5),
        ),
        # One that has everything: it came back empty while this node was away.
        (
            Known(life=5, token=50, index=90, term=1, reported=5),
            told(2, 90),
            Known(life=2, token=20, index=90, term=1, reported=2),
        ),
    ],
)
def test_after_report(known: Known, report: Sighting, after: Known) -> None:
    assert after_report(known, report) == after


def test_after_start_never_goes_back() -> None:
    assert after_start(Known(life=3, token=30, index=9), 4, 40) == Known(life=4, token=40, index=9)
    assert after_start(Known(life=4, token=40), 3, 31) == Known(life=4, token=40)


def sightings(ledger: MemoryLedger, seed: int = 1) -> Sightings:
    return Sightings(ledger, random.Random(seed))


async def test_life_ends_only_when_the_node_took_part() -> None:
    """A process that crashes before it was heard does not use up a number."""
    ledger = MemoryLedger()
    first = sightings(ledger)
    await first.load()
    again = sightings(ledger, seed=2)
    await again.load()
    assert again.own == first.own == OwnLife(life=1, token=first.own.token, took_part=False)
    await again.trust()
    second = sightings(ledger)
    await second.load()
    assert second.own.life == 2


async def test_life_after_a_lost_disk_is_above_what_nobody_told_it_of() -> None:
    """Seed 1000196: who remembered life 3 did not answer, life 2 began, and then life 3 again."""
    remembered = Sighting(life=3, token=33, index=44, term=5)
    ledger = MemoryLedger()
    node = sightings(ledger)
    await node.load()
    await node.renew(0, now_ms=1_800_000_000_000)
    restarted = sightings(ledger, seed=2)
    await restarted.load()
    assert not judge(restarted.own, last_index=44, term=5, seen=remembered)


async def test_doubt_survives_restarts_until_the_life_is_renewed() -> None:
    ledger = MemoryLedger()
    node = sightings(ledger)
    await node.load()
    await node.distrust("old")
    for _ in range(20):  # never past what the others have seen
        node = sightings(ledger)
        await node.load()
        assert (node.own.life, node.own.doubt) == (1, "old")
    await node.renew(9, now_ms=0)
    assert (node.own.life, node.own.doubt, node.own.took_part) == (10, "", True)
    node = sightings(ledger)
    await node.load()
    assert node.own.life == 11


async def test_accept_old_needs_a_doubt() -> None:
    ledger = MemoryLedger()
    assert await accept_old(ledger) == ""
    node = sightings(ledger)
    await node.load()
    await node.distrust("old")
    assert await accept_old(ledger) == "old"
    node = sightings(ledger)
    await node.load()
    assert node.own.is_accepted


async def test_start_is_noted_before_it_is_answered_and_reports_when_saved() -> None:
    ledger = MemoryLedger()
    node = sightings(ledger)
    await node.load()
    assert await node.note_start("n2", Sighting(life=4, token=44)) == Sighting()
    node.note_report("n2", Sighting(life=4, token=44, index=7, term=2))
    node.note_report("n3", Sighting())  # sits beside: nothing to remember
    node = sightings(ledger)
    await node.load()
    assert await node.note_start("n2", Sighting(life=5, token=55)) == Sighting(life=4, token=44)
    node.note_report("n2", Sighting(life=5, token=55, index=8, term=2))
    await node.save()
    assert set(ledger.rows) == {OWN_ROW, "n2"}
    node = sightings(ledger)
    await node.load()
    expected = Sighting(life=5, token=55, index=8, term=2)
    assert await node.note_start("n2", Sighting(life=1)) == expected


async def test_report_that_could_not_be_stored_is_stored_next_time() -> None:
    class FullOnce(MemoryLedger):
        is_full = False

        async def write(self, rows: object) -> None:
            if self.is_full:
                self.is_full = False
                raise StorageFull("full")
            await super().write(rows)  # type: ignore[arg-type]  # whatever it was given

    ledger = FullOnce()
    node = sightings(ledger)
    await node.load()
    node.note_report("n2", Sighting(life=1, token=1, index=3))
    ledger.is_full = True
    with pytest.raises(StorageFull):
        await node.save()
    await node.save()
    assert "n2" in ledger.rows


async def test_row_that_is_none_is_a_damaged_log() -> None:
    ledger = MemoryLedger()
    ledger.rows["n2"] = b"\xc1"
    with pytest.raises(DamagedLog):
        await sightings(ledger).load()
