"""A link that goes dark without a word: no reset, no farewell, every packet vanishes.

Run as a program in a network of its own (`unshare -rn`), whose loopback is the link: it talks to
itself, takes the link down, up again, and prints what it saw as JSON. Nobody else is touched.
"""

import asyncio
import fcntl
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable

import msgspec

import astra.connection
import astra.dialer
from astra.errors import AstraError
from astra.net import Dialer, FrameServer, Peer, Routes
from astra.wire import Accepted, BlobRead, GetStatus, Message

SECRET = b"a secret of the tests, 32 bytes long"
CONTROL_SILENCE_S = 1.0
SILENCE_S = 2.0
PATIENCE_S = 20.0
_GET_FLAGS, _SET_FLAGS, _UP = 0x8913, 0x8914, 0x1


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """Seconds from the moment in which the link went down, or came back."""

    call_failed: float  # the one that was under way
    error: str
    server_forgot: float  # every connection of the vanished peer
    idle_forgotten: float  # the pooled connection, on which nothing was under way
    answered_again: float


def set_link(*, is_up: bool) -> None:
    with socket.socket() as any_socket:
        request = struct.pack("16sh", b"lo", 0)
        flags = struct.unpack("16sh", fcntl.ioctl(any_socket, _GET_FLAGS, request)[:18])[1]
        flags = flags | _UP if is_up else flags & ~_UP
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", flags))


async def until(condition: Callable[[], object]) -> float:
    """Seconds; as long as the patience when it never came true."""
    began = time.monotonic()
    while not condition() and time.monotonic() - began < PATIENCE_S:
        await asyncio.sleep(0.02)
    return time.monotonic() - began


async def look() -> Seen:
    hold = asyncio.Event()
    is_held = False

    async def handle(peer: Peer, message: Message) -> Message:
        if is_held:
            await hold.wait()
        return Accepted()

    async def read(peer: Peer, message: Message, stream: astra.net.BulkStream) -> None:
        await stream.send(Accepted())

    routes = Routes()
    routes.unary[GetStatus] = handle
    routes.streaming[BlobRead] = read
    server = FrameServer(secret=SECRET, node_id="n1", routes=routes)
    await server.start("127.0.0.1", 0)
    dialer = Dialer(secret=SECRET, role="gateway", peer_id="g1")
    address = f"127.0.0.1:{server.port}"
    control = dialer.control(address)
    await control.call(GetStatus(), timeout_s=5)
    stream = await dialer.bulk(address)
    await stream.send(BlobRead(blob_id="0" * 32, offset=0, length=1))
    await stream.receive(timeout_s=5)
    await stream.release()
    is_held = True
    call = asyncio.create_task(control.call(GetStatus(), timeout_s=PATIENCE_S))
    await until(lambda: any(accepted.tasks for accepted in server._accepted))
    set_link(is_up=False)
    seen = await _in_the_dark(server, dialer, call, address)
    is_held = False
    set_link(is_up=True)
    began = time.monotonic()
    await _insist(lambda: control.call(GetStatus(), timeout_s=1))
    await dialer.close()
    await server.close()
    return msgspec.structs.replace(seen, answered_again=time.monotonic() - began)


async def _in_the_dark(
    server: FrameServer, dialer: Dialer, call: "asyncio.Task[Message]", address: str
) -> Seen:
    began = time.monotonic()
    try:
        await call
        error = "answered"
    except AstraError as failure:
        error = type(failure).__name__
    call_failed = time.monotonic() - began
    await until(lambda: not dialer._pools[address]._idle)
    idle_forgotten = time.monotonic() - began
    await until(lambda: not server._accepted)
    return Seen(
        call_failed=call_failed,
        error=error,
        server_forgot=time.monotonic() - began,
        idle_forgotten=idle_forgotten,
        answered_again=0.0,
    )


async def _insist(attempt: Callable[[], Awaitable[Message]]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            await attempt()
        except AstraError:
            await asyncio.sleep(0.02)
        else:
            return


def main() -> None:
    set_link(is_up=True)
    astra.connection._SILENCE_S = SILENCE_S  # type: ignore[misc]  # a test need not wait so long
    astra.dialer._CONTROL_SILENCE_S = CONTROL_SILENCE_S  # type: ignore[misc]  # as above
    sys.stdout.buffer.write(msgspec.json.encode(asyncio.run(look())))


if __name__ == "__main__":
    main()
