"""How long a node is silent, and what that says of its copies."""

from astra.model import NodeInfo
from node.membership import ClusterMap
from node.services.copies import Standing
from node.services.standing import NodeWatch
from tests.support.handclock import HandClock

GRACE_MS = 300_000


def cluster_of(clock: HandClock, *names: str) -> ClusterMap:
    cluster = ClusterMap(
        node_id="a", address="a:1", peers={"b": "b:1"}, clock=clock, silence_ms=3000
    )
    cluster.set_members([NodeInfo(node_id=name, address=f"{name}:1") for name in names])
    return cluster


def test_standing_of_a_silent_member_is_gone_after_the_grace() -> None:
    clock = HandClock()
    watch = NodeWatch(cluster_of(clock, "a", "b"), clock, GRACE_MS)
    watch.observe()
    assert watch.standing("b") is Standing.LATE
    clock.now_ms += GRACE_MS
    assert watch.standing("b") is Standing.GONE


def test_standing_of_a_removed_node_is_gone_at_once() -> None:
    """A person has given it up: its copies are made again without waiting for it."""
    clock = HandClock()
    cluster = cluster_of(clock, "a", "b")
    watch = NodeWatch(cluster, clock, GRACE_MS)
    watch.observe()
    cluster.set_members([NodeInfo(node_id="a", address="a:1")])
    assert watch.standing("b") is Standing.GONE
