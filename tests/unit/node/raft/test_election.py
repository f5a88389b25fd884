"""Elections: sections 5.1, 5.2 and 5.4.1 of the paper, PreVote, CheckQuorum, transfer."""

from __future__ import annotations

import random

import pytest

from astra.errors import NotLeader, Refused, Unavailable
from astra.wire import (
    Append,
    AppendReply,
    Heartbeat,
    Membership,
    RaftMessageBody,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from node.raft.config import RaftConfig
from node.raft.types import Role
from tests.support.raftbench import Bench

ABC = ("a", "b", "c")
PLAIN = RaftConfig(pre_vote=False)
PRE = RaftConfig(pre_vote=True)
NO_CHECK = RaftConfig(pre_vote=False, check_quorum=False, lease_reads=False)


def bench_of(count: int, config: RaftConfig = PLAIN) -> Bench:
    bench = Bench([chr(ord("a") + number) for number in range(count)], config=config)
    bench.start_all()
    return bench


def in_role(role: Role) -> Bench:
    """Three nodes at term 1, `a` in this role."""
    bench = bench_of(3, NO_CHECK)
    core = bench["a"].raft
    core.campaign()
    bench.ready("a")
    if role is Role.LEADER:
        bench.stabilize()
    if role is Role.FOLLOWER:
        bench.send("b", "a", Heartbeat(term=1, commit=0))
    bench.messages.clear()
    assert core.role is role
    return bench


HIGHER: list[RaftMessageBody] = [
    RequestVote(term=5, last_index=9, last_term=4),
    VoteReply(term=5, granted=False),
    Append(term=5, prev_index=0, prev_term=0, commit=0),
    AppendReply(term=5, accepted=False, index=0),
    Heartbeat(term=5, commit=0),
]


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
@pytest.mark.parametrize("body", HIGHER, ids=lambda body: type(body).__name__)
def test_every_role_follows_on_a_higher_term(role: Role, body: RaftMessageBody) -> None:
    bench = in_role(role)
    bench.send("b", "a", body)
    core = bench["a"].raft
    assert (core.role, core.term) == (Role.FOLLOWER, 5)
    leads = isinstance(body, Append | Heartbeat)
    assert core.leader_id == ("b" if leads else None)


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.CANDIDATE, Role.LEADER])
def test_messages_of_an_old_term_change_nothing(role: Role) -> None:
    bench = in_role(role)
    bench.take_messages("a")
    before = (bench["a"].raft.status(), bench["a"].log)
    for body in (
        Append(term=0, prev_index=0, prev_term=0, commit=1),
        AppendReply(term=0, accepted=True, index=1),
        VoteReply(term=0, granted=True),
        Heartbeat(term=0, commit=1),
        RequestVote(term=0, last_index=9, last_term=9),
        TimeoutNow(term=0),
    ):
        bench.send("b", "a", body)
    assert (bench["a"].raft.status(), bench["a"].log) == before
    assert all(message.body.term == 1 for message in bench.take_messages("a"))


def test_new_node_starts_as_follower_and_sends_nothing() -> None:
    bench = bench_of(3)
    assert bench["a"].raft.role is Role.FOLLOWER
    assert bench.take_messages("a") == []


def test_leader_sends_a_heartbeat_to_all_each_interval() -> None:
    bench = bench_of(3)
    bench.elect("a")
    bench.advance(PLAIN.heartbeat_ms, "a")
    beats = [m.to for m in bench.take_messages("a") if isinstance(m.body, Heartbeat)]
    assert beats == ["b", "c"]
    bench.advance(PLAIN.heartbeat_ms - 1, "a")
    assert bench.take_messages("a") == []


@pytest.mark.parametrize("config", [PLAIN, PRE], ids=["plain", "prevote"])
def test_silence_for_an_election_timeout_starts_an_election(config: RaftConfig) -> None:
    bench = bench_of(3, config)
    bench.advance(config.election_timeout_min_ms - 1, "a")
    assert bench.take_messages("a") == []
    bench.advance(1, "a")
    sent = bench.take_messages("a")
    assert [m.to for m in sent] == ["b", "c"]
    assert [m.body for m in sent] == [
        RequestVote(term=1, last_index=0, last_term=0, pre=config.pre_vote)
    ] * 2
    assert bench["a"].raft.term == (0 if config.pre_vote else 1)


def test_candidate_without_a_result_starts_another_election() -> None:
    bench = bench_of(3)
    bench.advance(600, "a")
    bench.take_messages("a")
    bench.advance(600, "a")
    assert {m.body.term for m in bench.take_messages("a")} == {2}


@pytest.mark.parametrize(
    ("count", "votes", "expected"),
    [
        (1, {}, Role.LEADER),
        (2, {}, Role.CANDIDATE),
        (2, {"b": True}, Role.LEADER),
        (3, {"b": True}, Role.LEADER),
        (3, {"b": False}, Role.CANDIDATE),
        (3, {"b": False, "c": False}, Role.FOLLOWER),
        (4, {"b": True}, Role.CANDIDATE),
        (4, {"b": True, "c": True}, Role.LEADER),
        (5, {"b": True, "c": True}, Role.LEADER),
        (5, {"b": True}, Role.CANDIDATE),
        (5, {"b": False, "c": False, "d": True}, Role.CANDIDATE),
        (5, {"b": False, "c": False, "d": False}, Role.FOLLOWER),
    ],
)
def test_election_outcome_in_one_round(count: int, votes: dict[str, bool], expected: Role) -> None:
    bench = bench_of(count)
    bench["a"].raft.campaign()
    bench.ready("a")
    for voter, granted in votes.items():
        bench.send(voter, "a", VoteReply(term=1, granted=granted))
        bench.send(voter, "a", VoteReply(term=1, granted=granted))  # doubled: counts once
    assert bench["a"].raft.role is expected


def test_votes_of_strangers_do_not_count() -> None:
    bench = bench_of(3)
    bench["a"].raft.campaign()
    bench.ready("a")
    bench.send("z", "a", VoteReply(term=1, granted=True))
    assert bench["a"].raft.role is Role.CANDIDATE


def test_own_vote_counts_only_when_durable() -> None:
    bench = bench_of(3)
    bench["a"].is_held = True
    bench["a"].raft.campaign()
    bench.ready("a")
    bench.send("b", "a", VoteReply(term=1, granted=True))
    assert bench["a"].raft.status().role == "candidate"
    bench.persist("a")
    assert bench["a"].raft.status().role == "leader"


@pytest.mark.parametrize(
    ("voted_for", "candidate", "granted"),
    [(None, "b", True), (None, "c", True), ("b", "b", True), ("b", "c", False)],
)
def test_one_vote_per_term_also_after_a_restart(
    voted_for: str | None, candidate: str, granted: bool
) -> None:
    bench = Bench(ABC, config=NO_CHECK)
    bench.start("a", term=1, voted_for=voted_for)
    bench.send(candidate, "a", RequestVote(term=1, last_index=0, last_term=0))
    assert [m.body for m in bench.take_messages("a")] == [VoteReply(term=1, granted=granted)]


@pytest.mark.parametrize(
    ("terms", "last_index", "last_term", "granted"),
    [
        ([1], 1, 1, True),
        ([1], 2, 1, True),
        ([1, 1], 1, 1, False),
        ([1], 1, 2, True),
        ([1, 1], 1, 2, True),
        ([2], 1, 1, False),
        ([2], 2, 1, False),
        ([1, 1], 2, 1, True),
    ],
)
@pytest.mark.parametrize("pre", [False, True])
def test_voter_refuses_a_log_that_is_less_up_to_date(
    terms: list[int], last_index: int, last_term: int, granted: bool, pre: bool
) -> None:
    bench = Bench(ABC, config=NO_CHECK)
    bench.start("a", terms=terms)
    body = RequestVote(term=3, last_index=last_index, last_term=last_term, pre=pre)
    bench.send("b", "a", body)
    (reply,) = bench.take_messages("a")
    assert isinstance(reply.body, VoteReply)
    assert reply.body.granted is granted
    assert bench["a"].raft.term == (max(terms) if pre else 3)


def test_vote_leaves_only_after_it_is_durable() -> None:
    bench = bench_of(3)
    bench["a"].is_held = True
    bench.send("b", "a", RequestVote(term=1, last_index=0, last_term=0))
    bench.ready("a")
    assert bench.messages == []
    bench.persist("a")
    assert [m.body for m in bench.messages] == [VoteReply(term=1, granted=True)]


def test_vote_given_after_its_term_was_stored_survives_a_restart() -> None:
    bench = bench_of(3, NO_CHECK)
    bench.send("c", "a", VoteReply(term=5, granted=False))
    bench.take_messages("a")  # term 5 is durable, without a vote
    bench.send("b", "a", RequestVote(term=5, last_index=0, last_term=0))
    assert [m.body for m in bench.take_messages("a")] == [VoteReply(term=5, granted=True)]
    bench.restart("a")
    bench.send("c", "a", RequestVote(term=5, last_index=0, last_term=0))
    assert [m.body for m in bench.take_messages("a")] == [VoteReply(term=5, granted=False)]


def test_candidate_yields_to_a_leader_of_its_own_term() -> None:
    bench = in_role(Role.CANDIDATE)
    bench.send("b", "a", Append(term=1, prev_index=0, prev_term=0, commit=0))
    core = bench["a"].raft
    assert (core.role, core.leader_id, core.term) == (Role.FOLLOWER, "b", 1)


def test_election_timeout_is_drawn_again_for_every_term() -> None:
    bench = bench_of(3)
    before = len(bench["a"].rng.draws)
    for _ in range(3):
        bench.advance(PLAIN.election_timeout_max_ms, "a")
    assert len(bench["a"].rng.draws) >= before + 3
    assert set(bench["a"].rng.draws) == {(600, 1200)}


def test_simultaneous_timeouts_are_rare() -> None:
    rng = random.Random(1)
    config = RaftConfig()
    close = 0
    for _ in range(2000):
        low, high = config.election_timeout_min_ms, config.election_timeout_max_ms
        draws = sorted(rng.randrange(low, high) for _ in range(5))
        close += draws[1] - draws[0] < config.tick_ms
    assert close / 2000 < 0.2


@pytest.mark.parametrize("config", [PLAIN, PRE], ids=["plain", "prevote"])
def test_every_node_can_be_elected_in_turn(config: RaftConfig) -> None:
    bench = bench_of(3, config)
    for node_id in ("a", "b", "c", "a"):
        core = bench.elect(node_id)
        assert core.role is Role.LEADER
        others = [bench[each].raft for each in ABC if each != node_id]
        assert all((each.role, each.term) == (Role.FOLLOWER, core.term) for each in others)


@pytest.mark.parametrize("config", [PLAIN, PRE], ids=["plain", "prevote"])
def test_higher_uncommitted_entries_of_a_minority_are_overwritten(config: RaftConfig) -> None:
    bench = Bench(("a", "b", "c", "d", "e"), config=config)
    for node_id, terms, term in (
        ("a", [1], 2),
        ("b", [1], 2),
        ("c", [2], 2),
        ("d", [], 2),
        ("e", [], 2),
    ):
        bench.start(node_id, terms=terms, term=term)
    bench.isolate("c")
    bench.elect("a")
    bench.cut.clear()
    bench.beat("a", 3)
    assert [bench[each].terms for each in bench.nodes] == [[1, 3]] * 5


def test_cut_off_node_without_prevote_deposes_the_leader() -> None:
    bench = bench_of(3, NO_CHECK)
    bench.elect("a")
    bench.isolate("c")
    bench.advance(NO_CHECK.election_timeout_max_ms, "c")
    bench.stabilize()
    bench.cut.clear()
    bench.advance(NO_CHECK.election_timeout_max_ms, "c")
    bench.stabilize()
    assert bench["a"].raft.term > 1


def test_cut_off_node_with_prevote_does_not_disturb() -> None:
    bench = bench_of(3, PRE)
    bench.elect("a")
    bench.isolate("c")
    for _ in range(20):
        bench.beat("a")
    assert bench["c"].raft.role is Role.PRE_CANDIDATE
    bench.cut.clear()
    bench["c"].raft.campaign()
    bench.beat("a", 3)
    assert (bench["a"].raft.term, bench["c"].raft.leader_id) == (1, "a")


def test_stuck_node_with_a_higher_term_is_freed_by_the_leader_learning_it() -> None:
    bench = bench_of(3, PLAIN)
    bench.elect("a")
    bench.isolate("c")
    bench["c"].raft.campaign()
    bench.stabilize()
    assert bench["c"].raft.term == 2
    bench.cut.clear()
    bench.advance(PLAIN.heartbeat_ms, "a")
    bench.stabilize()
    assert bench["a"].raft.term == 2  # stepped down
    bench.elect("a")
    assert bench["c"].raft.leader_id == "a"


def test_rejoining_node_with_a_lower_term_does_not_block_prevote() -> None:
    bench = Bench(ABC, config=PRE)
    bench.start("a", terms=[1], term=1)
    bench.start("b", terms=[1, 3], term=3)
    bench.start("c", terms=[1], term=5)
    core = bench.elect("b")
    if core.role is not Role.LEADER:
        core = bench.elect("b")
    assert (core.role, core.term) == (Role.LEADER, 6)


def test_split_prevote_is_followed_by_a_successful_round() -> None:
    bench = bench_of(3, PRE)
    bench.isolate("c")
    bench["a"].raft.campaign()
    bench["b"].raft.campaign()
    bench.stabilize()
    assert Role.LEADER not in (bench["a"].raft.role, bench["b"].raft.role)
    bench["b"].rng.offset = 300
    bench.advance(PRE.election_timeout_min_ms, "a")
    bench.stabilize()
    assert bench["a"].raft.role is Role.LEADER


def test_voter_that_hears_a_leader_refuses_others_until_the_shortest_timeout() -> None:
    bench = bench_of(3)
    bench.elect("a")
    body = RequestVote(term=9, last_index=99, last_term=9)
    bench.now_ms += PLAIN.election_timeout_min_ms - 1
    bench.send("c", "b", body)
    assert (bench["b"].raft.term, bench.take_messages("b")) == (1, [])
    bench.now_ms += 1
    bench.send("c", "b", body)
    assert bench["b"].raft.term == 9


def test_restarted_voter_refuses_as_if_it_had_promised_a_lease() -> None:
    bench = bench_of(3)
    bench.elect("a")
    bench.restart("b")
    body = RequestVote(term=9, last_index=99, last_term=9)
    bench.now_ms += PLAIN.election_timeout_min_ms - 1
    bench.send("c", "b", body)
    assert bench["b"].raft.term == 1
    bench.now_ms += 1
    bench.send("c", "b", body)
    assert bench["b"].raft.term == 9


def test_leader_with_a_silent_majority_steps_down_and_one_with_a_live_one_stays() -> None:
    bench = bench_of(5)
    bench.elect("a")
    bench.isolate("a", "b", "c")
    bench.beat("a", 40)
    bench.isolate("a", "b")
    for _ in range(40):
        bench.advance(PLAIN.heartbeat_ms, "a", "b")
        bench.stabilize()
    assert bench["a"].raft.role is not Role.LEADER
    with pytest.raises(NotLeader):
        bench["a"].raft.propose(b"x")


def test_learner_never_campaigns_but_votes_when_asked() -> None:
    bench = Bench(("a", "b"), learners=["c"], config=PLAIN)
    bench.start_all()
    bench.advance(5000, "c")
    bench["c"].raft.campaign()
    assert bench.take_messages("c") == []
    bench.send("a", "c", RequestVote(term=1, last_index=0, last_term=0))
    assert [m.body for m in bench.take_messages("c")] == [VoteReply(term=1, granted=True)]


def test_campaign_while_leader_has_no_effect() -> None:
    bench = bench_of(3)
    core = bench.elect("a")
    core.campaign()
    assert (core.role, core.term) == (Role.LEADER, 1)
    assert bench.take_messages("a") == []


def test_transfer_is_allowed_inside_the_lease_and_ends_it() -> None:
    bench = bench_of(3, PRE)
    core = bench.elect("a")
    bench.beat("a", 2)
    assert core.lease_valid(bench.now_ms)
    core.transfer("b")
    assert not core.lease_valid(bench.now_ms)
    bench.stabilize()
    assert (bench["b"].raft.role, core.role) == (Role.LEADER, Role.FOLLOWER)


def test_lease_stays_off_for_the_term_once_timeout_now_has_left() -> None:
    bench = bench_of(3, PRE)
    core = bench.elect("a")
    bench.beat("a", 2)
    bench.isolate("b")
    core.transfer("b")
    for _ in range(20):
        bench.advance(PRE.heartbeat_ms, "a", "c")
        bench.stabilize()
    assert core.transfer_to is None
    assert core.role is Role.LEADER
    assert not core.lease_valid(bench.now_ms)


def test_transfer_to_self_is_a_no_op_and_the_last_target_wins() -> None:
    bench = bench_of(3)
    core = bench.elect("a")
    core.transfer("a")
    assert core.transfer_to is None
    bench.isolate("b")
    core.transfer("b")
    core.transfer("c")
    bench.stabilize()
    assert bench["c"].raft.role is Role.LEADER


def test_timeout_now_from_a_stranger_or_to_a_non_voter_is_ignored() -> None:
    bench = Bench(("a", "b"), learners=["c"], config=PLAIN)
    bench.start_all()
    bench.elect("a")
    bench.send("c", "b", TimeoutNow(term=1))
    bench.send("a", "c", TimeoutNow(term=1))
    assert bench["b"].raft.role is Role.FOLLOWER
    assert bench["c"].raft.role is Role.FOLLOWER


def test_target_of_a_transfer_is_a_voter_and_stays_one() -> None:
    bench = bench_of(3)
    core = bench.elect("a")
    bench.isolate("c")
    core.propose_membership(Membership(voters=("a", "b")))
    bench.stabilize()
    with pytest.raises(Refused):
        core.transfer("c")
    core.transfer("b")
    with pytest.raises(Unavailable):  # so nobody is removed while leadership is handed over
        core.propose_membership(Membership(voters=("a",)))
    bench.stabilize()
    assert bench["b"].raft.role is Role.LEADER
