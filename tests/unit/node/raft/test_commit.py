"""When an entry is committed: tables."""

from __future__ import annotations

import pytest

from astra.wire import AppendReply, Heartbeat, Membership
from tests.support.raftbench import PLAIN, Bench, led


@pytest.mark.parametrize(
    ("count", "older", "acknowledged", "committed"),
    [
        # The leader's first entry comes after `older`; `acknowledged` are the followers' indexes.
        (1, [], [], 1),
        (1, [1, 1], [], 3),
        (2, [], [0], 0),
        (2, [], [1], 1),
        (2, [1, 1], [2], 0),
        (2, [1, 1], [3], 3),
        (3, [1, 1], [2, 2], 0),
        (3, [1, 1], [3, 0], 3),
        (3, [1, 1], [2, 3], 3),
        (4, [1, 1], [3, 2, 2], 0),
        (4, [1, 1], [3, 3, 0], 3),
        (5, [1, 2], [3, 2, 2, 2], 0),
        (5, [1, 2], [3, 3, 0, 0], 3),
        (6, [1, 2], [3, 3, 2, 2, 2], 0),
        (6, [1, 2], [3, 3, 3, 0, 0], 3),
    ],
)
def test_commit_index_is_what_a_majority_has_of_the_leaders_own_term(
    count: int, older: list[int], acknowledged: list[int], committed: int
) -> None:
    bench = Bench([chr(ord("a") + number) for number in range(count)], config=PLAIN)
    for node_id in bench.nodes:
        bench.start(node_id, terms=older)
    bench.now_ms += PLAIN.election_timeout_max_ms
    core = bench["a"].raft
    core.campaign()
    for _ in range(3):  # until it leads and has written its first entry
        bench.ready("a")
        bench.deliver(*list(bench.nodes)[1:])
        for node_id in list(bench.nodes)[1:]:
            bench.ready(node_id)
        bench.messages = [each for each in bench.messages if not is_acknowledgement(each.body)]
        bench.deliver("a")
    assert core.role == "leader"
    for node_id, index in zip(list(bench.nodes)[1:], acknowledged, strict=True):
        bench.send(node_id, "a", AppendReply(term=core.term, accepted=True, index=index))
    assert core.commit_index == committed


def is_acknowledgement(body: object) -> bool:
    return isinstance(body, AppendReply)


@pytest.mark.parametrize(
    ("told", "expected"),
    [(0, 2), (1, 2), (2, 2), (3, 3), (4, 4), (9, 4)],  # never back, never past the own end
)
def test_heartbeat_moves_the_commit_index_forward_to_what_is_there(
    told: int, expected: int
) -> None:
    bench = Bench(("a", "b", "c"), config=PLAIN)
    core = bench.start("a", terms=[1, 1, 1, 1], term=2)
    bench.send("b", "a", Heartbeat(term=2, commit=2))
    bench.send("b", "a", Heartbeat(term=2, commit=told))
    assert core.commit_index == expected


def test_commit_of_one_leader_is_known_to_all_after_one_round_more() -> None:
    bench = led(5)
    for _ in range(3):
        bench["a"].raft.propose(b"x")
        bench.stabilize()
        assert {node.raft.commit_index for node in bench.nodes.values()} == {
            bench["a"].raft.last_index
        }


def test_smaller_majority_commits_what_waited_and_a_larger_one_takes_nothing_back() -> None:
    bench = led(3)
    bench.isolate("a", "b")
    bench["a"].raft.propose_membership(Membership(voters=("a", "b")))
    bench.stabilize()
    assert bench["a"].raft.commit_index == 2
    bench["a"].raft.propose_membership(Membership(voters=("a", "b", "c")))
    bench.stabilize()
    assert bench["a"].raft.commit_index == 3  # two of three
    bench.isolate("a")
    bench["a"].raft.propose(b"x")
    bench.stabilize()
    assert bench["a"].raft.commit_index == 3


def test_one_batch_is_applied_at_a_time_and_the_next_one_gathers_meanwhile() -> None:
    bench = led(1)
    core = bench["a"].raft

    def proposed() -> list[int]:
        """Proposes and makes durable; the indexes that are to be applied now."""
        core.propose(b"x")
        write = core.ready().write
        assert write is not None
        core.persisted(write.seq)
        return [entry.index for entry in core.ready().committed]

    assert proposed() == [2]
    assert proposed() == []
    assert proposed() == []
    core.applied(2)
    assert [entry.index for entry in core.ready().committed] == [3, 4]


def test_leader_that_removes_itself_has_no_lease() -> None:
    bench = led()
    bench.beat("a")
    core = bench["a"].raft
    assert core.lease_valid(bench.now_ms)
    core.propose_membership(Membership(voters=("b", "c")))
    assert not core.lease_valid(bench.now_ms)
