"""The gate of every linearizable read: who may answer from the own store, and when.

Fast way: this node leads, its lease holds, and it has applied an entry of its own term before
(then everything ever acknowledged is applied here, because the acknowledgement comes after
applying). Nothing is awaited but the store; the lease is judged again when the answer leaves.
Otherwise: a read barrier (one round shared by all waiting reads), then the store (Raft thesis 6.4).

The fast way only holds while nobody shows what the leader has not applied yet. A follower may apply
an entry first; so a node that lost its leadership meanwhile answers nothing, and a leader that let
another node answer for it takes no fast way until it has applied as much (`shown_by_a_peer`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from astra.errors import NotLeader, Refused
from astra.ports import MetadataStore, MetadataView
from node.services.ports import Consensus

T = TypeVar("T")

BARRIER_TIMEOUT_S: Final = 3.0


class Reads:
    def __init__(self, consensus: Consensus, store: MetadataStore) -> None:
        self._consensus = consensus
        self._store = store
        self._proven_term = -1  # a barrier succeeded in this term, while we led
        self._shown_index = 0  # a client may have seen the state at this index

    def lease_holds(self) -> bool:
        """True: the own applied state, now, contains everything acknowledged or seen."""
        consensus = self._consensus
        is_level = consensus.applied_index >= self._shown_index
        return is_level and consensus.term == self._proven_term and consensus.lease_valid_now()

    async def shown_by_a_peer(self, term: int) -> None:
        """Before the answer of another node leaves, which was asked in `term`. It has applied what
        this leader committed, and maybe this node has not yet. Raises NotLeader when another
        leader's entries may be in it: nothing could hold that one to them."""
        if not self._consensus.lease_valid_now():
            await self.barrier()
        self._require_term(term)
        self._shown_index = max(self._shown_index, self._consensus.commit_index)

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
        term = self._consensus.term
        await self.barrier()
        try:
            answer = await self._store.read(body, long=scans)
        except Refused:
            self._require_term(term)
            raise
        self._require_term(term)
        return answer

    def _require_term(self, term: int) -> None:
        """A barrier also succeeds beside a new leader, which may have applied less."""
        self.require_leader()
        if self._consensus.term != term:
            raise NotLeader(self._consensus.leader)
