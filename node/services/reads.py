"""The gate of every linearizable read: who may answer from the own store, and when.

Fast way: this node leads, its lease holds, and it has applied an entry of its own term before
(then everything ever acknowledged is applied here, because the acknowledgement comes after
applying). Nothing is awaited but the store; the lease is judged again when the answer leaves.
Otherwise: a read barrier (one round shared by all waiting reads), then the store (Raft thesis 6.4).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from astra.errors import NotLeader
from astra.ports import MetadataStore, MetadataView
from node.services.ports import Consensus

T = TypeVar("T")

BARRIER_TIMEOUT_S: Final = 3.0


class Reads:
    def __init__(self, consensus: Consensus, store: MetadataStore) -> None:
        self._consensus = consensus
        self._store = store
        self._proven_term = -1  # a barrier succeeded in this term, while we led

    def lease_holds(self) -> bool:
        """True: the own applied state, now, contains everything acknowledged."""
        consensus = self._consensus
        return consensus.term == self._proven_term and consensus.lease_valid_now()

    def require_leader(self) -> None:
        """Raises NotLeader with the node that does lead."""
        if not self._consensus.is_leader:
            raise NotLeader(self._consensus.leader)

    async def barrier(self) -> int:
        """After it, the own store answers for this moment. Leaders only (NotLeader)."""
        self.require_leader()
        term = self._consensus.term
        index = await self._consensus.read_barrier(BARRIER_TIMEOUT_S)
        if self._consensus.is_leader and self._consensus.term == term:
            self._proven_term = term
        return index

    async def read(self, body: Callable[[MetadataView], Awaitable[T]], *, scans: bool = False) -> T:
        """`body` on a state that contains every write acknowledged before this call. Raises
        NotLeader, DeadlineExceeded, StoreError, and what `body` raises."""
        self.require_leader()
        if self.lease_holds():
            try:
                answer = await self._store.read(body, long=scans)
            except Exception:
                if self.lease_holds():  # a refusal is an answer too
                    raise
            else:
                if self.lease_holds():
                    return answer
        await self.barrier()
        return await self._store.read(body, long=scans)
