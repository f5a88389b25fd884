"""One exchange that owns its connection: blobs and snapshots. TCP is the flow control."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from awscrt.checksums import crc32c

from astra.connection import FrameConnection, Payload
from astra.errors import (
    DeadlineExceeded,
    Unavailable,
    WireError,
)
from astra.failures import error_of, failure_of
from astra.frame import Prelude, verify_payload
from astra.wire import (
    Failure,
    Message,
)

_STREAM_QUEUE_MAX: Final = 4  # frames received and not yet taken, before reading pauses


class BulkStream:
    """One exchange that owns its connection. The same on both sides."""

    def __init__(
        self,
        connection: FrameConnection,
        stream: int,
        give_back: Callable[[FrameConnection], None] | None = None,
    ) -> None:
        self._connection = connection
        self.number = stream
        self._give_back = give_back
        self._queue: deque[tuple[Prelude, Message, bytearray | None]] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.last_payload_crc = 0

    async def send(
        self, message: Message, payload: Payload = b"", payload_crc: int | None = None
    ) -> None:
        """Sends one frame, waiting while the peer is slower. `payload` must not change
        afterwards. Raises Unavailable when the connection is gone."""
        if payload_crc is None:
            payload_crc = crc32c(payload) if len(payload) else 0
        self._connection.write(self.number, message, payload, payload_crc)
        await self._connection.drain()

    async def fail(self, error: BaseException) -> None:
        """Ends the exchange with a Failure; the connection stays usable."""
        await self.send(failure_of(error))

    async def receive(self, *, timeout_s: float) -> tuple[Message, memoryview]:
        """The next frame, its payload verified. A Failure is raised as its error. Raises
        DeadlineExceeded, Unavailable (closed), WireError (a flipped bit: connection dropped)."""
        if not self._queue:
            await self._wait(timeout_s)
        prelude, message, payload = self._queue.popleft()
        if len(self._queue) < _STREAM_QUEUE_MAX:
            self._connection.resume()
        if isinstance(message, Failure):
            raise error_of(message)
        if payload is None:
            return message, memoryview(b"")
        try:
            verify_payload(prelude, payload)
        except WireError as error:
            self._connection.abort(error)
            raise
        self.last_payload_crc = prelude.payload_crc
        return message, memoryview(payload)

    async def _wait(self, timeout_s: float) -> None:
        if not self._connection.is_open:
            raise Unavailable("the peer closed the connection") from self._connection.error
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout_s):
                await self._waiter
        except TimeoutError:
            raise DeadlineExceeded(f"no answer within {timeout_s:g} s") from None
        finally:
            self._waiter = None

    def deliver(self, prelude: Prelude, message: Message, payload: bytearray | None) -> None:
        """From the connection: one frame of this exchange."""
        self._queue.append((prelude, message, payload))
        if len(self._queue) >= _STREAM_QUEUE_MAX:
            self._connection.pause()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def lost(self, error: Exception | None) -> None:
        """From the connection: it is gone. Frames already received can still be taken."""
        if self._waiter is not None and not self._waiter.done():
            failure = Unavailable("the connection broke")
            failure.__cause__ = error
            self._waiter.set_exception(failure)

    async def release(self) -> None:
        """Back to the pool. Only when the exchange ended cleanly."""
        if self._give_back is not None:
            self._give_back(self._connection)

    def abort(self) -> None:
        """Drops the connection; the peer sees it at once."""
        self._connection.abort()
