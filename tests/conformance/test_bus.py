"""What every Bus promises (astra.ports.Bus): hints arrive when all is well, and a broken way
neither blocks, raises nor loses the other way."""

import hashlib
import hmac
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import aio_pika
import msgspec
import pytest

from astra.bus_rabbitmq import ENTRIES, HINTS, NoticeChannel, seal, unseal
from astra.constants import FRAME_HEADER_BYTES_MAX
from astra.ports import Bus
from astra.wire import Entry, EntryKind, Notice
from node.bus.direct import DirectBus
from node.bus.rabbitmq import RabbitBus
from tests.support.ports import free_port
from tests.support.services import Backends
from tests.support.wait import wait_until_async

SECRET = b"s" * 32


@dataclass
class Pair:
    """A leader's bus and a learner's, with what arrived where."""

    leader: Bus
    learner: Bus
    at_learner: list[Notice] = field(default_factory=list)
    at_gateway: list[Notice] = field(default_factory=list)


def entry_notice(index: int, **fields: object) -> Notice:
    entry = Entry(index=index, term=1, kind=EntryKind.COMMAND, data=b"data")
    return Notice(term=1, index=index, entries=(entry,), **fields)  # type: ignore[arg-type]  # fields of Notice


class BusSuite:
    """Inherit it and give a `pair` fixture, started."""

    async def test_publish_entries_reaches_the_learner_in_order(self, pair: Pair) -> None:
        notices = [entry_notice(index) for index in range(1, 50)]
        for notice in notices:
            pair.leader.publish(notice)
        await wait_until_async(lambda: len(pair.at_learner) >= 49, 10, "all notices came")
        assert pair.at_learner == notices

    async def test_publish_hint_reaches_gateways_without_the_entries(self, pair: Pair) -> None:
        pair.leader.publish(entry_notice(1, buckets=("b",), access=True))
        await wait_until_async(lambda: pair.at_gateway, 10, "the hint came")
        assert pair.at_gateway == [Notice(term=1, index=1, buckets=("b",), access=True)]

    async def test_publish_entries_only_does_not_bother_gateways(self, pair: Pair) -> None:
        pair.leader.publish(entry_notice(1))
        pair.leader.publish(Notice(term=1, index=2, access=True))
        await wait_until_async(lambda: pair.at_gateway, 10, "the hint came")
        assert [notice.index for notice in pair.at_gateway] == [2]

    async def test_state_when_all_is_well_is_ok(self, pair: Pair) -> None:
        assert pair.leader.state() == "ok"


def direct_pair() -> tuple[DirectBus, DirectBus, Pair]:
    gateway: list[Notice] = []
    learner = DirectBus(lambda _: None, [])

    def push(notice: Notice) -> bool:
        learner.receive(notice)
        return True

    leader = DirectBus(gateway.append, [push])
    pair = Pair(leader=leader, learner=learner, at_gateway=gateway)
    learner.subscribe(pair.at_learner.append)
    return leader, learner, pair


class TestDirectBus(BusSuite):
    @pytest.fixture
    async def pair(self) -> Pair:
        return direct_pair()[2]

    async def test_publish_to_a_learner_that_is_away_goes_on_to_the_others(self) -> None:
        taken: list[Notice] = []

        def take(notice: Notice) -> bool:
            taken.append(notice)
            return True

        bus = DirectBus(lambda _: None, [lambda _: False, take])
        bus.publish(entry_notice(1))
        assert [notice.index for notice in taken] == [1]


def rabbit_pair(url: str, cluster: str) -> Pair:
    """The learner is reached by the broker only, so that a fall-back would be seen."""
    at_gateway: list[Notice] = []
    leader = RabbitBus(
        url,
        DirectBus(at_gateway.append, []),
        cluster_id=cluster,
        node_id="leader",
        secret=SECRET,
    )
    learner = RabbitBus(
        url,
        DirectBus(lambda _: None, []),
        cluster_id=cluster,
        node_id="learner",
        secret=SECRET,
    )
    pair = Pair(leader=leader, learner=learner, at_gateway=at_gateway)
    learner.subscribe(pair.at_learner.append)
    return pair


@pytest.mark.services
class TestRabbitBus(BusSuite):
    @pytest.fixture
    async def pair(self, backends: Backends) -> AsyncIterator[Pair]:
        pair = rabbit_pair(backends.amqp, f"t{uuid.uuid4().hex}")
        for bus in (pair.learner, pair.leader):
            await bus.start()
            await wait_until_async(lambda b=bus: b.state() == "ok", 10, "the bus is connected")
        yield pair
        await pair.leader.close()
        await pair.learner.close()

    async def test_foreign_messages_are_ignored(self, backends: Backends) -> None:
        cluster = f"t{uuid.uuid4().hex}"
        pair = rabbit_pair(backends.amqp, cluster)
        await pair.learner.start()
        await wait_until_async(lambda: pair.learner.state() == "ok", 10, "connected")
        connection = await aio_pika.connect(backends.amqp)
        channel = await connection.channel()
        exchange = await channel.get_exchange(f"astra.{cluster}.notices")
        for body in (b"", b"poison", seal(b"x" * 32, entry_notice(1)), bytes(5 << 20)):
            await exchange.publish(aio_pika.Message(body), ENTRIES, mandatory=False)
        good = aio_pika.Message(seal(SECRET, entry_notice(2)))
        await exchange.publish(good, ENTRIES, mandatory=False)
        await wait_until_async(lambda: pair.at_learner, 10, "the good one came")
        assert [notice.index for notice in pair.at_learner] == [2]
        await connection.close()
        await pair.learner.close()

    async def test_hints_reach_gateways_without_entries(self, backends: Backends) -> None:
        cluster = f"t{uuid.uuid4().hex}"
        pair = rabbit_pair(backends.amqp, cluster)
        at_gateway: list[Notice] = []
        gateway = NoticeChannel(
            backends.amqp,
            cluster_id=cluster,
            peer_id="g",
            secret=SECRET,
            topic=HINTS,
            handler=at_gateway.append,
        )
        await gateway.start()
        await pair.leader.start()
        for state in (gateway.state, pair.leader.state):
            await wait_until_async(lambda s=state: s() == "ok", 10, "connected")
        pair.leader.publish(entry_notice(1))
        pair.leader.publish(entry_notice(2, buckets=("b",)))
        await wait_until_async(lambda: at_gateway, 10, "the hint came")
        assert [(notice.index, notice.buckets, notice.entries) for notice in at_gateway] == [
            (2, ("b",), ())
        ]
        await gateway.close()
        await pair.leader.close()


class TestRabbitAway:
    async def test_broker_away_entries_go_over_tcp(self) -> None:
        pushed: list[Notice] = []

        def push(notice: Notice) -> bool:
            pushed.append(notice)
            return True

        bus = RabbitBus(
            f"amqp://guest:guest@127.0.0.1:{free_port()}/",
            DirectBus(lambda _: None, [push]),
            cluster_id="c",
            node_id="leader",
            secret=SECRET,
        )
        await bus.start()
        bus.publish(entry_notice(1))
        assert [notice.index for notice in pushed] == [1]
        assert bus.state().startswith("away")
        await bus.close()

    async def test_unconfirmed_notices_are_handed_back_when_it_closes(self) -> None:
        undelivered: list[Notice] = []
        channel = NoticeChannel(
            "amqp://127.0.0.1:1/",
            cluster_id="c",
            peer_id="p",
            secret=SECRET,
            topic=ENTRIES,
            on_undelivered=undelivered.append,
        )
        channel._is_connected = True  # as between connecting and the first confirm
        assert channel.offer(entry_notice(1))
        assert channel.offer(entry_notice(2))
        await channel.close()
        assert [notice.index for notice in undelivered] == [1, 2]

    async def test_full_queue_refuses_the_offer(self) -> None:
        channel = NoticeChannel(
            "amqp://127.0.0.1:1/", cluster_id="c", peer_id="p", secret=SECRET, topic=ENTRIES
        )
        channel._is_connected = True
        big = Entry(index=1, term=1, kind=EntryKind.COMMAND, data=bytes(1 << 20))
        notice = Notice(term=1, index=1, entries=(big,))
        accepted = 0
        while channel.offer(notice):
            accepted += 1
            assert accepted < 100
        assert 10 <= accepted <= 16
        await channel.close()


def test_unseal_what_was_sealed_is_the_notice() -> None:
    notice = entry_notice(7, buckets=("a",))
    assert unseal(SECRET, seal(SECRET, notice)) == notice


def test_unseal_by_another_secret_is_refused() -> None:
    assert unseal(b"o" * 32, seal(SECRET, entry_notice(7))) is None


def test_unseal_too_large_is_refused_though_it_is_sealed() -> None:
    body = seal(SECRET, entry_notice(7, buckets=("a" * FRAME_HEADER_BYTES_MAX,)))
    assert unseal(SECRET, body) is None


def test_unseal_proof_of_a_handshake_is_no_seal() -> None:
    """The secret seals more than notices; what it says elsewhere says nothing here."""
    data = msgspec.msgpack.encode(entry_notice(7))
    for label in (b"", b"astra-handshake-1"):
        other = hmac.new(SECRET, label + data, hashlib.sha256).digest()
        assert unseal(SECRET, other + data) is None


def test_unseal_changed_byte_is_refused() -> None:
    body = seal(SECRET, entry_notice(7))
    for position in (0, 31, 32, len(body) - 1):
        changed = bytearray(body)
        changed[position] ^= 1
        assert unseal(SECRET, bytes(changed)) is None
