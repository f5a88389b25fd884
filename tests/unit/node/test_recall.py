"""Whom a node believes that starts: voters that answer themselves, and may know better."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable

import pytest
from msgspec.structs import replace

from astra.net import Dialer, FrameServer, Peer, Routes
from astra.wire import LogEnd, Membership, Message, NodeReport, Sighting
from node.ledger import MemoryLedger
from node.membership import ClusterMap
from node.raft.types import HardState, RaftState, SnapshotMark
from node.recall import Recall
from node.sightings import Sightings
from tests.support.handclock import HandClock
from tests.support.nodes import SECRET
from tests.support.ports import free_ports

GROUP = Membership(voters=("a", "b", "me"))
TERM, INDEX = 3, 50
STATE = RaftState(
    hard_state=HardState(term=TERM),
    mark=SnapshotMark(index=INDEX, term=TERM, membership=GROUP),
    last_index=INDEX,
)
KNOWS_NOTHING = Sighting(takes_part=True, log_end=LogEnd(term=TERM, index=INDEX, membership=GROUP))
KNOWS_BETTER = replace(KNOWS_NOTHING, index=INDEX + 7, term=TERM)
LONG_MS = 10_000


class Other:
    """Another node, and what it answers; `hold` keeps its answer back."""

    def __init__(self, name: str, answer: Sighting) -> None:
        self.name = name
        self.answer = replace(answer, node_id=name)
        self.hold = asyncio.Event()
        self.hold.set()
        (port,) = free_ports(1)
        self.address = f"127.0.0.1:{port}"
        routes = Routes()
        routes.unary[Sighting] = self._answer
        self.server = FrameServer(secret=SECRET, node_id=name, routes=routes)

    async def start(self) -> None:
        host, port = self.address.split(":")
        await self.server.start(host, int(port))

    async def _answer(self, _: Peer, __: Message) -> Message:
        await self.hold.wait()
        return self.answer


class Stage:
    """The node that starts is "me"."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.dialer = Dialer(secret=SECRET, role="node", peer_id="me")
        self.others: list[Other] = []

    async def other(self, name: str, answer: Sighting) -> Other:
        found = Other(name, answer)
        await found.start()
        self.others.append(found)
        return found

    async def recall(self, **addresses: str) -> Recall:
        self.cluster = ClusterMap(
            node_id="me", address="me:1", peers=addresses, clock=self.clock, silence_ms=3000
        )
        sightings = Sightings(MemoryLedger(), random.Random(1))
        await sightings.load()
        return Recall(
            sightings=sightings, cluster=self.cluster, dialer=self.dialer, clock=self.clock
        )


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    stage = Stage()
    yield stage
    await stage.dialer.close()
    await asyncio.gather(*(other.server.close() for other in stage.others))


async def test_all_others_that_know_nothing_are_believed_at_once(stage: Stage) -> None:
    a, b = await stage.other("a", KNOWS_NOTHING), await stage.other("b", KNOWS_NOTHING)
    recall = await stage.recall(a=a.address, b=b.address)
    assert await recall.look(STATE) == (True, "")


async def test_one_that_knows_better_and_is_slow_is_heard(stage: Stage) -> None:
    """Its first answer has to be stored by a busy disk; a majority is there without it."""
    a, slow = await stage.other("a", KNOWS_NOTHING), await stage.other("b", KNOWS_BETTER)
    recall = await stage.recall(a=a.address, b=slow.address)
    slow.hold.clear()
    assert not (await recall.look(STATE)).is_known
    slow.hold.set()
    assert "its log was seen to reach entry 57" in (await recall.look(STATE)).doubt


async def test_one_whose_address_comes_with_its_first_report_is_heard(stage: Stage) -> None:
    a, new = await stage.other("a", KNOWS_NOTHING), await stage.other("b", KNOWS_BETTER)
    recall = await stage.recall(a=a.address)
    assert not (await recall.look(STATE)).is_known
    stage.cluster.note(NodeReport(node_id="b", address=new.address))
    assert "its log was seen" in (await recall.look(STATE)).doubt


async def test_one_that_is_down_is_not_waited_for_long(stage: Stage) -> None:
    a = await stage.other("a", KNOWS_NOTHING)
    recall = await stage.recall(a=a.address)
    assert not (await recall.look(STATE)).is_known
    stage.clock.now_ms += LONG_MS
    assert await recall.look(STATE) == (True, "")


def of_another_node(answer: Sighting) -> Sighting:
    return replace(answer, node_id="me")


def beside_the_group(answer: Sighting) -> Sighting:
    return replace(answer, takes_part=False)


@pytest.mark.parametrize("change", [of_another_node, beside_the_group])
async def test_answer_that_is_no_voters_makes_no_majority(
    stage: Stage, change: Callable[[Sighting], Sighting]
) -> None:
    """It may be this node itself, at an address that another one had; or it has an empty disk."""
    a = await stage.other("a", KNOWS_NOTHING)
    a.answer = change(a.answer)
    recall = await stage.recall(a=a.address)
    for _ in range(2):
        assert not (await recall.look(STATE)).is_known
        stage.clock.now_ms += LONG_MS


async def test_who_was_alone_once_listens_before_it_goes_on_alone(stage: Stage) -> None:
    alone = replace_group(STATE, Membership(voters=("me",)))
    recall = await stage.recall()
    assert not (await recall.look(alone)).is_known
    today = replace(KNOWS_BETTER, log_end=LogEnd(term=TERM, index=INDEX + 7, membership=GROUP))
    b = await stage.other("b", today)
    stage.cluster.note(NodeReport(node_id="b", address=b.address))
    assert "its log was seen" in (await recall.look(alone)).doubt


async def test_who_is_alone_goes_on_soon(stage: Stage) -> None:
    alone = replace_group(STATE, Membership(voters=("me",)))
    recall = await stage.recall()
    assert not (await recall.look(alone)).is_known
    stage.clock.now_ms += LONG_MS
    assert await recall.look(alone) == (True, "")


def replace_group(state: RaftState, group: Membership) -> RaftState:
    mark = SnapshotMark(index=state.mark.index, term=state.mark.term, membership=group)
    return RaftState(hard_state=state.hard_state, mark=mark, last_index=state.last_index)
