"""Majorities, against brute force."""

from __future__ import annotations

import itertools
import random

import pytest

from astra.wire import Membership
from node.raft.quorum import VoteResult, agreed_value, is_quorum, majority, vote_result


@pytest.mark.parametrize(
    ("count", "expected"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)]
)
def test_majority_is_more_than_half_for_even_sizes_too(count: int, expected: int) -> None:
    assert majority(count) == expected


def random_membership(rng: random.Random) -> Membership:
    ids = [f"n{number}" for number in range(7)]
    outgoing = rng.sample(ids, rng.randrange(1, 6)) if rng.random() < 0.5 else []
    return Membership(
        voters=tuple(rng.sample(ids, rng.randrange(1, 6))), voters_outgoing=tuple(outgoing)
    )


def naive_quorum(membership: Membership, ids: set[str]) -> bool:
    halves = [half for half in (membership.voters, membership.voters_outgoing) if half]
    return all(2 * len(ids & set(half)) > len(half) for half in halves)


@pytest.mark.parametrize("seed", range(100))
def test_agreed_value_is_the_largest_that_a_quorum_has_reached(seed: int) -> None:
    rng = random.Random(seed)
    membership = random_membership(rng)
    values = {f"n{number}": rng.randrange(0, 6) for number in range(7)}
    expected = max(
        value
        for value in range(6)
        if naive_quorum(membership, {each for each in values if values[each] >= value})
    )
    assert agreed_value(membership, values.__getitem__) == expected


@pytest.mark.parametrize("seed", range(100))
def test_vote_result_is_won_or_lost_only_when_nothing_can_change_it(seed: int) -> None:
    rng = random.Random(seed)
    membership = random_membership(rng)
    ids = [f"n{number}" for number in range(7)]
    votes = {each: rng.random() < 0.5 for each in ids if rng.random() < 0.7}
    missing = [each for each in ids if each not in votes]
    outcomes = set()
    for answers in itertools.product((True, False), repeat=len(missing)):
        final = votes | dict(zip(missing, answers, strict=True))
        outcomes.add(naive_quorum(membership, {each for each in final if final[each]}))
    expected = {
        (True,): VoteResult.WON,
        (False,): VoteResult.LOST,
        (False, True): VoteResult.PENDING,
    }[tuple(sorted(outcomes))]
    assert vote_result(membership, votes) is expected
    granted = {each for each in votes if votes[each]}
    assert is_quorum(membership, granted) == naive_quorum(membership, granted)


def test_any_two_quorums_of_neighbouring_memberships_meet() -> None:
    old, new = ("a", "b", "c"), ("a", "b", "c", "d")
    for size in range(5):
        for ids in itertools.combinations(new, size):
            rest = set(new) - set(ids)
            both = is_quorum(Membership(voters=old), set(ids)) and is_quorum(
                Membership(voters=new), rest
            )
            assert not both


def test_group_without_voters_has_no_quorum() -> None:
    assert not is_quorum(Membership(voters=()), {"a"})
