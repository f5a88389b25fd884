"""Snapshots: section 7 of the paper, and what may come in between."""

from __future__ import annotations

import random

import pytest

from astra.wire import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    InstallSnapshot,
    Membership,
    RaftMessage,
)
from node.raft.core import RaftCore
from node.raft.memory import MemoryLog
from node.raft.types import HardState, Role, SnapshotMark
from tests.support.raftbench import PLAIN, Bench, appends, led

ABC = Membership(voters=("a", "b", "c"))


def with_compacted_leader() -> Bench:
    """`c` has only the no-op; `a` and `b` have 11 entries, and `a` dropped the first 10."""
    bench = led()
    bench.isolate("c")
    for _ in range(10):
        bench["a"].raft.propose(b"x")
    bench.stabilize()
    bench.compact("a", 10)
    bench.cut.clear()
    return bench


def test_follower_behind_the_first_entry_gets_a_snapshot_and_then_the_log() -> None:
    bench = with_compacted_leader()
    bench.beat("a", 3)
    assert bench["a"].raft.status().peers["c"].state == "snapshot"
    bench["a"].raft.propose(b"meanwhile")
    assert "c" not in appends(bench)
    bench.install_snapshot("c")
    bench.beat("a", 3)
    assert bench["c"].applied == bench["a"].applied
    assert bench["a"].raft.status().peers["c"].state == "replicate"


def test_silent_follower_gets_no_snapshot_until_it_answers() -> None:
    bench = with_compacted_leader()
    bench.isolate("c")
    for _ in range(20):
        bench.advance(PLAIN.heartbeat_ms, "a", "b")
        bench.stabilize()
    leadership = bench["a"].raft._leadership
    assert leadership is not None
    leadership.peers["c"].become_probe()  # as after entries that were gone when they were loaded
    bench["a"].raft.propose(b"x")
    bench.stabilize()
    assert not any(line.startswith("send  a->c InstallSnapshot") for line in bench.trace)
    bench.cut.clear()
    bench.advance(PLAIN.heartbeat_ms, "a", "b")
    bench.stabilize()
    assert any(line.startswith("send  a->c InstallSnapshot") for line in bench.trace)


def test_failed_snapshot_is_offered_again() -> None:
    bench = with_compacted_leader()
    bench.beat("a", 3)
    bench["c"].raft.snapshot_failed()
    bench["c"].offer = None
    for _ in range(40):
        bench.beat("a")
    assert bench["c"].offer is not None
    bench.install_snapshot("c")
    bench.beat("a", 3)
    assert bench["c"].raft.commit_index == 11


def test_old_snapshot_is_answered_with_what_is_committed() -> None:
    bench = led()
    bench["a"].raft.propose(b"x")
    bench.stabilize()
    body = InstallSnapshot(
        term=1, index=1, snapshot_term=1, membership=Membership(voters=("a", "b", "c"))
    )
    bench.send("a", "b", body)
    assert [m.body for m in bench.take_messages("b")] == [
        AppendReply(term=1, accepted=True, index=2)
    ]
    assert bench["b"].offer is None


def test_offer_of_what_the_log_has_is_a_commit_and_no_fetch() -> None:
    bench = Bench(("a", "b", "c"), config=PLAIN)
    core = bench.start("a", terms=[1, 1, 1, 1], term=2)
    bench.send("b", "a", InstallSnapshot(term=2, index=3, snapshot_term=1, membership=ABC))
    (reply,) = bench.take_messages("a")
    assert reply.body == AppendReply(term=2, accepted=True, index=3)
    assert (bench["a"].offer, core.commit_index, core.last_index) == (None, 3, 4)
    bench.send("b", "a", InstallSnapshot(term=2, index=4, snapshot_term=2, membership=ABC))
    bench.ready("a")
    assert bench["a"].offer is not None  # its entry there is another one


def test_membership_inside_the_snapshot_wins() -> None:
    bench = with_compacted_leader()
    bench["a"].raft.propose_membership(Membership(voters=("a", "b"), learners=("c",)))
    bench.stabilize()
    bench.compact("a", 12)
    bench.beat("a", 3)
    bench.install_snapshot("c")
    bench.beat("a", 3)
    assert bench["c"].raft.membership == Membership(voters=("a", "b"), learners=("c",))
    assert not bench["c"].raft.status().is_voter


def test_node_that_installs_neither_campaigns_nor_appends() -> None:
    bench = with_compacted_leader()
    bench.beat("a", 3)
    assert bench["c"].offer is not None
    bench.advance(5000, "c")
    assert bench["c"].raft.role is Role.FOLLOWER
    bench.send("a", "c", Append(term=1, prev_index=1, prev_term=1, commit=1))
    assert bench.take_messages("c") == []


@pytest.mark.parametrize("fails", [True, False], ids=["fails", "installs"])
def test_entries_that_are_gone_while_the_log_is_replaced_are_no_damage(fails: bool) -> None:
    """They are to be applied and were asked for; the snapshot that comes has them, too."""
    disk = MemoryLog()
    disk.initialize(ABC)
    entries = [Entry(index, 1, EntryKind.COMMAND, b"x") for index in range(1, 11)]
    disk.append(HardState(term=1, commit=8), None, entries)
    state = disk.load(3, tail_bytes_max=1)
    core = RaftCore(
        node_id="a", config=PLAIN, state=state, applied=3, rng=random.Random(1), now_ms=0
    )
    (need,) = core.ready().needs
    assert (need.peer, need.from_index) == ("a", 4)
    offer = InstallSnapshot(term=1, index=50, snapshot_term=1, membership=ABC)
    core.step(RaftMessage(sender="b", to="a", body=offer))
    assert core.ready().snapshot is not None
    core.entries_loaded("a", 4, ())
    if fails:
        core.snapshot_failed()
        assert core.ready().needs == (need,)
    else:
        core.snapshot_installed(SnapshotMark(index=50, term=1, membership=ABC))
        assert core.ready().needs == ()
        assert core.applied_index == 50
