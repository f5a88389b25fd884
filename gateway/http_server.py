"""The HTTP server of one worker: uvicorn on httptools and uvloop, with bounds that it lacks.

A request head may have HEAD_BYTES_MAX bytes and HEAD_SECONDS_MAX seconds, whatever the client
sends; a connection that has sent nothing yet gets as long (FAULTS row 11, SECURITY S37, S43).
"""

from __future__ import annotations

import asyncio
import socket
from functools import partial
from typing import Any, Final, cast

import structlog
import uvicorn
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from astra.constants import HEADER_BYTES_MAX
from astra.tcp import break_after_silence
from gateway.app import build_app
from gateway.settings import GatewaySettings

log = structlog.get_logger(__name__)

HEAD_SECONDS_MAX: Final = 20.0
CONNECTIONS_MAX: Final = 2000
CONNECTIONS_KEPT: Final = 1800  # above, a new one takes the place of the longest idle one
KEEP_ALIVE_S: Final = 75
SEND_STALL_SECONDS_MAX: Final = 60.0  # a client that takes no byte for so long is dropped


_CORK_BYTES: Final = 64 * 1024


class CorkedTransport(asyncio.Transport):
    """A transport that sends everything written in one turn of the event loop at once.

    The server writes the head of an answer and its body one after the other, and each write
    would be a system call and a packet of its own.
    """

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._corked: list[bytes | bytearray | memoryview] = []
        self._corked_bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not self._corked:
            self._loop.call_soon(self._uncork)
        self._corked.append(data)
        self._corked_bytes += len(data)
        if self._corked_bytes >= _CORK_BYTES:
            self._uncork()

    def _uncork(self) -> None:
        corked, self._corked = self._corked, []
        self._corked_bytes = 0
        if corked and not self._inner.is_closing():
            self._inner.writelines(corked)

    def close(self) -> None:
        self._uncork()
        self._inner.close()

    def abort(self) -> None:
        self._corked.clear()
        self._inner.abort()

    def is_closing(self) -> bool:
        return self._inner.is_closing()

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def get_write_buffer_size(self) -> int:
        return self._inner.get_write_buffer_size() + self._corked_bytes

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)


class BadHead(Exception):
    """Ends the parsing of a request whose head is too large, or names no path."""


class IdleConnections:
    """The connections of one server that have no request running, longest idle first."""

    def __init__(self) -> None:
        self._idle: dict[BoundedHttp, None] = {}

    def add(self, connection: BoundedHttp) -> None:
        self._idle[connection] = None

    def discard(self, connection: BoundedHttp) -> None:
        self._idle.pop(connection, None)

    def drop_one(self) -> None:
        """Makes room: clients connect again when they need to, and attackers have to work."""
        connection = next(iter(self._idle), None)
        if connection is not None:
            del self._idle[connection]
            connection.transport.abort()


class BoundedHttp(HttpToolsProtocol):
    """uvicorn's protocol, with a bounded and timed request head; an answer that has begun is
    never mixed with another, and whoever writes it is told that the client has gone."""

    def __init__(self, *args: Any, idle: IdleConnections, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle = idle
        self._in_head = True  # what comes next belongs to a head
        self._head_bytes = 0  # received since the head began, parsed or not
        self._head_size = 0  # of what was parsed of it
        self._head_timer: asyncio.TimerHandle | None = None
        self._answering: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        break_after_silence(transport, SEND_STALL_SECONDS_MAX)
        super().connection_made(CorkedTransport(transport, self.loop))
        if len(self.connections) > CONNECTIONS_KEPT:
            self._idle.drop_one()
        self._idle.add(self)
        self._start_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._idle.discard(self)
        super().connection_lost(exc)
        answering = self._answering  # with pipelining not the one that uvicorn knows of
        if answering is not None and not answering.response_complete:
            answering.disconnected = True
            answering.message_event.set()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_bytes += len(data)  # also when the parser is still waiting for a line end
            if self._head_timer is None:
                self._start_timer()  # also for line ends, which the parser skips
        super().data_received(data)
        if self._in_head and self._head_bytes > HEADER_BYTES_MAX:
            self._refuse()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._head_size = 0
        if self._head_timer is None:
            self._start_timer()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        if b"#" in url:
            raise BadHead  # a fragment is no part of a target; it would be dropped silently
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._head_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._idle.add(self)
        super().on_response_complete()

    def send_400_response(self, msg: str) -> None:
        """What cannot be parsed is answered, unless another answer is under way: then that one
        is finished, and is the last."""
        if self.transport.is_closing():
            return
        answering = self._answering
        if answering is None or answering.response_complete:
            super().send_400_response(msg)
        elif self._in_head:
            answering.keep_alive = False
            self.pipeline.clear()
            self.flow.pause_reading()
        elif answering is self.cycle and not answering.response_started:
            super().send_400_response(msg)
        else:
            self.transport.abort()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        self._idle.discard(self)
        super()._start_asgi_task(cycle, app)

    def _count(self, size: int) -> None:
        self._head_size += size
        if self._head_size > HEADER_BYTES_MAX:
            raise BadHead

    def _refuse(self) -> None:
        self.send_400_response("The request head is too large.")

    def _start_timer(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS_MAX, self._head_timeout)

    def _stop_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _head_timeout(self) -> None:
        self._head_timer = None
        if self._answering is not None and not self._answering.response_complete:
            self._start_timer()  # it is we who do not read on
        elif not self.transport.is_closing():
            self.transport.close()


def server_config(settings: GatewaySettings) -> uvicorn.Config:
    """How uvicorn runs a worker. Forwarded headers are trusted from nobody (SECURITY S27)."""
    return uvicorn.Config(
        build_app(settings),
        http=cast(type[asyncio.Protocol], partial(BoundedHttp, idle=IdleConnections())),
        loop="uvloop",
        ws="none",
        lifespan="on",
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=int(settings.stop_timeout_s),
    )


def serve_worker(settings: GatewaySettings, listening: socket.socket) -> None:
    """Serves until SIGTERM or SIGINT, then finishes what is under way, bounded in time."""
    uvicorn.Server(server_config(settings)).run(sockets=[listening])
