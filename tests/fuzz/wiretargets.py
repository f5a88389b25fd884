"""Connections as targets: frames after the handshake, and everything before it."""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Iterable
from typing import Final

import msgspec
from awscrt.checksums import crc32c
from msgspec import inspect

from astra.connection import FrameConnection
from astra.constants import FRAME_HEADER_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX
from astra.dialer import Greeting
from astra.errors import HandshakeFailed, Unavailable, WireError
from astra.frame import HANDSHAKE_HEADER_BYTES_MAX, PRELUDE_SIZE, WIRE_VERSION, encode_frame
from astra.frame_server import FrameServer, Routes
from astra.handshake import Peer, prove
from astra.stream import BulkStream
from astra.wire import Challenge, Hello, Message, Proof, Welcome
from tests.fuzz.targets import SECRET, Target

_PRELUDE: Final = struct.Struct("!2sBBIIIII")
_BUFFER_BYTES_MAX: Final = 64 * 1024


class Wire(asyncio.Transport):
    """The other end of a connection, without a socket."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.is_closed = False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """There is no buffer."""

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.sent += data

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        for data in list_of_data:
            self.sent += data

    def is_closing(self) -> bool:
        return self.is_closed

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """The input is given in any case: more than a socket would."""

    def resume_reading(self) -> None:
        """As above."""

    def close(self) -> None:
        self.is_closed = True

    def abort(self) -> None:
        self.is_closed = True


def receive(connection: FrameConnection, data: bytes, chance: random.Random, bound: int) -> None:
    """Bytes arrive in pieces, until the connection is cut."""
    place = 0
    while place < len(data) and connection.is_open:
        room = connection.get_buffer(65536)
        assert len(room) > 0, "a receive buffer without room would look like the end"
        assert len(room) <= bound, f"a buffer of {len(room)} bytes for what has not arrived"
        size = min(len(room), len(data) - place, chance.choice((1, 5, 28, 300, 65536)))
        room[:size] = data[place : place + size]
        connection.buffer_updated(size)
        place += size


def frame(
    header: bytes, payload: bytes = b"", *, stream: int = 1, lengths: tuple[int, int] | None = None
) -> bytes:
    """A frame with right checksums, whatever it holds; `lengths` may lie."""
    header_length, payload_length = lengths or (len(header), len(payload))
    payload_crc: int = crc32c(payload) if payload else 0
    prelude = _PRELUDE.pack(
        b"AS", WIRE_VERSION, 0, stream, header_length, payload_length, payload_crc, crc32c(header)
    )
    crc: int = crc32c(prelude)
    return prelude + crc.to_bytes(4, "big") + header + payload


class Frames(Target):
    """What a peer that knows the secret may send: a message, or the connection ends."""

    name = "frame"
    _type = inspect.type_info(Message)

    def make(self) -> bytes:
        frames = [self._frame() for _ in range(self.chance.choice((1, 1, 2, 3)))]
        whole = b"".join(frames)
        return self.mutator.mutate(whole) if self.chance.random() < 0.4 else whole

    def _frame(self) -> bytes:
        header = self.maker.encoded(self._type)
        if self.chance.random() < 0.7:
            header = self.mutator.mutate(header)
        payload = self.chance.randbytes(self.chance.choice((0, 0, 0, 1, 100, 70_000)))
        lengths = None
        if self.chance.random() < 0.1:
            huge = (0, 1 << 20, FRAME_HEADER_BYTES_MAX + 1, 2**32 - 1)
            lengths = (self.chance.choice((len(header), *huge)), self.chance.choice(huge))
        return frame(header, payload, stream=self.chance.randrange(2**32), lengths=lengths)

    def feed(self, data: bytes) -> None:
        received: list[Message] = []
        connection = FrameConnection(lambda _p, message, _b: received.append(message), _ignore)
        connection.connection_made(Wire())
        connection.trusted = True
        bound = FRAME_HEADER_BYTES_MAX + FRAME_PAYLOAD_BYTES_MAX + _BUFFER_BYTES_MAX
        receive(connection, data, self.chance, bound)
        if not connection.is_open and not isinstance(connection.error, WireError):
            raise AssertionError(f"cut off for {connection.error!r}")


def _ignore(error: Exception | None) -> None:
    """The connection is gone."""


class Strangers(Target):
    """A peer that does not know the secret: whatever it sends, no handler hears of it.

    It replays what it recorded of an honest handshake, sends requests at once, lies about
    lengths, and changes bytes of all that.
    """

    name = "stranger"
    _type = inspect.type_info(Message)

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self.heard: list[Message] = []
        self._server = FrameServer(secret=SECRET, node_id="n1", routes=self._routes())
        hello = Hello(wire_version=WIRE_VERSION, role="node", peer_id="n2", nonce=b"n" * 32)
        proof = prove(SECRET, "client", hello, "n1", b"s" * 32)
        self.recorded = (encode_frame(0, hello), encode_frame(0, Proof(proof=proof)))

    def _routes(self) -> Routes:
        routes = Routes()

        async def unary(_peer: Peer, message: Message) -> Message:
            self.heard.append(message)
            return message

        async def streaming(_peer: Peer, message: Message, _stream: BulkStream) -> None:
            self.heard.append(message)

        for kind in message_types():
            routes.oneway[kind] = lambda _peer, message: self.heard.append(message)
            routes.unary[kind] = unary
            routes.streaming[kind] = streaming
        return routes

    def make(self) -> bytes:
        frames = [self._frame() for _ in range(self.chance.choice((1, 2, 3, 4)))]
        if self.chance.random() < 0.6:
            frames.insert(0, self.recorded[0])
        whole = b"".join(frames)
        return self.mutator.mutate(whole) if self.chance.random() < 0.4 else whole

    def _frame(self) -> bytes:
        kind = self.chance.randrange(5)
        if kind < 2:
            return self.recorded[kind]
        if kind == 2:
            return frame(self.mutator.mutate(self.maker.encoded(self._type)))
        if kind == 3:
            nested = self.chance.choice((b"\x91", b"\x81\xa0")) * self.chance.choice((100, 500))
            return frame(nested)
        lie = self.chance.choice((HANDSHAKE_HEADER_BYTES_MAX, 1025, 2**32 - 1))
        return frame(b"x" * 40, lengths=(lie, self.chance.choice((0, 1, 2**32 - 1))))

    def feed(self, data: bytes) -> None:
        connection = self._server._accept()
        wire = Wire()
        connection.connection_made(wire)
        try:
            receive(connection, data, self.chance, _BUFFER_BYTES_MAX)
            assert not connection.trusted, "a stranger is trusted"
            assert not self.heard, f"a stranger was heard: {self.heard}"
            assert len(wire.sent) < 2000, "a stranger was told much"
        finally:
            connection.is_open = False
            connection.connection_lost(None)


class Requests(Target):
    """What a peer that knows the secret may say to a server: any message on any stream, with any
    payload, in any order. It is handled, answered with a Failure, or the connection ends."""

    name = "request"
    _type = inspect.type_info(Message)

    def __init__(self, chance: random.Random) -> None:
        super().__init__(chance)
        self._server = FrameServer(secret=SECRET, node_id="n1", routes=self._routes(), calls_max=8)

    def _routes(self) -> Routes:
        """A third of all messages each: one-way, answered, streams; the rest is no request."""
        routes = Routes()

        async def unary(_peer: Peer, message: Message) -> Message:
            return message

        async def streaming(_peer: Peer, _message: Message, stream: BulkStream) -> None:
            await stream.receive(timeout_s=0.01)

        for number, kind in enumerate(message_types()):
            match number % 4:
                case 0:
                    routes.oneway[kind] = lambda _peer, _message: None
                case 1:
                    routes.unary[kind] = unary
                case 2:
                    routes.streaming[kind] = streaming
        return routes

    def make(self) -> bytes:
        whole = b"".join(self._frame() for _ in range(self.chance.choice((1, 2, 5, 12))))
        return self.mutator.mutate(whole) if self.chance.random() < 0.2 else whole

    def _frame(self) -> bytes:
        header = self.maker.encoded(self._type)
        if self.chance.random() < 0.2:
            header = self.mutator.mutate(header)
        payload = self.chance.randbytes(self.chance.choice((0, 0, 0, 1, 100, 3000)))
        return frame(header, payload, stream=self.chance.choice((0, 1, 1, 2, 3, 2**32 - 1)))

    def feed(self, data: bytes) -> None:
        connection, _ = honest_handshake(self._server)
        assert connection.trusted
        bound = FRAME_HEADER_BYTES_MAX + FRAME_PAYLOAD_BYTES_MAX + _BUFFER_BYTES_MAX
        receive(connection, data, self.chance, bound)
        if not connection.is_open and not isinstance(connection.error, WireError):
            raise AssertionError(f"cut off for {connection.error!r}")
        connection.abort()
        connection.connection_lost(None)
        assert not self._server._accepted, "a connection is kept after its end"


class Impostors(Target):
    """A server that does not know the secret, as a dialler meets it: it is never trusted."""

    name = "impostor"
    _type = inspect.type_info(Message)

    def make(self) -> bytes:
        whole = b"".join(self._frame() for _ in range(self.chance.choice((1, 2, 3, 6))))
        return self.mutator.mutate(whole) if self.chance.random() < 0.3 else whole

    def _frame(self) -> bytes:
        kind = self.chance.randrange(5)
        if kind == 0:
            return encode_frame(0, Welcome())
        if kind == 1:
            nonce, proof = (self.chance.randbytes(self.chance.choice((0, 32))) for _ in range(2))
            challenge = Challenge(wire_version=WIRE_VERSION, peer_id="n1", nonce=nonce, proof=proof)
            return encode_frame(0, challenge)
        header = self.maker.encoded(self._type)
        return frame(header if kind == 2 else self.mutator.mutate(header))

    def feed(self, data: bytes) -> None:
        greeting = Greeting(SECRET, Peer("node", "n2"))
        connection = greeting.connection
        connection.connection_made(Wire())
        shaking = greeting.shake_hands()
        try:
            shaking.send(None)  # to the first wait
            receive(connection, data, self.chance, _BUFFER_BYTES_MAX)
            connection.connection_lost(None)
            shaking.send(None)
            shaking.send(None)
        except StopIteration:
            raise AssertionError("an impostor is trusted") from None
        except (HandshakeFailed, Unavailable):
            pass
        finally:
            shaking.close()
        assert not connection.trusted


def message_types() -> list[type[Message]]:
    """Every member of the union."""
    return list(Message.__args__)


def honest_handshake(server: FrameServer) -> tuple[FrameConnection, Wire]:
    """A connection whose peer proved the secret: shows that the door opens at all."""
    connection, wire = server._accept(), Wire()
    connection.connection_made(wire)
    hello = Hello(wire_version=WIRE_VERSION, role="node", peer_id="n2", nonce=b"h" * 32)
    receive(connection, encode_frame(0, hello), random.Random(0), _BUFFER_BYTES_MAX)
    connection._uncork()
    challenge = msgspec.msgpack.decode(bytes(wire.sent[PRELUDE_SIZE:]), type=Challenge)
    proof = prove(SECRET, "client", hello, "n1", challenge.nonce)
    receive(connection, encode_frame(0, Proof(proof=proof)), random.Random(0), _BUFFER_BYTES_MAX)
    return connection, wire
