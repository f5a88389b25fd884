"""Notices over RabbitMQ: one exchange per cluster. The only file that imports aio_pika.

Used by nodes (publish and receive) and by gateways (receive). Two topics, each fanned out to
whoever bound it: HINTS (what changed; gateways) and ENTRIES (committed entries; nodes that do not
vote), so that no object bytes travel to where nobody needs them. A hint channel: nothing waits for
the broker, and whatever could not be confirmed is handed back to `on_undelivered`. Each body
carries an HMAC of the cluster secret, because the broker is not a member of the cluster:
what others put into the exchange is ignored. A replay is harmless, notices are idempotent.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import deque
from collections.abc import Callable
from typing import Final

import aio_pika
import msgspec
from aio_pika.abc import AbstractChannel, AbstractConnection, AbstractExchange
from aio_pika.abc import AbstractIncomingMessage as Incoming
from aio_pika.exceptions import AMQPError
from aiormq.exceptions import AMQPException

from astra.constants import FRAME_HEADER_BYTES_MAX, MIB
from astra.decoding import UNREADABLE
from astra.log import get_logger
from astra.wire import Notice

HINTS: Final = "hints"
ENTRIES: Final = "entries"

_MAC_BYTES: Final = 32
_QUEUED_BYTES_MAX: Final = 16 * MIB
_QUEUED_MAX: Final = 4096
_BATCH_MAX: Final = 64  # unconfirmed messages at once
_RECEIVE_QUEUE_MAX: Final = 10_000  # in the broker, per consumer; the oldest are dropped
_CONNECT_TIMEOUT_S: Final = 3.0
_CONFIRM_TIMEOUT_S: Final = 2.0
_RETRY_S_MIN: Final = 0.2
_RETRY_S_MAX: Final = 2.0
_HEARTBEAT_S: Final = 5

_BROKER_ERRORS: Final = (AMQPError, AMQPException, OSError, TimeoutError, RuntimeError)

_log = get_logger("bus")
_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Notice] = msgspec.msgpack.Decoder(Notice)


def seal(secret: bytes, notice: Notice) -> bytes:
    """The message body: MAC, then the notice."""
    data = _encoder.encode(notice)
    return _mac(secret, data) + data


def unseal(secret: bytes, body: bytes) -> Notice | None:
    """None for what is too large, not ours, or not a notice."""
    if not _MAC_BYTES < len(body) <= FRAME_HEADER_BYTES_MAX:
        return None
    data = memoryview(body)[_MAC_BYTES:]
    if not hmac.compare_digest(_mac(secret, data), body[:_MAC_BYTES]):
        return None
    try:
        return _decoder.decode(data)
    except UNREADABLE:
        return None


def _mac(secret: bytes, data: bytes | memoryview) -> bytes:
    return hmac.new(secret, b"astra-notice-1" + data, hashlib.sha256).digest()


class NoticeChannel:
    """Keeps one connection to the broker alive. Event loop only."""

    def __init__(
        self,
        url: str,
        *,
        cluster_id: str,
        peer_id: str,
        secret: bytes,
        topic: str,
        handler: Callable[[Notice], None] | None = None,
        on_undelivered: Callable[[Notice], None] | None = None,
    ) -> None:
        """`handler` None: publish only; otherwise it gets the notices of `topic`. What is offered
        goes to ENTRIES when it has entries, to HINTS otherwise. `on_undelivered` gets each notice
        that was accepted by `offer` and not confirmed by the broker."""
        self._url = url
        self._exchange_name = f"astra.{cluster_id}.notices"
        self._topic = topic
        self._peer_id = peer_id
        self._secret = secret
        self._handler = handler
        self._on_undelivered = on_undelivered
        self._queue: deque[tuple[Notice, bytes]] = deque()
        self._queued_bytes = 0
        self._has_work = asyncio.Event()
        self._is_connected = False
        self._reason = "not connected yet"
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns at once; the broker may come later."""
        self._task = asyncio.get_running_loop().create_task(self._keep_connected())

    def offer(self, notice: Notice) -> bool:
        """Never blocks. False: use another way (broker away, or the queue is full)."""
        if not self._is_connected or len(self._queue) >= _QUEUED_MAX:
            return False
        body = seal(self._secret, notice)
        if self._queued_bytes + len(body) > _QUEUED_BYTES_MAX or len(body) > FRAME_HEADER_BYTES_MAX:
            return False
        self._queue.append((notice, body))
        self._queued_bytes += len(body)
        self._has_work.set()
        return True

    @property
    def is_connected(self) -> bool:
        return self._is_connected

    def state(self) -> str:
        return "ok" if self._is_connected else f"away: {self._reason}"

    async def close(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._hand_back()

    async def _keep_connected(self) -> None:
        delay_s = _RETRY_S_MIN
        while True:
            try:
                await self._connect_and_serve()
                delay_s = _RETRY_S_MIN
            except* _BROKER_ERRORS as group:
                reason = type(group.exceptions[0]).__name__  # never the text: it may hold the URL
                if self._is_connected or self._reason != reason:
                    _log.warning("rabbitmq is away: notices go over TCP", reason=reason)
                if self._is_connected:
                    delay_s = _RETRY_S_MIN
                self._reason = reason
            finally:
                self._is_connected = False
                self._hand_back()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, _RETRY_S_MAX)

    async def _connect_and_serve(self) -> None:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            connection = await aio_pika.connect(self._url, heartbeat=_HEARTBEAT_S)
        closed = asyncio.Event()
        connection.close_callbacks.add(lambda *_: closed.set())
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                channel, exchange = await self._open(connection)
            channel.close_callbacks.add(lambda *_: closed.set())
            self._is_connected = True
            _log.info("rabbitmq connected")
            async with asyncio.TaskGroup() as group:
                publishing = group.create_task(self._publish_all(exchange))
                await closed.wait()
                publishing.cancel()
            raise ConnectionError("the broker closed the connection")
        finally:
            await _close(connection)

    async def _open(
        self, connection: AbstractConnection
    ) -> tuple[AbstractChannel, AbstractExchange]:
        channel = await connection.channel(publisher_confirms=True)
        exchange = await channel.declare_exchange(
            self._exchange_name, aio_pika.ExchangeType.DIRECT, durable=True
        )
        if self._handler is not None:
            queue = await channel.declare_queue(
                exclusive=True,
                auto_delete=True,
                arguments={"x-max-length": _RECEIVE_QUEUE_MAX, "x-overflow": "drop-head"},
            )
            await queue.bind(exchange, self._topic)
            await queue.consume(self._receive, no_ack=True)
        return channel, exchange

    async def _receive(self, message: Incoming) -> None:
        if message.app_id == self._peer_id or self._handler is None:
            return  # our own words
        notice = unseal(self._secret, message.body)
        if notice is None:
            _log.warning("ignored a message that is not a notice of this cluster")
            return
        try:
            self._handler(notice)
        except Exception:  # one bad hint must not end the consumer
            _log.exception("a notice could not be handled: a bug")

    async def _publish_all(self, exchange: AbstractExchange) -> None:
        while True:
            await self._has_work.wait()
            count = min(len(self._queue), _BATCH_MAX)
            batch = [self._queue[position] for position in range(count)]
            await asyncio.gather(*(self._publish(exchange, *each) for each in batch))
            for _, body in batch:  # only now: an error hands the whole batch back
                self._queue.popleft()
                self._queued_bytes -= len(body)
            if not self._queue:
                self._has_work.clear()

    async def _publish(self, exchange: AbstractExchange, notice: Notice, body: bytes) -> None:
        message = aio_pika.Message(body, app_id=self._peer_id)
        topic = ENTRIES if notice.entries else HINTS
        await exchange.publish(message, topic, mandatory=False, timeout=_CONFIRM_TIMEOUT_S)

    def _hand_back(self) -> None:
        """What was not confirmed goes the other way; doubles are allowed."""
        waiting, self._queue = self._queue, deque()
        self._queued_bytes = 0
        self._has_work.clear()
        if self._on_undelivered is not None:
            for notice, _ in waiting:
                self._on_undelivered(notice)


async def _close(connection: AbstractConnection) -> None:
    try:
        async with asyncio.timeout(1.0):
            await connection.close()
    except _BROKER_ERRORS:
        pass  # it is gone already
