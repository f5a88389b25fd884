"""Whole nodes in this process: an old disk under a known name, what is not one (FAULTS row 39), and
a damaged one (rows 32, 36, 37)."""

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from astra.errors import DamagedLog
from astra.net import Dialer
from astra.wire import Accepted, RemoveMember, Sighting
from node.lastwords import last_words
from node.metadata.sqlite import SqliteMetadataStore
from node.raft.config import RaftConfig
from node.sightings import OLD_DISK, OWN_ROW, OwnLife, accept_old
from tests.support.nodes import SECRET, LocalNodes
from tests.support.wait import wait_until_async

SECONDS = 30.0
RAFT = RaftConfig(
    election_timeout_min_ms=300, election_timeout_max_ms=600, heartbeat_ms=50, entries_retained=5
)


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[LocalNodes]:
    nodes = LocalNodes(tmp_path)
    for name in nodes.settings:
        nodes.change(name, raft=RAFT, compact_interval_s=0.2)
    async with nodes:
        await nodes.make_bucket("bk")
        await put(nodes, "first", 10)
        yield nodes


async def put(nodes: LocalNodes, prefix: str, count: int) -> None:
    for number in range(count):
        await nodes.put_inline("bk", f"{prefix}-{number}".encode(), b"x")


async def some_follower(nodes: LocalNodes) -> str:
    leader = await nodes.the_leader()
    return next(name for name in nodes.voters if name != leader)


async def until_doubted(nodes: LocalNodes, name: str, why: str) -> None:
    async def says_so() -> bool:
        status = await nodes.status(name)
        text = " ".join(status.problems) if status is not None else ""
        return OLD_DISK in text and why in text and "--accept-old" in text

    await wait_until_async(says_so, SECONDS, f"{name} says that its disk is old: {why}")


async def until_votes(nodes: LocalNodes, name: str) -> None:
    async def has_everything() -> bool:
        status = await nodes.status(name)
        leader = await nodes.leader()
        newest = await nodes.status(leader) if leader is not None else None
        return (
            status is not None
            and newest is not None
            and status.role in {"follower", "leader"}
            and status.applied_index == newest.applied_index
            and not any(OLD_DISK in problem for problem in status.problems)
        )

    await wait_until_async(has_everything, SECONDS, f"{name} votes and has everything")


def database_of(nodes: LocalNodes, name: str) -> Path:
    return nodes.settings[name].data_dir / "metadata.sqlite"


async def life_of(nodes: LocalNodes, name: str) -> OwnLife:
    """Of a node that is stopped."""
    store = await SqliteMetadataStore.open(database_of(nodes, name))
    try:
        return msgspec.msgpack.decode((await store.ledger().read())[OWN_ROW], type=OwnLife)
    finally:
        await store.close()


def take_image(nodes: LocalNodes, name: str, image: Path) -> None:
    """The database of a node, whether it runs or not, as a snapshot of the volume has it."""
    with (
        closing(sqlite3.connect(database_of(nodes, name))) as source,
        closing(sqlite3.connect(image)) as copy,
    ):
        source.backup(copy)


def put_back(nodes: LocalNodes, name: str, image: Path) -> None:
    database = database_of(nodes, name)
    for path in database.parent.glob("metadata.sqlite*"):
        path.unlink()
    shutil.copy(image, database)


async def until_seen(nodes: LocalNodes, name: str) -> None:
    """Every other node has heard how far the log of this one is."""
    status = await nodes.status(name)
    assert status is not None
    dialer = Dialer(secret=SECRET, role="node", peer_id=name)

    async def have_seen() -> bool:
        answers = [
            await dialer.control(address).call(Sighting(), timeout_s=5)
            for other, address in nodes.addresses.items()
            if other != name
        ]
        indexes = [each.index for each in answers if isinstance(each, Sighting)]
        return min(indexes) >= status.applied_index

    await wait_until_async(have_seen, SECONDS, f"the others have seen {name}")
    await dialer.close()


async def test_image_of_an_earlier_life_is_found_out_and_filled_up_again(
    nodes: LocalNodes, tmp_path: Path
) -> None:
    victim = await some_follower(nodes)
    await nodes.stop(victim)
    take_image(nodes, victim, tmp_path / "image")
    await nodes.start(victim)
    await until_votes(nodes, victim)
    await nodes.stop(victim)
    await put(nodes, "later", 20)  # nobody has seen this node acknowledge any of it
    put_back(nodes, victim, tmp_path / "image")
    await nodes.start(victim)
    await until_votes(nodes, victim)
    leader = await nodes.the_leader()
    await nodes.stop(leader)  # now its vote is needed, and it has what was written meanwhile
    assert len((await nodes.locate("bk", b"later-19")).inline) == 1
    await nodes.stop(victim)
    life = await life_of(nodes, victim)
    assert life.life > 3, "which was seen before the image was put back"
    await nodes.start(victim, leader)  # an ordinary restart again
    await until_votes(nodes, victim)


async def test_image_of_a_running_node_is_found_out_and_not_counted_until_a_person_says_so(
    nodes: LocalNodes, tmp_path: Path
) -> None:
    victim = await some_follower(nodes)
    take_image(nodes, victim, tmp_path / "image")
    await put(nodes, "later", 10)
    await until_votes(nodes, victim)
    await until_seen(nodes, victim)
    other = next(name for name in nodes.voters if name != victim)
    for name in nodes.voters:
        await nodes.stop(name)
    put_back(nodes, victim, tmp_path / "image")
    # With the other one it would be a majority: but it is not counted.
    await nodes.start(victim, other)
    await until_doubted(nodes, victim, "its log was seen to reach entry")
    await nodes.stop(victim)
    await nodes.start(victim)
    await until_doubted(nodes, victim, "its log was seen to reach entry")
    with pytest.raises(AssertionError, match="somebody leads"):
        await wait_until_async(
            nodes.leader, 3 * RAFT.election_timeout_max_ms / 1000, "somebody leads"
        )
    await nodes.stop(victim)
    # The third is gone for good, and a person decides.
    store = await SqliteMetadataStore.open(database_of(nodes, victim))
    assert "its log was seen" in await accept_old(store.ledger())
    await store.close()
    for _ in range(2):
        await nodes.start(victim)
        await until_votes(nodes, victim)
        assert len((await nodes.locate("bk", b"later-9")).inline) == 1, "the other one has it"
        await nodes.stop(victim)


async def test_removed_node_is_told_what_was_seen_of_it(nodes: LocalNodes) -> None:
    """It may have an old disk, and be a member again before it has asked somebody else (simulation
    seed 1000166)."""
    removed = await some_follower(nodes)
    await until_seen(nodes, removed)
    await nodes.stop(removed)
    await nodes.ask(RemoveMember(node_id=removed, force=True), Accepted)
    dialer = Dialer(secret=SECRET, role="node", peer_id=removed)
    for other, address in nodes.addresses.items():
        if other != removed:
            answer = await dialer.control(address).call(Sighting(life=9, token=9), timeout_s=5)
            assert isinstance(answer, Sighting)
            assert answer.index > 0
            assert answer.life > 0
    await dialer.close()


async def test_restart_is_no_old_disk_alone_together_or_after_long(
    nodes: LocalNodes, tmp_path: Path
) -> None:
    away = await some_follower(nodes)
    await nodes.stop(away)
    first = (await life_of(nodes, away)).life
    await put(nodes, "meanwhile", 30)  # compacted, too: it needs a snapshot
    await nodes.start(away)
    await until_votes(nodes, away)
    lives: dict[str, list[int]] = {name: [] for name in nodes.voters}
    for _ in range(2):
        for name in nodes.voters:
            await nodes.stop(name)
            lives[name].append((await life_of(nodes, name)).life)
        await nodes.start(*nodes.voters)
        for name in nodes.voters:
            await until_votes(nodes, name)  # one that has not taken part uses up no number
    for name in list(nodes.voters):
        await nodes.stop(name)
        life = await life_of(nodes, name)
        assert (life.doubt, life.took_part) == ("", True)
        lives[name].append(life.life)
        assert lives[name] == [lives[name][0] + number for number in range(3)], "one for each start"
    assert lives[away][0] == first + 1


async def test_damaged_log_is_refused_and_rebuilt_once_it_is_moved_away(
    nodes: LocalNodes, tmp_path: Path
) -> None:
    """As node/lastwords.py tells the operator."""
    await nodes.put_inline("bk", b"k", b"in the middle of the log")
    await put(nodes, "later", 3)
    victim = await some_follower(nodes)
    await until_votes(nodes, victim)
    await nodes.stop(victim)
    database = database_of(nodes, victim)
    database.write_bytes(database.read_bytes().replace(b"in the middle", b"in thE middle"))
    with pytest.raises(DamagedLog, match=r"log entry \d+: checksum differs"):
        await nodes.start(victim)
    nodes._running.pop(victim)
    assert "away and start it" in last_words(DamagedLog(""), nodes.settings[victim]).todo
    for path in database.parent.glob("metadata.sqlite*"):
        path.rename(tmp_path / path.name)
    await nodes.start(victim)
    await until_votes(nodes, victim)
    leader = await nodes.the_leader()
    await nodes.stop(leader)  # now its vote and its log are needed
    located = await nodes.locate("bk", b"k")
    assert [data for _, data in located.inline] == [b"in the middle of the log"]
