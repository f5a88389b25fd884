"""What the services need of the rest of the node. Protocols and values only."""

from __future__ import annotations

from typing import Protocol

from astra.commands import Result
from astra.wire import Message


class Consensus(Protocol):
    """The Raft driver, as the services see it; followers.py implements it for learners."""

    async def propose(self, data: bytes, timeout_s: float = 10.0) -> object:
        """See RaftDriver.propose. The result is an `Applied`."""
        ...

    async def read_barrier(self, timeout_s: float = 5.0) -> int:
        """See RaftDriver.read_barrier."""
        ...

    def lease_valid_now(self) -> bool:
        """See RaftDriver.lease_valid_now."""
        ...

    @property
    def is_leader(self) -> bool: ...

    @property
    def leader(self) -> str | None: ...

    @property
    def term(self) -> int: ...

    @property
    def applied_index(self) -> int: ...

    @property
    def commit_index(self) -> int:
        """Of a leader: no node has applied more of what it, or a leader before it, committed."""
        ...


class Applied:
    """What applying one entry gave: the index it has, and the command's result."""

    __slots__ = ("index", "result")

    def __init__(self, index: int, result: Result) -> None:
        self.index = index
        self.result = result


class LeaderLink(Protocol):
    """How a node talks to whoever leads."""

    def tell(self, message: Message) -> None:
        """One way, may be lost; to this node itself when it leads."""
        ...

    async def ask(self, message: Message, *, timeout_s: float) -> Message:
        """Raises as ControlClient.call, and NotLeader when nobody is known to lead."""
        ...
