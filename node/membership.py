"""Who is in the cluster, where, and how it is doing.

`ClusterMap` is values and rules, the time is given. Who is a member is metadata (the table NODES,
handed in by `set_members`); the settings only name seeds. How members are doing comes from the
reports that each node sends about once a second (`Reporter`). A node that is silent for longer
than `silence_ms` counts as down: it gets no new blobs, and is read from last.

Rules
- Until NODES names this node (a cluster that starts, a node that joins) the seeds count as members.
- Addresses: the newest report, else the newest change of NODES, else the seed. A restarted process
  believes its settings before its tables, because tables may be older than a move.
- Reports of strangers are not believed, but for their address: one that joined while this node was
  away may lead, or need its vote, before the tables here know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final

from astra.model import NodeInfo, NodeState
from astra.net import Dialer
from astra.ports import Clock
from astra.wire import HolderRef, NodeReport
from node.raft.types import PeerStatus

STRANGERS_MAX: Final = 100
ADDRESS_CHARS_MAX: Final = 300  # the longest name of a host, and a port
_EAGER_REPORTS: Final = 10
_ROUNDS_OF_STRANGERS: Final = 10


class ClusterMap:
    """The members, and the newest report of each. Event loop only."""

    def __init__(
        self, *, node_id: str, address: str, peers: Mapping[str, str], clock: Clock, silence_ms: int
    ) -> None:
        self.node_id = node_id
        self._seeds = {**peers, node_id: address}
        self._addresses = dict(self._seeds)
        self._clock = clock
        self._silence_ms = silence_ms
        self._reports: dict[str, tuple[NodeReport, int]] = {}
        self._nodes: dict[str, NodeInfo] = {}
        self._was_member = False
        self._removed: set[str] = set()  # of the nodes that were known as members
        self.in_log: frozenset[str] = frozenset()  # who gets Raft messages; the others get notices

    # --- members ---

    def set_members(self, nodes: Iterable[NodeInfo]) -> None:
        """The table NODES, whole, each time that it may have changed."""
        before, self._nodes = self._nodes, {node.node_id: node for node in nodes}
        self._was_member = self._was_member or self.node_id in self._nodes
        for node_id in before.keys() - self._nodes.keys() - {self.node_id}:
            self._addresses.pop(node_id, None)
            self._reports.pop(node_id, None)
        self._removed = (self._removed | before.keys()) - self._nodes.keys()
        for node_id, node in self._nodes.items():
            known = before[node_id].address if node_id in before else self._addresses.get(node_id)
            is_news = known is None or (node_id in before and known != node.address)
            if is_news and node_id != self.node_id:
                self._addresses[node_id] = node.address

    def members(self) -> list[NodeInfo]:
        """By node id. While nothing is recorded yet: the seeds, active."""
        if self._was_member:
            return [self._nodes[node_id] for node_id in sorted(self._nodes)]
        return [
            NodeInfo(node_id=node_id, address=self._seeds[node_id])
            for node_id in sorted(self._seeds)
        ]

    def node_ids(self) -> list[str]:
        """Of the members."""
        return sorted(self._nodes if self._was_member else self._seeds)

    def known_ids(self) -> list[str]:
        """Of all that have an address here: members, seeds, and strangers that report."""
        return sorted(self._addresses)

    def strangers(self) -> list[str]:
        """That report, and are no members here: this node may have been away for long."""
        return sorted(self._addresses.keys() - self._seeds.keys() - set(self.node_ids()))

    def is_member(self, node_id: str) -> bool:
        return node_id in (self._nodes if self._was_member else self._seeds)

    def recorded(self, node_id: str) -> NodeInfo | None:
        """Its row of NODES."""
        return self._nodes.get(node_id)

    def is_draining(self, node_id: str) -> bool:
        """Gets no new blobs; its copies move to other nodes."""
        node = self._nodes.get(node_id)
        return node is not None and node.state is NodeState.DRAINING

    @property
    def is_removed(self) -> bool:
        """This node was a member and is none any more."""
        return self._was_member and self.node_id not in self._nodes

    @property
    def seeds(self) -> Mapping[str, str]:
        """The addresses of the settings, this node's included."""
        return self._seeds

    def followers(self) -> list[str]:
        """Members outside of the Raft group: they get committed entries as notices."""
        return [n for n in self.node_ids() if n not in self.in_log and n != self.node_id]

    # --- reports ---

    def note(self, report: NodeReport) -> None:
        """A report that has arrived."""
        if self.is_member(report.node_id):
            self._reports[report.node_id] = (report, self._clock.monotonic_ms())
            if report.node_id != self.node_id and report.address:
                self._addresses[report.node_id] = report.address
        elif report.address and self._may_note_stranger(report):
            self._addresses[report.node_id] = report.address

    def _may_note_stranger(self, report: NodeReport) -> bool:
        has_room = len(self._addresses) < len(self._nodes) + STRANGERS_MAX
        is_short = len(report.address) <= ADDRESS_CHARS_MAX
        return has_room and is_short and report.node_id not in self._removed

    def forget(self, node_id: str) -> None:
        """Counts as down until its next report (it just refused a connection)."""
        if node_id != self.node_id:
            self._reports.pop(node_id, None)

    def live_reports(self) -> list[NodeReport]:
        """Of the nodes that were heard lately, this one included; by node id."""
        oldest = self._clock.monotonic_ms() - self._silence_ms
        return [self._reports[n][0] for n in sorted(self._reports) if self._reports[n][1] >= oldest]

    def placeable_reports(self) -> list[NodeReport]:
        """Of the live members that may get new blobs."""
        return [each for each in self.live_reports() if not self.is_draining(each.node_id)]

    def is_live(self, node_id: str) -> bool:
        entry = self._reports.get(node_id)
        return entry is not None and entry[1] >= self._clock.monotonic_ms() - self._silence_ms

    def silent_nodes(self) -> list[str]:
        return [node_id for node_id in self.node_ids() if not self.is_live(node_id)]

    def address_of(self, node_id: str | None) -> str | None:
        return None if node_id is None else self._addresses.get(node_id)

    def node_at(self, address: str | None) -> str | None:
        """The node that is reached at `address`."""
        for node_id, known in self._addresses.items():
            if known == address:
                return node_id
        return None

    def refs(self, node_ids: Sequence[str]) -> tuple[HolderRef, ...]:
        """Addresses of those that are known, in the given order."""
        return tuple(
            HolderRef(node_id=node_id, address=self._addresses[node_id])
            for node_id in node_ids
            if node_id in self._addresses
        )


class Reporter:
    """Sends reports; a lost one costs nothing. Now and then to strangers, too: who was away knows
    some members by its settings only, and they may know it by an address that it has no more."""

    def __init__(
        self,
        *,
        dialer: Dialer,
        cluster: ClusterMap,
        make_report: Callable[[], Awaitable[NodeReport]],
        interval_s: float,
    ) -> None:
        self._dialer = dialer
        self._cluster = cluster
        self._make_report = make_report
        self._interval_s = interval_s
        self._round = 0

    async def run(self) -> None:
        """Until cancelled. Often at first, so that a cluster that starts knows itself soon."""
        for _ in range(_EAGER_REPORTS):
            await self.send_once()
            await asyncio.sleep(self._interval_s / _EAGER_REPORTS)
        while True:
            await self.send_once()
            await asyncio.sleep(self._interval_s)

    async def send_once(self) -> None:
        report = await self._make_report()
        self._cluster.note(report)
        is_for_all = self._round % _ROUNDS_OF_STRANGERS == 0
        self._round += 1
        names = self._cluster.known_ids() if is_for_all else self._cluster.node_ids()
        for ref in self._cluster.refs([name for name in names if name != report.node_id]):
            self._dialer.control(ref.address).send(report)


def describe_lag(peers: Mapping[str, PeerStatus], last_index: int) -> list[str]:
    """For the leader's status: the voters whose log is far behind."""
    return [
        f"{node_id} is {last_index - peer.match} log entries behind"
        for node_id, peer in sorted(peers.items())
        if last_index - peer.match > 1000
    ]


def describe_unrecorded(voters: Iterable[str], members: Iterable[str]) -> list[str]:
    """A cluster was interrupted while it started, and its settings have changed since: who votes
    is then in no list of members."""
    return [
        f"{voter} votes, and is not recorded as a member: start it, or take its vote away with"
        f" `astra node remove {voter} --force`"
        for voter in sorted(set(voters) - set(members))
    ]
