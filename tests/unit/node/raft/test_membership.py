"""Single-step membership changes: what is accepted, and that it is safe."""

from __future__ import annotations

import itertools
import random

import pytest

from astra.errors import Refused
from astra.wire import Membership
from node.raft.leader import check_single_step
from node.raft.quorum import is_quorum

ABC = Membership(voters=("a", "b", "c"), learners=("d",))


@pytest.mark.parametrize(
    "new",
    [
        ABC,  # nothing changes
        Membership(voters=("a", "b", "c")),  # the learner goes
        Membership(voters=("a", "b", "c"), learners=("d", "e", "f")),
        Membership(voters=("a", "b", "c", "d")),  # promoted
        Membership(voters=("a", "b", "c", "e"), learners=("d",)),  # a new voter at once
        Membership(voters=("a", "b"), learners=("c", "d")),  # demoted
        Membership(voters=("a", "b")),  # removed, and the learner with it
        Membership(voters=("c", "b", "a"), learners=("d",)),  # order means nothing
    ],
)
def test_one_voter_more_or_fewer_is_a_step(new: Membership) -> None:
    check_single_step(ABC, new)


@pytest.mark.parametrize(
    "new",
    [
        Membership(voters=()),
        Membership(voters=("a",)),
        Membership(voters=("a", "b", "c", "d", "e")),
        Membership(voters=("a", "b", "d")),  # replaced in one step
        Membership(voters=("a", "b", "c", "c")),
        Membership(voters=("a", "b", "c"), learners=("c",)),
        Membership(voters=("a", "b", "c"), learners=("d", "d")),
        Membership(voters=("a", "b", "c"), voters_outgoing=("a", "b")),
    ],
)
def test_anything_else_is_refused(new: Membership) -> None:
    with pytest.raises(Refused):
        check_single_step(ABC, new)


def test_change_out_of_a_joint_membership_is_refused() -> None:
    joint = Membership(voters=("a", "b"), voters_outgoing=("a", "c"))
    with pytest.raises(Refused):
        check_single_step(joint, Membership(voters=("a", "b")))


def quorums(membership: Membership) -> list[set[str]]:
    ids = membership.voters
    groups = (
        set(each) for size in range(len(ids) + 1) for each in itertools.combinations(ids, size)
    )
    return [each for each in groups if is_quorum(membership, each)]


def random_change(rng: random.Random, old: Membership) -> Membership:
    """Anything near the old one: most of it is no single step."""
    ids = list("abcdefg")
    voters = set(old.voters) ^ set(rng.sample(ids, rng.randrange(0, 3)))
    learners = set(rng.sample(ids, rng.randrange(0, 3))) - voters
    return Membership(voters=tuple(sorted(voters)), learners=tuple(sorted(learners)))


@pytest.mark.parametrize("seed", range(20))
def test_majorities_before_and_after_an_accepted_change_always_meet(seed: int) -> None:
    rng = random.Random(seed)
    membership = ABC
    accepted = refused = 0
    for _ in range(60):
        new = random_change(rng, membership)
        try:
            check_single_step(membership, new)
        except Refused:
            refused += 1
            continue
        for before, after in itertools.product(quorums(membership), quorums(new)):
            assert before & after, f"{membership} and {new}: {before} and {after}"
        accepted += 1
        membership = new
    assert accepted > 5
    assert refused > 5


def test_the_check_is_not_stricter_than_it_must_be_for_two_voters_at_once() -> None:
    """Why two at once are refused: two majorities that do not meet."""
    old, new = Membership(voters=("a", "b", "c")), Membership(voters=tuple("abcde"))
    assert any(
        not before & after for before, after in itertools.product(quorums(old), quorums(new))
    )
