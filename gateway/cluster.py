"""The nodes as one gateway sees them: the leader, and how well the holders did lately."""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

from astra.leader import LeaderClient
from astra.net import Dialer
from astra.wire import HolderRef, Message, ReportBadBlob
from gateway.settings import GatewaySettings

_MUTED_S: Final = 5.0

M = TypeVar("M", bound=Message)


class Cluster:
    """Not thread safe; one per process."""

    def __init__(self, dialer: Dialer, settings: GatewaySettings) -> None:
        self.dialer = dialer
        self._leader = LeaderClient(
            dialer,
            settings.nodes,
            timeout_s=settings.request_timeout_s,
            attempt_timeout_s=settings.attempt_timeout_s,
        )
        self._muted_until: dict[str, float] = {}  # holders that failed lately, by node id

    async def ask(self, message: Message, answer: type[M]) -> M:
        """The leader's answer: see LeaderClient.ask."""
        return await self._leader.ask(message, answer)

    def report_bad_blob(self, blob_id: str, node_id: str) -> None:
        """A hint to the leader that a copy is bad; may be lost (the scrub finds it too)."""
        leader = self._leader.leader
        if leader is not None:
            self.dialer.control(leader).send(ReportBadBlob(blob_id=blob_id, node_id=node_id))

    def mute(self, node_id: str) -> None:
        """This holder failed: for a while it is asked last."""
        self._muted_until[node_id] = asyncio.get_running_loop().time() + _MUTED_S

    def in_order(self, holders: tuple[HolderRef, ...]) -> list[HolderRef]:
        """The leader's order (fastest first), but those that failed us lately at the end."""
        if not self._muted_until:
            return list(holders)
        now = asyncio.get_running_loop().time()
        return sorted(holders, key=lambda holder: self._muted_until.get(holder.node_id, 0) > now)
