"""The upload flow of the gateway: a request body becomes a durable blob, or nothing.

Small bodies travel inside the metadata command; larger ones go to their holders as 1 MiB chunks
while they arrive. Digests are computed once, here, in a thread beside the network (hashlib and
the CRCs release the interpreter). Nothing is committed here: the caller does that, once, with
the blob that `store` returned; what is never committed is swept by the holders.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import structlog

from astra.commands import AddHolder, NewBlob
from astra.constants import CHUNK_SIZE
from astra.errors import AstraError, Overloaded
from astra.wire import Commit, Committed, Epochs, Placed
from gateway.blob_write import BlobUpload
from gateway.body import Body
from gateway.checksums import ChecksumAlgorithm, DeclaredChecksum, Digests
from gateway.cluster import Cluster
from gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)

_DIGEST_IN_LOOP_BYTES_MAX: Final = 64 * 1024  # below, a thread costs more than it saves


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A whole, verified body. `blob` is None when it is empty."""

    size: int
    blob: NewBlob | None
    digests: Digests
    declared: DeclaredChecksum
    late: LateCopies | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Bytes that are durable on their holders."""

    blob: NewBlob
    late: LateCopies


class Uploader:
    """Receives bodies for one gateway; bounded in how many at once."""

    def __init__(
        self, cluster: Cluster, settings: GatewaySettings, threads: ThreadPoolExecutor
    ) -> None:
        self._cluster = cluster
        self._settings = settings
        self._threads = threads
        self._running = 0
        self._late: set[asyncio.Task[None]] = set()

    async def receive(
        self,
        body: Body,
        place: Callable[[int], Awaitable[Placed]],
        *,
        also: ChecksumAlgorithm | None = None,
        may_inline: bool = True,
    ) -> Received:
        """Reads and verifies the body, and makes it durable. `place` asks the leader where (not
        called for small bodies, if they `may_inline`, nor for empty ones). Raises what the body
        deserves, or Unavailable; then nothing is kept. After the commit, call `settle`."""
        size = body.require_length()
        declared = body.declared()
        digests = body.new_digests(declared, md5=True, also=also)
        if size == 0 or (may_inline and size <= self._settings.inline_bytes):
            return await self._receive_inline(body, size, digests, declared)
        if self._running >= self._settings.uploads_max:
            raise Overloaded("too many uploads at once")
        self._running += 1
        try:
            return await self._receive_chunks(body, size, await place(size), digests, declared)
        finally:
            self._running -= 1

    async def _receive_inline(
        self, body: Body, size: int, digests: Digests, declared: DeclaredChecksum
    ) -> Received:
        collected = bytearray()
        async for piece in body.pieces():
            collected += piece  # bounded: the body never exceeds its declared length
        data = bytes(collected)
        if len(data) <= _DIGEST_IN_LOOP_BYTES_MAX:
            digests.update(data)
        else:
            await asyncio.get_running_loop().run_in_executor(self._threads, digests.update, data)
        body.verify(declared, digests)
        blob = None
        if data:
            blob = NewBlob(blob_id=new_blob_id(), size=size, data=data)
        return Received(size=size, blob=blob, digests=digests, declared=declared)

    async def _receive_chunks(
        self,
        body: Body,
        size: int,
        placed: Placed,
        digests: Digests,
        declared: DeclaredChecksum,
    ) -> Received:
        upload = self._begin(placed)
        try:
            await self._pump(body, size, upload, digests)
            body.verify(declared, digests)
            blob, late = await self._finish(upload, size)
        except BaseException:
            upload.abort()
            raise
        return Received(size=size, blob=blob, digests=digests, declared=declared, late=late)

    async def keep(self, data: bytes, placed: Placed) -> Kept:
        """Makes bytes that are here already durable on holders, as a blob of their own. After the
        commit, call `settle`. Raises Unavailable; then nothing is kept."""
        upload = self._begin(placed)
        try:
            for start in range(0, len(data), CHUNK_SIZE):
                await upload.put(data[start : start + CHUNK_SIZE])
            blob, late = await self._finish(upload, len(data))
        except BaseException:
            upload.abort()
            raise
        return Kept(blob=blob, late=late)

    def _begin(self, placed: Placed) -> BlobUpload:
        return BlobUpload(
            self._cluster.dialer,
            placed.placements[0],
            quorum=placed.quorum,
            timeout_s=self._settings.holder_timeout_s,
            third_copy_wait_s=self._settings.third_copy_wait_s,
        )

    async def _finish(self, upload: BlobUpload, size: int) -> tuple[NewBlob, LateCopies]:
        late = LateCopies(upload.blob_id)
        holders = await upload.finish(late.add)
        for node_id in upload.failed_holders():
            log.warning("holder failed during an upload", node=node_id, blob=upload.blob_id)
        return NewBlob(blob_id=upload.blob_id, size=size, holders=holders), late

    async def _pump(self, body: Body, size: int, upload: BlobUpload, digests: Digests) -> None:
        """Cuts the body into chunks, and gives each to the digests and to the holders."""
        loop = asyncio.get_running_loop()
        digested: asyncio.Future[None] | None = None
        chunks = _ChunkCutter(size)
        async for piece in body.pieces():
            for chunk in chunks.add(piece):
                if digested is not None:
                    await digested  # one thread at a time, in order
                digested = loop.run_in_executor(self._threads, digests.update, memoryview(chunk))
                await upload.put(chunk)
        if digested is not None:
            await digested
        for chunk in chunks.rest():
            digests.update(memoryview(chunk))
            await upload.put(chunk)

    def settle(self, received: Received | Kept) -> None:
        """After the command that makes the blob known is committed: copies that became durable
        later than the quorum are told to the leader now, and those to come when they do."""
        if received.late is not None:
            received.late.settle(self._start_late)

    def _start_late(self, blob_id: str, node_id: str) -> None:
        task = asyncio.get_running_loop().create_task(self._commit_late(blob_id, node_id))
        self._late.add(task)
        task.add_done_callback(self._late.discard)

    async def _commit_late(self, blob_id: str, node_id: str) -> None:
        """When this is lost, the repair finds the copy or makes another."""
        command = AddHolder(blob_id=blob_id, node_id=node_id)
        commit = Commit(request_id=secrets.token_hex(16), epochs=Epochs(), command=command)
        try:
            await self._cluster.ask(commit, Committed)
        except AstraError as error:
            log.warning("third copy not recorded", blob=blob_id, node=node_id, reason=str(error))


class LateCopies:
    """Copies that become durable after the write quorum, held back until the blob is known."""

    def __init__(self, blob_id: str) -> None:
        self._blob_id = blob_id
        self._waiting: list[str] = []
        self._tell: Callable[[str, str], None] | None = None

    def add(self, node_id: str) -> None:
        if self._tell is None:
            self._waiting.append(node_id)
        else:
            self._tell(self._blob_id, node_id)

    def settle(self, tell: Callable[[str, str], None]) -> None:
        self._tell = tell
        for node_id in self._waiting:
            tell(self._blob_id, node_id)
        self._waiting.clear()


class _ChunkCutter:
    """Cuts pieces of any size into chunks of CHUNK_SIZE."""

    def __init__(self, size: int) -> None:
        self._left = size
        self._chunk = bytearray(min(CHUNK_SIZE, size))
        self._filled = 0

    def add(self, piece: bytes | memoryview) -> list[bytearray]:
        full: list[bytearray] = []
        view = memoryview(piece)
        while len(view):
            taken = min(len(self._chunk) - self._filled, len(view))
            self._chunk[self._filled : self._filled + taken] = view[:taken]
            self._filled += taken
            view = view[taken:]
            if self._filled == len(self._chunk):
                full.append(self._chunk)
                self._left -= self._filled
                self._chunk = bytearray(min(CHUNK_SIZE, self._left))
                self._filled = 0
                if not self._chunk:
                    break  # complete; the body itself refuses surplus bytes
        return full

    def rest(self) -> list[bytearray]:
        """What is left of a body that ended too early (its verification refuses it)."""
        return [self._chunk[: self._filled]] if self._filled else []


def new_blob_id() -> str:
    """12 hex digits of milliseconds, 20 random ones: the age of a blob is in its name."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"
