"""The holder: takes blobs in, gives them out, says what it has.

Rules: every chunk is checked against the checksum the sender computed, by the store on the way
in and out; `BlobStored` only after the blob is durable; at most `streams_max` exchanges at
once, each holding a handful of chunks, and TCP slows the sender. A copy that turns out bad or
missing is reported to the leader, who has it repaired (repair.py).
"""

from __future__ import annotations

import math
import time
from typing import Final

from astra.constants import CHUNK_SIZE, KIB, MIB
from astra.errors import (
    BadChunk,
    BlobNotFound,
    Overloaded,
    RefusalCode,
    Refused,
    StoreError,
    WireError,
)
from astra.net import BulkStream, Peer
from astra.wire import (
    BlobEnd,
    BlobPiece,
    BlobRead,
    BlobsHeld,
    BlobStored,
    BlobWrite,
    CheckBlobs,
    ReportBadBlob,
)
from node.apply.blobs import is_blob_id
from node.chunkstore.executor import AsyncBlobReader, AsyncBlobWriter, AsyncChunkStore
from node.chunkstore.ports import READ_BATCH_CHUNKS_MAX, VerifiedChunk
from node.services.ports import LeaderLink

CHECKED_IDS_MAX: Final = 10_000
_PIECE_TIMEOUT_S: Final = 300.0  # a slow client fills a chunk slowly; a dead one closes the socket
_SPEED_WEIGHT: Final = 0.1
_SPEED_KEPT_S: Final = 30.0


class SpeedMeter:
    """Moving average of what the disk gives, in MiB/s. What was measured long ago is forgotten:
    a node that was slow once, and is passed over since, must get another chance."""

    def __init__(self) -> None:
        self._average = 0.0
        self._measured_at = -math.inf

    def mib_per_s(self, now_s: float) -> float:
        """0: nothing was measured lately."""
        return self._average if now_s - self._measured_at < _SPEED_KEPT_S else 0.0

    def note(self, *, size: int, seconds: float, now_s: float) -> None:
        if size < 64 * KIB or seconds <= 0:
            return  # small reads measure the hop, not the disk
        sample = size / MIB / seconds
        old = self.mib_per_s(now_s)
        self._average = old + _SPEED_WEIGHT * (sample - old) if old else sample
        self._measured_at = now_s


class BlobService:
    def __init__(
        self, *, node_id: str, chunks: AsyncChunkStore, leader: LeaderLink, streams_max: int
    ) -> None:
        self._node_id = node_id
        self._chunks = chunks
        self._leader = leader
        self._streams_max = streams_max
        self.streams = 0
        self.speed = SpeedMeter()
        self.blob_count = 0  # about; counted anew by each sweep

    # --- in ---

    async def write(self, peer: Peer, request: BlobWrite, stream: BulkStream) -> None:
        """BlobPiece frames, BlobEnd; then BlobStored. Anything else leaves nothing behind."""
        check_blob_id(request.blob_id)
        with self._stream_slot():
            writer = await self._chunks.create(request.blob_id)
            try:
                size = await self._take_pieces(writer, stream)
                stored = await writer.finish()
            except BaseException:
                await writer.abort()
                raise
            if stored.size != size:
                raise StoreError(f"blob {request.blob_id} was stored with another size")
            self.blob_count += 1
            await stream.send(BlobStored(size=size))

    async def _take_pieces(self, writer: AsyncBlobWriter, stream: BulkStream) -> int:
        size = 0
        while True:
            message, payload = await stream.receive(timeout_s=_PIECE_TIMEOUT_S)
            if isinstance(message, BlobEnd):
                if message.size != size:
                    raise Refused(RefusalCode.SIZE_MISMATCH, f"{size} of {message.size} bytes came")
                return size
            if not isinstance(message, BlobPiece) or not payload:
                raise WireError("a blob is sent as BlobPiece frames and one BlobEnd")
            await writer.append(payload, stream.last_payload_crc)
            size += len(payload)

    # --- out ---

    async def read(self, peer: Peer, request: BlobRead, stream: BulkStream) -> None:
        """Exactly the bytes asked for in pieces cut at chunk borders, or a Failure."""
        check_blob_id(request.blob_id)
        with self._stream_slot():
            try:
                async with await self._chunks.open(request.blob_id) as reader:
                    await self._send_range(reader, request, stream)
            except (BadChunk, BlobNotFound):
                self._report_bad(request.blob_id)
                raise
        await stream.send(BlobEnd(size=request.length))

    async def _send_range(
        self, reader: AsyncBlobReader, request: BlobRead, stream: BulkStream
    ) -> None:
        offset, end = request.offset, request.offset + request.length
        if offset < 0 or request.length < 0 or end > reader.size:
            raise Refused(RefusalCode.INVALID_ARGUMENT, "the range is not inside the blob")
        last = -(-end // CHUNK_SIZE)
        while offset < end:
            first = offset // CHUNK_SIZE
            for chunk in await self._read_batch(reader, first, last - first):
                await _send_piece(stream, chunk, start=offset, end=end)
                offset = min(end, (chunk.index + 1) * CHUNK_SIZE)

    async def _read_batch(
        self, reader: AsyncBlobReader, first: int, count: int
    ) -> list[VerifiedChunk]:
        started = time.monotonic()
        batch = await reader.read_batch(first, min(count, READ_BATCH_CHUNKS_MAX))
        size, now = sum(len(chunk.data) for chunk in batch), time.monotonic()
        self.speed.note(size=size, seconds=now - started, now_s=now)
        return list(batch)

    async def check(self, request: CheckBlobs) -> BlobsHeld:
        """Which of these are here whole, by their footers (bytes are verified when read)."""
        if len(request.blob_ids) > CHECKED_IDS_MAX:
            raise Refused(RefusalCode.INVALID_ARGUMENT, f"at most {CHECKED_IDS_MAX} ids")
        held = [blob_id for blob_id in request.blob_ids if await self._holds(blob_id)]
        return BlobsHeld(blob_ids=tuple(held))

    async def _holds(self, blob_id: str) -> bool:
        check_blob_id(blob_id)
        try:
            await (await self._chunks.open(blob_id)).close()
        except (BlobNotFound, BadChunk):
            return False
        return True

    def _report_bad(self, blob_id: str) -> None:
        self._leader.tell(ReportBadBlob(blob_id=blob_id, node_id=self._node_id))

    def _stream_slot(self) -> _StreamSlot:
        if self.streams >= self._streams_max:
            raise Overloaded(f"{self._streams_max} blobs are being read and written")
        return _StreamSlot(self)


class _StreamSlot:
    """Counts one exchange while it lasts."""

    def __init__(self, service: BlobService) -> None:
        self._service = service

    def __enter__(self) -> None:
        self._service.streams += 1

    def __exit__(self, *exc: object) -> None:
        self._service.streams -= 1


async def _send_piece(stream: BulkStream, chunk: VerifiedChunk, *, start: int, end: int) -> None:
    at = chunk.index * CHUNK_SIZE
    low, high = max(start - at, 0), min(end - at, len(chunk.data))
    if low == 0 and high == len(chunk.data):
        await stream.send(BlobPiece(), chunk.data, chunk.crc)
    else:
        await stream.send(BlobPiece(), chunk.data[low:high])


def check_blob_id(blob_id: str) -> None:
    """Raises Refused for what cannot be a blob id: it would name a file."""
    if not is_blob_id(blob_id):
        raise Refused(RefusalCode.INVALID_ARGUMENT, "not a blob id")
