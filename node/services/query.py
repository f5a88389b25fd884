"""Query: HEAD and LIST. The cache first, then the own store, then the other nodes.

All three answer as of now: the cache under the lease and the witness, the store behind the read
gate, the others by having applied at least the index of a read barrier (broadcast query: the
leader's database fails, its peers have the same tables; the first good answer wins).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from astra.errors import AstraError, Fatal, Refused, StoreError, Unavailable
from astra.log import get_logger
from astra.net import Dialer
from astra.ports import MetadataView
from astra.wire import (
    ListObjects,
    ListVersions,
    Located,
    Message,
    ObjectPage,
    PeerQuery,
    VersionPage,
)
from node.applier import Applier
from node.listing import list_objects, list_versions
from node.lookup import locate
from node.membership import ClusterMap
from node.services.ports import Consensus
from node.services.querycache import Answer, Query, QueryCache
from node.services.reads import Reads

_PEER_TIMEOUT_S: Final = 3.0
_CATCH_UP_TIMEOUT_S: Final = 2.0

_log = get_logger("query")


class QueryService:
    def __init__(
        self,
        *,
        consensus: Consensus,
        reads: Reads,
        cache: QueryCache,
        applier: Applier,
        cluster: ClusterMap,
        dialer: Dialer,
        read_here: Callable[[Query], Awaitable[Answer]],
    ) -> None:
        """`read_here` asks the own store, whatever it has applied."""
        self._consensus = consensus
        self._reads = reads
        self._cache = cache
        self._applier = applier
        self._cluster = cluster
        self._dialer = dialer
        self._read_here = read_here

    async def answer(self, query: Query) -> Answer:
        """Linearizable. Raises Refused, NotLeader, Unavailable, DeadlineExceeded."""
        self._reads.require_leader()
        cached = await self._from_cache(query)
        if cached is not None:
            return cached
        term, index = self._consensus.term, self._applier.applied_index
        try:
            answer = await self._reads.read(answer_from(query), scans=is_scan(query))
        except Fatal:
            raise
        except (StoreError, Unavailable) as error:
            _log.warning("the own store fails: asking the others", reason=str(error))
            return await self._ask_others(query)
        await self._cache.fill(query, term, index=index, answer=answer)
        return answer

    async def _from_cache(self, query: Query) -> Answer | None:
        if not self._reads.lease_holds():
            return None
        term = self._consensus.term
        cached = await self._cache.find(query, term)
        # The lease is judged now, when the answer leaves; the term may have passed meanwhile.
        if self._reads.lease_holds() and self._consensus.term == term:
            return cached
        return None

    # --- the broadcast query ---

    async def _ask_others(self, query: Query) -> Answer:
        term = self._consensus.term
        message = PeerQuery(applied_index=await self._reads.barrier(), query=query)
        me = self._cluster.node_id
        others = [node_id for node_id in self._cluster.node_ids() if node_id != me]
        asking = {
            asyncio.create_task(self._ask(ref.address, message))
            for ref in self._cluster.refs(others)
        }
        try:
            answer = await _first_good(asking)
        except Refused:
            await self._reads.shown_by_a_peer(term)
            raise
        else:
            await self._reads.shown_by_a_peer(term)
            return answer
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, address: str, message: PeerQuery) -> Answer:
        answer: Message = await self._dialer.control(address).call(
            message, timeout_s=_PEER_TIMEOUT_S
        )
        if isinstance(answer, Located | ObjectPage | VersionPage):
            return answer
        raise Unavailable("a peer gave another answer than was asked for")

    async def answer_peer(self, request: PeerQuery) -> Answer:
        """For a leader whose store fails. Raises Unavailable when this node is behind."""
        await self._applier.wait_for(request.applied_index, _CATCH_UP_TIMEOUT_S)
        return await self._read_here(request.query)


async def _first_good(asking: set[asyncio.Task[Answer]]) -> Answer:
    """The first answer or refusal; Unavailable when everybody failed."""
    pending = asking
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            try:
                return task.result()
            except Refused:
                raise  # what the tables say
            except AstraError:
                continue
    raise Unavailable("this node's store fails and no other node could answer")


def is_scan(query: Query) -> bool:
    return isinstance(query, ListObjects | ListVersions)


def answer_from(query: Query) -> Callable[[MetadataView], Awaitable[Answer]]:
    """The read that answers `query` from one view."""

    async def read(view: MetadataView) -> Answer:
        match query:
            case ListObjects():
                return await list_objects(view, query)
            case ListVersions():
                return await list_versions(view, query)
            case _:
                return (await locate(view, query)).located

    return read
