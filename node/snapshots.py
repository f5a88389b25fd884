"""The whole metadata from one node to another: for a voter or learner that is too far behind.

The index in SnapshotHead is exactly that of the export: applying is held for the moment in
which the export takes its snapshot of the database, and goes on while the bytes flow.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final

from astra.errors import Unavailable, WireError, invariant
from astra.log import get_logger
from astra.net import BulkStream, Dialer, Peer
from astra.ports import MetadataStore
from astra.wire import BlobEnd, FetchSnapshot, SnapshotHead, SnapshotPiece
from node.applier import Applier
from node.membership import ClusterMap
from node.raft.types import SnapshotMark, SnapshotOffer

_PIECE_TIMEOUT_S: Final = 10.0  # a dead source holds up this node, and maybe its group

_log = get_logger("snapshot")


class SnapshotSource:
    """Serves FetchSnapshot. One at a time: an export is heavy."""

    def __init__(
        self,
        *,
        store: MetadataStore,
        applier: Applier,
        mark_at: Callable[[int], SnapshotMark],
        level_with: Callable[[int], Awaitable[None]],
    ) -> None:
        """`level_with` returns when the Raft core knows, too, that an index is applied."""
        self._store = store
        self._applier = applier
        self._mark_at = mark_at
        self._level_with = level_with
        self._is_serving = False

    async def serve(self, peer: Peer, request: FetchSnapshot, stream: BulkStream) -> None:
        """SnapshotHead, SnapshotPiece frames, BlobEnd with the total size."""
        if peer.role != "node":
            raise WireError("only nodes may fetch the metadata")
        if self._is_serving:
            raise Unavailable("a snapshot is being sent already")
        self._is_serving = True
        try:
            await self._send(stream)
        finally:
            self._is_serving = False
        _log.info("snapshot sent", to=peer.peer_id)

    async def _send(self, stream: BulkStream) -> None:
        pieces = self._store.export()
        async with self._applier.paused() as index:
            await self._level_with(index)
            mark = self._mark_at(index)
            first = await anext(pieces)
        await stream.send(
            SnapshotHead(index=mark.index, term=mark.term, membership=mark.membership)
        )
        await stream.send(SnapshotPiece(), first)
        total = len(first)
        async for piece in pieces:
            await stream.send(SnapshotPiece(), piece)
            total += len(piece)
        await stream.send(BlobEnd(size=total))


class SnapshotInstaller:
    """Implements node.raft.driver.Snapshots; learners use `fetch` directly."""

    def __init__(
        self, *, store: MetadataStore, applier: Applier, dialer: Dialer, cluster: ClusterMap
    ) -> None:
        self._store = store
        self._applier = applier
        self._dialer = dialer
        self._cluster = cluster

    async def install(
        self, offer: SnapshotOffer, prepare: Callable[[SnapshotMark], Awaitable[None]]
    ) -> SnapshotMark:
        """See node.raft.driver.Snapshots."""
        address = self._cluster.address_of(offer.leader)
        if address is None:
            raise Unavailable(f"the address of {offer.leader} is not known")
        return await self.fetch(address, offer.mark.index, prepare)

    async def fetch(
        self,
        address: str,
        index_min: int,
        prepare: Callable[[SnapshotMark], Awaitable[None]] | None = None,
    ) -> SnapshotMark:
        """Replaces the own state by that of the node at `address`, atomically and durably."""
        stream = await self._dialer.bulk(address)
        try:
            mark = await self._replace(stream, index_min, prepare)
        except BaseException:
            stream.abort()
            raise
        await stream.release()
        _log.info("snapshot installed", index=mark.index, source=address)
        return mark

    async def _replace(
        self,
        stream: BulkStream,
        index_min: int,
        prepare: Callable[[SnapshotMark], Awaitable[None]] | None,
    ) -> SnapshotMark:
        await stream.send(FetchSnapshot())
        head, _ = await stream.receive(timeout_s=_PIECE_TIMEOUT_S)
        if not isinstance(head, SnapshotHead):
            raise WireError("the peer did not send a snapshot")
        if head.index < index_min:
            raise Unavailable("the peer's snapshot is older than what was offered")
        mark = SnapshotMark(index=head.index, term=head.term, membership=head.membership)
        if prepare is not None:
            await prepare(mark)
        index = await self._store.replace(_receive_pieces(stream))
        invariant(index == mark.index, f"snapshot head says {mark.index}, export says {index}")
        await self._store.flush()
        self._applier.replaced(mark.index, mark.term)
        return mark


async def _receive_pieces(stream: BulkStream) -> AsyncIterator[bytes]:
    total = 0
    while True:
        message, payload = await stream.receive(timeout_s=_PIECE_TIMEOUT_S)
        if isinstance(message, BlobEnd):
            if message.size != total:
                raise WireError("the snapshot is not complete")
            return
        if not isinstance(message, SnapshotPiece):
            raise WireError("the peer broke off the snapshot")
        total += len(payload)
        yield bytes(payload)
