"""Replication, commitment, reads, membership: sections 5.3, 5.4, 6 and 8."""

from __future__ import annotations

import pytest

from astra.errors import InvariantBroken, NotLeader, Overloaded, Refused, Unavailable
from astra.wire import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    Membership,
    RaftMessage,
)
from node.raft.config import RaftConfig
from node.raft.types import Role
from tests.support.raftbench import PLAIN, Bench, appends, led


def test_proposal_goes_to_all_followers_in_parallel() -> None:
    bench = led()
    assert bench["a"].raft.propose(b"x") == (2, 1)
    expected = Append(
        term=1,
        prev_index=1,
        prev_term=1,
        commit=1,
        entries=(Entry(2, 1, EntryKind.COMMAND, b"x"),),
    )
    assert appends(bench) == {"b": [expected], "c": [expected]}


def test_proposals_before_one_ready_share_one_append() -> None:
    bench = led()
    for _ in range(10):
        bench["a"].raft.propose(b"x")
    assert [len(each.entries) for each in appends(bench)["b"]] == [10]


def test_commit_is_applied_and_told_to_the_followers() -> None:
    bench = led()
    bench["a"].raft.propose(b"x")
    bench.stabilize()
    for node in bench.nodes.values():
        assert node.raft.commit_index == 2
        assert [entry.data for entry in node.applied] == [b"", b"x"]


@pytest.mark.parametrize(
    ("count", "acknowledging", "committed"),
    [
        (1, 0, True),
        (2, 0, False),
        (2, 1, True),
        (3, 0, False),
        (3, 1, True),
        (4, 1, False),
        (4, 2, True),
        (5, 1, False),
        (5, 2, True),
    ],
)
def test_entry_commits_exactly_at_a_majority(
    count: int, acknowledging: int, committed: bool
) -> None:
    bench = led(count)
    bench["a"].raft.propose(b"x")
    bench.take_messages("a")
    for follower in list(bench.nodes)[1 : 1 + acknowledging]:
        bench.send(follower, "a", AppendReply(term=1, accepted=True, index=2))
        bench.send(follower, "a", AppendReply(term=1, accepted=True, index=2))
    assert bench["a"].raft.commit_index == (2 if committed else 1)


def test_leader_counts_itself_only_when_its_write_is_durable() -> None:
    bench = led()
    bench["a"].is_held = True
    bench["a"].raft.propose(b"x")
    bench.ready("a")
    bench.send("b", "a", AppendReply(term=1, accepted=True, index=2))
    assert bench["a"].raft.commit_index == 1
    bench.persist("a")
    assert bench["a"].raft.commit_index == 2


def test_majority_of_followers_commits_before_the_leaders_disk_but_apply_waits() -> None:
    bench = led()
    bench["a"].is_held = True
    bench["a"].raft.propose(b"x")
    bench.ready("a")
    for follower in ("b", "c"):
        bench.send(follower, "a", AppendReply(term=1, accepted=True, index=2))
    bench.ready("a")
    assert (bench["a"].raft.commit_index, len(bench["a"].applied)) == (2, 1)
    bench.persist("a")
    bench.ready("a")
    assert len(bench["a"].applied) == 2


@pytest.mark.parametrize("terms", [[1], [1, 2], [2], [1, 1, 2]])
def test_older_entries_commit_with_the_first_of_the_own_term(terms: list[int]) -> None:
    bench = Bench(("a", "b", "c"), config=PLAIN)
    bench.start("a", terms=terms, term=2)
    bench.start("b")
    bench.start("c")
    bench.elect("a")
    assert [entry.term for entry in bench["b"].applied] == [*terms, 3]


@pytest.mark.parametrize(
    ("prev_index", "prev_term", "hint"),
    [(3, 3, (2, 2)), (2, 1, (1, 1)), (9, 9, (2, 2)), (2, 3, (2, 2))],
)
def test_follower_refuses_a_mismatch_with_a_hint(
    prev_index: int, prev_term: int, hint: tuple[int, int]
) -> None:
    bench = Bench(("a", "b", "c"), config=PLAIN)
    bench.start("a", terms=[1, 2])
    bench.send("b", "a", Append(term=3, prev_index=prev_index, prev_term=prev_term, commit=2))
    (reply,) = bench.take_messages("a")
    expected = AppendReply(
        term=3, accepted=False, index=prev_index, hint_index=hint[0], hint_term=hint[1]
    )
    if (prev_index, prev_term) == (2, 3):
        expected = AppendReply(term=3, accepted=False, index=2, hint_index=2, hint_term=2)
    assert reply.body == expected
    assert bench["a"].raft.commit_index == 0


def test_acknowledgement_names_the_matched_index_and_not_the_logs_end() -> None:
    bench = Bench(("a", "b", "c"), config=PLAIN)
    bench.start("a", terms=[1, 1, 1])
    bench.send("b", "a", Append(term=2, prev_index=1, prev_term=1, commit=3))
    (reply,) = bench.take_messages("a")
    assert reply.body == AppendReply(term=2, accepted=True, index=1)
    assert bench["a"].raft.commit_index == 1  # the unverified rest may differ from the leader's


def test_late_and_doubled_appends_are_harmless() -> None:
    bench = led()
    bench["a"].raft.propose(b"x")
    first = appends(bench)["b"][0]
    bench["a"].raft.propose(b"y")
    second = appends(bench)["b"][0]
    bench.send("a", "b", second)  # reordered: refused
    for body in (first, second, first, second, first):
        bench.send("a", "b", body)
    assert [entry.data for entry in bench["b"].log] == [b"", b"x", b"y"]


def test_heartbeat_commits_no_more_than_the_follower_is_known_to_match() -> None:
    bench = led()
    bench.isolate("c")
    for _ in range(3):
        bench["a"].raft.propose(b"x")
    bench.stabilize()
    bench.advance(PLAIN.heartbeat_ms, "a")
    beats = {m.to: m.body for m in bench.take_messages("a") if isinstance(m.body, Heartbeat)}
    assert {to: beat.commit for to, beat in beats.items()} == {"b": 4, "c": 1}


def test_lost_append_is_found_out_by_heartbeats() -> None:
    bench = led()
    bench.isolate("c")
    bench["a"].raft.propose(b"x")
    bench.stabilize()
    bench.cut.clear()
    bench.beat("a", 3)
    assert bench["c"].raft.commit_index == 2


def test_conflicting_logs_are_skipped_term_by_term() -> None:
    bench = Bench(("a", "b", "c"), config=PLAIN)
    bench.start("a", terms=[1] + [5] * 40, term=5)
    bench.start("b", terms=[1] + [2] * 20 + [3] * 20 + [4] * 20)
    bench.start("c", terms=[1] + [5] * 40)
    bench.elect("a")
    refusals = sum("->a AppendReply refused" in line for line in bench.trace) // 2
    assert bench["b"].terms == bench["a"].terms
    assert refusals <= 3


def test_uncommitted_bytes_are_bounded_and_freed_by_commit() -> None:
    bench = led(config=RaftConfig(pre_vote=False, uncommitted_bytes_max=1000))
    core = bench["a"].raft
    for _ in range(3):
        core.propose(b"x" * 250)
    with pytest.raises(Overloaded):
        core.propose(b"x" * 250)
    bench.stabilize()
    core.propose(b"x" * 5000)  # one larger than the limit passes alone


def test_proposal_to_a_follower_is_refused_with_the_leaders_name() -> None:
    bench = led()
    with pytest.raises(NotLeader) as caught:
        bench["b"].raft.propose(b"x")
    assert caught.value.leader == "a"


def test_two_leaders_in_one_term_stop_the_process() -> None:
    bench = led()
    with pytest.raises(InvariantBroken):
        bench.send("b", "a", Heartbeat(term=1, commit=0))


def test_entries_that_left_memory_are_fetched_for_a_slow_follower_and_for_apply() -> None:
    config = RaftConfig(pre_vote=False, memory_bytes_max=1000, append_bytes_max=400)
    bench = led(config=config)
    bench.isolate("c")
    for _ in range(50):
        bench["a"].raft.propose(b"x" * 50)
        bench.stabilize()
    assert bench["a"].raft._log.memory_index > 20
    bench.cut.clear()
    bench.beat("a", 4)
    assert bench["c"].raft.commit_index == 51
    assert any("need" in line and "for c" in line for line in bench.trace)
    del bench["b"].applied[3:]
    bench.restart("b")
    bench.beat("a", 2)
    assert [entry.index for entry in bench["b"].applied] == list(range(1, 52))


# --- reads ---------------------------------------------------------------------------------


def test_read_waits_for_an_entry_of_the_own_term() -> None:
    bench = Bench(("a", "b", "c"), config=PLAIN)
    bench.start_all()
    bench["a"].raft.campaign()
    bench.ready("a")
    bench.deliver("b")
    bench.ready("b")
    bench.deliver("a")
    core = bench["a"].raft
    assert (core.role, core.commit_index) == (Role.LEADER, 0)
    core.read_index(1)
    bench.advance(PLAIN.heartbeat_ms, "a")
    bench.ready("a")
    for voter in ("b", "c"):  # its round is confirmed, its no-op is not
        bench.send(voter, "a", HeartbeatReply(term=1, round=1, sent_at_ms=bench.now_ms))
    bench.ready("a")
    assert bench["a"].reads == []
    bench.stabilize()
    assert bench["a"].reads == [(1, 1)]


def test_reads_of_a_deposed_leader_are_refused_and_memory_is_freed() -> None:
    bench = led()
    bench.isolate("a")
    for context in range(100):
        bench["a"].raft.read_index(context)
    bench.stabilize()
    bench.advance(PLAIN.election_timeout_max_ms + 1, "a")
    bench.stabilize()
    assert bench["a"].reads == [(context, None) for context in range(100)]
    with pytest.raises(NotLeader):
        bench["a"].raft.read_index(1)


def test_answers_of_learners_do_not_confirm_a_read() -> None:
    bench = Bench(("a", "b", "c"), learners=["d"], config=PLAIN)
    bench.start_all()
    bench.elect("a")
    bench.isolate("a", "d")
    bench["a"].raft.read_index(1)
    bench.stabilize()
    assert bench["a"].reads == []
    bench["d"].raft.read_index(2)  # asks the leader, which cannot confirm it
    bench.stabilize()
    assert bench["d"].reads == []


def test_waiting_reads_are_bounded() -> None:
    bench = led(config=RaftConfig(pre_vote=False, reads_waiting_max=2))
    bench.isolate("a")
    bench["a"].raft.read_index(1)
    bench["a"].raft.read_index(2)
    with pytest.raises(Overloaded):
        bench["a"].raft.read_index(3)


def test_lease_is_measured_from_sending_and_needs_a_majority() -> None:
    bench = led(5)
    core = bench["a"].raft
    bench.advance(PLAIN.heartbeat_ms, "a")
    sent_ms = bench.now_ms
    bench.take_messages("a")
    bench.now_ms += 300  # the answers are slow
    bench.send("b", "a", HeartbeatReply(term=1, round=1, sent_at_ms=sent_ms))
    assert not core.lease_valid(bench.now_ms)
    bench.send("c", "a", HeartbeatReply(term=1, round=1, sent_at_ms=sent_ms))
    assert core.lease_valid(sent_ms + PLAIN.lease_ms - 1)
    assert not core.lease_valid(sent_ms + PLAIN.lease_ms)


def test_answer_from_the_future_extends_no_lease() -> None:
    bench = led()
    core = bench["a"].raft
    bench.send("b", "a", HeartbeatReply(term=1, round=0, sent_at_ms=bench.now_ms + 10_000))
    assert not core.lease_valid(bench.now_ms)


# --- membership ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "membership",
    [
        Membership(voters=()),
        Membership(voters=("a",)),
        Membership(voters=("a", "b", "c", "d", "e")),
        Membership(voters=("a", "b", "d")),
        Membership(voters=("a", "b", "c", "c")),
        Membership(voters=("a", "b", "c"), learners=("a",)),
        Membership(voters=("a", "b", "c"), voters_outgoing=("a",)),
    ],
)
def test_change_that_is_not_a_single_step_is_refused(membership: Membership) -> None:
    bench = led()
    with pytest.raises(Refused):
        bench["a"].raft.propose_membership(membership)
    assert bench["a"].raft.last_index == 1


def test_second_change_and_change_before_an_own_commit_must_wait() -> None:
    bench = led()
    core = bench["a"].raft
    core.propose_membership(Membership(voters=("a", "b")))
    with pytest.raises(Unavailable):
        core.propose_membership(Membership(voters=("a", "b", "c")))
    bench.stabilize()
    bench.restart("a")
    bench.now_ms += PLAIN.election_timeout_max_ms
    bench["b"].raft.campaign()
    bench.ready("b")
    bench.deliver("a")
    bench.ready("a")
    bench.deliver("b")
    assert bench["b"].raft.role is Role.LEADER
    with pytest.raises(Unavailable):
        bench["b"].raft.propose_membership(Membership(voters=("a", "b", "c")))


def test_new_leader_inherits_an_uncommitted_change() -> None:
    bench = led()
    bench.isolate("a", "b")
    bench["c"].core = None
    bench["a"].raft.propose_membership(Membership(voters=("a", "b")))
    bench.ready("a")
    bench.deliver("b")
    bench.ready("b")
    bench.messages.clear()
    assert bench["b"].raft.membership.voters == ("a", "b")
    bench.restart("a")
    bench.elect("b")
    assert bench["b"].raft.role is Role.LEADER
    assert bench["b"].raft.commit_index == bench["b"].raft.last_index == 3


def test_removing_a_node_commits_what_now_has_a_majority() -> None:
    bench = led(4)
    bench.isolate("a", "b", "c")
    bench["c"].core = None
    bench["a"].raft.propose(b"x")
    bench.stabilize()
    assert bench["a"].raft.commit_index == 1  # two of four
    bench["a"].raft.propose_membership(Membership(voters=("a", "b", "c")))
    bench.stabilize()
    assert bench["a"].raft.commit_index == 3  # two of three


def test_joining_node_does_not_make_the_leader_step_down() -> None:
    bench = Bench(("a",), learners=["z"], config=PLAIN)
    bench.membership = Membership(voters=("a",))
    bench.start("a")
    bench.elect("a")
    bench.now_ms += 10_000
    bench["a"].raft.observe(bench.now_ms)
    bench["a"].raft.propose_membership(Membership(voters=("a", "z")))
    bench.advance(PLAIN.election_timeout_max_ms - 1, "a")
    assert bench["a"].raft.role is Role.LEADER


def test_message_for_another_node_or_group_is_ignored() -> None:
    bench = led()
    body = Heartbeat(term=9, commit=0)
    bench["a"].raft.step(RaftMessage(sender="b", to="c", body=body))
    bench["a"].raft.step(RaftMessage(sender="b", to="a", group=7, body=body))
    bench["a"].raft.step(RaftMessage(sender="a", to="a", body=body))
    assert bench["a"].raft.term == 1
