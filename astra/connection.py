"""One TCP connection that carries frames: bytes in, frames out, nothing else.

Payloads are received straight into their own buffer, so a chunk is copied once, by the kernel.
Rules: lengths are checked before a buffer of that length exists; an untrusted connection (no
handshake yet) may only send small handshake frames; a peer that breaks the protocol is cut off.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from astra.errors import Unavailable, WireError
from astra.frame import (
    PRELUDE_SIZE,
    Prelude,
    decode_handshake,
    decode_header,
    decode_prelude,
    encode_frame,
)
from astra.tcp import break_after_silence
from astra.wire import Message

Payload = bytes | bytearray | memoryview
FrameHandler = Callable[[Prelude, Message, bytearray | None], None]

_BUFFER_SIZE: Final = 64 * 1024
_CORK_BYTES: Final = 64 * 1024  # frames of one turn of the loop leave together, up to here
_WRITE_HIGH: Final = 4 * 1024 * 1024
_WRITE_LOW: Final = 1024 * 1024
_SILENCE_S: Final = 30.0  # longer than any receiver here may take over what it has received


class FrameConnection(asyncio.BufferedProtocol):
    """Calls `on_frame` for each frame and `on_lost` once; both in the event loop."""

    def __init__(self, on_frame: FrameHandler, on_lost: Callable[[Exception | None], None]) -> None:
        self.on_frame = on_frame
        self.on_lost = on_lost
        self.trusted = False
        self.is_open = False
        self.error: Exception | None = None
        self.was_made = False
        self._transport: asyncio.Transport | None = None
        self._drop_buffer()
        self._payload: bytearray | None = None  # being received directly
        self._payload_filled = 0
        self._pending: tuple[Prelude, Message] | None = None  # whose payload that is
        self._writable: asyncio.Future[None] | None = None
        self._paused = False
        self._loop = asyncio.get_running_loop()
        self._corked: list[Payload] = []  # written, not yet given to the transport
        self._corked_bytes = 0

    def _drop_buffer(self) -> None:
        """There is one only while there is a connection: what is left of a lost one, or of an
        attempt to reach a dead peer, may be kept in tracebacks for a while."""
        self._buffer = bytearray()
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    # --- reading ---

    def get_buffer(self, sizehint: int) -> memoryview:
        if self._payload is not None:
            return memoryview(self._payload)[self._payload_filled :]
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == len(self._buffer):
            self._compact(len(self._buffer))
        return self._view[self._end :]

    def _compact(self, capacity: int) -> None:
        """Moves what is unread to the front of a buffer of at least `capacity` bytes."""
        unread = bytes(self._view[self._start : self._end])
        if capacity > len(self._buffer):
            self._buffer = bytearray(capacity)
            self._view = memoryview(self._buffer)
        self._view[: len(unread)] = unread
        self._start, self._end = 0, len(unread)

    def buffer_updated(self, nbytes: int) -> None:
        try:
            if self._payload is not None:
                self._payload_filled += nbytes
                self._finish_payload()
            else:
                self._end += nbytes
            while self._payload is None and self.is_open and self._parse_frame():
                pass
        except WireError as error:
            self.abort(error)

    def _parse_frame(self) -> bool:
        """Takes one frame from the buffer; False when more bytes are needed."""
        unread = self._end - self._start
        if unread < PRELUDE_SIZE:
            return False
        prelude = decode_prelude(self._view[self._start : self._end], trusted=self.trusted)
        needed = PRELUDE_SIZE + prelude.header_length
        if unread < needed:
            if needed > len(self._buffer) - self._start:
                self._compact(max(needed, _BUFFER_SIZE))
            return False
        header_start = self._start + PRELUDE_SIZE
        header = self._view[header_start : header_start + prelude.header_length]
        message = (
            decode_header(prelude, header) if self.trusted else decode_handshake(prelude, header)
        )
        self._start += needed
        if prelude.payload_length:
            self._start_payload(prelude, message)
        else:
            self.on_frame(prelude, message, None)
        return True

    def _start_payload(self, prelude: Prelude, message: Message) -> None:
        payload = bytearray(prelude.payload_length)
        here = min(self._end - self._start, prelude.payload_length)
        payload[:here] = self._view[self._start : self._start + here]
        self._start += here
        self._payload, self._payload_filled = payload, here
        self._pending = (prelude, message)
        self._finish_payload()

    def _finish_payload(self) -> None:
        payload, pending = self._payload, self._pending
        if payload is None or pending is None or self._payload_filled < len(payload):
            return
        self._payload = self._pending = None
        self.on_frame(pending[0], pending[1], payload)

    def pause(self) -> None:
        """Stops reading: the peer feels it through TCP."""
        if self._transport is not None and self.is_open and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and self.is_open and self._paused:
            self._paused = False
            self._transport.resume_reading()

    # --- writing ---

    def write(
        self,
        stream: int,
        message: Message,
        payload: Payload = b"",
        payload_crc: int = 0,
    ) -> None:
        """Queues one frame. Raises Unavailable when the connection is gone. `payload` must not
        change afterwards."""
        if self._transport is None or not self.is_open:
            raise Unavailable("the connection is closed") from self.error
        size = len(payload)
        head = encode_frame(stream, message, payload_length=size, payload_crc=payload_crc)
        if not self._corked:
            self._loop.call_soon(self._uncork)
        self._corked.append(head)
        if size:
            self._corked.append(payload)
        self._corked_bytes += len(head) + size
        if self._corked_bytes >= _CORK_BYTES:
            self._uncork()

    def _uncork(self) -> None:
        """One system call for everything that was written in this turn of the loop: each call
        costs more than the frame that it carries, here and in the peer that it wakes."""
        corked, self._corked = self._corked, []
        self._corked_bytes = 0
        if corked and self._transport is not None and not self._transport.is_closing():
            self._transport.writelines(corked)

    def unsent_bytes(self) -> int:
        sending = self._transport.get_write_buffer_size() if self._transport is not None else 0
        return sending + self._corked_bytes

    async def drain(self) -> None:
        """Waits while the peer is slower than we are. Raises Unavailable when it is gone."""
        if not self.is_open:
            raise Unavailable("the connection is closed") from self.error
        if self._writable is not None:
            await asyncio.shield(self._writable)

    def pause_writing(self) -> None:
        self._writable = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        waiter, self._writable = self._writable, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    # --- life ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._compact(_BUFFER_SIZE)
        self.was_made = True
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH, low=_WRITE_LOW)
        break_after_silence(transport, _SILENCE_S)
        self.is_open = self.error is None
        if self.error is not None:
            self._transport.abort()  # given up before it was made

    def break_after_silence(self, seconds: float) -> None:
        """For a connection whose peer always reads: as astra.tcp says."""
        if self._transport is not None and self.is_open:
            break_after_silence(self._transport, seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self.error = self.error or exc
        self._payload = self._pending = None
        self._drop_buffer()
        waiter, self._writable = self._writable, None
        if waiter is not None and not waiter.done():
            waiter.set_exception(Unavailable("the connection is closed"))
            waiter.exception()  # nobody may be waiting
        self.on_lost(self.error)

    def close(self) -> None:
        """Sends what is queued, then closes."""
        if self._transport is not None:
            self._uncork()
            self.is_open = False
            self._transport.close()

    def abort(self, error: Exception | None = None) -> None:
        """Drops the connection at once; what is queued is lost."""
        self.error = self.error or error
        self.is_open = False
        self._corked, self._corked_bytes = [], 0
        if self._transport is not None:
            self._transport.abort()
