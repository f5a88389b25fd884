"""Raft messages between nodes, and how a node reaches whoever leads.

Raft has a Dialer of its own: its small messages never wait behind requests or blob bytes.
Sending never blocks and may drop; the core expects that.
"""

from __future__ import annotations

from collections.abc import Callable

from astra.errors import NotLeader
from astra.net import Dialer
from astra.wire import Message, Notice, RaftMessage
from node.membership import ClusterMap


class RaftTransport:
    def __init__(self, dialer: Dialer, cluster: ClusterMap) -> None:
        self._dialer = dialer
        self._cluster = cluster

    def send(self, message: RaftMessage) -> None:
        address = self._cluster.address_of(message.to)
        if address is not None:
            self._dialer.control(address).send(message)


class FollowerPush:
    """Sends a notice to every member that is not in the Raft group."""

    def __init__(self, dialer: Dialer, cluster: ClusterMap) -> None:
        self._dialer = dialer
        self._cluster = cluster

    def send(self, notice: Notice) -> bool:
        """Never blocks. Whether anybody took it."""
        is_taken = False
        for ref in self._cluster.refs(self._cluster.followers()):
            is_taken = self._dialer.control(ref.address).send(notice) or is_taken
        return is_taken


class LeaderDialer:
    """Implements services.ports.LeaderLink over TCP."""

    def __init__(
        self,
        dialer: Dialer,
        cluster: ClusterMap,
        *,
        leader: Callable[[], str | None],
        tell_here: Callable[[Message], None],
    ) -> None:
        """`tell_here` takes what is told while this node itself leads."""
        self._dialer = dialer
        self._cluster = cluster
        self._leader = leader
        self._tell_here = tell_here

    def tell(self, message: Message) -> None:
        leader = self._leader()
        address = self._cluster.address_of(leader)
        if leader == self._cluster.node_id:
            self._tell_here(message)
        elif address is not None:
            self._dialer.control(address).send(message)

    async def ask(self, message: Message, *, timeout_s: float) -> Message:
        address = self._cluster.address_of(self._leader())
        if address is None:
            raise NotLeader(None)
        return await self._dialer.control(address).call(message, timeout_s=timeout_s)
