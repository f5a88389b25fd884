"""Reads at exact moments that chance rarely meets: nobody is shown the past after the present."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from astra.errors import NotLeader
from astra.model import APPLIED_INDEX, MARKS
from astra.ports import MetadataTxn, MetadataView
from astra.wire import Append, RaftMessage
from tests.sim.client import Answer, Client, Denied
from tests.sim.node import SimNode
from tests.sim.stage import Stage, staged

T = TypeVar("T")

OLD = b"the past"
NEW = b"the present"
PAUSE_S = 1.6


def put(body: bytes) -> Callable[[Client], Awaitable[Answer]]:
    return lambda client: client.put("k", body, {})


def get(client: Client) -> Awaitable[Answer]:
    return client.ask("GET", "k")


@contextmanager
def slow_tables(node: SimNode) -> Generator[None]:
    """Inside, nothing is applied there: the log goes on."""
    tables, gate = node.storage.tables, asyncio.Event()
    write = tables.write

    async def wait(body: Callable[[MetadataTxn], Awaitable[T]]) -> T:
        await gate.wait()
        return await write(body)

    tables.write = wait  # type: ignore[method-assign]
    try:
        yield
    finally:
        tables.write = write  # type: ignore[method-assign]
        gate.set()


def test_new_leader_shows_nothing_that_it_has_not_applied() -> None:
    with staged() as stage:
        leader, follower = stage.leader(), stage.followers()[0]
        stage.ask("g1", put(OLD))
        stage.until(lambda: follower.applied_index == leader.applied_index, "it keeps up")
        with slow_tables(follower):
            stage.ask("g1", put(NEW))
            hand_over(stage, leader, follower)
            answers = stage.start("g1", get)
            stage.world.run(1.0)
            assert not answers, "it cannot know what is there"
        stage.until(lambda: answers, "an answer")
        assert bodies(answers) == [NEW]


def test_deposed_leader_shows_nothing_of_the_new_one() -> None:
    """It waits behind a read barrier when it hears of the new leader, and from that one what is
    committed, and applies it sooner than that leader, who reads under its lease (seed 2853)."""
    with staged() as stage:
        deposed = stage.leader()
        first = read_when_deposed(stage, deposed)
        assert deposed.life is not None
        stage.world.pause(deposed.life, PAUSE_S)
        stage.until(lambda: stage.world.leader() is not deposed, "another one leads")
        leader = stage.leader()
        assert leader.process is not None
        stage.ask("g2", get_nothing)
        assert leader.process.reads.lease_holds(), "it reads without asking anybody"
        new = leader.applied_index + 1
        with slow_tables(leader):
            stage.start("g2", put(NEW))
            stage.until(lambda: deposed.applied_index == new, "the deposed one has applied it")
            stage.until(lambda: first, "the first read ends")
            second = run_on(stage, leader, leader.process.reads.read(how_far))
            stage.until(lambda: second, "the second one, too")
        assert second == [new - 1], "an answer under the lease"
        assert isinstance(first[0], NotLeader) or first[0] <= new - 1, first


def read_when_deposed(stage: Stage, node: SimNode) -> list[int | NotLeader]:
    """A read that begins just before this node takes the first message of another leader."""
    assert node.process is not None
    reads, raft = node.process.reads, node.process.consensus.raft
    receive, answers = raft.receive, list[int | NotLeader]()

    def receiving(message: RaftMessage) -> None:
        if raft.receive is receiving and isinstance(message.body, Append):
            raft.receive = receive  # type: ignore[method-assign]
            run_on(stage, node, reads.read(how_far), answers)
        stage.world.loop.call_soon(receive, message)  # the read has begun by then

    raft.receive = receiving  # type: ignore[method-assign]
    return answers


def run_on(
    stage: Stage,
    node: SimNode,
    read: Coroutine[None, None, int],
    answers: list[int | NotLeader] | None = None,
) -> list[int | NotLeader]:
    heard: list[int | NotLeader] = [] if answers is None else answers

    async def run() -> None:
        try:
            heard.append(await read)
        except NotLeader as error:
            heard.append(error)

    assert node.life is not None
    node.life.context.copy().run(stage.world.loop.create_task, run())
    return heard


async def how_far(view: MetadataView) -> int:
    mark = await view.get(MARKS, (APPLIED_INDEX,))
    assert mark is not None
    return mark.value


async def get_nothing(client: Client) -> None:
    with pytest.raises(Denied):
        await get(client)


def hand_over(stage: Stage, leader: SimNode, to: SimNode) -> None:
    assert leader.process is not None
    stage.world.loop.create_task(leader.process._transfer(to.name))
    stage.until(lambda: stage.world.leader() is to, "the other one leads")


def bodies(answers: list[Answer | Exception]) -> list[bytes]:
    return [each.body for each in answers if isinstance(each, Answer)]
