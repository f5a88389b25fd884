"""A log that was replaced by a snapshot, seen by leaders of older terms."""

import random

from astra.wire import Append, AppendReply, Entry, EntryKind, Membership, RaftMessage
from node.raft.config import RaftConfig
from node.raft.core import RaftCore
from node.raft.memory import MemoryLog
from node.raft.types import SnapshotMark

MEMBERS = Membership(voters=("a", "b", "c"))


def test_leader_of_an_older_term_is_refused_right_after_an_install() -> None:
    """The node was empty, has the state of term 5, and has heard of no term yet. An acknowledgement
    would commit what the old leader has at these indexes."""
    log = MemoryLog()
    log.initialize(Membership(voters=()))
    log.install(SnapshotMark(index=100, term=5, membership=MEMBERS))
    core = RaftCore(
        node_id="a",
        config=RaftConfig(),
        state=log.load(100, 1 << 20),
        applied=100,
        rng=random.Random(1),
        now_ms=0,
    )
    entry = Entry(91, 3, EntryKind.COMMAND, b"of another history")
    body = Append(term=3, prev_index=90, prev_term=3, commit=90, entries=(entry,))
    core.step(RaftMessage(sender="b", to="a", body=body))
    ready = core.ready()
    answers = [message.body for message in (*ready.messages, *ready.messages_after_persist)]
    assert answers == [AppendReply(term=5, accepted=False, index=0)]
