"""Where new blobs go, and who is asked first for old ones."""

from __future__ import annotations

from astra.constants import GIB
from astra.placement import place_blob, rank_holders
from astra.wire import NodeReport


def _node(
    node_id: str,
    free_gib: float,
    *,
    zone: str = "",
    writable: bool = True,
    streams: int = 0,
    speed: float = 0.0,
) -> NodeReport:
    return NodeReport(
        node_id=node_id,
        address=f"{node_id}:1",
        zone=zone,
        total_bytes=100 * GIB,
        free_bytes=int(free_gib * GIB),
        streams=streams,
        read_mib_per_s=speed,
        writable=writable,
    )


def test_place_blob_leader_at_the_average_comes_first() -> None:
    nodes = [_node("a", 90), _node("b", 50), _node("c", 10)]
    assert place_blob(nodes, "b", 1) == ("b", "a", "c")


def test_place_blob_leader_below_the_average_is_left_out() -> None:
    nodes = [_node("a", 90), _node("b", 40), _node("c", 60), _node("d", 70)]
    assert place_blob(nodes, "b", 1) == ("a", "d", "c")


def test_place_blob_zones_different_ones_first() -> None:
    nodes = [
        _node("a", 90, zone="1"),
        _node("b", 80, zone="1"),
        _node("c", 70, zone="1"),
        _node("d", 5, zone="2"),
    ]
    assert place_blob(nodes, "a", 1) == ("a", "d", "b")


def test_place_blob_repair_prefers_a_zone_without_a_copy() -> None:
    nodes = [_node("a", 90, zone="1"), _node("b", 10, zone="2")]
    assert place_blob(nodes, "x", 1, count=1, zones_used=("1",)) == ("b",)


def test_place_blob_full_and_readonly_nodes_are_not_used() -> None:
    nodes = [_node("a", 0.2), _node("b", 50, writable=False), _node("c", 2), _node("d", 9)]
    assert place_blob(nodes, "a", GIB) == ("d", "c")
    assert place_blob(nodes, "a", 60 * GIB) == ()


def test_place_blob_full_nodes_do_not_lower_the_average() -> None:
    nodes = [_node("a", 0.1), _node("b", 40), _node("c", 50), _node("d", 60), _node("e", 70)]
    assert "b" not in place_blob(nodes, "b", 1)


def test_place_blob_equals_the_less_busy_first() -> None:
    nodes = [_node("a", 50, streams=9), _node("b", 50, streams=1), _node("c", 50)]
    assert place_blob(nodes, "none", 1, count=2) == ("c", "b")


def test_rank_holders_speed_is_shared_by_the_streams() -> None:
    nodes = [_node("a", 1, speed=90, streams=8), _node("b", 1, speed=100), _node("c", 1, speed=40)]
    assert rank_holders(("a", "b", "c"), nodes) == ("b", "c", "a")


def test_rank_holders_silent_nodes_come_last() -> None:
    nodes = [_node("a", 1, speed=10), _node("b", 1), _node("c", 1, speed=100)]
    assert rank_holders(("gone", "a", "b", "c"), nodes) == ("b", "c", "a", "gone")


def _firsts(*nodes: NodeReport) -> list[str]:
    names = tuple(node.node_id for node in nodes)
    return sorted(rank_holders(names, nodes, turn=turn)[0] for turn in range(30))


def test_rank_holders_a_node_that_was_not_measured_gets_its_turn() -> None:
    found = _firsts(_node("a", 1), _node("b", 1, speed=4128), _node("c", 1, speed=4531))
    assert found.count("a") == 10


def test_rank_holders_small_differences_leave_no_node_out() -> None:
    a, b, c = _node("a", 1, speed=4000), _node("b", 1, speed=4128), _node("c", 1, speed=4531)
    assert [_firsts(a, b, c).count(name) for name in "abc"] == [10, 10, 10]


def test_rank_holders_slow_node_is_not_chosen_first() -> None:
    slow = _node("a", 1, speed=100)
    assert "a" not in _firsts(slow, _node("b", 1, speed=300), _node("c", 1, speed=400))


def test_rank_holders_equals_take_turns() -> None:
    nodes = [_node("a", 1), _node("b", 1), _node("c", 1)]
    firsts = {rank_holders(("a", "b", "c"), nodes, turn=turn)[0] for turn in range(3)}
    assert firsts == {"a", "b", "c"}
    assert rank_holders((), nodes) == ()
