"""Which copies count, who gets one and who gives one: decisions over made-up nodes."""

import itertools
import random

import pytest

from astra.constants import REPLICAS
from astra.wire import NodeReport
from node.services.copies import (
    Standing,
    average_fill,
    choose_extra,
    choose_giver,
    choose_receiver,
    choose_target,
    fill_of,
    holders_after,
    judge,
)

TOTAL = 1 << 40


def node(name: str, *, used: float = 0.5, zone: str = "", writable: bool = True) -> NodeReport:
    return NodeReport(
        node_id=name,
        address=f"{name}:1",
        zone=zone,
        total_bytes=TOTAL,
        free_bytes=int(TOTAL * (1 - used)),
        writable=writable,
    )


STATES = {
    "live1": Standing.LIVE, "live2": Standing.LIVE, "live3": Standing.LIVE, "live4": Standing.LIVE,
    "late": Standing.LATE, "leaving": Standing.LEAVING, "gone": Standing.GONE,
}  # fmt: skip


def test_judge_every_set_of_holders_counts_each_once() -> None:
    for count in range(6):
        for holders in itertools.combinations(STATES, count):
            copies = judge(holders, STATES.__getitem__)
            assert sorted((*copies.safe, *copies.leaving, *copies.gone)) == sorted(holders)
            assert set(copies.sources) == {
                h for h in holders if STATES[h] in (Standing.LIVE, Standing.LEAVING)
            }


def test_holders_after_a_copy_keeps_all_until_enough_are_safe() -> None:
    one = judge(("live1", "leaving", "gone"), STATES.__getitem__)
    assert holders_after(one, "new") == ("live1", "new", "leaving", "gone")
    two = judge(("live1", "late", "gone"), STATES.__getitem__)
    assert holders_after(two, "new") == ("live1", "late", "new")
    back = judge(("live1", "live2", "live3"), STATES.__getitem__)
    assert holders_after(back, "new") == ("live1", "live2", "live3", "new")


@pytest.mark.parametrize("seed", range(200))
def test_holders_after_never_lists_fewer_safe_ones_than_before(seed: int) -> None:
    chance = random.Random(seed)
    holders = chance.sample(sorted(STATES), chance.randrange(1, 6))
    copies = judge(holders, STATES.__getitem__)
    after = holders_after(copies, "new")
    assert set(copies.safe) <= set(after)
    if not set(holders) <= set(after):
        assert len([h for h in after if h == "new" or h in copies.safe]) >= REPLICAS


def test_choose_target_prefers_a_new_zone_and_no_old_copy() -> None:
    reports = [
        node("live1", zone="a"), node("live2", zone="b"), node("x", zone="a", used=0.1),
        node("y", zone="c", used=0.9), node("z", zone="c", used=0.2),
    ]  # fmt: skip
    copies = judge(("live1", "live2"), STATES.__getitem__)
    assert choose_target(reports, copies, 1, leader_id="x") == "z"
    assert choose_target(reports, copies, 1, leader_id="x", banned=["z"]) == "y"
    assert choose_target(reports, copies, 1, leader_id="x", banned=["z", "y"]) == "x"
    assert choose_target(reports[:2], copies, 1, leader_id="x") is None


def test_choose_extra_loses_no_zone_and_frees_the_fullest() -> None:
    reports = [
        node("a", zone="1", used=0.9), node("b", zone="2", used=0.6),
        node("c", zone="2", used=0.7), node("d", zone="3", used=0.8),
    ]  # fmt: skip
    assert choose_extra(("a", "b", "c", "d"), reports) == "c"
    assert choose_extra(("a", "b", "d"), reports) is None
    assert choose_extra(("a", "b", "c", "e"), reports) is None, "one of them is not live"


def test_choose_receiver_starts_late_and_stops_early_enough() -> None:
    full = [node(f"n{number}", used=0.6) for number in range(4)]
    assert choose_receiver([*full, node("new", used=0.0)], is_moving=False) == "new"
    nearly = [*full, node("new", used=0.52)]
    assert choose_receiver(nearly, is_moving=False) is None
    assert choose_receiver(nearly, is_moving=True) == "new"
    assert choose_receiver([*full, node("new", used=0.58)], is_moving=True) is None
    small = [*full[:2], node("new", used=0.0)]
    assert choose_receiver(small, is_moving=True) is None, "every blob is on all three anyway"


def test_choose_receiver_without_room_or_writes_is_none() -> None:
    full = [node(f"n{number}", used=0.6) for number in range(4)]
    refusing = node("new", used=0.0, writable=False)
    assert choose_receiver([*full, refusing], is_moving=True) is None


def test_choose_giver_keeps_zones_apart() -> None:
    reports = [
        node("a", zone="1", used=0.9), node("b", zone="2", used=0.8),
        node("c", zone="3", used=0.7), node("new", zone="3", used=0.0),
    ]  # fmt: skip
    assert choose_giver(("a", "b", "c"), reports, "new") == "c"
    assert choose_giver(("a", "b", "new"), reports, "new") is None
    spread = [*reports[:3], node("new", zone="4", used=0.0)]
    assert choose_giver(("a", "b", "c"), spread, "new") == "a"


@pytest.mark.parametrize("seed", range(30))
def test_moving_blobs_ends_in_the_band_and_nothing_goes_back(seed: int) -> None:
    """The two decisions in a loop: it comes to rest, and starting again moves nothing."""
    chance = random.Random(seed)
    zones = chance.choice([[""], ["1", "2", "3"], ["1", "2"]])
    names = [f"n{number}" for number in range(chance.randrange(4, 7))]
    zone_of = {name: chance.choice(zones) for name in names}
    blobs = [chance.sample(names[:-1], 3) for _ in range(150)]

    def reports() -> list[NodeReport]:
        counts = {name: sum(name in blob for blob in blobs) for name in names}
        return [node(n, used=counts[n] / 200, zone=zone_of[n]) for n in names]

    moves, is_moving, is_stuck = 0, False, False
    while not is_stuck:
        now = reports()
        to = choose_receiver(now, is_moving=is_moving)
        if to is None:
            break
        is_moving, is_stuck = True, True
        for blob in blobs:
            giver = choose_giver(blob, now, to)
            if giver is not None:
                before = len({zone_of[holder] for holder in blob})
                blob[blob.index(giver)] = to
                assert len({zone_of[holder] for holder in blob}) >= before
                assert len(set(blob)) == REPLICAS
                moves, is_stuck = moves + 1, False
                break
        assert moves <= 300, "it goes round in circles"
    if not is_stuck:
        found = reports()
        assert average_fill(found) - min(map(fill_of, found)) <= 0.1
        assert choose_receiver(found, is_moving=False) is None
