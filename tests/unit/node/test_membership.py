"""The cluster map: who is heard, who counts as down, where they are."""

import pytest

from astra.wire import NodeReport
from node.membership import ClusterMap


class HandClock:
    def __init__(self) -> None:
        self.now_ms = 0

    def monotonic_ms(self) -> int:
        return self.now_ms

    def wall_ms(self) -> int:
        return self.now_ms


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def cluster(clock: HandClock) -> ClusterMap:
    return ClusterMap(
        node_id="n1", address="h1:1", peers={"n2": "h2:1"}, clock=clock, silence_ms=3000
    )


def report(node_id: str, address: str = "h:9") -> NodeReport:
    return NodeReport(node_id=node_id, address=address)


def test_node_without_a_report_is_silent(cluster: ClusterMap) -> None:
    assert cluster.silent_nodes() == ["n1", "n2"]
    assert cluster.address_of("n2") == "h2:1"


def test_report_makes_live_until_the_silence_is_over(cluster: ClusterMap, clock: HandClock) -> None:
    cluster.note(report("n2"))
    clock.now_ms = 3000
    assert cluster.is_live("n2")
    clock.now_ms = 3001
    assert not cluster.is_live("n2")
    assert cluster.live_reports() == []


def test_report_of_a_stranger_is_not_believed(cluster: ClusterMap) -> None:
    cluster.note(report("n9"))
    assert cluster.node_ids() == ["n1", "n2"]
    assert cluster.live_reports() == []


def test_report_moves_a_peer_but_never_this_node(cluster: ClusterMap) -> None:
    cluster.note(report("n2", "new:2"))
    cluster.note(report("n1", "evil:2"))
    assert cluster.address_of("n2") == "new:2"
    assert cluster.address_of("n1") == "h1:1"
    assert cluster.node_at("new:2") == "n2"
    assert cluster.node_at("nowhere:1") is None


def test_refs_keeps_the_order_and_drops_unknown_nodes(cluster: ClusterMap) -> None:
    assert [ref.node_id for ref in cluster.refs(["n2", "gone", "n1"])] == ["n2", "n1"]
