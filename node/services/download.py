"""Download: one version, its small bytes, and the holders of the rest, fastest first."""

from __future__ import annotations

from msgspec.structs import replace

from astra.placement import rank_holders
from astra.ports import MetadataView
from astra.wire import BlobPlace, Locate, Located
from node.lookup import HeldBlob, Location, locate
from node.membership import ClusterMap
from node.services.reads import Reads


class DownloadService:
    def __init__(self, *, reads: Reads, cluster: ClusterMap) -> None:
        self._reads = reads
        self._cluster = cluster
        self._turn = 0

    async def locate(self, request: Locate) -> Located:
        """Linearizable. Raises Refused (NO_SUCH_BUCKET, NO_SUCH_KEY, NO_SUCH_VERSION,
        STALE_EPOCH), NotLeader."""

        async def read(view: MetadataView) -> Location:
            return await locate(view, request)

        location = await self._reads.read(read)
        if not location.blobs:
            return location.located
        return replace(location.located, places=self._rank(location.blobs))

    def _rank(self, blobs: tuple[HeldBlob, ...]) -> tuple[BlobPlace, ...]:
        reports = self._cluster.live_reports()
        self._turn += 1
        return tuple(
            BlobPlace(
                blob_id=blob.blob_id,
                size=blob.size,
                holders=self._cluster.refs(rank_holders(blob.holders, reports, turn=self._turn)),
            )
            for blob in blobs
        )
