"""Four nodes in this process: copies follow nodes that go, come back, and drain.

Real sockets and files; only the grace times are short.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from astra.commands import AddHolder, NewBlob, PutDone, PutNode
from astra.model import NodeInfo, NodeState
from astra.wire import Accepted, PlaceBlobs, Placed, ReportBadBlobs, TransferLeadership
from tests.support.nodes import NO_EPOCHS, LocalNodes, put_of
from tests.support.wait import wait_until_async

BODY = bytes(range(256)) * 4096 + b"the end"
HEAL_SECONDS = 60.0


@asynccontextmanager
async def four_nodes(path: Path, *, grace_s: float) -> AsyncIterator[LocalNodes]:
    nodes = LocalNodes(path, voters=3, learners=1)
    for name in nodes.settings:
        nodes.change(
            name, repair_grace_s=grace_s, repair_scan_interval_s=0.2, repair_delay_s=0.2,
            sweep_interval_s=0.5, census_interval_s=0.5,
        )  # fmt: skip
    async with nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        yield nodes


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[LocalNodes]:
    async with four_nodes(tmp_path, grace_s=2.0) as nodes:
        yield nodes


async def put(nodes: LocalNodes, holders: list[str]) -> str:
    """An object whose copies are on these nodes; its blob."""
    placed = await nodes.ask(PlaceBlobs(bucket="bk", epochs=NO_EPOCHS, size=len(BODY)), Placed)
    blob_id = placed.placements[0].blob_id
    for name in holders:
        await nodes.write_blob(nodes.addresses[name], blob_id, BODY)
    blob = NewBlob(blob_id=blob_id, size=len(BODY), holders=tuple(holders))
    assert isinstance(await nodes.commit(put_of("bk", b"k", blob)), PutDone)
    return blob_id


async def holders(nodes: LocalNodes) -> set[str]:
    (place,) = (await nodes.locate("bk", b"k")).places
    return {ref.node_id for ref in place.holders}


def on_disk(nodes: LocalNodes, blob_id: str) -> set[str]:
    """Whose chunk directory has a file of it, whole or not."""
    return {
        name
        for name, settings in nodes.settings.items()
        if any(p.is_file() for p in (settings.data_dir / "chunks").rglob(f"{blob_id}*"))
    }


async def a_follower(nodes: LocalNodes) -> str:
    """One of the first three that does not lead."""
    leader = await nodes.the_leader()
    return "n1" if leader != "n1" else "n2"


async def until_missed(nodes: LocalNodes, name: str) -> None:
    async def is_noticed() -> bool:
        status = await nodes.status(await nodes.leader() or "")
        return status is not None and f"{name} is silent" in status.problems

    await wait_until_async(is_noticed, HEAL_SECONDS, "its silence is noticed")


async def until_held_by(nodes: LocalNodes, blob_id: str, wanted: set[str]) -> None:
    """By metadata and by the disks."""

    async def is_so() -> bool:
        return await holders(nodes) == wanted and on_disk(nodes, blob_id) == wanted

    await wait_until_async(is_so, HEAL_SECONDS, f"the copies are on {sorted(wanted)}")


async def test_holder_that_stays_away_is_replaced_and_deletes_its_copy_when_it_returns(
    nodes: LocalNodes,
) -> None:
    blob_id = await put(nodes, ["n1", "n2", "n3"])
    follower = await a_follower(nodes)
    others = {"n1", "n2", "n3", "n4"} - {follower}
    await nodes.stop(follower)

    async def is_replaced() -> bool:
        return await holders(nodes) == others

    await wait_until_async(is_replaced, HEAL_SECONDS, "a fourth node took its place")
    assert follower in on_disk(nodes, blob_id), "nobody else may delete its copy"
    for name in others:
        assert await nodes.read_blob(name, blob_id, length=len(BODY)) == BODY
    await nodes.start(follower)
    await until_held_by(nodes, blob_id, others)


async def test_holder_that_returns_within_the_grace_is_not_replaced(tmp_path: Path) -> None:
    async with four_nodes(tmp_path, grace_s=600.0) as nodes:
        blob_id = await put(nodes, ["n1", "n2", "n3"])
        follower = await a_follower(nodes)
        await nodes.stop(follower)
        await until_missed(nodes, follower)
        await nodes.start(follower)
        await nodes.all_know_each_other()
        assert on_disk(nodes, blob_id) == {"n1", "n2", "n3"}
        assert await holders(nodes) == {"n1", "n2", "n3"}


async def test_bad_copy_of_a_node_that_is_away_for_a_moment_is_repaired_when_it_is_back(
    tmp_path: Path,
) -> None:
    """Nobody else gets one within the grace, and the scrub of the node comes in a week."""
    async with four_nodes(tmp_path, grace_s=600.0) as nodes:
        blob_id = await put(nodes, ["n1", "n2", "n3"])
        follower = await a_follower(nodes)
        await nodes.stop(follower)
        (path,) = nodes.settings[follower].data_dir.rglob(blob_id)
        content = path.read_bytes()
        path.write_bytes(b"#" + content[1:])
        await until_missed(nodes, follower)
        await nodes.ask(ReportBadBlobs(blob_ids=(blob_id,), node_id=follower), Accepted)

        async def is_tried_again() -> bool:
            status = await nodes.status(await nodes.leader() or "")
            return status is not None and dict(status.work)["repair"] == "1 waiting"

        await wait_until_async(is_tried_again, HEAL_SECONDS, "it failed, and waits")
        await nodes.start(follower)

        def is_good() -> bool:
            return path.read_bytes() == content

        await wait_until_async(is_good, HEAL_SECONDS, "the copy is good again")
        assert await holders(nodes) == {"n1", "n2", "n3"}


async def test_fourth_copy_is_one_too_many_and_goes(nodes: LocalNodes) -> None:
    blob_id = await put(nodes, ["n1", "n2", "n3"])
    await nodes.write_blob(nodes.addresses["n4"], blob_id, BODY)
    await nodes.commit(AddHolder(blob_id=blob_id, node_id="n4"))

    async def is_right() -> bool:
        held = await holders(nodes)
        return len(held) == 3 and on_disk(nodes, blob_id) == held

    await wait_until_async(is_right, HEAL_SECONDS, "three copies are left")
    for name in await holders(nodes):
        assert await nodes.read_blob(name, blob_id, length=len(BODY)) == BODY


async def test_copy_that_no_metadata_names_is_deleted_while_the_blob_lives(
    nodes: LocalNodes,
) -> None:
    blob_id = await put(nodes, ["n1", "n2", "n3"])
    await nodes.write_blob(nodes.addresses["n4"], blob_id, BODY)
    await until_held_by(nodes, blob_id, {"n1", "n2", "n3"})


async def test_draining_node_gives_its_copies_away(nodes: LocalNodes) -> None:
    blob_id = await put(nodes, ["n2", "n3", "n4"])
    leaving = NodeInfo(node_id="n4", address=nodes.addresses["n4"], state=NodeState.DRAINING)
    await nodes.commit(PutNode(node=leaving))
    await until_held_by(nodes, blob_id, {"n1", "n2", "n3"})


async def test_drain_and_a_new_leader_do_not_wait_for_the_next_walk(nodes: LocalNodes) -> None:
    for name in nodes.settings:  # longer than HEAL_SECONDS
        nodes.change(name, repair_scan_interval_s=600.0)
        await nodes.stop(name)
        await nodes.start(name)
    await nodes.all_know_each_other()
    blob_id = await put(nodes, ["n1", "n2", "n4"])
    leaving = NodeInfo(node_id="n4", address=nodes.addresses["n4"], state=NodeState.DRAINING)
    await nodes.commit(PutNode(node=leaving))
    await until_held_by(nodes, blob_id, {"n1", "n2", "n3"})
    back = NodeInfo(node_id="n4", address=nodes.addresses["n4"])
    await nodes.commit(PutNode(node=back))
    await nodes.write_blob(nodes.addresses["n4"], blob_id, BODY)
    await nodes.commit(AddHolder(blob_id=blob_id, node_id="n4"))  # one too many, seen by nobody
    heir = await a_follower(nodes)
    await nodes.ask(TransferLeadership(to=heir), Accepted)

    async def is_right() -> bool:
        return len(await holders(nodes)) == 3

    await wait_until_async(is_right, HEAL_SECONDS, "the new leader walks at once")


async def test_wiped_file_is_found_by_the_node_itself_and_copied_again(nodes: LocalNodes) -> None:
    blob_id = await put(nodes, ["n1", "n2", "n3"])
    (path,) = nodes.settings["n2"].data_dir.rglob(blob_id)
    path.unlink()
    await wait_until_async(path.exists, 20, "the file is there again")
    await until_held_by(nodes, blob_id, {"n1", "n2", "n3"})
    assert await nodes.read_blob("n2", blob_id, length=len(BODY)) == BODY
