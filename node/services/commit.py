"""The way of every change: stamp, propose, invalidate, answer.

Guarantee: `Committed` leaves only after the command is durable on a majority of voters, applied
here, and every cached answer it makes stale is recognised as such. (The witness is touched while
applying, which is what makes stale entries misses; the delete here only frees them early.)
"""

from __future__ import annotations

from typing import Final

from astra.commands import Proposal, encode_proposal
from astra.constants import PROPOSAL_BYTES_MAX
from astra.errors import InvariantBroken, RefusalCode, Refused
from astra.ports import Clock, Random
from astra.wire import Commit, Committed
from node.services.ports import Applied, Consensus
from node.services.querycache import QueryCache
from node.services.reads import Reads

COMMIT_TIMEOUT_S: Final = 10.0
_SALT_BYTES: Final = 8
_REQUEST_ID_MAX: Final = 128


class Committer:
    def __init__(
        self,
        *,
        consensus: Consensus,
        reads: Reads,
        query_cache: QueryCache,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._consensus = consensus
        self._reads = reads
        self._query_cache = query_cache
        self._clock = clock
        self._rng = rng

    async def commit(self, request: Commit) -> Committed:
        """Exactly once per request id. Raises NotLeader, Overloaded (nothing happened),
        OutcomeUnknown (repeat with the same id), Refused (too large)."""
        self._reads.require_leader()
        data = self._stamp(request)
        applied = await self._consensus.propose(data, COMMIT_TIMEOUT_S)
        if not isinstance(applied, Applied):
            raise InvariantBroken("a proposal was applied without a result")
        await self._query_cache.invalidate(request.command)
        return Committed(index=applied.index, result=applied.result)

    def _stamp(self, request: Commit) -> bytes:
        if not 0 < len(request.request_id) <= _REQUEST_ID_MAX:
            raise Refused(RefusalCode.INVALID_ARGUMENT, "a request id has 1 to 128 characters")
        data = encode_proposal(
            Proposal(
                request_id=request.request_id,
                time_ms=self._clock.wall_ms(),
                salt=self._rng.randbytes(_SALT_BYTES),
                command=request.command,
                access_epoch=request.epochs.access,
                bucket_epoch=request.epochs.bucket,
            )
        )
        if len(data) > PROPOSAL_BYTES_MAX:
            raise Refused(RefusalCode.INVALID_ARGUMENT, "the command is too large")
        return data
