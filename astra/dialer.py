"""The dialling side: control connections, made again when they break, and pooled bulk ones."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Callable
from typing import Final

from astra.connection import FrameConnection
from astra.errors import (
    AstraError,
    DeadlineExceeded,
    HandshakeFailed,
    OutcomeUnknown,
    Unavailable,
    WireError,
)
from astra.failures import error_of
from astra.frame import WIRE_VERSION, Prelude
from astra.handshake import (
    NONCE_BYTES,
    Peer,
    check_challenge,
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

_UNSENT_BYTES_MAX: Final = 16 * 1024 * 1024  # one-way messages are dropped above
_IDLE_BULK_MAX: Final = 16  # kept per address
_RECONNECT_DELAY_S: Final = 0.05
# A control connection is read at once, so its peer is gone, or hangs, when nothing is taken.
_CONTROL_SILENCE_S: Final = 5.0
_GREETING_FRAMES_MAX: Final = 2  # that a peer may have sent before they are looked at
_HELD_MAX: Final = 4  # one-way messages that wait for the connection that they asked for


def split_address(address: str) -> tuple[str, int]:
    """ "host:port" or "[v6]:port" to its parts. Raises ValueError."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


class Dialer:
    """All outgoing connections of one process. Close it when done."""

    def __init__(
        self,
        *,
        secret: bytes,
        role: str,
        peer_id: str,
        connect_timeout_s: float = 1.0,
        tls: PeerTls | None = None,
    ) -> None:
        """Raises ConfigError for a secret or TLS files that are of no use."""
        check_secret(secret)
        self._tls = None if tls is None else tls.client()
        self._secret = secret
        self.peer = Peer(role, peer_id)
        self._connect_timeout_s = connect_timeout_s
        self._controls: dict[str, ControlClient] = {}
        self._pools: dict[str, _Pool] = {}

    def control(self, address: str) -> ControlClient:
        """The one multiplexed connection to this address; connects when first used."""
        client = self._controls.get(address)
        if client is None:
            client = self._controls[address] = ControlClient(self, address)
        return client

    async def bulk(self, address: str) -> BulkStream:
        """A connection of its own for one exchange. Raises Unavailable, HandshakeFailed."""
        pool = self._pools.get(address)
        if pool is None:
            pool = self._pools[address] = _Pool(self, address)
        return await pool.take()

    async def connect(
        self,
        address: str,
        on_frame: Callable[[Prelude, Message, bytearray | None], None],
        on_lost: Callable[[Exception | None], None],
    ) -> FrameConnection:
        """A new connection whose both ends have proved the secret."""
        loop = asyncio.get_running_loop()
        greeting = Greeting(self._secret, self.peer)
        connection = greeting.connection
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                host, port = split_address(address)
                await loop.create_connection(lambda: connection, host, port, ssl=self._tls)
                await greeting.shake_hands()
        except (OSError, TimeoutError, ValueError) as error:
            connection.abort()
            raise Unavailable(f"cannot reach {address}: {str(error) or 'timeout'}") from error
        except BaseException:
            connection.abort()
            raise
        connection.on_frame, connection.on_lost = on_frame, on_lost
        return connection

    async def close(self) -> None:
        for client in self._controls.values():
            client.close()
        for pool in self._pools.values():
            pool.close()
        await asyncio.sleep(0)  # lets the transports see it


class Greeting:
    """The dialling side of the handshake, on a connection that trusts nobody until it is done."""

    def __init__(self, secret: bytes, me: Peer) -> None:
        self._secret = secret
        self._me = me
        self._inbox: asyncio.Queue[Message | None] = asyncio.Queue()  # bounded by _on_frame
        self.connection = FrameConnection(self._on_frame, self._on_lost)

    def _on_frame(self, _: Prelude, message: Message, payload: bytearray | None) -> None:
        if self._inbox.qsize() >= _GREETING_FRAMES_MAX:
            raise WireError("the peer says more than a handshake")
        self._inbox.put_nowait(message)

    def _on_lost(self, error: Exception | None) -> None:
        self._inbox.put_nowait(None)

    async def shake_hands(self) -> None:
        """Returns once both sides have proved the secret. Raises HandshakeFailed, Unavailable."""
        hello = Hello(
            wire_version=WIRE_VERSION,
            role=self._me.role,
            peer_id=self._me.peer_id,
            nonce=os.urandom(NONCE_BYTES),
        )
        self.connection.write(0, hello)
        challenge = await self._inbox.get()
        if not isinstance(challenge, Challenge):
            raise _handshake_error(challenge)
        check_challenge(self._secret, hello, challenge)
        proof = prove(self._secret, "client", hello, challenge.peer_id, challenge.nonce)
        self.connection.write(0, Proof(proof=proof))
        welcome = await self._inbox.get()
        if not isinstance(welcome, Welcome):
            raise _handshake_error(welcome)
        self.connection.trusted = True


def _handshake_error(message: Message | None) -> AstraError:
    if message is None:
        return Unavailable(
            "the peer closed the connection during the handshake: "
            "either both sides have cluster.tls_cert, or none"
        )
    if isinstance(message, Failure):
        return HandshakeFailed(message.detail or "refused by the peer")
    return HandshakeFailed("the peer does not follow the handshake")


class _Pool:
    """Idle bulk connections to one address."""

    def __init__(self, dialer: Dialer, address: str) -> None:
        self._dialer = dialer
        self._address = address
        self._idle: list[FrameConnection] = []
        self._streams: dict[FrameConnection, BulkStream] = {}
        self._next_stream = 0
        self._closed = False

    async def take(self) -> BulkStream:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                return self._stream_on(connection)
        holder: list[FrameConnection] = []

        def on_frame(prelude: Prelude, message: Message, payload: bytearray | None) -> None:
            stream = self._streams.get(holder[0])
            if stream is not None and prelude.stream == stream.number:
                stream.deliver(prelude, message, payload)

        def on_lost(error: Exception | None) -> None:
            stream = self._streams.pop(holder[0], None)
            if stream is not None:
                stream.lost(error)
            elif holder[0] in self._idle:
                self._idle.remove(holder[0])

        connection = await self._dialer.connect(self._address, on_frame, on_lost)
        holder.append(connection)
        return self._stream_on(connection)

    def _stream_on(self, connection: FrameConnection) -> BulkStream:
        self._next_stream += 1
        stream = BulkStream(connection, self._next_stream, self.put_back)
        self._streams[connection] = stream
        return stream

    def put_back(self, connection: FrameConnection) -> None:
        self._streams.pop(connection, None)
        connection.resume()
        if self._closed or len(self._idle) >= _IDLE_BULK_MAX:
            connection.close()
        elif connection.is_open:
            self._idle.append(connection)

    def close(self) -> None:
        self._closed = True
        for connection in (*self._idle, *self._streams):
            connection.abort()
        self._idle.clear()


class ControlClient:
    """Many requests at once over one connection, which is made again whenever it breaks."""

    def __init__(self, dialer: Dialer, address: str) -> None:
        self._dialer = dialer
        self.address = address
        self._connection: FrameConnection | None = None
        self._connecting: asyncio.Task[FrameConnection] | None = None
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._next_stream = 0
        self._lost_event = asyncio.Event()
        self._held: deque[Message] = deque(maxlen=_HELD_MAX)
        self._subscription: tuple[Callable[[Notice], None], Callable[[], None]] | None = None
        self._subscription_stream = 0
        self._keeper: asyncio.Task[None] | None = None
        self._closed = False

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and self._connection.is_open

    async def call(self, message: Message, *, timeout_s: float) -> Message:
        """One request and its answer. Raises what the peer's Failure says; Unavailable when it
        was not sent; OutcomeUnknown when the connection broke after that; DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout_s):
                connection = self._connection
                if connection is None or not connection.is_open:
                    connection = await self._connected()
                return await self._exchange(connection, message)
        except TimeoutError:
            raise DeadlineExceeded(
                f"{self.address} did not answer within {timeout_s:g} s"
            ) from None

    async def _exchange(self, connection: FrameConnection, message: Message) -> Message:
        self._next_stream = stream = self._next_stream % 0xFFFF_FFF0 + 1
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[stream] = future
        try:
            connection.write(stream, message)
            answer = await future
        finally:
            self._pending.pop(stream, None)
        if isinstance(answer, Failure):
            raise error_of(answer)
        return answer

    def send(self, message: Message) -> bool:
        """One way. Never waits; False when it was dropped (too much unsent), or will be unless a
        connection is made right away: then the newest few still go out. Two followers have none
        to each other until one stands for election, and a lost first request for votes would
        cost a whole election timeout."""
        connection = self._connection
        if connection is None or not connection.is_open:
            self._held.append(message)
            self._start_connecting()
            return False
        if connection.unsent_bytes() > _UNSENT_BYTES_MAX:
            return False
        connection.write(0, message)
        return True

    def subscribe(self, handler: Callable[[Notice], None], on_connect: Callable[[], None]) -> None:
        """Keeps a Subscribe alive over reconnects; `on_connect` after each, since notices may
        have been missed meanwhile. Until close()."""
        self._subscription = (handler, on_connect)
        self._keeper = asyncio.get_running_loop().create_task(self._keep_connected())

    async def _keep_connected(self) -> None:
        while not self._closed:
            try:
                connection = await self._connected()
                if connection.is_open:
                    await self._lost_event.wait()
            except AstraError:
                pass
            await asyncio.sleep(_RECONNECT_DELAY_S)

    async def _connected(self) -> FrameConnection:
        if self._connection is not None and self._connection.is_open:
            return self._connection
        self._start_connecting()
        if self._connecting is None:
            raise Unavailable("the dialer is closed")
        return await asyncio.shield(self._connecting)

    def _start_connecting(self) -> None:
        if self._closed or (self._connecting is not None and not self._connecting.done()):
            return
        self._connecting = asyncio.get_running_loop().create_task(self._connect())
        self._connecting.add_done_callback(_observe)

    async def _connect(self) -> FrameConnection:
        try:
            connection = await self._dialer.connect(self.address, self._on_frame, self._on_lost)
        except AstraError:
            self._held.clear()
            await asyncio.sleep(_RECONNECT_DELAY_S)  # senders ask again at once
            raise
        connection.break_after_silence(_CONTROL_SILENCE_S)
        self._connection = connection
        self._lost_event = asyncio.Event()
        while self._held:
            connection.write(0, self._held.popleft())
        if self._subscription is not None:
            self._next_stream = self._subscription_stream = self._next_stream % 0xFFFF_FFF0 + 1
            connection.write(self._subscription_stream, Subscribe())
            self._subscription[1]()
        return connection

    def _on_frame(self, prelude: Prelude, message: Message, payload: bytearray | None) -> None:
        if isinstance(message, Notice) and self._subscription is not None:
            self._subscription[0](message)
            return
        future = self._pending.get(prelude.stream)
        if future is not None and not future.done():
            future.set_result(message)

    def _on_lost(self, error: Exception | None) -> None:
        self._lost_event.set()
        for future in self._pending.values():
            if not future.done():
                future.set_exception(OutcomeUnknown(f"the connection to {self.address} broke"))

    def close(self) -> None:
        self._closed = True
        for task in (self._keeper, self._connecting):
            if task is not None:
                task.cancel()
        if self._connection is not None:
            self._connection.abort()


def _observe(task: asyncio.Task[FrameConnection]) -> None:
    """Marks the exception of a connection attempt as seen: senders do not wait for it."""
    if not task.cancelled():
        task.exception()
