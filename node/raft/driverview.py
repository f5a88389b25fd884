"""What may be read of a Raft driver from outside, before and after its start.

Rules: reads only; nothing here waits.
"""

from __future__ import annotations

from astra.errors import Unavailable
from astra.wire import LogEnd, Membership
from node.raft.core import RaftCore
from node.raft.slowness import RecentTimes
from node.raft.types import RaftStatus, Role, SnapshotMark


class DriverView:
    """The reading half of RaftDriver."""

    def __init__(self) -> None:
        self._core: RaftCore | None = None
        self._accepts = False
        self._is_dead = False
        self.durable_term = 0  # never lower after a restart
        self.write_ms = RecentTimes()  # of the own log: one durable transaction each

    def committed(self) -> tuple[int, Membership]:
        """The commit index, and who was in the group there. Raises Unavailable before start."""
        if self._core is None:
            raise Unavailable("this node is starting")
        return self._core.commit_index, self._core.committed_membership

    def log_end(self) -> LogEnd:
        """Of the log in memory. Raises Unavailable before start."""
        if self._core is None:
            raise Unavailable("this node is starting")
        return self._core.log_end()

    def status(self) -> RaftStatus:
        """Raises Unavailable before start."""
        if self._core is None:
            raise Unavailable("this node is starting")
        return self._core.status()

    @property
    def is_leader(self) -> bool:
        core = self._core
        return core is not None and core.role is Role.LEADER and not self._is_dead

    @property
    def leader(self) -> str | None:
        return self._core.leader_id if self._core is not None else None

    @property
    def term(self) -> int:
        return self._core.term if self._core is not None else 0

    @property
    def commit_index(self) -> int:
        return self._core.commit_index if self._core is not None else 0

    @property
    def applied_index(self) -> int:
        return self._core.applied_index if self._core is not None else 0

    def mark_at(self, index: int) -> SnapshotMark:
        """The mark for an applied index, to be sent as SnapshotHead with an export. Raises
        Unavailable when the log has been compacted past it."""
        core = self._running()
        if index < core.first_index - 1:
            raise Unavailable(f"the log before {core.first_index} is compacted")
        return core.mark_at(index)

    def _running(self) -> RaftCore:
        if self._core is None or not self._accepts:
            raise Unavailable("this node is starting or stopping")
        return self._core
