"""The checker that judges all histories is itself judged: by known cases and by brute force."""

import random
from itertools import permutations

import pytest

from tests.support.linearizability import (
    KEPT,
    Demand,
    Op,
    State,
    check,
    compare_and_set,
    read,
    write,
)


def test_check_read_after_write_is_linear() -> None:
    assert check([write("a", called=0, returned=1), read("a", called=2, returned=3)]) is None


def test_check_stale_read_is_a_violation_with_the_three_operations() -> None:
    noise = [read("b", called=4 + n, returned=4.5 + n) for n in range(50)]
    found = check(
        [
            write("a", called=0, returned=1, what="PUT a"),
            write("b", called=2, returned=3, what="PUT b"),
            *noise,
            read("a", called=60, returned=61, what="GET a"),
        ]
    )
    assert found is not None
    assert found.is_proven
    assert [op.what for op in found.ops if op.what] == ["PUT a", "PUT b", "GET a"]
    assert "GET a" in found.story()


def test_check_two_overlapping_writes_may_take_either_order() -> None:
    writes = [write("a", called=0, returned=9), write("b", called=0, returned=9)]
    for last in ("a", "b"):
        assert check([*writes, read(last, called=10, returned=11)]) is None


def test_check_reads_that_see_two_orders_are_a_violation() -> None:
    writes = [write("a", called=0, returned=9), write("b", called=0, returned=9)]
    reads = [read(state, called=t, returned=t + 1) for t, state in ((10, "a"), (12, "b"))]
    assert check([*writes, *reads]) is not None


def test_check_write_of_unknown_outcome_may_appear_late_or_never() -> None:
    lost = write("b", called=2, returned=None)
    before = [write("a", called=0, returned=1), lost]
    assert check([*before, read("a", called=100, returned=101)]) is None
    both = [read("a", called=100, returned=101), read("b", called=102, returned=103)]
    assert check([*before, *both]) is None


def test_check_write_of_unknown_outcome_cannot_be_applied_twice() -> None:
    seen = ["b", "a", "b"]
    ops = [write("b", called=0, returned=None), write("a", called=2, returned=3)]
    ops += [read(state, called=10 + n, returned=10.5 + n) for n, state in enumerate(seen)]
    assert check(ops) is not None


def test_check_write_of_unknown_outcome_is_not_seen_before_its_call() -> None:
    ops = [read("b", called=0, returned=1), write("b", called=2, returned=None)]
    assert check(ops) is not None


def test_check_two_winners_of_one_condition_are_a_violation() -> None:
    race = [compare_and_set(None, name, called=0, returned=5) for name in ("a", "b")]
    assert check(race[:1]) is None
    assert check(race) is not None


def test_check_chain_of_unknown_outcomes_explains_an_answer() -> None:
    ops = [
        write("a", called=0, returned=1),
        write(None, called=2, returned=None),
        compare_and_set(None, "b", called=3, returned=None),
        read("b", called=10, returned=11),
    ]
    assert check(ops) is None
    assert check(ops[:1] + ops[2:]) is not None


def test_check_hundreds_of_lost_writes_stay_cheap() -> None:
    ops = [write(f"lost{n}", called=n, returned=None) for n in range(300)]
    ops += [write(f"w{n}", called=n, returned=n + 3.5) for n in range(300)]
    ops += [read(f"w{n}", called=n + 3.6, returned=n + 3.9) for n in (296, 297, 298, 299)]
    ops += [read("lost7", called=400, returned=401)]
    assert check(ops) is None
    assert check([*ops, read("lost7", called=1, returned=2)]) is not None


def test_check_long_chain_of_unknown_outcomes_explains_an_answer() -> None:
    swaps = [compare_and_set(f"v{n}", f"v{n + 1}", called=n, returned=None) for n in range(1, 9)]
    ops = [write("v1", called=0, returned=1), *swaps, read("v9", called=20, returned=21)]
    assert check(ops) is None
    assert check(ops[:5] + ops[6:]) is not None


def test_check_unknown_outcomes_that_do_the_same_are_told_apart_by_their_condition() -> None:
    """The unconditional one explains the first read, since the second needs the other one."""
    ops = [
        write("a", called=0, returned=1),
        compare_and_set("a", "b", called=2, returned=None),
        write("b", called=3, returned=None),
        read("b", called=10, returned=11),
        write("a", called=12, returned=13),
        read("b", called=14, returned=15),
        write("c", called=16, returned=17),
        read("c", called=18, returned=19),
    ]
    assert check(ops) is None
    assert check([*ops, read("b", called=20, returned=21)]) is not None


@pytest.mark.parametrize("seed", range(400))
def test_check_agrees_with_trying_every_order(seed: int) -> None:
    chance = random.Random(seed)
    ops = [_random_op(chance) for _ in range(chance.randrange(1, 6))]
    assert (check(ops) is None) is _brute_force(ops)


def _random_op(chance: random.Random) -> Op:
    states: list[State] = [None, "a", "b"]
    called = chance.randrange(10)
    result = chance.choice([KEPT, KEPT, *states])
    requires = Demand(
        states=frozenset(chance.sample(states, chance.randrange(1, 3))),
        negate=chance.random() < 0.2,
    )
    is_unknown = result is not KEPT and chance.random() < 0.4
    return Op(
        called=called,
        returned=None if is_unknown else called + chance.randrange(6),
        requires=requires if result is KEPT or chance.random() < 0.5 else None,
        result=result,
    )


def _brute_force(ops: list[Op]) -> bool:
    known = [op for op in ops if op.returned is not None]
    unknown = [op for op in ops if op.returned is None]
    for chosen in range(1 << len(unknown)):
        some = known + [op for n, op in enumerate(unknown) if chosen >> n & 1]
        if any(_explains(order) for order in permutations(some)):
            return True
    return False


def _explains(order: tuple[Op, ...]) -> bool:
    state: State = None
    now = float("-inf")
    for op in order:
        now = max(now, op.called)
        if op.returned is not None and now > op.returned:
            return False
        fits, state = op.apply(state)
        if not fits:
            return False
    return True
