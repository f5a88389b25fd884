"""The asyncio shell around the Raft core."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from astra.ports import Clock
from astra.wire import Entry, Membership, RaftMessage
from node.raft.config import RaftConfig
from node.raft.storage import RaftStorage
from node.raft.types import RaftStatus, Rng, SnapshotMark, SnapshotOffer, SoftState

Send = Callable[[RaftMessage], None]
Apply = Callable[[Sequence[Entry]], Awaitable[Sequence[object]]]


class Snapshots(Protocol):
    """Replaces the applied state of this node by that of a leader."""

    async def install(
        self, offer: SnapshotOffer, prepare: Callable[[SnapshotMark], Awaitable[None]]
    ) -> SnapshotMark:
        """Fetches the state of `offer.leader`, calls `prepare` with its mark (at least
        offer.mark.index; durable when it returns), replaces the tables atomically and durably,
        and returns the mark. Apply is idle meanwhile. Any error: nothing was replaced (Fatal
        stops the process); the leader offers again."""
        ...


class RaftDriver:
    """One node of one Raft group. Thread: the event loop only.

    `send` must not block and may drop; it is called with messages for other nodes only.
    `apply` gets every committed entry once per process life in order (NOOP and CONFIG too) and
    returns one result per entry; it must store the applied index in the same transaction.
    `on_fatal` is called once when disk or invariant failed: the process must stop.
    `on_role` is called after each change of role, leader or term.
    """

    def __init__(
        self,
        *,
        node_id: str,
        config: RaftConfig,
        storage: RaftStorage,
        send: Send,
        apply: Apply,
        snapshots: Snapshots,
        clock: Clock,
        rng: Rng,
        on_fatal: Callable[[BaseException], None],
        on_role: Callable[[SoftState], None] | None = None,
        group: int = 0,
    ) -> None:
        raise NotImplementedError

    async def start(self, applied_index: int, bootstrap: Membership) -> None:
        """Loads the log and starts. `bootstrap` is used only by a database without a log; a node
        that is to be added later passes Membership(voters=())."""
        raise NotImplementedError

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Hands over leadership if this node leads, refuses new work, then ends all tasks."""
        raise NotImplementedError

    def receive(self, message: RaftMessage) -> None:
        """A message from a peer; never blocks. Drops when the inbox is full."""
        raise NotImplementedError

    async def propose(self, data: bytes, timeout_s: float = 10.0) -> object:
        """Durable on a majority and applied here; returns apply's result. Raises NotLeader,
        Overloaded (nothing happened), OutcomeUnknown (leadership or patience lost)."""
        raise NotImplementedError

    async def propose_membership(self, membership: Membership, timeout_s: float = 10.0) -> None:
        """One voter more or fewer (learners freely). Committed on return. Raises as propose, and
        Refused for a change that is not a single step."""
        raise NotImplementedError

    async def read_barrier(self, timeout_s: float = 5.0) -> int:
        """An applied index: local state at or after it is linearizable for reads that began
        before the call. Lease when valid, else one round shared by all waiting. On a follower
        the leader is asked. Raises NotLeader (no leader known), DeadlineExceeded."""
        raise NotImplementedError

    def lease_valid_now(self) -> bool:
        """True while no other leader can exist, by the monotonic clock read in this call. Ask
        again when the answer leaves; when False, take a new read_barrier and read again."""
        raise NotImplementedError

    async def transfer(self, to: str, timeout_s: float = 5.0) -> None:
        """Makes `to` the leader. Raises NotLeader, Refused, DeadlineExceeded (we still lead)."""
        raise NotImplementedError

    async def compact(self, flushed_index: int) -> None:
        """Drops entries that every fast follower has; `flushed_index`: an applied index that is
        itself durable. Keeps config.entries_retained behind it."""
        raise NotImplementedError

    def mark_at(self, index: int) -> SnapshotMark:
        """The mark for an applied index, to be sent as SnapshotHead with an export."""
        raise NotImplementedError

    async def read_entries(self, lo: int, hi: int, bytes_max: int) -> tuple[Entry, ...]:
        """Committed entries for learners that fetch gaps; empty: compacted, take a snapshot."""
        raise NotImplementedError

    def status(self) -> RaftStatus:
        raise NotImplementedError

    @property
    def is_leader(self) -> bool:
        raise NotImplementedError

    @property
    def leader(self) -> str | None:
        raise NotImplementedError

    @property
    def term(self) -> int:
        raise NotImplementedError

    @property
    def commit_index(self) -> int:
        raise NotImplementedError

    @property
    def applied_index(self) -> int:
        raise NotImplementedError
