"""The holder's side of a repair: make this node's copy of a blob whole again.

A copy that is there is read through first. Bad chunks are replaced one by one, a damaged footer
sends the file to quarantine and the blob is fetched whole. Bytes come from the holders the
leader names, in that order, and go through the same checks as a client's upload. What is read
and fetched is paced (throttle.py), so that clients notice little of it.
"""

from __future__ import annotations

from typing import Final

from astra.constants import CHUNK_SIZE
from astra.errors import (
    AstraError,
    BadChunk,
    BlobNotFound,
    Fatal,
    Overloaded,
    Unavailable,
    WireError,
)
from astra.log import get_logger
from astra.net import BulkStream, Dialer
from astra.wire import BlobEnd, BlobPiece, BlobRead, BlobStored, HolderRef, RepairBlob
from node.chunkstore.executor import AsyncBlobWriter, AsyncChunkStore
from node.chunkstore.ports import READ_BATCH_CHUNKS_MAX, DamagedBlob
from node.services.blobs import check_blob_id
from node.services.fence import CopyFence
from node.services.throttle import TokenBucket

_PIECE_TIMEOUT_S: Final = 10.0

_log = get_logger("repair")


class BlobRepairer:
    def __init__(
        self,
        *,
        node_id: str,
        chunks: AsyncChunkStore,
        dialer: Dialer,
        parallel_max: int,
        rate: TokenBucket,
        fence: CopyFence,
    ) -> None:
        self._node_id = node_id
        self._chunks = chunks
        self._dialer = dialer
        self._parallel_max = parallel_max
        self._rate = rate
        self._fence = fence

    async def repair(self, request: RepairBlob) -> BlobStored:
        """Durable and verified on return. Raises Overloaded, Unavailable (no source was good)."""
        check_blob_id(request.blob_id)
        if self._fence.filling >= self._parallel_max:
            raise Overloaded("enough repairs are under way here")
        with self._fence.fill(request.blob_id):
            await self._make_whole(request)
        return BlobStored(size=request.size)

    async def _make_whole(self, request: RepairBlob) -> None:
        try:
            bad = await self._find_bad_chunks(request)
        except BlobNotFound:
            await self._from_any_source(request, None)
            return
        except DamagedBlob:
            await self._chunks.quarantine(request.blob_id)
            await self._from_any_source(request, None)
            return
        for index in bad:
            await self._from_any_source(request, index)
        if bad:
            _log.info("chunks repaired", blob_id=request.blob_id, chunks=len(bad))

    async def _find_bad_chunks(self, request: RepairBlob) -> list[int]:
        bad: list[int] = []
        async with await self._chunks.open(request.blob_id) as reader:
            if reader.size != request.size:
                raise DamagedBlob(request.blob_id, "the size differs from the metadata")
            index, count = 0, len(reader.chunk_crcs)
            while index < count:
                try:
                    batch = await reader.read_batch(
                        index, min(READ_BATCH_CHUNKS_MAX, count - index)
                    )
                    index += len(batch)
                    await self._rate.take(sum(len(chunk.data) for chunk in batch))
                except BadChunk:
                    bad.append(index)
                    index += 1
        return bad

    async def _from_any_source(self, request: RepairBlob, index: int | None) -> None:
        """One chunk, or the whole blob (None), from the first source that has it good."""
        for source in request.sources:
            if source.node_id == self._node_id:
                continue
            try:
                if index is None:
                    await self._fetch_blob(request, source)
                else:
                    await self._fetch_chunk(request, source, index)
                return
            except Fatal:
                raise
            except AstraError as error:
                _log.warning(
                    "a source could not help",
                    blob_id=request.blob_id, source=source.node_id, reason=str(error),
                )  # fmt: skip
        raise Unavailable(f"no source has a good copy of blob {request.blob_id}")

    async def _fetch_blob(self, request: RepairBlob, source: HolderRef) -> None:
        stream = await self._dialer.bulk(source.address)
        try:
            writer = await self._chunks.create(request.blob_id)
            try:
                await stream.send(BlobRead(blob_id=request.blob_id, offset=0, length=request.size))
                await self._copy_pieces(stream, writer, request.size)
                await writer.finish()
            except BaseException:
                await writer.abort()
                raise
        except BaseException:
            stream.abort()
            raise
        await stream.release()

    async def _copy_pieces(self, stream: BulkStream, writer: AsyncBlobWriter, size: int) -> None:
        """A source that waits for its turn is slowed down by TCP."""
        received = 0
        while received < size:
            message, payload = await stream.receive(timeout_s=_PIECE_TIMEOUT_S)
            if not isinstance(message, BlobPiece) or not payload:
                raise WireError("the source ended too early")
            await self._rate.take(len(payload))
            await writer.append(payload, stream.last_payload_crc)
            received += len(payload)
        await _expect_end(stream)

    async def _fetch_chunk(self, request: RepairBlob, source: HolderRef, index: int) -> None:
        offset = index * CHUNK_SIZE
        length = min(CHUNK_SIZE, request.size - offset)
        stream = await self._dialer.bulk(source.address)
        try:
            await stream.send(BlobRead(blob_id=request.blob_id, offset=offset, length=length))
            message, payload = await stream.receive(timeout_s=_PIECE_TIMEOUT_S)
            if not isinstance(message, BlobPiece) or len(payload) != length:
                raise WireError("the source did not send the chunk that was asked for")
            crc = stream.last_payload_crc
            await _expect_end(stream)
        except BaseException:
            stream.abort()
            raise
        await stream.release()
        await self._chunks.replace_chunk(request.blob_id, index, payload, crc)


async def _expect_end(stream: BulkStream) -> None:
    message, _ = await stream.receive(timeout_s=_PIECE_TIMEOUT_S)
    if not isinstance(message, BlobEnd):
        raise WireError("the source sent more than was asked for")
