"""The accepting side: lets peers prove the secret, then routes their requests to handlers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final

import structlog

from astra.connection import FrameConnection
from astra.errors import (
    AstraError,
    Fatal,
    HandshakeFailed,
    Overloaded,
    StoreError,
    Unavailable,
    WireError,
)
from astra.failures import failure_of
from astra.frame import WIRE_VERSION, Prelude
from astra.handshake import (
    NONCE_BYTES,
    Peer,
    check_hello,
    check_proof,
    check_secret,
    prove,
)
from astra.stream import BulkStream
from astra.tls import PeerTls
from astra.wire import (
    Challenge,
    Failure,
    Hello,
    Message,
    Notice,
    Proof,
    Subscribe,
    Welcome,
)

log = structlog.get_logger(__name__)
_HANDSHAKE_TIMEOUT_S: Final = 3.0
_UNPROVED_MAX: Final = 256  # connections whose peer has not proved the secret
_UNSENT_BYTES_MAX: Final = 16 * 1024 * 1024  # one-way messages are dropped above
_BACKLOG: Final = 1024
UnaryHandler = Callable[[Peer, Message], Awaitable[Message]]
OneWayHandler = Callable[[Peer, Message], None]
StreamingHandler = Callable[[Peer, Message, BulkStream], Awaitable[None]]


class Routes:
    """Which handler answers which message; what is not here is refused."""

    def __init__(self) -> None:
        self.unary: dict[type[Message], UnaryHandler] = {}
        self.oneway: dict[type[Message], OneWayHandler] = {}
        self.streaming: dict[type[Message], StreamingHandler] = {}
        self._subscribers: dict[FrameConnection, int] = {}

    def subscribe(self, connection: FrameConnection, stream: int) -> None:
        self._subscribers[connection] = stream

    def forget(self, connection: FrameConnection) -> None:
        self._subscribers.pop(connection, None)

    def notify(self, notice: Notice) -> None:
        """To every subscriber; a slow one loses it (a notice is a hint)."""
        for connection, stream in self._subscribers.items():
            if connection.is_open and connection.unsent_bytes() < _UNSENT_BYTES_MAX:
                connection.write(stream, notice)


class FrameServer:
    """Accepts peers, lets them prove the secret, and routes their requests."""

    def __init__(
        self,
        *,
        secret: bytes,
        node_id: str,
        routes: Routes,
        calls_max: int = 1024,
        on_fatal: Callable[[Fatal], None] | None = None,
        tls: PeerTls | None = None,
    ) -> None:
        """`on_fatal` is told when a handler raises Fatal: the process must stop. Raises ConfigError
        for a secret or TLS files that are of no use."""
        check_secret(secret)
        self._tls = None if tls is None else tls.server()
        self.on_fatal = on_fatal
        self.secret = secret
        self.node_id = node_id
        self.routes = routes
        self.calls_max = calls_max
        self._server: asyncio.Server | None = None
        self._accepted: dict[_Accepted, None] = {}  # in the order of their arrival
        self._unproved: dict[_Accepted, None] = {}  # in the order of their arrival
        self._is_crowded = False

    async def start(self, host: str, port: int) -> None:
        """Listens. Raises OSError when the port is in use."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._accept,
            host,
            port,
            backlog=_BACKLOG,
            ssl=self._tls,
            ssl_handshake_timeout=None if self._tls is None else _HANDSHAKE_TIMEOUT_S,
        )

    @property
    def port(self) -> int:
        if self._server is None:
            raise Unavailable("the server is not started")
        return int(self._server.sockets[0].getsockname()[1])

    def _accept(self) -> FrameConnection:
        accepted = _Accepted(self)
        self._accepted[accepted] = None
        self._unproved[accepted] = None
        if len(self._unproved) > _UNPROVED_MAX:
            self._drop_oldest()
        return accepted.connection

    def _drop_oldest(self) -> None:
        """An honest peer proves itself at once: whoever has waited longest is none, and may not
        keep the others out by taking every descriptor of this process."""
        if not self._is_crowded:
            self._is_crowded = True
            log.warning("many connections prove nothing: the oldest goes for each new one")
        oldest = next(iter(self._unproved))
        self._unproved.pop(oldest)
        oldest.connection.abort(HandshakeFailed("no handshake before many others came"))

    def note_proof(self, accepted: _Accepted) -> None:
        self._unproved.pop(accepted, None)

    def forget(self, accepted: _Accepted) -> None:
        self._accepted.pop(accepted, None)
        self._unproved.pop(accepted, None)
        if not self._unproved:
            self._is_crowded = False

    async def close(self) -> None:
        """Stops accepting, ends every connection, and waits for the handlers to end."""
        if self._server is not None:
            self._server.close()
        tasks = [task for accepted in self._accepted for task in accepted.tasks]
        for accepted in tuple(self._accepted):
            accepted.connection.abort()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class _Accepted:
    """One accepted connection: handshake, then requests."""

    def __init__(self, server: FrameServer) -> None:
        self.server = server
        self.connection = FrameConnection(self._on_first_frame, self._on_lost)
        self.tasks: set[asyncio.Task[None]] = set()
        self.peer: Peer | None = None
        self._bulk: BulkStream | None = None
        self._bulk_stream = -1
        self._hello: Hello | None = None
        self._challenge: Challenge | None = None
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(_HANDSHAKE_TIMEOUT_S, self._give_up)

    # --- handshake ---

    def _give_up(self) -> None:
        if self.peer is None:
            self.connection.abort(HandshakeFailed("no handshake in time"))
            if not self.connection.was_made:  # it never got through TLS: nobody else will say so
                self.server.forget(self)

    def _on_first_frame(self, prelude: Prelude, message: Message, _p: bytearray | None) -> None:
        try:
            if isinstance(message, Hello) and self._hello is None:
                self._answer_hello(message)
            elif isinstance(message, Proof) and self._hello and self._challenge:
                check_proof(self.server.secret, self._hello, self._challenge, message)
                self._welcome(self._hello)
            else:
                raise HandshakeFailed("the handshake comes first")
        except HandshakeFailed as error:
            log.warning("peer refused", reason=str(error))
            self.connection.write(0, Failure(kind="HandshakeFailed", detail=str(error)))
            self.connection.close()

    def _answer_hello(self, hello: Hello) -> None:
        check_hello(hello)
        nonce, node_id = os.urandom(NONCE_BYTES), self.server.node_id
        self._hello = hello
        self._challenge = Challenge(
            wire_version=WIRE_VERSION,
            peer_id=node_id,
            nonce=nonce,
            proof=prove(self.server.secret, "server", hello, node_id, nonce),
        )
        self.connection.write(0, self._challenge)

    def _welcome(self, hello: Hello) -> None:
        self._deadline.cancel()
        self.server.note_proof(self)
        self.peer = Peer(hello.role, hello.peer_id)
        self.connection.on_frame = self._on_frame
        self.connection.trusted = True
        self.connection.write(0, Welcome())

    # --- requests ---

    def _on_frame(self, prelude: Prelude, message: Message, payload: bytearray | None) -> None:
        bulk, peer = self._bulk, self.peer
        if peer is None:
            return
        if bulk is not None and prelude.stream == self._bulk_stream:
            bulk.deliver(prelude, message, payload)
            return
        if 0 < prelude.stream <= self._bulk_stream:
            return  # rest of an exchange that has ended
        routes, kind = self.server.routes, type(message)
        if (oneway := routes.oneway.get(kind)) is not None:
            oneway(peer, message)
        elif (unary := routes.unary.get(kind)) is not None:
            self._start_unary(partial(unary, peer, message), prelude.stream)
        elif (streaming := routes.streaming.get(kind)) is not None:
            if bulk is not None:
                raise WireError("an exchange begins before the one before it has ended")
            self._bulk = BulkStream(self.connection, prelude.stream)
            self._bulk_stream = prelude.stream
            handle = partial(streaming, peer, message, self._bulk)
            self._start(self._serve_stream(handle, self._bulk))
        elif kind is Subscribe:
            routes.subscribe(self.connection, prelude.stream)
        else:
            raise WireError(f"a {kind.__name__} is not a request")

    # Handlers are called inside of their task: one that is cancelled before its first step, as at a
    # stop, must leave no call behind that nobody awaits.

    def _start_unary(self, handle: Callable[[], Awaitable[Message]], stream: int) -> None:
        if len(self.tasks) >= self.server.calls_max:
            self.connection.write(stream, failure_of(Overloaded("too many requests at once")))
            return
        self._start(self._serve_unary(handle, stream))

    def _start(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _serve_unary(self, handle: Callable[[], Awaitable[Message]], stream: int) -> None:
        answer: Message
        try:
            answer = await handle()
        except AstraError as error:
            self._report_fatal(error)
            answer = failure_of(error)
        except Exception as error:
            log.exception("request failed: a bug")
            answer = failure_of(error)
        if self.connection.is_open:
            self._write_answer(stream, answer)

    def _write_answer(self, stream: int, answer: Message) -> None:
        """An answer that fits into no frame is told as a failure: silence would make the peer
        ask again and again until its time is up."""
        try:
            self.connection.write(stream, answer)
        except WireError as error:
            log.exception("an answer is too large: a bug")
            self.connection.write(stream, failure_of(StoreError(str(error))))

    async def _serve_stream(self, handle: Callable[[], Awaitable[None]], bulk: BulkStream) -> None:
        try:
            await handle()
        except Unavailable:
            if self.connection.is_open:
                await self._fail_stream(bulk, Unavailable("the node cannot serve this now"))
        except AstraError as error:
            self._report_fatal(error)
            await self._fail_stream(bulk, error)
        except Exception as error:
            log.exception("stream failed: a bug")
            await self._fail_stream(bulk, error)
        finally:
            self._bulk = None
            self.connection.resume()

    def _report_fatal(self, error: AstraError) -> None:
        if isinstance(error, Fatal) and self.server.on_fatal is not None:
            self.server.on_fatal(error)

    async def _fail_stream(self, bulk: BulkStream, error: Exception) -> None:
        try:
            await bulk.fail(error)
        except AstraError:
            self.connection.abort()  # the peer is gone: nobody is left to tell

    def _on_lost(self, error: Exception | None) -> None:
        self._deadline.cancel()
        self.server.routes.forget(self.connection)
        self.server.forget(self)
        if self._bulk is not None:
            self._bulk.lost(error)
