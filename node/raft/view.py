"""What may be read of a Raft core from outside, without changing anything.

Rules: pure; properties and snapshots of values only.
"""

from __future__ import annotations

from astra.wire import LogEnd, Membership
from node.raft.leader import Leadership
from node.raft.quorum import voters_of
from node.raft.state import NodeState
from node.raft.types import RaftStatus, Role, SnapshotMark


class CoreView:
    """The reading half of RaftCore."""

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._log = node.log
        self.role = Role.FOLLOWER
        self.leader_id: str | None = None
        self._leadership: Leadership | None = None

    @property
    def node_id(self) -> str:
        return self._node.node_id

    @property
    def term(self) -> int:
        return self._node.term

    @property
    def commit_index(self) -> int:
        return self._log.commit

    @property
    def applied_index(self) -> int:
        return self._log.applied

    @property
    def last_index(self) -> int:
        return self._log.last_index

    @property
    def first_index(self) -> int:
        """The first entry of the log; those before are compacted."""
        return self._log.mark.index + 1

    @property
    def transfer_to(self) -> str | None:
        """To whom this leader is handing over."""
        return self._leadership.transfer_to if self._leadership is not None else None

    @property
    def membership(self) -> Membership:
        return self._log.membership

    @property
    def committed_membership(self) -> Membership:
        """As of `commit_index`; the newest one may not be committed yet."""
        return self._log.membership_at(self._log.commit)

    def log_end(self) -> LogEnd:
        log = self._log
        return LogEnd(term=log.last_term, index=log.last_index, membership=log.membership)

    def mark_at(self, index: int) -> SnapshotMark:
        """The mark for an applied index at or above the current mark."""
        return self._log.mark_at(index)

    def successor(self) -> str | None:
        """The voter that would lead best after us; None unless we lead and one is alive."""
        return self._leadership.successor() if self._leadership is not None else None

    def lease_valid(self, now_ms: int) -> bool:
        """Whether this node may answer reads alone at `now_ms`, a fresh monotonic reading."""
        return self._leadership is not None and self._leadership.lease_valid(now_ms)

    def status(self) -> RaftStatus:
        leadership = self._leadership
        return RaftStatus(
            node_id=self._node.node_id,
            role=self.role,
            is_voter=self._node.node_id in voters_of(self._log.membership),
            leader=self.leader_id,
            term=self._node.term,
            commit=self._log.commit,
            applied=self._log.applied,
            first_index=self._log.mark.index + 1,
            last_index=self._log.last_index,
            membership=self._log.membership,
            peers=leadership.peer_status() if leadership is not None else {},
        )
