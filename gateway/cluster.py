"""The gateway's way to the nodes: finds the leader, asks it, and follows it when it changes.

Every message to the leader may be repeated: reads change nothing, and a Commit carries a request
id, so the cluster answers a repeated one with its first result. That is why any failure of the
way (no answer, a broken connection, no leader) is retried here until the request's time is up,
and a failover is a delay for the client, never an error or a doubled write.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final, TypeVar

from astra.errors import (
    DeadlineExceeded,
    HandshakeFailed,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from astra.net import Dialer
from astra.wire import HolderRef, Message, ReportBadBlob
from gateway.settings import GatewaySettings

_BACKOFF_S_FIRST: Final = 0.01
_BACKOFF_S_MAX: Final = 0.1
_MUTED_S: Final = 5.0

M = TypeVar("M", bound=Message)


class Cluster:
    """The nodes as one gateway sees them. Not thread safe; one per process."""

    def __init__(self, dialer: Dialer, settings: GatewaySettings) -> None:
        self.dialer = dialer
        self._settings = settings
        self._addresses = list(settings.nodes)
        random.shuffle(self._addresses)  # gateways do not all ask the same node first
        self._leader: str | None = None
        self._muted_until: dict[str, float] = {}  # holders that failed lately, by node id

    @property
    def addresses(self) -> tuple[str, ...]:
        return tuple(self._addresses)

    async def ask(self, message: Message, answer: type[M]) -> M:
        """The leader's answer. Raises Refused (its decision), or Unavailable when there was no
        answer in time; then the outcome of a Commit is unknown."""
        deadline = asyncio.get_running_loop().time() + self._settings.request_timeout_s
        backoff = _BACKOFF_S_FIRST
        while True:
            address = self._leader or self._addresses[0]
            remaining = deadline - asyncio.get_running_loop().time()
            if remaining <= 0:
                raise Unavailable("the cluster has no leader that answers")
            try:
                found = await self.dialer.control(address).call(
                    message, timeout_s=min(remaining, self._settings.attempt_timeout_s)
                )
                self._leader = address
                return _expect(found, answer)
            except NotLeader as error:
                if error.leader is not None and error.leader != address:
                    self._follow(error.leader)
                    continue
                self._try_another(address)
            except (Unavailable, OutcomeUnknown, DeadlineExceeded, HandshakeFailed):
                self._try_another(address)
            except Overloaded:
                pass  # the same leader, a little later
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            backoff = min(backoff * 2, _BACKOFF_S_MAX)

    def _follow(self, leader: str) -> None:
        self._leader = leader
        if leader not in self._addresses:
            self._addresses.append(leader)

    def _try_another(self, failed: str) -> None:
        self._leader = None
        if self._addresses[0] == failed:
            self._addresses.append(self._addresses.pop(0))

    def report_bad_blob(self, blob_id: str, node_id: str) -> None:
        """A hint to the leader that a copy is bad; may be lost (the scrub finds it too)."""
        if self._leader is not None:
            self.dialer.control(self._leader).send(ReportBadBlob(blob_id=blob_id, node_id=node_id))

    # --- holders that failed lately come last ---

    def mute(self, node_id: str) -> None:
        self._muted_until[node_id] = asyncio.get_running_loop().time() + _MUTED_S

    def unmute(self, node_id: str) -> None:
        self._muted_until.pop(node_id, None)

    def in_order(self, holders: tuple[HolderRef, ...]) -> list[HolderRef]:
        """The leader's order (fastest first), but those that failed us lately at the end."""
        if not self._muted_until:
            return list(holders)
        now = asyncio.get_running_loop().time()
        return sorted(holders, key=lambda holder: self._muted_until.get(holder.node_id, 0) > now)


def _expect(found: Message, answer: type[M]) -> M:
    if not isinstance(found, answer):
        raise Unavailable(f"the node answered a {type(found).__name__}")
    return found
