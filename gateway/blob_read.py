"""Reading the bytes of one object version from its holders, in order and without a gap.

The extents of the version are cut into stripes. A small read is one stripe from the fastest
holder; a large one has several stripes under way, each from another holder, so that it is as
fast as the holders together while memory stays bounded. A holder that breaks, stalls or has a
bad chunk is replaced at the same byte: the client never sees it, and never gets a wrong byte,
because every piece carries the checksum under which it was stored (DESIGN sections 5 and 6).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from astra.constants import CHUNK_SIZE
from astra.errors import (
    AstraError,
    BadChunk,
    BlobNotFound,
    HandshakeFailed,
    Unavailable,
    WireError,
)
from astra.model import Extent
from astra.stream import BulkStream
from astra.wire import BlobEnd, BlobPiece, BlobPlace, BlobRead, HolderRef
from gateway.cluster import Cluster
from gateway.running_reads import RunningReads

log = structlog.get_logger(__name__)

STRIPE_BYTES: Final = 4 * CHUNK_SIZE
_STRIPES_AHEAD: Final = 2
_STRIPE_QUEUE: Final = STRIPE_BYTES // CHUNK_SIZE + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """`length` bytes of one blob from `offset`."""

    blob_id: str
    offset: int
    length: int


def cut_segments(extents: Sequence[Extent], offset: int, length: int) -> list[Segment]:
    """The segments that hold bytes [offset, offset+length) of the extents' row."""
    segments: list[Segment] = []
    for extent in extents:
        if length <= 0:
            break
        if offset >= extent.length:
            offset -= extent.length
            continue
        taken = min(extent.length - offset, length)
        segments.append(
            Segment(blob_id=extent.blob_id, offset=extent.offset + offset, length=taken)
        )
        length -= taken
        offset = 0
    return segments


def cut_stripes(segments: Sequence[Segment]) -> Iterator[Segment]:
    """Segments of at most STRIPE_BYTES, cut at stripe borders of their blob."""
    for segment in segments:
        offset, left = segment.offset, segment.length
        while left:
            size = min(left, STRIPE_BYTES - offset % STRIPE_BYTES)
            yield Segment(blob_id=segment.blob_id, offset=offset, length=size)
            offset += size
            left -= size


class BlobReader:
    """Reads from holders for one gateway."""

    def __init__(self, cluster: Cluster, *, stall_s: float, timeout_s: float) -> None:
        self._cluster = cluster
        self._stall_s = stall_s
        self._timeout_s = timeout_s
        self.running = RunningReads(cluster.dialer, lambda: asyncio.get_running_loop().time())

    async def read(
        self,
        segments: Sequence[Segment],
        inline: Mapping[str, bytes],
        places: Mapping[str, BlobPlace],
    ) -> AsyncGenerator[bytes | memoryview, None]:
        """The bytes of the segments, in order. Raises Unavailable when no holder can give them:
        never a short or wrong answer without an error. However long the reader takes: the holders
        keep what it still needs."""
        stripes = iter(cut_stripes(segments))
        running: deque[_Stripe] = deque()
        number = 0
        lengths = [(segment.blob_id, segment.length) for segment in segments]
        try:
            with self.running.reading(lengths, places) as read:
                while True:
                    while len(running) < _STRIPES_AHEAD and (segment := next(stripes, None)):
                        running.append(self._open(segment, inline, places, number))
                        number += 1
                    if not running:
                        return
                    async for piece in running[0].pieces():
                        yield piece
                        read.position += len(piece)
                    running.popleft()
        finally:
            for stripe in running:
                stripe.cancel()

    def _open(
        self,
        segment: Segment,
        inline: Mapping[str, bytes],
        places: Mapping[str, BlobPlace],
        number: int,
    ) -> _Stripe:
        data = inline.get(segment.blob_id)
        if data is not None:
            return _InlineStripe(data[segment.offset : segment.offset + segment.length])
        place = places.get(segment.blob_id)
        holders = self._cluster.in_order(place.holders) if place is not None else []
        turn = number % len(holders) if holders else 0
        return _HolderStripe(self, segment, holders[turn:] + holders[:turn])

    async def read_segment(
        self, segment: Segment, holders: Sequence[HolderRef]
    ) -> AsyncGenerator[memoryview, None]:
        """The bytes of one segment, from the first holder that gives them, going on at the same
        byte with another when one fails. One with a bad chunk is asked again for later chunks:
        of three damaged copies each may be good where the others are not. Raises Unavailable."""
        offset, end = segment.offset, segment.offset + segment.length
        candidates = list(holders)
        bad_at: dict[str, int] = {}  # where a holder had a bad chunk
        reasons: list[str] = []
        while able := [each for each in candidates if bad_at.get(each.node_id) != offset]:
            holder = able[0]
            stall_s = self._stall_s if len(able) > 1 else self._timeout_s
            try:
                source = self._read_from(holder, segment.blob_id, offset, end - offset, stall_s)
                async with aclosing(source):
                    async for piece in source:
                        offset += len(piece)
                        yield piece
                if offset == end:
                    return
                raise WireError("the holder ended too early")
            except AstraError as error:
                reasons.append(f"{holder.node_id}: {error}")
                self._note_failure(holder, segment.blob_id, error)
                if isinstance(error, BadChunk):
                    bad_at[holder.node_id] = offset
                else:
                    candidates.remove(holder)
        log.error("no holder can give a blob", blob=segment.blob_id, reasons=reasons)
        raise Unavailable(f"no holder could give blob {segment.blob_id}")

    async def _read_from(
        self, holder: HolderRef, blob_id: str, offset: int, length: int, stall_s: float
    ) -> AsyncGenerator[memoryview, None]:
        stream = await self._cluster.dialer.bulk(holder.address)
        is_clean = False
        try:
            await stream.send(BlobRead(blob_id=blob_id, offset=offset, length=length))
            async for piece in _pieces(stream, length, stall_s):
                yield piece
            is_clean = True
        except (BlobNotFound, BadChunk):
            is_clean = True  # the holder ended the exchange in order
            raise
        finally:
            if is_clean:
                await stream.release()
            else:
                stream.abort()

    def _note_failure(self, holder: HolderRef, blob_id: str, error: AstraError) -> None:
        if isinstance(error, BlobNotFound | BadChunk):
            self._cluster.report_bad_blob(blob_id, holder.node_id)
        elif not isinstance(error, HandshakeFailed):
            self._cluster.mute(holder.node_id)


async def _pieces(stream: BulkStream, length: int, stall_s: float) -> AsyncIterator[memoryview]:
    """The pieces of one BlobRead, exactly `length` bytes. Raises WireError for any other."""
    received = 0
    while True:
        message, payload = await stream.receive(timeout_s=stall_s)
        if isinstance(message, BlobEnd):
            if received != length:
                raise WireError("the holder sent fewer bytes than asked for")
            return
        received += len(payload)
        if not isinstance(message, BlobPiece) or received > length or not len(payload):
            raise WireError("the holder sent what was not asked for")
        yield payload


class _Stripe:
    """A piece of the answer that may be fetched before its turn."""

    def pieces(self) -> AsyncIterator[bytes | memoryview]:
        raise NotImplementedError

    def cancel(self) -> None:
        """Stops fetching; idempotent."""


class _InlineStripe(_Stripe):
    def __init__(self, data: bytes) -> None:
        self._data = data

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        yield self._data


class _HolderStripe(_Stripe):
    """Fetches at once, into a queue that holds one stripe."""

    def __init__(self, reader: BlobReader, segment: Segment, holders: Sequence[HolderRef]) -> None:
        self._queue: asyncio.Queue[memoryview | AstraError | None] = asyncio.Queue(_STRIPE_QUEUE)
        self._task = asyncio.get_running_loop().create_task(self._fetch(reader, segment, holders))

    async def _fetch(
        self, reader: BlobReader, segment: Segment, holders: Sequence[HolderRef]
    ) -> None:
        try:
            async with aclosing(reader.read_segment(segment, holders)) as pieces:
                async for piece in pieces:
                    await self._queue.put(piece)
            await self._queue.put(None)
        except AstraError as error:
            await self._queue.put(error)

    async def pieces(self) -> AsyncIterator[bytes | memoryview]:
        while (piece := await self._queue.get()) is not None:
            if isinstance(piece, AstraError):
                raise piece
            yield piece

    def cancel(self) -> None:
        self._task.cancel()
