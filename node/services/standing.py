"""How long each node has been silent: a short silence is no reason to copy its blobs.

Rules: observed on every node all the time, so that a new leader knows it at once. A node that is no
member is not waited for: a person has given it up. Event loop only; the time is given.
"""

from __future__ import annotations

from astra.ports import Clock
from astra.wire import NodeReport
from node.membership import ClusterMap
from node.services.copies import Copies, Standing, judge


class NodeWatch:
    def __init__(self, cluster: ClusterMap, clock: Clock, grace_ms: int) -> None:
        self._cluster = cluster
        self._clock = clock
        self._grace_ms = grace_ms
        self._silent_since: dict[str, int] = {}

    def observe(self) -> None:
        """At least once a second."""
        for node_id in (*self._cluster.node_ids(), *self._silent_since.copy()):
            if self._cluster.is_live(node_id):
                self._silent_since.pop(node_id, None)
            else:
                self._silent_since.setdefault(node_id, self._clock.monotonic_ms())

    def standing(self, node_id: str) -> Standing:
        if self._cluster.is_live(node_id):
            is_leaving = self._cluster.is_draining(node_id)
            return Standing.LEAVING if is_leaving else Standing.LIVE
        if not self._cluster.is_member(node_id):
            return Standing.GONE
        now = self._clock.monotonic_ms()
        since = self._silent_since.setdefault(node_id, now)
        return Standing.GONE if now - since >= self._grace_ms else Standing.LATE

    def standings(self) -> list[tuple[str, Standing]]:
        """Of the members, by node id; a short silence changes nothing."""

        def settled(standing: Standing) -> Standing:
            return Standing.LIVE if standing is Standing.LATE else standing

        return [(name, settled(self.standing(name))) for name in self._cluster.node_ids()]

    def judge(self, holders: tuple[str, ...]) -> Copies:
        return judge(holders, self.standing)

    def reports(self) -> list[NodeReport]:
        """Of the nodes that may get blobs."""
        return self._cluster.placeable_reports()

    def staying(self) -> int:
        """How many members are meant to hold blobs, live or not."""
        return sum(not self._cluster.is_draining(name) for name in self._cluster.node_ids())
