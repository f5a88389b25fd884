"""The protocol of one connection, on real sockets with a small application behind it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import uvicorn
from uvicorn.server import ServerState

from astra.constants import HEADER_BYTES_MAX
from gateway import http_server
from gateway.http_server import BoundedHttp, IdleConnections

SHORT_S = 0.2
ANSWER_S = 5.0
BIG = b"z" * (4 * 1024 * 1024)

Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _application(scope, receive, send) -> None:  # type: ignore[no-untyped-def] # ASGI
    """Answers with the length of the body; /big with a big body; /slow when the client went."""
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = BIG if scope["path"] == "/big" else str(size).encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class _Connect:
    """Opens connections to one server."""

    def __init__(self, port: int, state: ServerState) -> None:
        self.state = state
        self.writers: list[asyncio.StreamWriter] = []
        self._port = port

    async def __call__(self) -> Stream:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        self.writers.append(writer)
        return reader, writer


@asynccontextmanager
async def _serving() -> AsyncIterator[_Connect]:
    """Connections to a server of BoundedHttp; all of them are closed at the end."""
    config = uvicorn.Config(_application, lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    make = partial(
        BoundedHttp, config=config, server_state=state, app_state={}, idle=IdleConnections()
    )
    server = await loop.create_server(make, "127.0.0.1", 0)
    connect = _Connect(server.sockets[0].getsockname()[1], state)
    try:
        yield connect
    finally:
        for writer in connect.writers:
            writer.transport.abort()
        server.close()
        await asyncio.gather(*state.tasks, return_exceptions=True)


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    async with asyncio.timeout(ANSWER_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        return int(head.split(b" ")[1]), await reader.readexactly(length)


def _put(size: int, filler: int = 0) -> bytes:
    more = f"x-filler: {'f' * filler}\r\n" if filler else ""
    return f"PUT /p HTTP/1.1\r\nhost: x\r\n{more}content-length: {size}\r\n\r\n".encode()


GET = b"GET /g HTTP/1.1\r\nhost: x\r\n\r\n"
GET_BIG = b"GET /big HTTP/1.1\r\nhost: x\r\n\r\n"


def test_the_body_of_a_pipelined_request_is_no_head() -> None:
    """Once it was counted as one, and refused as too large."""

    async def run() -> None:
        async with _serving() as connect:
            reader, writer = await connect()
            body = b"b" * (64 * HEADER_BYTES_MAX)  # more than one read
            writer.write(GET_BIG + _put(len(body)))
            assert await _answer(reader) == (200, BIG)
            for start in range(0, len(body), HEADER_BYTES_MAX):
                writer.write(body[start : start + HEADER_BYTES_MAX])
                await writer.drain()
            assert await _answer(reader) == (200, str(len(body)).encode())

    asyncio.run(run())


def test_a_head_in_two_pieces_may_come_with_a_large_piece_of_its_body() -> None:
    async def run() -> None:
        async with _serving() as connect:
            reader, writer = await connect()
            data = _put(3 * HEADER_BYTES_MAX) + b"b" * (3 * HEADER_BYTES_MAX)
            writer.write(data[:20])
            await asyncio.sleep(0.05)  # two segments: the server reads them one after the other
            writer.write(data[20:])
            assert await _answer(reader) == (200, str(3 * HEADER_BYTES_MAX).encode())

    asyncio.run(run())


def test_a_large_head_is_refused_also_in_small_pieces() -> None:
    async def run() -> None:
        async with _serving() as connect:
            reader, writer = await connect()
            data = _put(0, filler=2 * HEADER_BYTES_MAX)[: HEADER_BYTES_MAX + 500]
            for start in range(0, len(data), 1000):
                writer.write(data[start : start + 1000])
                await asyncio.sleep(0)
            assert (await _answer(reader))[0] == 400

    asyncio.run(run())


@pytest.mark.parametrize("data", [b"\r\n", b"\r", b"G", b"GET / HTTP/1.1\r\nhost: x\r\n"])
@pytest.mark.parametrize("before", [b"", GET])
def test_who_does_not_finish_a_head_in_time_is_cut_off(
    monkeypatch: pytest.MonkeyPatch, before: bytes, data: bytes
) -> None:
    """Line ends before a head are skipped by the parser; they must not stop the clock."""
    monkeypatch.setattr(http_server, "HEAD_SECONDS_MAX", SHORT_S)

    async def run() -> None:
        async with _serving() as connect:
            reader, writer = await connect()
            if before:
                writer.write(before)
                assert (await _answer(reader))[0] == 200
            writer.write(data)
            async with asyncio.timeout(ANSWER_S):
                assert await reader.read() == b""

    asyncio.run(run())


def test_garbage_behind_a_request_never_gets_into_its_answer() -> None:
    async def run() -> None:
        async with _serving() as connect:
            reader, writer = await connect()
            writer.write(GET_BIG + b"\x00\x01garbage\r\n\r\n")
            assert await _answer(reader) == (200, BIG)
            async with asyncio.timeout(ANSWER_S):
                rest = await reader.read()
            assert rest in (b"",) or rest.startswith(b"HTTP/1.1 400 ")

    asyncio.run(run())


def test_a_target_with_a_fragment_is_refused() -> None:
    """Nobody may take it for the key without it."""

    async def run() -> None:
        async with _serving() as connect:
            reader, writer = await connect()
            writer.write(b"GET /bucket/key#more HTTP/1.1\r\nhost: x\r\n\r\n")
            assert (await _answer(reader))[0] == 400

    asyncio.run(run())


def test_a_client_that_takes_no_bytes_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the kernel, which knows what was taken; also when we have closed already."""
    monkeypatch.setattr(http_server, "SEND_STALL_SECONDS_MAX", 1.0)

    async def run() -> None:
        async with _serving() as connect:
            _, writer = await connect()  # its reader stops at its limit, as nobody reads
            writer.write(GET_BIG * 8)
            async with asyncio.timeout(10 * ANSWER_S):
                while connect.state.connections:
                    await asyncio.sleep(0.05)

    asyncio.run(run())


def test_the_longest_idle_connection_makes_room_for_a_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whoever only connects keeps nobody out; a request that runs is never dropped."""
    monkeypatch.setattr(http_server, "CONNECTIONS_KEPT", 3)

    async def run() -> None:
        async with _serving() as connect:
            busy, idle, used = await connect(), await connect(), await connect()
            busy[1].write(_put(5))
            for stream in (busy, used):
                stream[1].write(GET if stream is used else b"")
            assert await _answer(used[0]) == (200, b"0")
            fresh = await connect()
            async with asyncio.timeout(ANSWER_S):
                assert await idle[0].read() == b""
            for stream in (used, fresh):
                stream[1].write(GET)
                assert await _answer(stream[0]) == (200, b"0")
            busy[1].write(b"12345")
            assert await _answer(busy[0]) == (200, b"5")

    asyncio.run(run())
