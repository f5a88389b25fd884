"""The broadcast query: the leader's own store fails, another node answers."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from astra.commands import CreateBucket, Proposal, encode_proposal
from astra.errors import RefusalCode, Refused, Unavailable
from astra.net import Dialer, FrameServer, Peer, Routes
from astra.wire import Entry, EntryKind, Epochs, ListObjects, Message, ObjectPage, PeerQuery
from node.applier import Applier
from node.cache.memory import MemoryCache
from node.clock import SystemClock
from node.membership import ClusterMap
from node.metadata.memory import MemoryMetadataStore
from node.services.query import QueryService, answer_from, is_scan
from node.services.querycache import Answer, Query, QueryCache
from node.services.reads import Reads
from node.services.witness import Witness
from tests.support.nodes import SECRET
from tests.support.ports import free_ports

QUERY = ListObjects(bucket="bk", epochs=Epochs())


class Leading:
    """A consensus that leads and has applied one entry."""

    is_leader = True
    leader: str | None = "n1"
    term = 1
    applied_index = 1
    commit_index = 1

    async def propose(self, data: bytes, timeout_s: float = 10.0) -> object:
        raise Unavailable("not here")

    async def read_barrier(self, timeout_s: float = 5.0) -> int:
        return 1

    def lease_valid_now(self) -> bool:
        return True


class Node:
    """A query service over a store in memory, and the socket it answers peers on."""

    def __init__(self, name: str, addresses: dict[str, str]) -> None:
        self.store, self.consensus = MemoryMetadataStore(), Leading()
        self.reads = Reads(self.consensus, self.store)
        witness = Witness()
        self.applier = Applier(self.store, witness)
        self.dialer = Dialer(secret=SECRET, role="node", peer_id=name)
        self.port = int(addresses[name].rpartition(":")[2])
        self.service = QueryService(
            consensus=self.consensus,
            reads=self.reads,
            cache=QueryCache(MemoryCache(1 << 20), witness, "c"),
            applier=self.applier,
            cluster=ClusterMap(
                node_id=name,
                address=addresses[name],
                peers=addresses,
                clock=SystemClock(),
                silence_ms=1000,
            ),
            dialer=self.dialer,
            read_here=self._read_here,
        )
        routes = Routes()
        routes.unary[PeerQuery] = self._answer
        self.server = FrameServer(secret=SECRET, node_id=name, routes=routes)

    async def _read_here(self, query: Query) -> Answer:
        return await self.store.read(answer_from(query), long=is_scan(query))

    async def _answer(self, peer: Peer, message: Message) -> Message:
        assert isinstance(message, PeerQuery)
        return await self.service.answer_peer(message)

    async def apply_bucket(self) -> None:
        proposal = Proposal(
            request_id="r",
            time_ms=1,
            salt=b"12345678",
            command=CreateBucket(bucket="bk", owner_id="o"),
        )
        entry = Entry(index=1, term=1, kind=EntryKind.COMMAND, data=encode_proposal(proposal))
        await self.applier.apply([entry])

    async def close(self) -> None:
        await self.dialer.close()
        await self.server.close()


@pytest.fixture
async def nodes() -> AsyncIterator[list[Node]]:
    ports = free_ports(3)
    addresses = {f"n{n}": f"127.0.0.1:{port}" for n, port in enumerate(ports, start=1)}
    nodes = [Node(name, addresses) for name in addresses]
    for node in nodes:
        await node.server.start("127.0.0.1", node.port)
    yield nodes
    await asyncio.gather(*(node.close() for node in nodes))


async def test_own_store_broken_another_node_answers(nodes: list[Node]) -> None:
    for node in nodes:
        await node.apply_bucket()
    nodes[0].store.break_disk("read error")
    assert await nodes[0].service.answer(QUERY) == ObjectPage(objects=(), prefixes=())


async def test_own_store_broken_a_lagging_node_does_not_answer(nodes: list[Node]) -> None:
    """n2 would say NO_SUCH_BUCKET: it has not applied what was acknowledged."""
    for node in (nodes[0], nodes[2]):
        await node.apply_bucket()
    nodes[0].store.break_disk("read error")
    assert await nodes[0].service.answer(QUERY) == ObjectPage(objects=(), prefixes=())


async def test_own_store_broken_a_refusal_of_a_peer_is_the_answer(nodes: list[Node]) -> None:
    for node in nodes:
        await node.apply_bucket()
    nodes[0].store.break_disk("read error")
    with pytest.raises(Refused) as caught:
        await nodes[0].service.answer(ListObjects(bucket="none", epochs=Epochs()))
    assert caught.value.code is RefusalCode.NO_SUCH_BUCKET


async def test_all_stores_broken_is_unavailable(nodes: list[Node]) -> None:
    for node in nodes:
        await node.apply_bucket()
        node.store.break_disk("read error")
    with pytest.raises(Unavailable):
        await nodes[0].service.answer(QUERY)


async def test_answer_of_a_peer_binds_the_leader_to_what_it_showed(nodes: list[Node]) -> None:
    """The peer has applied an entry that this leader has committed and not applied yet."""
    for node in nodes:
        await node.apply_bucket()
    await nodes[0].reads.barrier()
    assert nodes[0].reads.lease_holds()
    nodes[0].store.break_disk("read error")
    nodes[0].consensus.commit_index = 2
    await nodes[0].service.answer(QUERY)
    assert not nodes[0].reads.lease_holds()
