"""Peers over real loopback sockets: handshake, requests, streams, and what must be refused."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from awscrt.checksums import crc32c

from astra.constants import CHUNK_SIZE, FRAME_HEADER_BYTES_MAX
from astra.errors import (
    BlobNotFound,
    DeadlineExceeded,
    HandshakeFailed,
    NotLeader,
    OutcomeUnknown,
    RefusalCode,
    Refused,
    StoreError,
    Unavailable,
)
from astra.frame import PRELUDE_SIZE, WIRE_VERSION, encode_frame
from astra.handshake import Peer
from astra.net import BulkStream, Dialer, FrameServer, Routes
from astra.wire import (
    Accepted,
    BlobEnd,
    BlobPiece,
    BlobRead,
    BlobStored,
    BlobWrite,
    GetBucket,
    GetStatus,
    Hello,
    Message,
    NodeReport,
    Notice,
    ObjectPage,
)

SECRET = b"s" * 32


@asynccontextmanager
async def serving(routes: Routes, *, secret: bytes = SECRET) -> AsyncIterator[str]:
    server = FrameServer(secret=secret, node_id="n1", routes=routes)
    await server.start("127.0.0.1", 0)
    try:
        yield f"127.0.0.1:{server.port}"
    finally:
        await server.close()


@asynccontextmanager
async def dialing(*, secret: bytes = SECRET) -> AsyncIterator[Dialer]:
    dialer = Dialer(secret=secret, role="gateway", peer_id="g1")
    try:
        yield dialer
    finally:
        await dialer.close()


def answering(answer: Message | Exception) -> Callable[[Peer, Message], Awaitable[Message]]:
    async def handle(peer: Peer, message: Message) -> Message:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handle


async def test_call_answered_returns_the_message() -> None:
    routes = Routes()
    seen: list[Peer] = []

    async def handle(peer: Peer, message: Message) -> Message:
        seen.append(peer)
        return Accepted()

    routes.unary[GetStatus] = handle
    async with serving(routes) as address, dialing() as dialer:
        control = dialer.control(address)
        answers = await asyncio.gather(*(control.call(GetStatus(), timeout_s=5) for _ in range(50)))
    assert answers == [Accepted()] * 50
    assert set(seen) == {Peer("gateway", "g1")}


@pytest.mark.parametrize(
    "error",
    [NotLeader("h:1"), Refused(RefusalCode.NO_SUCH_KEY, "x"), Unavailable("no quorum")],
)
async def test_call_refused_raises_the_same_error(error: Exception) -> None:
    routes = Routes()
    routes.unary[GetStatus] = answering(error)
    async with serving(routes) as address, dialing() as dialer:
        with pytest.raises(type(error)) as caught:
            await dialer.control(address).call(GetStatus(), timeout_s=5)
    assert str(caught.value) == str(error)


async def test_call_bug_in_handler_tells_nothing() -> None:
    routes = Routes()
    routes.unary[GetStatus] = answering(ValueError("secret inside"))
    async with serving(routes) as address, dialing() as dialer:
        with pytest.raises(Unavailable) as caught:
            await dialer.control(address).call(GetStatus(), timeout_s=5)
    assert "secret" not in str(caught.value)


async def test_call_whose_answer_fits_into_no_frame_fails_at_once() -> None:
    """Once nothing was answered, and the gateway asked until its time was up."""
    routes = Routes()
    prefixes = tuple(b"p" * 1024 * 1024 for _ in range(FRAME_HEADER_BYTES_MAX // (1024 * 1024)))
    routes.unary[GetStatus] = answering(ObjectPage(objects=(), prefixes=prefixes))
    async with serving(routes) as address, dialing() as dialer:
        with pytest.raises(StoreError):
            await dialer.control(address).call(GetStatus(), timeout_s=30)


async def test_call_without_answer_raises_deadline() -> None:
    routes = Routes()
    never = asyncio.Event()

    async def handle(peer: Peer, message: Message) -> Message:
        await never.wait()
        return Accepted()

    routes.unary[GetStatus] = handle
    async with serving(routes) as address, dialing() as dialer:
        with pytest.raises(DeadlineExceeded):
            await dialer.control(address).call(GetStatus(), timeout_s=0.05)


async def test_call_connection_breaks_raises_outcome_unknown_and_reconnects() -> None:
    routes = Routes()
    entered = asyncio.Event()
    never = asyncio.Event()

    async def handle(peer: Peer, message: Message) -> Message:
        entered.set()
        await never.wait()
        return Accepted()

    routes.unary[GetStatus] = handle
    routes.unary[GetBucket] = answering(Accepted())
    server = FrameServer(secret=SECRET, node_id="n1", routes=routes)
    await server.start("127.0.0.1", 0)
    port = server.port
    async with dialing() as dialer:
        control = dialer.control(f"127.0.0.1:{port}")
        call = asyncio.create_task(control.call(GetStatus(), timeout_s=5))
        await entered.wait()
        await server.close()
        with pytest.raises(OutcomeUnknown):
            await call
        again = FrameServer(secret=SECRET, node_id="n1", routes=routes)
        await again.start("127.0.0.1", port)
        assert await control.call(GetBucket(bucket="b"), timeout_s=5) == Accepted()
        await again.close()


async def test_call_nobody_listening_raises_unavailable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    async with dialing() as dialer:
        with pytest.raises(Unavailable):
            await dialer.control(f"127.0.0.1:{port}").call(GetStatus(), timeout_s=5)


async def test_handshake_other_secret_is_refused_on_both_sides() -> None:
    routes = Routes()
    routes.unary[GetStatus] = answering(Accepted())
    async with serving(routes) as address, dialing(secret=b"o" * 32) as dialer:
        with pytest.raises(HandshakeFailed):
            await dialer.control(address).call(GetStatus(), timeout_s=5)


async def read_until_closed(address: str, sent: bytes) -> bytes:
    host, port = address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(sent)
    async with asyncio.timeout(5):
        received = await reader.read()
    writer.close()
    return received


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + b" " * 64,
        encode_frame(1, GetStatus()),
        encode_frame(0, Hello(wire_version=9, role="node", peer_id="x", nonce=b"n" * 32)),
        encode_frame(
            0, Hello(wire_version=WIRE_VERSION, role="root", peer_id="x", nonce=b"n" * 32)
        ),
        encode_frame(
            0, Hello(wire_version=WIRE_VERSION, role="node", peer_id="../x", nonce=b"n" * 32)
        ),
        encode_frame(0, Hello(wire_version=WIRE_VERSION, role="node", peer_id="x", nonce=b"short")),
        encode_frame(
            0, Hello(wire_version=WIRE_VERSION, role="node", peer_id="x" * 2000, nonce=b"n" * 32)
        ),
        b"\xff" * PRELUDE_SIZE,
    ],
)
async def test_server_unproved_peer_is_cut_off(sent: bytes) -> None:
    routes = Routes()
    called = False

    async def handle(peer: Peer, message: Message) -> Message:
        nonlocal called
        called = True
        return Accepted()

    routes.unary[GetStatus] = handle
    async with serving(routes) as address:
        await read_until_closed(address, sent)
    assert not called


async def test_server_flipped_bit_breaks_the_connection() -> None:
    routes = Routes()
    frame = bytearray(
        encode_frame(0, Hello(wire_version=WIRE_VERSION, role="node", peer_id="x", nonce=b"n" * 32))
    )
    frame[PRELUDE_SIZE + 3] ^= 1
    async with serving(routes) as address:
        assert await read_until_closed(address, bytes(frame)) == b""


async def store_blob(peer: Peer, message: Message, stream: BulkStream) -> None:
    size = 0
    while True:
        piece, payload = await stream.receive(timeout_s=5)
        if isinstance(piece, BlobEnd):
            break
        assert crc32c(payload) == stream.last_payload_crc
        size += len(payload)
    await stream.send(BlobStored(size=size))


async def test_stream_write_of_many_chunks_arrives_whole_and_connection_is_reused() -> None:
    routes = Routes()
    routes.streaming[BlobWrite] = store_blob
    chunk = os.urandom(CHUNK_SIZE)
    async with serving(routes) as address, dialing() as dialer:
        connections = set()
        for count in (0, 1, 9):
            stream = await dialer.bulk(address)
            connections.add(id(stream._connection))
            await stream.send(BlobWrite(blob_id="0" * 32))
            for _ in range(count):
                await stream.send(BlobPiece(), chunk)
            await stream.send(BlobEnd(size=count * CHUNK_SIZE))
            answer, _ = await stream.receive(timeout_s=5)
            assert answer == BlobStored(size=count * CHUNK_SIZE)
            await stream.release()
    assert len(connections) == 1


async def test_stream_handler_fails_midway_raises_and_connection_stays_usable() -> None:
    routes = Routes()

    async def refuse(peer: Peer, message: Message, stream: BulkStream) -> None:
        await stream.receive(timeout_s=5)
        raise BlobNotFound("b" * 32)

    routes.streaming[BlobWrite] = refuse
    routes.streaming[BlobRead] = store_blob
    async with serving(routes) as address, dialing() as dialer:
        stream = await dialer.bulk(address)
        await stream.send(BlobWrite(blob_id="b" * 32))
        for _ in range(8):
            await stream.send(BlobPiece(), b"x" * 1000)
        with pytest.raises(BlobNotFound):
            await stream.receive(timeout_s=5)
        await stream.release()
        stream = await dialer.bulk(address)
        await stream.send(BlobRead(blob_id="b" * 32, offset=0, length=1))
        await stream.send(BlobEnd(size=0))
        assert (await stream.receive(timeout_s=5))[0] == BlobStored(size=0)
        await stream.release()


async def test_stream_second_exchange_on_a_busy_connection_ends_it() -> None:
    """Else the frames of one would be taken for the other's, or be kept by nobody."""
    routes, lost = Routes(), asyncio.Event()
    heard: list[Message] = []

    async def wait_for_more(peer: Peer, message: Message, stream: BulkStream) -> None:
        heard.append(message)
        with pytest.raises(Unavailable):
            await stream.receive(timeout_s=5)

    routes.streaming[BlobWrite] = wait_for_more
    async with serving(routes) as address, dialing() as dialer:
        connection = await dialer.connect(address, lambda *_: None, lambda _: lost.set())
        connection.write(1, BlobWrite(blob_id="a" * 32))
        connection.write(2, BlobWrite(blob_id="b" * 32))
        async with asyncio.timeout(5):
            await lost.wait()
    assert len(heard) == 1


async def test_stream_peer_gone_raises_unavailable() -> None:
    routes = Routes()
    seen = asyncio.Event()
    ended: list[BaseException] = []

    async def wait_for_more(peer: Peer, message: Message, stream: BulkStream) -> None:
        seen.set()
        try:
            await stream.receive(timeout_s=5)
        except Unavailable as error:
            ended.append(error)
            raise

    routes.streaming[BlobWrite] = wait_for_more
    async with serving(routes) as address, dialing() as dialer:
        stream = await dialer.bulk(address)
        await stream.send(BlobWrite(blob_id="0" * 32))
        await seen.wait()
        stream.abort()
        async with asyncio.timeout(5):
            while not ended:
                await asyncio.sleep(0)


async def test_oneway_and_notices_flow_both_ways() -> None:
    routes = Routes()
    reports: asyncio.Queue[Message] = asyncio.Queue()
    routes.oneway[NodeReport] = lambda peer, message: reports.put_nowait(message)
    notices: asyncio.Queue[Notice] = asyncio.Queue()
    connected = asyncio.Event()
    async with serving(routes) as address, dialing() as dialer:
        control = dialer.control(address)
        control.subscribe(notices.put_nowait, connected.set)
        async with asyncio.timeout(5):
            await connected.wait()
            report = NodeReport(node_id="n", address="a")
            assert control.send(report)
            assert await reports.get() == report
            routes.notify(Notice(term=1, index=2))
            assert await notices.get() == Notice(term=1, index=2)


async def test_oneway_sent_before_there_is_a_connection_goes_out_once_there_is() -> None:
    """A follower's first request for votes: dropping it would cost an election timeout."""
    routes = Routes()
    reports: asyncio.Queue[Message] = asyncio.Queue()
    routes.oneway[NodeReport] = lambda peer, message: reports.put_nowait(message)
    async with serving(routes) as address, dialing() as dialer:
        sent = [NodeReport(node_id=f"n{number}", address="a") for number in range(10)]
        for report in sent:
            assert not dialer.control(address).send(report)
        async with asyncio.timeout(5):
            assert [await reports.get() for _ in range(4)] == sent[-4:]


async def test_oneway_sent_to_nobody_is_not_kept() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        port = reserved.getsockname()[1]
    async with dialing() as dialer:
        control = dialer.control(f"127.0.0.1:{port}")
        assert not control.send(NodeReport(node_id="lost", address="a"))
        with pytest.raises(Unavailable):
            await control.call(GetStatus(), timeout_s=5)
        routes = Routes()
        reports: asyncio.Queue[Message] = asyncio.Queue()
        routes.oneway[NodeReport] = lambda peer, message: reports.put_nowait(message)
        routes.unary[GetStatus] = answering(Accepted())
        server = FrameServer(secret=SECRET, node_id="n1", routes=routes)
        await server.start("127.0.0.1", port)
        assert await control.call(GetStatus(), timeout_s=5) == Accepted()
        await server.close()
        assert reports.empty()
