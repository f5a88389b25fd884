"""What the roles of one Raft node share: identity, term, log, and what waits to go out.

Rules: pure. Only core.py and leader.py use this; nobody outside holds it.
"""

from __future__ import annotations

from astra.wire import RaftMessage, RaftMessageBody
from node.raft.config import RaftConfig
from node.raft.log import RaftLog
from node.raft.types import NeedEntries, RaftState, ReadState


class NodeState:
    __slots__ = (
        "after_persist",
        "config",
        "group",
        "log",
        "messages",
        "needs",
        "node_id",
        "now_ms",
        "read_states",
        "term",
        "voted_for",
    )

    def __init__(
        self,
        *,
        node_id: str,
        group: int,
        config: RaftConfig,
        state: RaftState,
        applied: int,
        now_ms: int,
    ) -> None:
        self.node_id = node_id
        self.group = group
        self.config = config
        self.log = RaftLog(state, applied=applied, memory_bytes_max=config.memory_bytes_max)
        self.term = state.hard_state.term
        self.voted_for = state.hard_state.voted_for
        self.now_ms = now_ms
        self.messages: list[RaftMessage] = []
        self.after_persist: list[RaftMessage] = []
        self.read_states: list[ReadState] = []
        self.needs: list[NeedEntries] = []

    def send(self, to: str, body: RaftMessageBody) -> None:
        """For messages that promise nothing about this node's disk."""
        self.messages.append(RaftMessage(group=self.group, sender=self.node_id, to=to, body=body))

    def send_after_persist(self, to: str, body: RaftMessageBody) -> None:
        """For promises (votes, acknowledgements): they leave once all writes so far are durable."""
        self.after_persist.append(
            RaftMessage(group=self.group, sender=self.node_id, to=to, body=body)
        )
