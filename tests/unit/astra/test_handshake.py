"""Strangers at the door, over real sockets: what they record, reflect and leave half done."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from astra import frame_server
from astra.errors import HandshakeFailed, Unavailable
from astra.frame import PRELUDE_SIZE, WIRE_VERSION, decode_handshake, decode_prelude, encode_frame
from astra.handshake import NONCE_BYTES, Peer, prove
from astra.net import Dialer, FrameServer, Routes
from astra.wire import (
    Accepted,
    Challenge,
    GetStatus,
    HandshakeMessage,
    Hello,
    Message,
    Proof,
    Welcome,
)

SECRET = b"s" * 32
LOOPBACK = "127.0.0.1"
ANSWER_S = 5.0
Stranger = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving() -> AsyncIterator[FrameServer]:
    routes = Routes()

    async def status(_peer: Peer, _message: Message) -> Message:
        return Accepted()

    routes.unary[GetStatus] = status
    server = FrameServer(secret=SECRET, node_id="n1", routes=routes)
    await server.start(LOOPBACK, 0)
    try:
        yield server
    finally:
        await server.close()


@asynccontextmanager
async def impostor(stranger: Stranger) -> AsyncIterator[str]:
    """The address of a server that does as `stranger` does."""
    server = await asyncio.start_server(stranger, LOOPBACK, 0)
    try:
        yield f"{LOOPBACK}:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def dial(address: str) -> None:
    """One handshake of an honest dialler, and a request if it succeeds."""
    dialer = Dialer(secret=SECRET, role="node", peer_id="n2")
    try:
        await dialer.control(address).call(GetStatus(), timeout_s=ANSWER_S)
    finally:
        await dialer.close()


async def read_message(reader: asyncio.StreamReader) -> HandshakeMessage:
    prelude = decode_prelude(await reader.readexactly(PRELUDE_SIZE), trusted=False)
    return decode_handshake(prelude, await reader.readexactly(prelude.header_length))


def hello() -> Hello:
    return Hello(
        wire_version=WIRE_VERSION, role="node", peer_id="n2", nonce=os.urandom(NONCE_BYTES)
    )


async def ask(server: FrameServer, *sent: bytes) -> tuple[bytes, Any]:
    """What a server answers to these bytes: its Challenge, and all that follows until it closes."""
    reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(sent[0])
            challenge = await read_message(reader)
            for piece in sent[1:]:
                writer.write(piece)
            return await reader.read(), challenge
    finally:
        writer.close()


async def test_recorded_proof_is_worth_nothing_to_another_connection() -> None:
    """A listener has all that an honest node sent, and sends it again."""
    async with serving() as server:
        greeting = hello()
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.write(encode_frame(0, greeting))
        challenge = await read_message(reader)
        assert isinstance(challenge, Challenge)
        proof = Proof(proof=prove(SECRET, "client", greeting, "n1", challenge.nonce))
        writer.write(encode_frame(0, proof))
        assert await read_message(reader) == Welcome()
        writer.close()

        told, again = await ask(server, encode_frame(0, greeting), encode_frame(0, proof))
        assert again.nonce != challenge.nonce
        assert b"HandshakeFailed" in told
        assert encode_frame(0, Welcome()) not in told


async def test_recorded_challenge_is_worth_nothing_to_another_dialler() -> None:
    """Who has heard the answers of an honest node takes over its address."""
    async with serving() as server:
        _, recorded = await ask(server, encode_frame(0, hello()), b"\xff" * PRELUDE_SIZE)

    async def replay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        writer.write(encode_frame(0, recorded) + encode_frame(0, Welcome()))
        writer.close()

    async with impostor(replay) as address:
        with pytest.raises(HandshakeFailed, match="does not know"):
            await dial(address)


async def test_challenge_that_reflects_what_was_said_is_refused() -> None:
    """The dialler's own nonce as the server's, and its own proof as the server's."""

    async def reflect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        said = await read_message(reader)
        assert isinstance(said, Hello)
        challenge = Challenge(
            wire_version=WIRE_VERSION, peer_id=said.peer_id, nonce=said.nonce, proof=said.nonce
        )
        writer.write(encode_frame(0, challenge))
        writer.close()

    async with impostor(reflect) as address:
        with pytest.raises(HandshakeFailed, match="not fresh"):
            await dial(address)


async def test_servers_proof_is_none_of_a_client() -> None:
    """A stranger lets the node prove the secret and hands the proof back to it."""
    async with serving() as server:
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.write(encode_frame(0, hello()))
        challenge = await read_message(reader)
        assert isinstance(challenge, Challenge)
        writer.write(encode_frame(0, Proof(proof=challenge.proof)) + encode_frame(1, GetStatus()))
        async with asyncio.timeout(ANSWER_S):
            assert b"HandshakeFailed" in await reader.read()
        writer.close()


async def test_server_that_says_more_than_a_handshake_is_dropped_quietly() -> None:
    """Without end, or all at once: no error may reach the loop, where it would look like a bug."""
    bugs: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: bugs.append(context))

    async def flood(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(encode_frame(0, Welcome()) * 1000)
        writer.close()

    async with impostor(flood) as address:
        with pytest.raises((HandshakeFailed, Unavailable)):
            await dial(address)
    assert not bugs


async def test_server_that_never_answers_costs_the_dialler_a_second() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    async with impostor(silent) as address:
        with pytest.raises(Unavailable, match="timeout"):
            await dial(address)


@pytest.mark.parametrize(
    "sent",
    [b"", b"AS", encode_frame(0, hello())[:40], encode_frame(0, hello())],
    ids=["nothing", "two bytes", "half a hello", "a hello"],  # the nonce differs in each process
)
async def test_peer_that_never_finishes_is_cut_off(
    sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_server, "_HANDSHAKE_TIMEOUT_S", 0.2)
    async with serving() as server:
        reader, writer = await asyncio.open_connection(LOOPBACK, server.port)
        writer.write(sent)
        async with asyncio.timeout(ANSWER_S):
            try:
                await reader.read()
            except ConnectionResetError:
                pass  # as good an end as any
        writer.close()


async def test_many_that_prove_nothing_keep_no_honest_peer_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The oldest of them goes for each new connection: their number is bounded."""
    monkeypatch.setattr(frame_server, "_UNPROVED_MAX", 8)
    async with serving() as server:
        crowd = [await asyncio.open_connection(LOOPBACK, server.port) for _ in range(40)]
        await dial(f"{LOOPBACK}:{server.port}")
        assert len(server._accepted) <= 9
        async with asyncio.timeout(ANSWER_S):
            for reader, _ in crowd[:30]:
                with pytest.raises(ConnectionResetError):
                    assert not await reader.read()
                    raise ConnectionResetError
        for _, writer in crowd:
            writer.close()


async def test_proved_peer_stays_whoever_comes_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frame_server, "_UNPROVED_MAX", 8)
    async with serving() as server:
        dialer = Dialer(secret=SECRET, role="node", peer_id="n2")
        client = dialer.control(f"{LOOPBACK}:{server.port}")
        await client.call(GetStatus(), timeout_s=ANSWER_S)
        crowd = [await asyncio.open_connection(LOOPBACK, server.port) for _ in range(20)]
        assert client.is_connected
        await client.call(GetStatus(), timeout_s=ANSWER_S)
        for _, writer in crowd:
            writer.close()
        await dialer.close()


def test_proof_names_its_side_and_both_peers() -> None:
    """Change anything that was said and the proof is another."""
    greeting = hello()
    nonce = os.urandom(NONCE_BYTES)
    proofs = {
        prove(SECRET, "client", greeting, "n1", nonce),
        prove(SECRET, "server", greeting, "n1", nonce),
        prove(SECRET, "client", greeting, "n3", nonce),
        prove(SECRET, "client", greeting, "n1", os.urandom(NONCE_BYTES)),
        prove(b"t" * 32, "client", greeting, "n1", nonce),
        prove(SECRET, "client", msgspec.structs.replace(greeting, role="gateway"), "n1", nonce),
        prove(SECRET, "client", msgspec.structs.replace(greeting, peer_id="n"), "2n1", nonce),
    }
    assert len(proofs) == 7
