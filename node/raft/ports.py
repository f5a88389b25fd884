"""What the driver needs from its node: a network, a state machine, a source of snapshots.

Rules: no implementation. The storage seam is storage.py.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from astra.wire import Entry, RaftMessage
from node.raft.types import SnapshotMark, SnapshotOffer

# Must not block; may drop. Called with messages for other nodes only.
Send = Callable[[RaftMessage], None]

# Committed entries in order, to one result each. Stores the applied index in the same transaction.
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
