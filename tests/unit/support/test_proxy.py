"""The proxy does to a link what is asked, in the direction that is asked, and only there."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from astra.errors import AstraError, DeadlineExceeded
from astra.handshake import Peer
from astra.net import Dialer, FrameServer, Routes
from astra.wire import Accepted, GetStatus, Message, NodeReport
from tests.support.ports import free_port
from tests.support.proxy import Link, Proxy
from tests.support.wait import wait_until_async

SECRET = b"s" * 32
WAIT_S = 0.4  # for an answer that must not come
ANSWER_S = 5.0  # for one that must


class Pair:
    """Node n2 as a client of node n1, through the proxy."""

    def __init__(self, proxy: Proxy, dialer: Dialer, reports: list[Message]) -> None:
        self.proxy = proxy
        self.control = dialer.control(f"127.0.0.1:{proxy.ports['n1']}")
        self.reports = reports

    async def call(self, timeout_s: float = WAIT_S) -> Message:
        return await self.control.call(GetStatus(), timeout_s=timeout_s)


@pytest.fixture
async def pair() -> AsyncIterator[Pair]:
    routes = Routes()
    reports: list[Message] = []

    async def answer(_peer: Peer, _message: Message) -> Message:
        return Accepted()

    routes.unary[GetStatus] = answer
    routes.oneway[NodeReport] = lambda _peer, message: reports.append(message)
    server = FrameServer(secret=SECRET, node_id="n1", routes=routes)
    await server.start("127.0.0.1", 0)
    proxy = Proxy({"n1": (free_port(), server.port)}, seed=1)
    dialer = Dialer(secret=SECRET, role="node", peer_id="n2")
    made = Pair(proxy, dialer, reports)
    assert await made.control.call(GetStatus(), timeout_s=5) == Accepted()
    yield made
    await dialer.close()
    proxy.close()
    await server.close()


async def test_cut_holds_bytes_back_and_delivers_them_after_healing(pair: Pair) -> None:
    pair.proxy.set({("n2", "n1"): Link(cut=True)})
    assert pair.control.send(NodeReport(node_id="n2", address="late"))
    with pytest.raises(DeadlineExceeded):
        await pair.call()
    assert not pair.reports
    pair.proxy.heal()
    await wait_until_async(lambda: pair.reports, 5, "the report arrives late")
    assert await pair.call(ANSWER_S) == Accepted()


async def test_cut_of_one_direction_lets_the_other_through(pair: Pair) -> None:
    pair.proxy.set({("n1", "n2"): Link(cut=True)})
    assert pair.control.send(NodeReport(node_id="n2", address="a"))
    with pytest.raises(DeadlineExceeded):
        await pair.call()
    await wait_until_async(lambda: pair.reports, 5, "the report arrives")


async def test_cut_of_another_link_changes_nothing(pair: Pair) -> None:
    pair.proxy.set({("gateway", "n1"): Link(cut=True), ("n3", "n1"): Link(cut=True)})
    assert await pair.call(ANSWER_S) == Accepted()


async def test_corrupted_bytes_never_arrive_as_a_message(pair: Pair) -> None:
    pair.proxy.set({("n2", "n1"): Link(corrupt_chance=1.0)})
    sent = [NodeReport(node_id=f"n{number}", address="a") for number in range(20)]
    for report in sent:
        pair.control.send(report)
        await asyncio.sleep(0)
    with pytest.raises(AstraError):
        await pair.call()
    # Those before the first changed bit are whole; the connection ends with it.
    assert pair.reports == sent[: len(pair.reports)]
    pair.proxy.heal()
    await wait_until_async(lambda: _answers(pair), 5, "it answers again")


async def test_reset_breaks_connections_that_are_made_again(pair: Pair) -> None:
    pair.proxy.reset()
    await wait_until_async(lambda: not pair.control.is_connected, 5, "the connection is gone")
    await wait_until_async(lambda: _answers(pair), 5, "it answers again")


async def _answers(pair: Pair) -> bool:
    try:
        return await pair.call() == Accepted()
    except AstraError:
        return False
