"""Who is in the cluster, where, and how it is doing: from the reports each node sends.

`ClusterMap` is values and rules, the time is given. `Reporter` is its shell: it sends this
node's report to every other node about once a second. A node that is silent for longer than
`silence_ms` counts as down: it gets no new blobs, and is read from last.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from astra.net import Dialer
from astra.ports import Clock
from astra.wire import HolderRef, NodeReport
from node.raft.types import PeerStatus

_EAGER_REPORTS: Final = 10


class ClusterMap:
    """The newest report of each node. Event loop only."""

    def __init__(
        self, *, node_id: str, address: str, peers: Mapping[str, str], clock: Clock, silence_ms: int
    ) -> None:
        self.node_id = node_id
        self._addresses = {**peers, node_id: address}
        self._clock = clock
        self._silence_ms = silence_ms
        self._reports: dict[str, tuple[NodeReport, int]] = {}

    def note(self, report: NodeReport) -> None:
        """A report that has arrived. Nodes that are not in the settings are not believed."""
        if report.node_id in self._addresses:
            self._reports[report.node_id] = (report, self._clock.monotonic_ms())
            if report.node_id != self.node_id:
                self._addresses[report.node_id] = report.address

    def forget(self, node_id: str) -> None:
        """Counts as down until its next report (it just refused a connection)."""
        if node_id != self.node_id:
            self._reports.pop(node_id, None)

    def live_reports(self) -> list[NodeReport]:
        """Of the nodes that were heard lately, this one included; by node id."""
        oldest = self._clock.monotonic_ms() - self._silence_ms
        return [self._reports[n][0] for n in sorted(self._reports) if self._reports[n][1] >= oldest]

    def is_live(self, node_id: str) -> bool:
        entry = self._reports.get(node_id)
        return entry is not None and entry[1] >= self._clock.monotonic_ms() - self._silence_ms

    def node_ids(self) -> list[str]:
        return sorted(self._addresses)

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
    """Sends reports; a lost one costs nothing."""

    def __init__(
        self,
        *,
        dialer: Dialer,
        cluster: ClusterMap,
        peers: Mapping[str, str],
        make_report: Callable[[], Awaitable[NodeReport]],
        interval_s: float,
    ) -> None:
        self._dialer = dialer
        self._cluster = cluster
        self._peers = peers
        self._make_report = make_report
        self._interval_s = interval_s

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
        for address in self._peers.values():
            self._dialer.control(address).send(report)


def describe_lag(peers: Mapping[str, PeerStatus], last_index: int) -> list[str]:
    """For the leader's status: the voters whose log is far behind."""
    return [
        f"{node_id} is {last_index - peer.match} log entries behind"
        for node_id, peer in sorted(peers.items())
        if last_index - peer.match > 1000
    ]
