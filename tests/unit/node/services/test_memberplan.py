"""What the leader does next about the members."""

from dataclasses import replace as with_changes

from msgspec.structs import replace as put

from astra.model import NodeInfo, NodeState
from astra.wire import Membership, NodeReport
from node.raft.progress import PeerState
from node.raft.types import PeerStatus
from node.services.memberplan import (
    ANSWERING_MS,
    CAUGHT_UP_ENTRIES,
    Change,
    HandOver,
    Record,
    Situation,
    answering,
    keeps_majority,
    next_step,
    part_of,
    promoted,
    without,
)


def node(node_id: str, state: NodeState = NodeState.ACTIVE, zone: str = "") -> NodeInfo:
    return NodeInfo(node_id=node_id, address=f"{node_id}:1", zone=zone, state=state)


def situation(
    nodes: list[NodeInfo],
    voters: str,
    *,
    learners: str = "",
    live: str | None = None,
    match: dict[str, int] | None = None,
    voters_max: int = 5,
    seeds: str = "",
    reports: dict[str, NodeReport] | None = None,
) -> Situation:
    """Nodes are named by one letter; the leader is a; the log has 5000 entries."""
    names = "".join(each.node_id for each in nodes) if live is None else live
    heard = {each: NodeReport(node_id=each, address=f"{each}:1") for each in names}
    return Situation(
        node_id="a",
        nodes={each.node_id: each for each in nodes},
        seeds={each: f"{each}:1" for each in seeds},
        membership=Membership(voters=tuple(voters), learners=tuple(learners)),
        reports={**heard, **(reports or {})},
        match=dict.fromkeys([*voters, *learners], 5000) | (match or {}),
        last_index=5000,
        voters_max=voters_max,
    )


ABC = [node("a"), node("b"), node("c")]


def test_nothing_to_do_when_all_is_as_it_should_be() -> None:
    assert next_step(situation(ABC, "abc", seeds="abc")) is None


def test_seeds_are_recorded_those_without_a_vote_first_and_the_leader_last() -> None:
    nodes: list[NodeInfo] = []
    order = []
    while isinstance(step := next_step(situation(nodes, "abc", live="", seeds="abcd")), Record):
        order.append(step.node.node_id)
        nodes.append(step.node)
    assert order == ["d", "b", "c", "a"]


def test_removed_seed_is_not_recorded_again() -> None:
    assert next_step(situation(ABC, "abc", seeds="abcz")) is None


def test_removed_voter_that_still_has_a_row_is_not_taken_back() -> None:
    leaving = node("d", NodeState.DRAINING)
    assert next_step(situation([*ABC, leaving], "abc", seeds="abcd")) is None


def test_moved_node_is_recorded_and_keeps_its_state() -> None:
    nodes = [node("a"), node("b", NodeState.DRAINING, zone="z1"), node("c")]
    moved = {"b": NodeReport(node_id="b", address="new:2")}
    step = next_step(situation(nodes, "abc", reports=moved))
    assert step == Record(node=put(nodes[1], address="new:2"))


def test_zone_follows_the_report() -> None:
    told = {"b": NodeReport(node_id="b", address="b:1", zone="cellar")}
    assert next_step(situation(ABC, "abc", reports=told)) == Record(node=node("b", zone="cellar"))


def test_new_node_becomes_a_learner_then_a_voter() -> None:
    nodes = [*ABC, node("d")]
    assert next_step(situation(nodes, "abc")) == Change(
        membership=Membership(voters=("a", "b", "c"), learners=("d",))
    )
    assert next_step(situation(nodes, "abc", learners="d")) == Change(
        membership=Membership(voters=("a", "b", "c", "d"))
    )


def test_learner_that_lacks_entries_is_not_promoted() -> None:
    nodes = [*ABC, node("d")]
    at = 5000 - CAUGHT_UP_ENTRIES
    assert next_step(situation(nodes, "abc", learners="d", match={"d": at - 1})) is None
    assert next_step(situation(nodes, "abc", learners="d", match={"d": at})) is not None


def test_learner_that_does_not_answer_yet_is_not_promoted_however_short_the_log() -> None:
    now = situation([*ABC, node("d")], "abc", learners="d")
    others = dict.fromkeys("abc", 5000)
    young = with_changes(now, last_index=7, match=others)
    assert next_step(young) is None


def test_silent_or_draining_node_is_neither_invited_nor_promoted() -> None:
    nodes = [*ABC, node("d")]
    assert next_step(situation(nodes, "abc", live="abc")) is None
    assert next_step(situation(nodes, "abc", learners="d", live="abc")) is None
    leaving = [*ABC, node("d", NodeState.DRAINING)]
    assert next_step(situation(leaving, "abc")) is None
    assert next_step(situation(leaving, "abc", learners="d")) is None


def test_no_more_than_the_allowed_voters() -> None:
    nodes = [node(each) for each in "abcdef"]
    assert next_step(situation(nodes, "abcde")) is None
    assert next_step(situation(nodes, "abcd", learners="e")) is not None
    assert next_step(situation(nodes, "abc", voters_max=3)) is None
    assert next_step(situation(nodes, "abc", voters_max=0)) is None
    # a learner that waits has the place already
    assert next_step(situation(nodes, "abcd", learners="e", match={"e": 0})) is None


def test_voters_lost_to_a_removal_are_replaced_by_learners() -> None:
    nodes = [node("a"), node("b"), node("d")]
    assert next_step(situation(nodes, "ab", learners="d", voters_max=3)) == Change(
        membership=Membership(voters=("a", "b", "d"))
    )


def test_draining_leader_hands_over_to_the_longest_live_log() -> None:
    nodes = [node("a", NodeState.DRAINING), node("b"), node("c"), node("d")]
    now = situation(nodes, "abcd", live="abc", match={"b": 4000, "c": 4001, "d": 5000})
    assert next_step(now) == HandOver(to="c")
    assert next_step(situation(nodes, "abcd", live="a")) is None


def test_promoted_and_without_change_one_node_only() -> None:
    membership = Membership(voters=("a", "c"), learners=("b", "d"))
    assert promoted(membership, "b") == Membership(voters=("a", "b", "c"), learners=("d",))
    assert without(membership, "c") == Membership(voters=("a",), learners=("b", "d"))
    assert without(membership, "d") == Membership(voters=("a", "c"), learners=("b",))


def test_answering_leaves_out_a_voter_that_came_back_with_an_empty_disk() -> None:
    """It reports, and takes part in nothing."""

    def peer(state: PeerState, active_ms_ago: int) -> PeerStatus:
        return PeerStatus(match=9, next=10, state=state.value, active_ms_ago=active_ms_ago)

    peers = {
        "b": peer(PeerState.REPLICATE, 100),
        "empty": peer(PeerState.REPLICATE, ANSWERING_MS + 1),
        "new": peer(PeerState.PROBE, 0),
        "far behind": peer(PeerState.SNAPSHOT, 0),
        "silent": peer(PeerState.REPLICATE, 100),
    }
    live = frozenset(("a", "b", "empty", "new", "far behind", "follower"))
    assert answering("a", live, peers) == {"a", "b"}


def test_keeps_majority_counts_live_voters_only() -> None:
    membership = Membership(voters=("a", "b", "c"), learners=("d",))
    assert keeps_majority(membership, frozenset("ab"))
    assert not keeps_majority(membership, frozenset("ad"))
    assert not keeps_majority(Membership(voters=()), frozenset("ab"))


def test_part_of_who_is_in_the_newest_or_the_committed_membership_is_of_the_group() -> None:
    before = Membership(voters=("a", "b", "c"), learners=("d",))
    removing = Membership(voters=("a", "b"), learners=("e",))
    assert part_of("c", (removing, before)) == "voter", "the removal may still be undone"
    assert part_of("d", (removing, before)) == "learner"
    assert part_of("e", (removing, before)) == "learner", "it may have joined already"
    assert part_of("c", (removing, removing)) == "follower"
