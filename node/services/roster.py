"""Keeps the cluster map level with the table NODES, on every node.

A node that was taken out of the Raft group gets no entries any more, so it never sees its own
removal. When it hears no leader for a while, it asks who the members are; the leader's answer is
as good as the table. It then says so in log and status. PreVote, and the CheckQuorum of the others,
keep it from disturbing anybody. It goes on asking: it may be added again, and the group may not
want it then; `on_outside` is told, so that it follows beside the group.

A leader that joined while this node was away is asked for, too: what it sends arrives, and without
its address nothing can be answered.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from astra.errors import AstraError, Fatal
from astra.leader import LeaderClient
from astra.log import get_logger
from astra.model import NODES, NodeInfo
from astra.net import Dialer
from astra.ports import MetadataStore, MetadataView
from astra.wire import Entry, ListMembers, MemberList
from node.apply.touched import Touched
from node.membership import ClusterMap
from node.services.members import NODES_MAX
from node.services.ports import Consensus

_LOOKS_WITHOUT_LEADER: Final = 5  # then others are asked
_ASK_S: Final = 3.0
_ATTEMPT_S: Final = 1.0

_log = get_logger("roster")


class Roster:
    def __init__(
        self,
        *,
        store: MetadataStore,
        cluster: ClusterMap,
        consensus: Consensus,
        dialer: Dialer,
        on_outside: Callable[[], None],
    ) -> None:
        """`on_outside`: the leader counts this node as a member outside of the Raft group."""
        self._store = store
        self._cluster = cluster
        self._consensus = consensus
        self._dialer = dialer
        self._on_outside = on_outside
        self._changed = asyncio.Event()
        self._looks_without_leader = 0

    def on_applied(self, _: Sequence[Entry], touched: Sequence[Touched]) -> None:
        """A listener of the Applier."""
        if any(change.nodes for change in touched):
            self._changed.set()

    def on_replaced(self) -> None:
        """A snapshot was installed."""
        self._changed.set()

    async def load(self) -> None:
        """From the own table."""

        async def scan(view: MetadataView) -> list[NodeInfo]:
            return [node for _, node in await view.scan(NODES, (), None, NODES_MAX)]

        self._set(await self._store.read(scan))

    def _set(self, nodes: Sequence[NodeInfo]) -> None:
        was_removed = self._cluster.is_removed
        self._cluster.set_members(nodes)
        if self._cluster.is_removed and not was_removed:
            _log.error("this node was removed from the cluster: stop it", others=len(nodes))

    async def run(self, interval_s: float) -> None:
        """For ever: reloads what changed, and notices that nobody leads us any more."""
        while True:
            try:
                if await self._has_changed(interval_s):
                    self._changed.clear()
                    await self.load()
                elif self._is_forsaken():
                    await self.ask_others()
            except Fatal:
                raise
            except AstraError as error:
                self._changed.set()
                await asyncio.sleep(interval_s)
                _log.info("roster: not now", reason=f"{type(error).__name__}: {error}")

    async def _has_changed(self, interval_s: float) -> bool:
        try:
            async with asyncio.timeout(interval_s):
                await self._changed.wait()
        except TimeoutError:
            return False
        return True

    def _is_forsaken(self) -> bool:
        if self._cluster.address_of(self._consensus.leader) is not None:
            self._looks_without_leader = 0
            return False
        self._looks_without_leader += 1
        return self._looks_without_leader % _LOOKS_WITHOUT_LEADER == 0

    async def ask_others(self) -> None:
        """Learns from the leader, if there is one, whether this node is still a member, and of the
        group. Who moved or joined while it was away may be known to the settings only, or by its
        reports; who reports is there, and asked first."""
        own_id = self._cluster.node_id
        others = [node for node in self._cluster.node_ids() if node != own_id]
        known = [ref.address for ref in self._cluster.refs((*self._cluster.strangers(), *others))]
        seeds = [address for node, address in self._cluster.seeds.items() if node != own_id]
        addresses = list(dict.fromkeys((*known, *seeds)))
        if not addresses:
            return
        client = LeaderClient(
            self._dialer, addresses, timeout_s=_ASK_S, attempt_timeout_s=_ATTEMPT_S
        )
        try:
            answer = await client.ask(ListMembers(), MemberList)
        except AstraError:
            return  # nobody leads: an election is under way, or the others are away too
        self._set([member.node for member in answer.members])
        parts = {member.node.node_id: member.part for member in answer.members}
        if parts.get(own_id) == "follower" and self._consensus.leader is None:
            self._on_outside()
