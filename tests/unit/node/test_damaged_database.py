"""Whole nodes in this process: a bit has flipped in a key in the database of one, and the scrub
finds it (FAULTS row 36). Scrub and hand-over are the product's own, only more often."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from astra.errors import AstraError
from astra.wire import Locate, PeerQuery
from node.lastwords import last_words
from node.metadata.rows import DamagedTables
from tests.support.nodes import NO_EPOCHS, LocalNodes
from tests.support.wait import wait_until_async

SECONDS = 60.0
KEYS = [b"key-%02d" % number for number in range(20)]


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[LocalNodes]:
    nodes = LocalNodes(tmp_path)
    for name in nodes.settings:
        nodes.change(name, metadata_scrub_period_s=1.0)
    async with nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        for key in KEYS:
            await nodes.put_inline("bk", key, b"body of " + key)
        await nodes.all_are_level()
        yield nodes


def flip_a_key(nodes: LocalNodes, name: str, old: bytes, new: bytes) -> None:
    """In the database of a node that runs: its process does not know."""
    with closing(sqlite3.connect(nodes.settings[name].data_dir / "metadata.sqlite")) as connection:
        sql = 'UPDATE objects SET "key" = ? WHERE "key" = ?'
        assert connection.execute(sql, (new, old)).rowcount == 1
        connection.commit()


async def until_says(nodes: LocalNodes, name: str, text: str) -> None:
    async def says_so() -> bool:
        status = await nodes.status(name)
        return status is not None and text in " ".join(status.problems)

    await wait_until_async(says_so, SECONDS, f"{name} says: {text}")


async def end_of(nodes: LocalNodes, name: str) -> DamagedTables:
    """What a node ended of, by itself."""
    task, _ = nodes._running[name]
    await wait_until_async(task.done, SECONDS, f"{name} has ended")
    with pytest.raises(DamagedTables) as caught:
        await nodes.stop(name)
    return caught.value


async def test_damaged_leader_says_so_hands_over_ends_and_gets_everything_again(
    nodes: LocalNodes, tmp_path: Path
) -> None:
    victim = await nodes.the_leader()
    flip_a_key(nodes, victim, b"key-07", b"kdy-07")
    await until_says(nodes, victim, "its database is damaged. Stop this node and rebuild it")

    async def another_leads() -> bool:
        return await nodes.leader() not in (None, victim)

    await wait_until_async(another_leads, SECONDS, "another node leads")
    error = await end_of(nodes, victim)
    assert "table objects" in str(error)
    assert "away and start it" in last_words(error, nodes.settings[victim]).todo
    assert (await nodes.locate("bk", b"key-07")).inline, "the others have it"
    for path in nodes.settings[victim].data_dir.glob("metadata.sqlite*"):
        path.rename(tmp_path / path.name)
    await nodes.start(victim)
    await nodes.all_are_level()
    leader = await nodes.the_leader()
    await nodes.stop(next(name for name in nodes.voters if name not in (victim, leader)))
    for key in KEYS:  # now the log of this node is needed, and it is verified again and again
        located = await nodes.locate("bk", key)
        assert [data for _, data in located.inline] == [b"body of " + key]

    async def is_verified() -> bool:
        status = await nodes.status(victim)
        return status is not None and "was well" in dict(status.work)["metadata scrub"]

    await wait_until_async(is_verified, SECONDS, f"the new database of {victim} was verified")


async def test_damaged_node_stays_while_the_others_are_no_majority_without_it(
    nodes: LocalNodes,
) -> None:
    leader = await nodes.the_leader()
    other, victim = (name for name in nodes.voters if name != leader)
    await nodes.stop(other)
    flip_a_key(nodes, victim, b"key-07", b"kdy-07")
    await until_says(nodes, victim, "once the other voters are a majority without it")
    query = PeerQuery(applied_index=0, query=Locate(bucket="bk", key=b"key-07", epochs=NO_EPOCHS))
    with pytest.raises(AstraError, match="its database is damaged"):
        await nodes.dialer.control(nodes.addresses[victim]).call(query, timeout_s=5)
    for number in range(10):
        await nodes.put_inline("bk", b"later-%d" % number, b"x")
    assert not nodes._running[victim][0].done()
    await nodes.start(other)
    await end_of(nodes, victim)
    assert (await nodes.locate("bk", b"key-07")).inline
