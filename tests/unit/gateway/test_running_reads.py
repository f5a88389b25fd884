"""Downloads that run for long tell the holders what they still need, and nobody else does."""

import asyncio
from typing import Any

import pytest

from astra.constants import READ_BLOBS_MAX, READ_SECONDS_MAX
from astra.net import Dialer, FrameServer, Peer, Routes
from astra.wire import BlobPlace, HolderRef, Message, StillReading
from gateway.running_reads import RunningReads
from tests.support.nodes import SECRET
from tests.support.ports import free_ports
from tests.support.wait import wait_until_async


class Holder:
    """Hears what gateways say."""

    def __init__(self, name: str, port: int) -> None:
        self.ref = HolderRef(node_id=name, address=f"127.0.0.1:{port}")
        self.heard: list[tuple[str, ...]] = []
        routes = Routes()
        routes.oneway[StillReading] = self._hear
        self.server = FrameServer(secret=SECRET, node_id=name, routes=routes)

    def _hear(self, _: Peer, message: Message) -> None:
        assert isinstance(message, StillReading)
        self.heard.append(message.blob_ids)

    @property
    def names(self) -> list[str]:
        return sorted(name for some in self.heard for name in some)


class HandClock:
    now_s = 5.0


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def stage(clock: HandClock) -> Any:
    ports = free_ports(2)
    holders = [Holder(f"n{n}", port) for n, port in enumerate(ports, start=1)]
    for holder, port in zip(holders, ports, strict=True):
        await holder.server.start("127.0.0.1", port)
    dialer = Dialer(secret=SECRET, role="gateway", peer_id="g")
    yield RunningReads(dialer, lambda: clock.now_s), holders
    await dialer.close()
    await asyncio.gather(*(holder.server.close() for holder in holders))


def place(name: str, *holders: Holder) -> BlobPlace:
    return BlobPlace(blob_id=name, size=1, holders=tuple(each.ref for each in holders))


async def test_second_round_tells_each_holder_what_is_still_needed(stage: Any) -> None:
    reads, (one, two) = stage
    places = {"a": place("a", one), "b": place("b", one, two), "c": place("c", two)}
    with reads.reading([("a", 10), ("b", 10), ("c", 10), ("inline", 10)], places) as read:
        reads.tell()  # it has only begun: no grace can be over
        read.position = 10
        reads.tell()
        await wait_until_async(lambda: one.heard and two.heard, 5, "both were told")
        assert (one.names, two.names) == (["b"], ["b", "c"])
    with reads.reading([("end", 1)], {"end": place("end", one)}):
        reads.tell()
        reads.tell()
        await wait_until_async(lambda: "end" in one.names, 5, "the next read is told")
    assert one.names == ["b", "end"], "what has ended is not told any more"


async def test_many_blobs_are_told_in_messages_of_bounded_size(stage: Any) -> None:
    reads, (one, _) = stage
    names = [f"{number:04}" for number in range(READ_BLOBS_MAX + 1)]
    with reads.reading([(name, 1) for name in names], {name: place(name, one) for name in names}):
        reads.tell()
        reads.tell()
        await wait_until_async(lambda: one.names == names, 5, "all were told")
    assert [len(some) for some in one.heard] == [READ_BLOBS_MAX, 1]


async def test_reader_of_more_than_a_day_is_told_no_more(stage: Any, clock: HandClock) -> None:
    reads, (one, _) = stage
    with reads.reading([("old", 1)], {"old": place("old", one)}):
        clock.now_s += READ_SECONDS_MAX
        with reads.reading([("new", 1)], {"new": place("new", one)}):
            reads.tell()
            clock.now_s += 1
            reads.tell()
            await wait_until_async(lambda: one.heard, 5, "the younger one is told")
    assert one.names == ["new"]
