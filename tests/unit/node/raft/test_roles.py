"""Roles and how they change: tables after the Raft paper and the tests of etcd-io/raft."""

from __future__ import annotations

import random

import pytest

from astra.errors import InvariantBroken
from astra.wire import Append, Heartbeat, InstallSnapshot, Membership, RequestVote, VoteReply
from node.raft.config import RaftConfig
from node.raft.core import RaftCore
from node.raft.memory import MemoryLog
from node.raft.types import HardState, Role
from tests.support.raftbench import PLAIN, Bench

PRE = RaftConfig(pre_vote=True)
NO_CHECK = RaftConfig(pre_vote=False, check_quorum=False, lease_reads=False)
NO_CHECK_PRE = RaftConfig(check_quorum=False, lease_reads=False)
ROLES = [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER]


def in_role(role: Role, config: RaftConfig | None = None) -> Bench:
    """Three nodes, `a` in this role at term 1; nothing is under way."""
    pre = role is Role.PRE_CANDIDATE
    bench = Bench(("a", "b", "c"), config=config or (NO_CHECK_PRE if pre else NO_CHECK))
    for node_id in bench.nodes:
        bench.start(node_id, term=1 if pre or role is Role.FOLLOWER else None)
    core = bench["a"].raft
    if role is not Role.FOLLOWER:
        core.campaign()
        bench.ready("a")
    if role is Role.LEADER:
        bench.stabilize()
    bench.messages.clear()
    assert (core.role, core.term) == (role, 1)
    return bench


@pytest.mark.parametrize("config", [PLAIN, PRE], ids=["plain", "prevote"])
@pytest.mark.parametrize(
    ("count", "dead", "logs", "expected"),
    [
        (1, "", {}, Role.LEADER),
        (3, "", {}, Role.LEADER),
        (3, "c", {}, Role.LEADER),
        (3, "bc", {}, Role.CANDIDATE),
        (4, "d", {}, Role.LEADER),
        (4, "cd", {}, Role.CANDIDATE),
        (5, "de", {}, Role.LEADER),
        (5, "cde", {}, Role.CANDIDATE),
        (3, "", {"a": [1], "b": [1], "c": [1, 1]}, Role.LEADER),  # one longer log is outvoted
        (3, "", {"a": [1], "b": [1, 1], "c": [1, 1]}, Role.FOLLOWER),  # two are not
        (3, "", {"a": [1, 1, 1], "b": [2], "c": [2]}, Role.FOLLOWER),  # the term goes first
        (3, "c", {"a": [1], "b": [1, 1]}, Role.CANDIDATE),
    ],
)
def test_outcome_of_an_election_among_live_and_dead_nodes(
    config: RaftConfig, count: int, dead: str, logs: dict[str, list[int]], expected: Role
) -> None:
    bench = Bench([chr(ord("a") + number) for number in range(count)], config=config)
    for node_id in bench.nodes:
        if node_id not in dead:
            bench.start(node_id, terms=logs.get(node_id, ()), term=2 if logs else None)
    core = bench.elect("a")
    if config.pre_vote and expected is Role.CANDIDATE:
        expected = Role.PRE_CANDIDATE
    assert core.role is expected


@pytest.mark.parametrize("role", ROLES)
def test_any_role_votes_in_a_higher_term(role: Role) -> None:
    bench = in_role(role)
    bench.send("b", "a", RequestVote(term=7, last_index=9, last_term=6))
    sent = [message.body for message in bench.take_messages("a")]
    assert VoteReply(term=7, granted=True) in sent
    core = bench["a"].raft
    assert (core.role, core.term, core.leader_id) == (Role.FOLLOWER, 7, None)


@pytest.mark.parametrize("role", ROLES)
def test_any_role_gives_leave_without_changing_anything(role: Role) -> None:
    bench = in_role(role)
    bench.take_messages("a")
    before = bench["a"].raft.status()
    bench.send("b", "a", RequestVote(term=7, last_index=9, last_term=6, pre=True))
    assert [message.body for message in bench.take_messages("a")] == [
        VoteReply(term=7, granted=True, pre=True)
    ]
    assert bench["a"].raft.status() == before


@pytest.mark.parametrize(
    "body",
    [
        Append(term=5, prev_index=0, prev_term=0, commit=0),
        Heartbeat(term=5, commit=0),
        InstallSnapshot(
            term=5, index=1, snapshot_term=1, membership=Membership(voters=("a", "b", "c"))
        ),
        VoteReply(term=5, granted=False, pre=True),
    ],
    ids=lambda body: type(body).__name__,
)
def test_pre_candidate_follows_on_a_higher_term(body: Append | Heartbeat | VoteReply) -> None:
    bench = in_role(Role.PRE_CANDIDATE)
    bench.send("b", "a", body)
    core = bench["a"].raft
    assert (core.role, core.term) == (Role.FOLLOWER, 5)
    assert core.leader_id == (None if isinstance(body, VoteReply) else "b")


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.LEADER])
def test_only_a_candidate_becomes_leader(role: Role) -> None:
    bench = in_role(role)
    with pytest.raises(InvariantBroken):
        bench["a"].raft._become_leader()


def test_no_role_goes_back_to_an_older_term() -> None:
    bench = in_role(Role.CANDIDATE)
    with pytest.raises(InvariantBroken):
        bench["a"].raft._become_follower(0, None)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE])
def test_only_a_leader_sends_heartbeats(role: Role) -> None:
    bench = in_role(role)
    bench.advance(NO_CHECK.heartbeat_ms, "a")
    assert bench.take_messages("a") == []


@pytest.mark.parametrize(
    ("membership", "campaigns"),
    [
        (Membership(voters=("a",)), True),
        (Membership(voters=("a", "b", "c")), True),
        (Membership(voters=()), False),
        (Membership(voters=("b", "c")), False),
        (Membership(voters=("b", "c"), learners=("a",)), False),
    ],
)
def test_only_a_voter_campaigns(membership: Membership, campaigns: bool) -> None:
    bench = Bench(("a", "b", "c"), config=PLAIN)
    bench.membership = membership
    core = bench.start("a")
    bench.advance(5 * PLAIN.election_timeout_max_ms, "a")
    core.campaign()
    assert (core.role is not Role.FOLLOWER) is campaigns
    assert (core.term > 0) is campaigns


@pytest.mark.parametrize(
    ("waited_ms", "share"), [(599, 0.0), (750, 0.25), (900, 0.5), (1050, 0.75), (1200, 1.0)]
)
def test_timeouts_are_spread_evenly_over_their_range(waited_ms: int, share: float) -> None:
    disk = MemoryLog()
    disk.initialize(Membership(voters=("a", "b", "c")))
    disk.append(HardState(term=1), None, ())
    rng = random.Random(1)
    count = 400
    campaigning = 0
    for _ in range(count):
        core = RaftCore(
            node_id="a", config=PLAIN, state=disk.load(0, 1), applied=0, rng=rng, now_ms=0
        )
        core.tick(waited_ms)
        campaigning += core.role is Role.CANDIDATE
    assert abs(campaigning / count - share) < 0.1
