"""Notices over RabbitMQ, and over TCP whenever the broker is away.

Gateways are always reached over their Subscribe streams with the (small) hints; what RabbitMQ
takes off the leader is the fan-out of the log entries to the nodes that do not vote.
"""

from __future__ import annotations

from astra.bus_rabbitmq import NoticeChannel
from astra.wire import Notice
from node.bus.direct import DirectBus, Notify


class RabbitBus:
    """Implements astra.ports.Bus over a DirectBus that carries what the broker cannot."""

    def __init__(
        self, url: str, direct: DirectBus, *, cluster_id: str, node_id: str, secret: bytes
    ) -> None:
        self._direct = direct
        self._channel = NoticeChannel(
            url,
            cluster_id=cluster_id,
            peer_id=node_id,
            secret=secret,
            handler=direct.receive,
            on_undelivered=direct.push,
        )

    def publish(self, notice: Notice) -> None:
        self._direct.publish_hint(notice)
        if not self._channel.offer(notice):
            self._direct.push(notice)

    def subscribe(self, handler: Notify) -> None:
        self._direct.subscribe(handler)

    async def start(self) -> None:
        await self._channel.start()

    def state(self) -> str:
        return self._channel.state()

    async def close(self) -> None:
        await self._channel.close()
        await self._direct.close()
