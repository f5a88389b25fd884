"""Upload: where new blobs go, and the commands that make uploaded bytes an object or a part.

Placement reads the bucket (and the upload) linearizably, so that a client is refused before it
sends a byte. The blobs may be committed for a day; what never is gets swept (garbage.py).
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from astra.commands import NewBlob, PutObject, PutPart
from astra.constants import INLINE_BYTES_MAX, OBJECT_SIZE_MAX, REPLICAS, WRITE_QUORUM
from astra.errors import RefusalCode, Refused, Unavailable
from astra.model import CLOCK_MS, MARKS, UPLOADS, Upload
from astra.placement import place_blob
from astra.ports import Clock, MetadataView, Random
from astra.wire import Commit, Committed, PlaceBlobs, Placed, Placement
from node.lookup import admit
from node.membership import ClusterMap
from node.services.blobs import check_blob_id
from node.services.commit import Committer
from node.services.reads import Reads
from node.services.repair import RepairQueue

PLACED_AT_ONCE_MAX: Final = 64


class UploadService:
    def __init__(
        self,
        *,
        reads: Reads,
        committer: Committer,
        cluster: ClusterMap,
        repairs: RepairQueue,
        clock: Clock,
        rng: Random,
    ) -> None:
        self._reads = reads
        self._committer = committer
        self._cluster = cluster
        self._repairs = repairs
        self._clock = clock
        self._rng = rng

    async def place(self, request: PlaceBlobs) -> Placed:
        """Raises Refused (NO_SUCH_BUCKET, NO_SUCH_UPLOAD, STALE_EPOCH), Unavailable."""
        if not 0 < request.count <= PLACED_AT_ONCE_MAX or not 0 <= request.size <= OBJECT_SIZE_MAX:
            raise Refused(RefusalCode.INVALID_ARGUMENT, "blob count or size is out of bounds")
        upload, clock_ms = await self._reads.read(lambda view: _check_target(view, request))
        # The cluster's clock never goes back; this machine's may have jumped.
        now_ms = max(self._clock.wall_ms(), clock_ms)
        placements = tuple(self._place_one(request.size, now_ms) for _ in range(request.count))
        quorum = min(WRITE_QUORUM, min(len(place.holders) for place in placements))
        return Placed(placements=placements, quorum=quorum, upload=upload)

    def _place_one(self, size: int, now_ms: int) -> Placement:
        blob_id = f"{now_ms:012x}{self._rng.randbytes(10).hex()}"
        holders = self._choose_holders(size)
        if not holders:
            raise Unavailable("no node has room for the blob")
        return Placement(blob_id=blob_id, holders=self._cluster.refs(holders))

    def _choose_holders(self, size: int) -> tuple[str, ...]:
        """Draining nodes only where a write would have to be refused without them: what they get
        moves off them again when the others are back."""
        own_id, staying = self._cluster.node_id, self._cluster.placeable_reports()
        holders = place_blob(staying, own_id, size)
        if len(holders) >= WRITE_QUORUM:
            return holders
        leaving = [each for each in self._cluster.live_reports() if each not in staying]
        return holders + place_blob(leaving, own_id, size, count=WRITE_QUORUM - len(holders))

    async def commit(self, request: Commit) -> Committed:
        """PutObject, PutPart and the other upload commands; see Committer.commit."""
        command = request.command
        blob = command.blob if isinstance(command, PutObject | PutPart) else None
        if blob is not None and isinstance(command, PutObject | PutPart):
            blob = self._checked(blob)
            request = replace(request, command=replace(command, blob=blob))
        committed = await self._committer.commit(request)
        if blob is not None and blob.data is None and len(blob.holders) < REPLICAS:
            self._repairs.note_missing_copy(blob.blob_id)
        return committed

    def _checked(self, blob: NewBlob) -> NewBlob:
        """The blob, without holders that were removed while the client was sending: what they hold
        is lost with them, and the repair makes other copies."""
        check_blob_id(blob.blob_id)
        if blob.data is not None:
            if len(blob.data) != blob.size or blob.size > INLINE_BYTES_MAX or blob.holders:
                raise Refused(RefusalCode.SIZE_MISMATCH, "the inline blob is not what it says")
            return blob
        if len(set(blob.holders)) != len(blob.holders):
            raise Refused(RefusalCode.INVALID_ARGUMENT, "holders must be different nodes")
        holders = tuple(holder for holder in blob.holders if self._cluster.is_member(holder))
        live = len(self._cluster.live_reports())
        if len(holders) < min(WRITE_QUORUM, max(live, 1)):
            raise Unavailable("too few holders have the blob")
        return blob if holders == blob.holders else replace(blob, holders=holders)


async def _check_target(view: MetadataView, request: PlaceBlobs) -> tuple[Upload | None, int]:
    """The upload that is named, and the cluster's clock."""
    await admit(view, request.bucket, request.epochs)
    clock = await view.get(MARKS, (CLOCK_MS,))
    clock_ms = 0 if clock is None else clock.value
    if request.upload_id is None:
        return None, clock_ms
    place = (request.bucket.encode(), request.key, request.upload_id)
    upload = await view.get(UPLOADS, place)
    if upload is None:
        raise Refused(RefusalCode.NO_SUCH_UPLOAD)
    return upload, clock_ms
