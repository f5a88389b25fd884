"""What may be read of a Raft driver from outside, before and after its start.

Rules: reads only; nothing here waits.
"""

from __future__ import annotations

from astra.errors import Unavailable
from astra.wire import Membership
from node.raft.core import RaftCore
from node.raft.slowness import RecentTimes
from node.raft.types import RaftStatus, Role


class DriverView:
    """The reading half of RaftDriver."""

    def __init__(self) -> None:
        self._core: RaftCore | None = None
        self._is_dead = False
        self.durable_term = 0  # never lower after a restart
        self.write_ms = RecentTimes()  # of the own log: one durable transaction each

    def committed(self) -> tuple[int, Membership]:
        """The commit index, and who was in the group there. Raises Unavailable before start."""
        if self._core is None:
            raise Unavailable("this node is starting")
        return self._core.commit_index, self._core.committed_membership

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
