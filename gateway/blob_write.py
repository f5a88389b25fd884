"""Writing one blob to its holders while the body arrives.

Each holder has a queue of a few chunks and a task of its own; the slowest one holds the client
back (TCP all the way), until it is too slow for too long and is dropped. The blob is good when
the write quorum says that it is durable; the third copy gets a moment more and may finish later,
which is told to the leader (DESIGN section 5).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog
from awscrt.checksums import crc32c

from astra.errors import AstraError, DeadlineExceeded, Unavailable
from astra.net import Dialer
from astra.stream import BulkStream
from astra.wire import BlobEnd, BlobPiece, BlobStored, BlobWrite, HolderRef, Placement

log = structlog.get_logger(__name__)

_WINDOW_CHUNKS: Final = 4

_Chunk = tuple[bytes | bytearray, int]  # bytes and CRC32C


class _HolderWriter:
    """One copy: a queue of chunks, and the task that sends them."""

    def __init__(
        self, dialer: Dialer, holder: HolderRef, blob_id: str, *, timeout_s: float
    ) -> None:
        self.holder = holder
        self.error: AstraError | None = None
        self._dialer = dialer
        self._blob_id = blob_id
        self._timeout_s = timeout_s
        self._queue: asyncio.Queue[_Chunk | None] = asyncio.Queue(maxsize=_WINDOW_CHUNKS)
        self._size = 0
        self.task = asyncio.get_running_loop().create_task(self._run())

    @property
    def is_alive(self) -> bool:
        return self.error is None

    async def put(self, chunk: _Chunk | None) -> None:
        """Queues a chunk (None: the end). A holder that takes none for too long is dropped."""
        if not self._queue.full():
            self._queue.put_nowait(chunk)
            return
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._queue.put(chunk)
        except TimeoutError:
            self.drop(DeadlineExceeded(f"{self.holder.node_id} took no bytes in time"))

    def drop(self, error: AstraError) -> None:
        self.error = self.error or error
        self.task.cancel()

    async def _run(self) -> None:
        """Sends everything; on return the copy is durable, or `error` says why it is not."""
        stream: BulkStream | None = None
        try:
            stream = await self._dialer.bulk(self.holder.address)
            await stream.send(BlobWrite(blob_id=self._blob_id))
            while (chunk := await self._queue.get()) is not None:
                await stream.send(BlobPiece(), chunk[0], chunk[1])
                self._size += len(chunk[0])
            await stream.send(BlobEnd(size=self._size))
            answer, _ = await stream.receive(timeout_s=self._timeout_s)
            if not isinstance(answer, BlobStored) or answer.size != self._size:
                raise Unavailable(f"{self.holder.node_id} did not store the blob")
            await stream.release()
        except AstraError as error:
            self.error = error
            if stream is not None:
                stream.abort()
            self._unblock()
        except asyncio.CancelledError:
            if stream is not None:
                stream.abort()  # the holder removes what it has
            if self.error is None:
                raise
            self._unblock()

    def _unblock(self) -> None:
        """Empties the queue, so that nobody waits for room in it."""
        while not self._queue.empty():
            self._queue.get_nowait()


class BlobUpload:
    """One blob on its way to its holders. Use `put` for each chunk, then `finish`, or `abort`."""

    def __init__(
        self,
        dialer: Dialer,
        placement: Placement,
        *,
        quorum: int,
        timeout_s: float,
        third_copy_wait_s: float,
    ) -> None:
        self.blob_id = placement.blob_id
        self._quorum = quorum
        self._third_copy_wait_s = third_copy_wait_s
        self._writers = [
            _HolderWriter(dialer, holder, placement.blob_id, timeout_s=timeout_s)
            for holder in placement.holders
        ]

    def failed_holders(self) -> list[str]:
        return [writer.holder.node_id for writer in self._writers if not writer.is_alive]

    def _check_quorum(self) -> None:
        if sum(writer.is_alive for writer in self._writers) < self._quorum:
            self.abort()
            reasons = "; ".join(str(writer.error) for writer in self._writers if writer.error)
            raise Unavailable(f"too few nodes could store the object: {reasons}")

    async def put(self, chunk: bytes | bytearray) -> None:
        """One chunk of exactly CHUNK_SIZE bytes (the last may be shorter), which must not change
        afterwards. Raises Unavailable when too few holders are left."""
        pair = (chunk, crc32c(chunk))
        for writer in self._writers:
            if writer.is_alive:
                await writer.put(pair)
        self._check_quorum()

    async def finish(self, on_late: Callable[[str], None]) -> tuple[str, ...]:
        """The holders on which the blob is durable, at least the quorum. `on_late` is called
        with a node id when a copy becomes durable after the return. Raises Unavailable."""
        for writer in self._writers:
            if writer.is_alive:
                await writer.put(None)
        await self._wait_for(self._quorum)
        if self._unfinished():
            await asyncio.wait(self._unfinished(), timeout=self._third_copy_wait_s)
        durable = [writer for writer in self._writers if writer.task.done() and writer.is_alive]
        for writer in self._writers:
            if not writer.task.done():
                writer.task.add_done_callback(_late(writer, on_late))
        return tuple(writer.holder.node_id for writer in durable)

    def _unfinished(self) -> set[asyncio.Task[None]]:
        return {writer.task for writer in self._writers if not writer.task.done()}

    async def _wait_for(self, quorum: int) -> None:
        while True:
            self._check_quorum()
            durable = sum(w.task.done() and w.is_alive for w in self._writers)
            if durable >= quorum:
                return
            await asyncio.wait(self._unfinished(), return_when=asyncio.FIRST_COMPLETED)

    def abort(self) -> None:
        """The blob is not wanted: the holders remove what they have."""
        for writer in self._writers:
            if not writer.task.done():
                writer.drop(Unavailable("the upload was aborted"))


def _late(
    writer: _HolderWriter, on_late: Callable[[str], None]
) -> Callable[[asyncio.Task[None]], None]:
    def done(task: asyncio.Task[None]) -> None:
        if task.cancelled() or not writer.is_alive:
            log.warning("third copy failed", node=writer.holder.node_id, reason=str(writer.error))
        else:
            on_late(writer.holder.node_id)

    return done
