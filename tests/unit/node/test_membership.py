"""The cluster map: who is heard, who counts as down, where they are."""

import pytest

from astra.model import NodeInfo, NodeState
from astra.wire import NodeReport
from node.membership import (
    ADDRESS_CHARS_MAX,
    STRANGERS_MAX,
    ClusterMap,
    describe_unrecorded,
)
from tests.support.handclock import HandClock


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def cluster_map(clock: HandClock) -> ClusterMap:
    return ClusterMap(
        node_id="n1", address="h1:1", peers={"n2": "h2:1"}, clock=clock, silence_ms=3000
    )


def report(node_id: str, address: str = "h:9") -> NodeReport:
    return NodeReport(node_id=node_id, address=address)


def test_node_without_a_report_is_silent(cluster_map: ClusterMap) -> None:
    assert cluster_map.silent_nodes() == ["n1", "n2"]
    assert cluster_map.address_of("n2") == "h2:1"


def test_report_makes_live_until_the_silence_is_over(
    cluster_map: ClusterMap, clock: HandClock
) -> None:
    cluster_map.note(report("n2"))
    clock.now_ms += 3000
    assert cluster_map.is_live("n2")
    clock.now_ms += 1
    assert not cluster_map.is_live("n2")
    assert cluster_map.live_reports() == []


def test_report_of_a_stranger_is_not_believed(cluster_map: ClusterMap) -> None:
    cluster_map.note(report("n9"))
    assert cluster_map.node_ids() == ["n1", "n2"]
    assert cluster_map.live_reports() == []


def test_stranger_can_be_answered(cluster_map: ClusterMap) -> None:
    """It may be a voter already, by a log that is not applied here yet."""
    cluster_map.note(report("n9", "h9:1"))
    assert cluster_map.address_of("n9") == "h9:1"
    assert not cluster_map.is_member("n9")
    assert "n9" not in cluster_map.node_ids()
    assert cluster_map.strangers() == ["n9"]
    assert cluster_map.known_ids() == ["n1", "n2", "n9"]


def test_strangers_are_bounded(cluster_map: ClusterMap) -> None:
    for number in range(STRANGERS_MAX + 5):
        cluster_map.note(report(f"x{number}"))
    assert cluster_map.address_of(f"x{STRANGERS_MAX - 3}") is not None
    assert cluster_map.address_of(f"x{STRANGERS_MAX + 4}") is None


def test_address_of_a_stranger_is_no_book(cluster_map: ClusterMap) -> None:
    cluster_map.note(report("n9", "h" * ADDRESS_CHARS_MAX + ":1"))
    assert cluster_map.address_of("n9") is None


def test_report_moves_a_peer_but_never_this_node(cluster_map: ClusterMap) -> None:
    cluster_map.note(report("n2", "new:2"))
    cluster_map.note(report("n1", "evil:2"))
    assert cluster_map.address_of("n2") == "new:2"
    assert cluster_map.address_of("n1") == "h1:1"
    assert cluster_map.node_at("new:2") == "n2"
    assert cluster_map.node_at("nowhere:1") is None


def test_refs_keeps_the_order_and_drops_unknown_nodes(cluster_map: ClusterMap) -> None:
    assert [ref.node_id for ref in cluster_map.refs(["n2", "gone", "n1"])] == ["n2", "n1"]


def node(node_id: str, address: str = "", state: NodeState = NodeState.ACTIVE) -> NodeInfo:
    return NodeInfo(node_id=node_id, address=address or f"h{node_id[1:]}:1", state=state)


def test_seeds_are_members_until_this_node_is_recorded(cluster_map: ClusterMap) -> None:
    cluster_map.set_members([node("n2"), node("n3")])
    assert cluster_map.node_ids() == ["n1", "n2"]
    assert not cluster_map.is_removed
    cluster_map.set_members([node("n1"), node("n2"), node("n3")])
    assert cluster_map.node_ids() == ["n1", "n2", "n3"]
    assert [each.node_id for each in cluster_map.members()] == ["n1", "n2", "n3"]
    assert cluster_map.address_of("n3") == "h3:1"


def test_joined_node_is_believed_and_a_removed_one_no_more(cluster_map: ClusterMap) -> None:
    cluster_map.set_members([node("n1"), node("n2"), node("n3")])
    cluster_map.note(report("n3"))
    assert cluster_map.is_live("n3")
    cluster_map.set_members([node("n1"), node("n2")])
    cluster_map.note(report("n3"))
    assert not cluster_map.is_live("n3")
    assert cluster_map.address_of("n3") is None
    assert cluster_map.live_reports() == []


def test_seed_wins_over_an_old_row_and_a_change_of_the_row_over_the_seed(
    cluster_map: ClusterMap,
) -> None:
    cluster_map.set_members([node("n1", "old:1"), node("n2", "old:2")])
    assert cluster_map.address_of("n2") == "h2:1"
    cluster_map.set_members([node("n1", "old:1"), node("n2", "moved:2")])
    assert cluster_map.address_of("n2") == "moved:2"
    assert cluster_map.address_of("n1") == "h1:1"


def test_unchanged_row_does_not_undo_a_report(cluster_map: ClusterMap) -> None:
    rows = [node("n1"), node("n2")]
    cluster_map.set_members(rows)
    cluster_map.note(report("n2", "new:2"))
    cluster_map.set_members(rows)
    assert cluster_map.address_of("n2") == "new:2"


def test_draining_node_is_live_but_gets_no_blobs(cluster_map: ClusterMap) -> None:
    cluster_map.set_members([node("n1"), node("n2", state=NodeState.DRAINING)])
    cluster_map.note(report("n1"))
    cluster_map.note(report("n2"))
    assert cluster_map.is_draining("n2")
    assert not cluster_map.is_draining("n1")
    assert len(cluster_map.live_reports()) == 2
    assert [each.node_id for each in cluster_map.placeable_reports()] == ["n1"]


def test_node_without_its_row_was_removed(cluster_map: ClusterMap) -> None:
    cluster_map.set_members([node("n1"), node("n2")])
    assert not cluster_map.is_removed
    cluster_map.set_members([node("n2")])
    assert cluster_map.is_removed
    assert cluster_map.node_ids() == ["n2"]


def test_followers_are_the_members_outside_of_the_group(cluster_map: ClusterMap) -> None:
    cluster_map.set_members([node("n1"), node("n2"), node("n3")])
    cluster_map.in_log = frozenset({"n1", "n2"})
    assert cluster_map.followers() == ["n3"]


def test_voter_that_no_list_of_members_has_is_told() -> None:
    assert describe_unrecorded(("n1", "n2"), ["n1", "n2", "n4"]) == []
    (problem,) = describe_unrecorded(("n1", "n2", "n3"), ["n1", "n2"])
    assert "n3 votes, and is not recorded" in problem
    assert "astra node remove n3 --force" in problem
