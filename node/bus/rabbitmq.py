"""Notices over RabbitMQ, and over TCP whenever the broker is away.

RabbitMQ takes the fan-out off the leader: of hints to the gateways, and of log entries to the nodes
that do not vote. The hints are small and rare, so they also go to whoever subscribed over TCP (a
gateway without the broker); doubled notices are allowed.
"""

from __future__ import annotations

import msgspec

from astra.bus_rabbitmq import ENTRIES, NoticeChannel
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
            topic=ENTRIES,
            handler=direct.receive,
            on_undelivered=self._push_entries,
        )

    def publish(self, notice: Notice) -> None:
        self._direct.publish_hint(notice)
        hint = msgspec.structs.replace(notice, entries=())
        if hint.access or hint.buckets:
            self._channel.offer(hint)
        if notice.entries and not self._channel.offer(notice):
            self._direct.push(notice)

    def _push_entries(self, notice: Notice) -> None:
        if notice.entries:  # hints went over TCP already
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
