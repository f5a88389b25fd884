"""Frames of one turn of the event loop leave together, in order, and none is lost by closing."""

from __future__ import annotations

import asyncio

import pytest

from astra.connection import FrameConnection, Payload
from astra.errors import Unavailable
from astra.frame import Prelude
from astra.wire import Accepted, BlobPiece, Message

LOOPBACK = "127.0.0.1"


class Reads(asyncio.Protocol):
    """What arrived, one item for each read."""

    def __init__(self) -> None:
        self.items: list[bytes] = []
        self.ended = asyncio.get_running_loop().create_future()

    def data_received(self, data: bytes) -> None:
        self.items.append(data)

    def connection_lost(self, _: Exception | None) -> None:
        self.ended.set_result(None)


def no_frame(_: Prelude, message: Message, payload: bytearray | None) -> None:
    raise AssertionError(f"the peer sent {message} {payload!r}")


async def written(frames: list[tuple[Message, Payload]]) -> list[bytes]:
    """The reads of a peer to whom the frames are written in one turn, and then the end."""
    loop = asyncio.get_running_loop()
    peers: list[Reads] = []
    accepted = loop.create_future()

    def accept() -> Reads:
        peers.append(Reads())
        accepted.set_result(None)
        return peers[0]

    server = await loop.create_server(accept, LOOPBACK, 0)
    try:
        port = server.sockets[0].getsockname()[1]
        _, connection = await loop.create_connection(
            lambda: FrameConnection(no_frame, lambda error: None), LOOPBACK, port
        )
        await accepted
        for message, payload in frames:
            connection.write(1, message, payload)
        connection.close()
        with pytest.raises(Unavailable):
            connection.write(1, Accepted())
        await peers[0].ended
    finally:
        server.close()
        await server.wait_closed()
    return peers[0].items


async def test_write_of_small_frames_in_one_turn_arrives_in_one_read() -> None:
    single = b"".join(await written([(Accepted(), b"")]))
    assert await written([(Accepted(), b"")] * 3) == [single * 3]


async def test_write_of_large_payloads_then_close_arrives_whole_and_in_order() -> None:
    payloads = [bytes([n]) * (100 * 1024) for n in range(1, 4)]
    arrived = b"".join(await written([(BlobPiece(), payload) for payload in payloads]))
    head_size = (len(arrived) - sum(map(len, payloads))) // 3
    assert [arrived[n * (head_size + 102400) + head_size :][:102400] for n in range(3)] == payloads


async def test_unsent_bytes_counts_what_waits_for_the_end_of_the_turn() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Reads, LOOPBACK, 0)
    try:
        port = server.sockets[0].getsockname()[1]
        _, connection = await loop.create_connection(
            lambda: FrameConnection(no_frame, lambda error: None), LOOPBACK, port
        )
        connection.write(1, BlobPiece(), b"x" * 1000)
        assert connection.unsent_bytes() > 1000
        connection.abort()
        assert connection.unsent_bytes() == 0
    finally:
        server.close()
        await server.wait_closed()
