"""What the leader does next about the members: one step at a time, the most urgent first.

Rules: pure. Each step is safe by itself and may fail or be repeated; the next look starts afresh.

- A cluster that starts records its seeds: first those that do not vote, then the voters, itself
  last. So a voter without a row means that this is not finished, and nothing else does: a node is
  recorded before it gets into the group and taken out of the group before its row goes.
- A node's own report is right about its address and zone; the row follows it.
- An active, live node becomes a learner of the group while fewer than `voters_max` vote, and a
  voter when it has nearly the whole log. Beyond that nodes follow by notices.
- A draining leader hands over.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from astra.model import NodeInfo, NodeState
from astra.wire import Membership, NodeReport
from node.raft.progress import PeerState
from node.raft.quorum import majority, members_of
from node.raft.types import PeerStatus

ANSWERING_MS: Final = 2000  # a voter that is not heard for longer is not counted on
CAUGHT_UP_ENTRIES: Final = 1000  # a learner that lacks no more is promoted: a fraction of a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What the leader `node_id` knows. `reports` are of live nodes; `match` says how much of the
    log those members of the group have that follow it now: one that is not in it does not answer
    yet, and its vote would only be missed."""

    node_id: str
    nodes: Mapping[str, NodeInfo]
    seeds: Mapping[str, str]
    membership: Membership
    reports: Mapping[str, NodeReport]
    match: Mapping[str, int]
    last_index: int
    voters_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Put this row."""

    node: NodeInfo


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Propose this membership of the group."""

    membership: Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOver:
    to: str


Step = Record | Change | HandOver


def next_step(now: Situation) -> Step | None:
    return record_seed(now) or _follow_report(now) or _hand_over(now) or _change(now)


def record_seed(now: Situation) -> Record | None:
    """The next row of a cluster that starts; None: all its seeds are recorded."""
    voters = now.membership.voters
    if all(voter in now.nodes for voter in voters):
        return None
    missing = [node_id for node_id in now.seeds if node_id not in now.nodes]
    missing.sort(key=lambda node_id: (node_id in voters, node_id == now.node_id, node_id))
    if not missing:
        return None  # a voter that nobody has an address of: its report will come
    report = now.reports.get(missing[0])
    zone = report.zone if report is not None else ""
    return Record(node=NodeInfo(node_id=missing[0], address=now.seeds[missing[0]], zone=zone))


def _follow_report(now: Situation) -> Record | None:
    for node_id, report in sorted(now.reports.items()):
        node = now.nodes.get(node_id)
        if node is None:
            continue
        address, zone = report.address or node.address, report.zone or node.zone
        if (address, zone) != (node.address, node.zone):
            return Record(node=replace(node, address=address, zone=zone))
    return None


def _hand_over(now: Situation) -> HandOver | None:
    own = now.nodes.get(now.node_id)
    if own is None or own.state is not NodeState.DRAINING:
        return None
    heirs = [
        voter for voter in now.membership.voters if voter != now.node_id and _serves(now, voter)
    ]
    best = max(heirs, key=lambda voter: (now.match.get(voter, 0), voter), default=None)
    return None if best is None else HandOver(to=best)


def _change(now: Situation) -> Change | None:
    membership = now.membership
    if membership.voters_outgoing or len(membership.voters) >= now.voters_max:
        return None
    for learner in membership.learners:
        match = now.match.get(learner)
        if match is None or now.last_index - match > CAUGHT_UP_ENTRIES:
            continue
        if _serves(now, learner):
            return Change(membership=promoted(membership, learner))
    if len(membership.voters) + len(membership.learners) >= now.voters_max:
        return None
    for node_id in sorted(now.nodes):
        if node_id not in members_of(membership) and _serves(now, node_id):
            learners = (*membership.learners, node_id)
            return Change(membership=replace(membership, learners=learners))
    return None


def _serves(now: Situation, node_id: str) -> bool:
    """Live, and here to stay."""
    node = now.nodes.get(node_id)
    return node is not None and node.state is NodeState.ACTIVE and node_id in now.reports


def promoted(membership: Membership, learner: str) -> Membership:
    return Membership(
        voters=tuple(sorted((*membership.voters, learner))),
        learners=tuple(each for each in membership.learners if each != learner),
    )


def without(membership: Membership, node_id: str) -> Membership:
    return Membership(
        voters=tuple(each for each in membership.voters if each != node_id),
        learners=tuple(each for each in membership.learners if each != node_id),
    )


def part_of(node_id: str, memberships: Sequence[Membership]) -> str:
    """ "voter", "learner" or "follower", by the newest membership that knows the node. Give the
    committed one as well as the newest: who is told to be a "follower" gives its log up
    (seat.py), and must not while a removal may still be undone."""
    for membership in memberships:
        if node_id in membership.voters:
            return "voter"
        if node_id in membership.learners:
            return "learner"
    return "follower"


def answering(
    node_id: str, live: frozenset[str], peers: Mapping[str, PeerStatus]
) -> frozenset[str]:
    """The leader `node_id`, and who has what it sends and says so. To be live is not enough: a
    voter that came back with an empty disk, or a doubted one, reports and does not vote."""
    return frozenset(
        each
        for each in live
        if each == node_id
        or (
            each in peers
            and peers[each].state == PeerState.REPLICATE.value
            and peers[each].active_ms_ago <= ANSWERING_MS
        )
    )


def keeps_majority(membership: Membership, live: frozenset[str]) -> bool:
    """Whether this membership could commit anything with the nodes that answer."""
    voters = membership.voters
    return bool(voters) and sum(voter in live for voter in voters) >= majority(len(voters))
