"""Faults at exact places that chance rarely meets (FAULTS rows 7, 16, 56, 60): a crash loop, half a
partition, a slow reader, a snapshot that is cut short."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Final

import pytest

from astra.constants import READ_KEPT_S
from gateway.blob_read import STRIPE_BYTES
from node.raft.types import SnapshotMark
from tests.sim.client import Answer, Client, Unknown
from tests.sim.node import SimNode
from tests.sim.stage import Stage, staged

INLINE: Final = b"in the command" * 5
CHUNKS: Final = bytes(range(256)) * 3
LOOP_S: Final = 60.0
PAUSE_S: Final = 0.4
ANSWER_S: Final = 6.0  # the gateways of the simulation give a request 5 s
LOG_ENTRIES_MAX: Final = 250
HELD_UP_S: Final = 15.0


def put(key: str, body: bytes) -> Callable[[Client], Awaitable[Answer]]:
    return lambda client: client.put(key, body, {})


def get(key: str) -> Callable[[Client], Awaitable[Answer]]:
    return lambda client: client.ask("GET", key)


# --- crash loop: row 7 ---------------------------------------------------------------------------


@pytest.mark.parametrize("is_leader", [False, True], ids=["a follower", "whoever leads"])
def test_node_that_crashes_again_and_again_slows_nobody_and_fills_no_disk(is_leader: bool) -> None:
    with staged() as stage:
        world, chance = stage.world, random.Random("crash loop")
        end_s, number = world.loop.now_s + LOOP_S, 0
        next_crash_s = world.loop.now_s
        victim = stage.followers()[0]
        while world.loop.now_s < end_s:
            if world.loop.now_s >= next_crash_s:
                victim = stage.leader() if is_leader else victim
                stage.kill(victim)
                world.boot(victim)
                next_crash_s = world.loop.now_s + chance.uniform(1.0, 3.0)
            number += 1
            body = CHUNKS if number % 3 == 0 else INLINE
            stage.ask("g1", put(f"k{number % 7}", body), ANSWER_S)
            world.run(PAUSE_S)
        stage.heal()
        world.run(10.0)
        for node in stage.nodes:
            assert not node.storage.chunks.temporaries, node.name
            assert len(node.storage.log._rows) <= LOG_ENTRIES_MAX, node.name
        assert number > LOOP_S, "there was progress"


# --- half a partition: row 16 --------------------------------------------------------------------


def test_gateway_that_reaches_the_leader_alone_stores_small_objects_and_refuses_large_ones() -> (
    None
):
    """Without its followers' disks there is no write quorum for chunks."""
    with staged() as stage:
        for follower in stage.followers():
            stage.cut("g1", follower.name)
        stage.ask("g1", put("small", INLINE))
        with pytest.raises(Unknown):
            stage.ask("g1", put("large", CHUNKS), ANSWER_S)
        assert stage.ask("g1", get("small")).body == INLINE
        assert stage.ask("g2", put("large", CHUNKS)), "the others are not concerned"
        assert stage.ask("g1", get("large")).body == CHUNKS
        stage.heal()
        stage.ask("g1", put("large", CHUNKS))


def test_gateway_that_reaches_everybody_but_the_leader_refuses_in_time_and_recovers() -> None:
    with staged() as stage:
        stage.ask("g1", put("k", CHUNKS))
        stage.cut("g1", stage.leader().name)
        for call in (put("k", INLINE), get("k")):
            with pytest.raises(Unknown):
                stage.ask("g1", call, ANSWER_S)
        stage.heal()
        assert stage.ask("g1", get("k")).body in (CHUNKS, INLINE)


# --- a reader that takes longer than the grace: row 60 -------------------------------------------

GRACE_S: Final = 30.0
LONG_S: Final = 120.0  # longer than the grace, and than what holders believe a reader for


def test_download_that_outlasts_the_grace_gets_the_bytes_of_a_version_that_is_gone() -> None:
    with staged() as stage:
        for node in stage.nodes:
            node.settings = replace(node.settings, garbage_grace_s=GRACE_S)
        restart_in_turn(stage)
        old = bytes(range(251)) * (3 * STRIPE_BYTES // 251)
        version = stage.ask("g1", put("k", old)).headers["x-amz-version-id"]
        blobs = blob_ids(stage)
        goes_on = asyncio.Event()
        answers = stage.start("g1", lambda client: client.ask("GET", "k", pause=goes_on))
        stage.world.run(1.0)
        stage.ask("g2", lambda client: client.ask("DELETE", "k", query={"versionId": version}))
        stage.world.run(LONG_S)
        restart_in_turn(stage)  # who starts does not know who reads
        stage.world.run(LONG_S)
        goes_on.set()
        stage.until(lambda: answers, "the slow reader has its answer")
        assert isinstance(answers[0], Answer), answers
        assert answers[0].body == old
        stage.until(lambda: not blobs & blob_ids(stage), "then it is swept", READ_KEPT_S + GRACE_S)


def restart_in_turn(stage: Stage) -> None:
    for node in stage.nodes:
        stage.kill(node)
        stage.world.boot(node)
        stage.leader()
        stage.world.run(GRACE_S)


def blob_ids(stage: Stage) -> set[str]:
    return {blob_id for node in stage.nodes for blob_id in node.storage.chunks.blobs}


# --- a node that gets a copy loses its power ----------------------------------------------------

ELSEWHERE_S: Final = 15.0


def test_copy_to_a_node_that_loses_its_power_is_made_on_another_one_soon() -> None:
    """It refuses nothing and answers nothing; a large copy may take long (seed 1000150)."""
    with staged(is_larger=True) as stage:
        world = stage.world
        stage.ask("g1", put("k", CHUNKS))
        stage.until(lambda: len(holders(stage)) == 3, "three copies")
        blob_id, held = blob_ids(stage).pop(), holders(stage)
        spares = [node for node in stage.nodes if node not in held]
        world.crash(next(node for node in held if node in stage.followers()), is_silent=True)
        stage.until(lambda: any(is_copied_to(node) for node in spares), "a copy is under way")
        first = next(node for node in spares if is_copied_to(node))
        world.crash(first, is_silent=True)
        (other,) = (node for node in spares if node is not first)
        stage.until(
            lambda: blob_id in other.storage.chunks.blobs, "the other one gets it", ELSEWHERE_S
        )
        stage.heal()


def holders(stage: Stage) -> list[SimNode]:
    return [node for node in stage.nodes if node.storage.chunks.blobs]


def is_copied_to(node: SimNode) -> bool:
    return bool(node.storage.chunks.temporaries)


# --- a snapshot that is cut short: row 56 --------------------------------------------------------


def before_it_is_announced(stage: Stage, node: SimNode) -> None:
    die_in(stage, node, "prepare_install", is_before=True)


def after_it_is_announced(stage: Stage, node: SimNode) -> None:
    die_in(stage, node, "prepare_install", is_before=False)


def in_the_middle_of_the_rows(stage: Stage, node: SimNode) -> None:
    replace = node.storage.tables.replace

    async def cut_short(pieces: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        yield await anext(pieces)
        stage.kill(node)
        await stage.world.loop.create_future()

    node.storage.tables.replace = lambda pieces: replace(cut_short(pieces))  # type: ignore[method-assign]


def after_the_rows(stage: Stage, node: SimNode) -> None:
    """The tables are new, and the log still says what was before."""
    die_in(stage, node, "install", is_before=True)


def after_all_of_it(stage: Stage, node: SimNode) -> None:
    die_in(stage, node, "install", is_before=False)


def die_in(stage: Stage, node: SimNode, name: str, *, is_before: bool) -> None:
    log = node.storage.log
    step: Callable[[SnapshotMark], None] = getattr(log, name)

    def stepping(mark: SnapshotMark) -> None:
        if not is_before:
            step(mark)
        stage.kill(node)
        raise _PowerCut

    setattr(log, name, stepping)


class _PowerCut(BaseException):
    """Ends the step that was under way; its process is dead already."""


POINTS: Final = (
    before_it_is_announced, after_it_is_announced, in_the_middle_of_the_rows, after_the_rows,
    after_all_of_it,
)  # fmt: skip


def restore(node: SimNode) -> None:
    for owner, name in (
        (node.storage.log, "prepare_install"), (node.storage.log, "install"),
        (node.storage.tables, "replace"),
    ):  # fmt: skip
        vars(owner).pop(name, None)


def follower_that_needs_a_snapshot(stage: Stage) -> SimNode:
    """Not running."""
    victim = stage.followers()[0]
    stage.kill(victim)
    for number in range(60):  # far more than compaction keeps
        stage.ask("g1", put(f"k{number}", INLINE))
    stage.ask("g1", put("large", CHUNKS))
    stage.until(
        lambda: (core := stage.leader().core) and core.first_index > 30, "the log is compacted"
    )
    return victim


@pytest.mark.parametrize("point", POINTS, ids=lambda point: point.__name__)
def test_snapshot_install_killed_at_a_point_is_done_again(
    point: Callable[[Stage, SimNode], None],
) -> None:
    with staged() as stage:
        victim = follower_that_needs_a_snapshot(stage)
        point(stage, victim)
        stage.world.boot(victim)
        stage.until(lambda: victim.life is None, "the point was met")
        restore(victim)
        stage.world.watch.check_tables()  # the old state or the new one, whatever its index
        stage.heal()
        stage.kill(stage.leader())  # what it has now counts
        assert stage.ask("g2", get("k59")).body == INLINE
        stage.heal()


def test_snapshot_whose_source_loses_its_power_holds_up_writes_for_seconds_only() -> None:
    """The two that are left are a majority; one of them waits for the dead one (seed 1051)."""
    with staged() as stage:
        victim, leader = follower_that_needs_a_snapshot(stage), stage.leader()

        async def lose_power() -> AsyncIterator[bytes]:
            stage.world.crash(leader, is_silent=True)
            await stage.world.loop.create_future()
            yield b""

        leader.storage.tables.export = lose_power  # type: ignore[method-assign]
        stage.world.boot(victim)
        stage.until(lambda: leader.life is None, "the source is dead")
        end_s = stage.world.loop.now_s + HELD_UP_S
        answers: list[object] = [Unknown()]
        while isinstance(answers[0], Unknown):
            assert stage.world.loop.now_s < end_s, "writes are held up"
            answers = stage.start("g1", put("k", INLINE))
            stage.until(lambda: answers, "an answer")  # noqa: B023 - of this turn
        del leader.storage.tables.export
        stage.heal()
