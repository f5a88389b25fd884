"""Whole nodes in this process: how one gets into a group that runs, and back into it."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from astra.commands import NewBlob, Refusal
from astra.errors import AstraError, Refused
from astra.model import NodeInfo, NodeState
from astra.wire import (
    Accepted,
    AddMember,
    CountHeld,
    DrainMember,
    HeldCount,
    ListMembers,
    MemberList,
    NodeStatus,
    PlaceBlobs,
    Placed,
    RemoveMember,
    TransferLeadership,
)
from node.raft.config import RaftConfig
from tests.support.nodes import NO_EPOCHS, LocalNodes, put_of
from tests.support.ports import free_ports
from tests.support.wait import wait_until_async

JOIN_SECONDS = 20.0
QUICK = RaftConfig(
    election_timeout_min_ms=300,
    election_timeout_max_ms=600,
    heartbeat_ms=50,
    entries_retained=0,
)


async def members_of(nodes: LocalNodes) -> dict[str, tuple[NodeInfo, str]]:
    found = await nodes.ask(ListMembers(), MemberList)
    return {member.node.node_id: (member.node, member.part) for member in found.members}


async def until_votes(nodes: LocalNodes, *names: str) -> None:
    async def all_vote() -> bool:
        found = await members_of(nodes)
        return all(name in found and found[name][1] == "voter" for name in names)

    await wait_until_async(all_vote, JOIN_SECONDS, f"{names} vote")


async def until_role(nodes: LocalNodes, name: str, role: str) -> NodeStatus:
    found: list[NodeStatus] = []

    async def has_role() -> bool:
        status = await nodes.status(name)
        found[:] = [status] if status is not None else []
        return status is not None and status.role == role

    await wait_until_async(has_role, JOIN_SECONDS, f"{name} is {role}")
    return found[0]


async def remove(nodes: LocalNodes, name: str) -> None:
    """A leader that is new has not heard of all voters yet, and rightly refuses until it has."""

    async def is_removed() -> bool:
        try:
            await nodes.ask(RemoveMember(node_id=name, force=True), Accepted)
        except Refused as error:
            assert "no majority of the voters would answer" in str(error)
            return False
        return True

    await wait_until_async(is_removed, JOIN_SECONDS, f"{name} is removed")


@asynccontextmanager
async def only(nodes: LocalNodes, *names: str) -> AsyncIterator[None]:
    """Those nodes run at first; all are stopped in the end."""
    try:
        await nodes.start(*names)
        await wait_until_async(nodes.leader, JOIN_SECONDS, "a leader is elected")
        yield
    finally:
        await nodes.__aexit__(None, None, None)


def let_voters_know_voters_only(nodes: LocalNodes) -> None:
    """By their settings."""
    for name in nodes.voters:
        nodes.change(name, peers={each: nodes.addresses[each] for each in nodes.voters})


async def some_follower(nodes: LocalNodes) -> str:
    leader = await nodes.the_leader()
    return next(name for name in nodes.voters if name != leader)


async def test_new_nodes_of_a_compacted_log_are_voted_in_one_by_one(tmp_path: Path) -> None:
    nodes = LocalNodes(tmp_path, voters=1, learners=2)
    for name in nodes.settings:
        nodes.change(name, voters_max=5, raft=QUICK, compact_interval_s=0.1)
    async with only(nodes, "n1"):
        await nodes.make_bucket("bk")
        for number in range(30):
            await nodes.put_inline("bk", b"k%d" % number, b"x")
        await nodes.start("n2", "n3")
        await until_votes(nodes, "n2", "n3")
        for name in ("n2", "n3"):
            await until_role(nodes, name, "follower")
        # Two of three are enough now, and none of the old entries is missing without n1.
        await nodes.stop("n1")
        assert len((await nodes.locate("bk", b"k29")).inline) == 1
        await nodes.put_inline("bk", b"after", b"x")


async def test_new_nodes_with_careless_settings_elect_nobody_beside_the_cluster(
    tmp_path: Path,
) -> None:
    nodes = LocalNodes(tmp_path, voters=1, learners=2)
    for name in ("n2", "n3"):
        nodes.change(name, voters=("n1", "n2", "n3"))
    async with only(nodes, "n1"):
        await nodes.make_bucket("bk")
        await nodes.start("n2", "n3")
        for name in ("n2", "n3"):
            status = await until_role(nodes, name, "learner")
            assert status.leader in {"n1", None}
        assert await nodes.leader() == "n1"
        await nodes.put_inline("bk", b"k", b"x")


async def status_of_leader(nodes: LocalNodes) -> NodeStatus:
    found: list[NodeStatus] = []

    async def answers() -> bool:
        name = await nodes.leader()
        status = await nodes.status(name) if name is not None else None
        if status is not None:
            found.append(status)
        return bool(found)

    await wait_until_async(answers, JOIN_SECONDS, "somebody leads, and answers")
    return found[0]


async def test_voter_with_an_empty_disk_gets_everything_again_before_it_votes(
    tmp_path: Path,
) -> None:
    nodes = LocalNodes(tmp_path)
    async with nodes:
        await nodes.make_bucket("bk")
        for number in range(20):
            await nodes.put_inline("bk", b"k%d" % number, b"x")
        wiped = await some_follower(nodes)
        await nodes.stop(wiped)
        await asyncio.to_thread(shutil.rmtree, nodes.settings[wiped].data_dir)
        before = await status_of_leader(nodes)
        await nodes.start(wiped)
        status = await until_role(nodes, wiped, "follower")
        # Also an entry that was proposed after it came back: what it has forgotten is harmless.
        assert status.applied_index > before.commit_index >= 20
        leader = await nodes.the_leader()
        await nodes.stop(leader)  # the wiped one is needed for the majority
        await nodes.put_inline("bk", b"after", b"x")
        assert len((await nodes.locate("bk", b"k19")).inline) == 1


async def test_members_are_recorded_drained_and_removed(tmp_path: Path) -> None:
    nodes = LocalNodes(tmp_path, voters=4)
    async with nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")

        async def recorded() -> bool:
            return set(await members_of(nodes)) == {"n1", "n2", "n3", "n4"}

        await wait_until_async(recorded, JOIN_SECONDS, "the seeds are recorded")
        leaving = await some_follower(nodes)
        await nodes.ask(DrainMember(node_id=leaving), Accepted)
        assert (await members_of(nodes))[leaving][0].state is NodeState.DRAINING

        async def left_out() -> bool:
            request = PlaceBlobs(bucket="bk", epochs=NO_EPOCHS, size=1000)
            placed = (await nodes.ask(request, Placed)).placements[0]
            return leaving not in {ref.node_id for ref in placed.holders}

        await wait_until_async(left_out, JOIN_SECONDS, "a draining node gets no new blobs")
        await nodes.ask(RemoveMember(node_id=leaving), Accepted)
        assert leaving not in await members_of(nodes)
        await nodes.ask(RemoveMember(node_id=leaving), Accepted)  # a second time: no harm

        async def says_so() -> bool:
            status = await nodes.status(leaving)
            return status is not None and "removed" in " ".join(status.problems)

        await wait_until_async(says_so, JOIN_SECONDS, "it says that it was removed")


async def test_blob_sent_to_a_node_that_was_removed_meanwhile_is_committed_without_it(
    tmp_path: Path,
) -> None:
    nodes = LocalNodes(tmp_path, voters=3)
    async with nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        request = PlaceBlobs(bucket="bk", epochs=NO_EPOCHS, size=1000)
        place = (await nodes.ask(request, Placed)).placements[0]
        blob = await nodes.write_all(place, b"y" * 1000)
        assert len(blob.holders) == 3
        leaving = await some_follower(nodes)
        await nodes.ask(RemoveMember(node_id=leaving, force=True), Accepted)

        async def is_gone() -> bool:
            return leaving not in await members_of(nodes)

        await wait_until_async(is_gone, JOIN_SECONDS, "the node is removed")
        result = await nodes.commit(put_of("bk", b"k", blob))
        assert not isinstance(result, Refusal)
        held = await nodes.ask(CountHeld(node_id=leaving), HeldCount)
        assert held.blobs == 0
        others = [name for name in nodes.voters if name != leaving]
        for name in others:
            assert (await nodes.ask(CountHeld(node_id=name), HeldCount)).blobs == 1


async def test_voter_that_was_away_finds_a_leader_that_joined_meanwhile(tmp_path: Path) -> None:
    """It gets what that leader sends, and does not know where to send its answers."""
    nodes = LocalNodes(tmp_path, voters=3, learners=1)
    for name in nodes.settings:
        nodes.change(name, voters_max=4, raft=QUICK, compact_interval_s=0.1)
    let_voters_know_voters_only(nodes)
    async with only(nodes, *nodes.voters):
        await nodes.make_bucket("bk")
        away = await some_follower(nodes)
        await nodes.stop(away)
        await nodes.ask(AddMember(node_id="n4", address=nodes.addresses["n4"]), Accepted)
        await nodes.start("n4")
        await until_votes(nodes, "n4")
        for number in range(20):
            await nodes.put_inline("bk", b"k%d" % number, b"x")

        async def n4_leads() -> bool:
            if await nodes.leader() != "n4":
                with contextlib.suppress(AstraError):
                    await nodes.ask(TransferLeadership(to="n4"), Accepted)
            return await nodes.leader() == "n4"

        await wait_until_async(n4_leads, JOIN_SECONDS, "the new node leads")
        await nodes.start(away)

        async def is_level() -> bool:
            leader, status = await status_of_leader(nodes), await nodes.status(away)
            return status is not None and status.applied_index >= leader.commit_index

        await wait_until_async(is_level, JOIN_SECONDS, "it has everything again")


async def test_voter_that_was_away_while_the_others_were_replaced_is_counted_when_it_is_needed(
    tmp_path: Path,
) -> None:
    """Its own log names a majority that is gone. It hears of today's from one that reports."""
    nodes = LocalNodes(tmp_path, voters=3, learners=2)
    for name in nodes.settings:
        nodes.change(name, voters_max=5, raft=QUICK, compact_interval_s=0.1)
    let_voters_know_voters_only(nodes)
    async with only(nodes, *nodes.voters):
        await nodes.make_bucket("bk")
        away = await some_follower(nodes)
        replaced = [name for name in nodes.voters if name != away]
        await nodes.stop(away)
        for name in ("n4", "n5"):
            await nodes.ask(AddMember(node_id=name, address=nodes.addresses[name]), Accepted)
            await nodes.start(name)
            await until_votes(nodes, name)
        for name in replaced:
            await remove(nodes, name)
        for name in replaced:
            await nodes.stop(name)
        await nodes.put_inline("bk", b"k", b"while it was away")
        await nodes.stop("n5")
        await nodes.start(away)
        assert (await nodes.put_inline("bk", b"after", b"x")) is not None
        located = await nodes.locate("bk", b"k")
        assert [data for _, data in located.inline] == [b"while it was away"]


async def test_node_that_moved_while_it_was_away_tells_those_that_only_its_settings_name(
    tmp_path: Path,
) -> None:
    """Nobody leads who could tell either of the other (seed 1000486)."""
    nodes = LocalNodes(tmp_path, voters=3, learners=1)
    for name in nodes.voters:
        nodes.change(name, raft=QUICK, voters_max=3)
    let_voters_know_voters_only(nodes)
    async with only(nodes, *nodes.voters):
        await until_votes(nodes, *nodes.voters)
        await nodes.all_are_level()
        away = await some_follower(nodes)
        await nodes.stop(away)
        await nodes.ask(AddMember(node_id="n4", address=nodes.addresses["n4"]), Accepted)
        await nodes.start("n4")

        async def n4_misses() -> set[str]:
            status = await nodes.status("n4")
            return {name for name in nodes.voters if status and says_silent(status, name)}

        await wait_until_async(lambda: is_set(n4_misses, {away}), JOIN_SECONDS, "n4 is a member")
        for name in nodes.voters:
            if name != away:
                await nodes.stop(name)
        (port,) = free_ports(1)
        nodes.addresses[away] = f"127.0.0.1:{port}"
        nodes.change(away, listen_port=port, peers=nodes.addresses)
        await nodes.start(away)
        gone = set(nodes.voters) - {away}
        await wait_until_async(lambda: is_set(n4_misses, gone), JOIN_SECONDS, "n4 has found it")


def says_silent(status: NodeStatus, name: str) -> bool:
    return f"{name} is silent" in status.problems


async def is_set(find: Callable[[], Awaitable[set[str]]], wanted: set[str]) -> bool:
    return await find() == wanted


@pytest.mark.parametrize("is_restarted", [False, True])
async def test_removed_node_that_is_added_to_a_full_group_follows_beside_it(
    tmp_path: Path, is_restarted: bool
) -> None:
    """Its log says that it belongs to the group, and nobody sends it anything."""
    nodes = LocalNodes(tmp_path, voters=3, learners=1)
    for name in nodes.settings:
        nodes.change(name, voters_max=3)
    async with nodes:
        await nodes.make_bucket("bk")
        again = await some_follower(nodes)
        await remove(nodes, again)
        await until_votes(nodes, "n4")
        await nodes.put_inline("bk", b"k", b"x")
        if is_restarted:
            await nodes.stop(again)
        await nodes.ask(AddMember(node_id=again, address=nodes.addresses[again]), Accepted)
        if is_restarted:
            await nodes.start(again)

        async def follows() -> bool:
            leader = await status_of_leader(nodes)
            status = await nodes.status(again)
            return status is not None and status.applied_index >= leader.commit_index

        await wait_until_async(follows, JOIN_SECONDS, "it follows the log")
        assert (await members_of(nodes))[again][1] == "follower"
        # It is wanted again when another one goes.
        leader = await nodes.leader()
        other = next(name for name in nodes.settings if name not in (again, leader))
        await remove(nodes, other)
        await until_votes(nodes, again)
        await nodes.put_inline("bk", b"after", b"x")


async def test_blob_of_which_a_removed_node_had_one_of_two_copies_is_copied_again(
    tmp_path: Path,
) -> None:
    """As long as there are too few copies, the one that is gone stays named."""
    nodes = LocalNodes(tmp_path, voters=4)
    for name in nodes.settings:
        nodes.change(name, repair_grace_s=0.5, repair_scan_interval_s=0.5)
    async with nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        request = PlaceBlobs(bucket="bk", epochs=NO_EPOCHS, size=1000)
        place = (await nodes.ask(request, Placed)).placements[0]
        leader = await nodes.the_leader()
        held = [ref.node_id for ref in place.holders]
        dead = next(name for name in held if name != leader)
        alive = next(name for name in held if name != dead)
        await nodes.stop(dead)
        for ref in place.holders:
            if ref.node_id == alive:
                await nodes.write_blob(ref.address, place.blob_id, b"y" * 1000)
        blob = NewBlob(blob_id=place.blob_id, size=1000, holders=(dead, alive))
        assert not isinstance(await nodes.commit(put_of("bk", b"k", blob)), Refusal)
        await remove(nodes, dead)

        async def holders() -> set[str]:
            counts = {
                name: (await nodes.ask(CountHeld(node_id=name), HeldCount)).blobs
                for name in nodes.voters
            }
            return {name for name, count in counts.items() if count}

        async def is_whole() -> bool:
            return await holders() == set(nodes.voters) - {dead}

        await wait_until_async(is_whole, JOIN_SECONDS, "the blob is on the three that are left")


async def test_drain_that_could_not_end_is_refused(tmp_path: Path) -> None:
    """A blob has three copies, and the draining one would be one of them for ever."""
    nodes = LocalNodes(tmp_path, learners=1)
    for name in nodes.settings:
        nodes.change(name, voters_max=3)
    async with nodes:
        await nodes.ask(DrainMember(node_id="n1"), Accepted)
        with pytest.raises(
            Refused, match=r"n2 cannot be emptied: .* there are 2 others\. Add a node"
        ):
            await nodes.ask(DrainMember(node_id="n2"), Accepted)
        assert (await members_of(nodes))["n2"][0].state is NodeState.ACTIVE
        await nodes.ask(DrainMember(node_id="n1", undo=True), Accepted)
        await nodes.ask(DrainMember(node_id="n2"), Accepted)


async def test_draining_node_takes_blobs_when_there_is_no_other_for_the_second_copy(
    tmp_path: Path,
) -> None:
    nodes = LocalNodes(tmp_path, learners=1)
    for name in nodes.settings:
        nodes.change(name, voters_max=3)
    async with nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        leader = await nodes.the_leader()
        draining, *dead = (name for name in nodes.settings if name != leader)
        await nodes.ask(DrainMember(node_id=draining), Accepted)
        for name in dead:
            await nodes.stop(name)
        found: list[Placed] = []

        async def placed() -> set[str]:
            request = PlaceBlobs(bucket="bk", epochs=NO_EPOCHS, size=1000)
            found[:] = [await nodes.ask(request, Placed)]
            return {ref.node_id for ref in found[0].placements[0].holders}

        async def is_without_the_dead() -> bool:
            return not await placed() & set(dead)

        await wait_until_async(is_without_the_dead, JOIN_SECONDS, "the dead nodes are left out")
        assert await placed() == {leader, draining}
        assert found[0].quorum == 2
        blob = await nodes.write_all(found[0].placements[0], b"y" * 1000)
        assert not isinstance(await nodes.commit(put_of("bk", b"k", blob)), Refusal)


async def test_added_node_is_recorded_before_it_runs(tmp_path: Path) -> None:
    nodes = LocalNodes(tmp_path, voters=1)
    async with nodes:
        await nodes.ask(AddMember(node_id="n9", address="127.0.0.1:9", zone="z"), Accepted)
        info, part = (await members_of(nodes))["n9"]
        assert (info.address, info.zone, part) == ("127.0.0.1:9", "z", "follower")


async def test_voter_with_an_empty_disk_elects_nobody_while_another_voter_is_silent(
    tmp_path: Path,
) -> None:
    """The silent one may be the only one left that has what was acknowledged (FAULTS row 38)."""
    nodes = LocalNodes(tmp_path)
    for name in nodes.settings:
        nodes.change(name, raft=QUICK)
    async with only(nodes, *nodes.voters):
        await nodes.make_bucket("bk")
        await nodes.put_inline("bk", b"k", b"x")
        wiped = await some_follower(nodes)
        holder = await nodes.the_leader()
        stale = next(name for name in nodes.voters if name not in (wiped, holder))
        for name in nodes.voters:
            await nodes.stop(name)
        for name in (wiped, stale):
            shutil.rmtree(nodes.settings[name].data_dir)
        await nodes.start(wiped, stale)
        with pytest.raises(AssertionError, match="somebody leads"):
            await wait_until_async(
                nodes.leader, 4 * QUICK.election_timeout_max_ms / 1000, "somebody leads"
            )
        status = await nodes.status(wiped)
        assert status is not None
        assert status.term == 0
