"""Majorities, of one set of voters or of two (joint consensus, thesis 4.3).

Rules: pure functions. A majority of an empty set is always there (it asks nobody), so a group
without voters is refused by the callers, not here.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping, Set

from astra.wire import Membership


class VoteResult(enum.Enum):
    PENDING = 0
    WON = 1
    LOST = 2


def majority(count: int) -> int:
    """The smallest number of members that any two groups of them share one member: 3 of 4."""
    return count // 2 + 1


def voters_of(membership: Membership) -> frozenset[str]:
    return frozenset(membership.voters) | frozenset(membership.voters_outgoing)


def members_of(membership: Membership) -> frozenset[str]:
    return voters_of(membership) | frozenset(membership.learners)


def _halves(membership: Membership) -> Iterable[tuple[str, ...]]:
    yield membership.voters
    if membership.voters_outgoing:
        yield membership.voters_outgoing


def agreed_value(membership: Membership, value_of: Callable[[str], int]) -> int:
    """The largest value that a majority (of both halves when joint) has reached. Serves the commit
    index, ReadIndex rounds, the lease and CheckQuorum alike. 0 without voters."""
    agreed: int | None = None
    for voters in _halves(membership):
        if not voters:
            continue
        values = sorted(map(value_of, voters))
        value = values[len(values) - majority(len(values))]
        agreed = value if agreed is None else min(agreed, value)
    return agreed if agreed is not None else 0


def is_quorum(membership: Membership, ids: Set[str]) -> bool:
    return bool(membership.voters) and all(
        sum(voter in ids for voter in voters) >= majority(len(voters))
        for voters in _halves(membership)
    )


def vote_result(membership: Membership, votes: Mapping[str, bool]) -> VoteResult:
    """Votes are keyed by voter, so a doubled one counts once; others than voters do not count."""
    result = VoteResult.WON
    for voters in _halves(membership):
        granted = sum(votes.get(voter) is True for voter in voters)
        refused = sum(votes.get(voter) is False for voter in voters)
        needed = majority(len(voters))
        if len(voters) - refused < needed:
            return VoteResult.LOST
        if granted < needed:
            result = VoteResult.PENDING
    return result
