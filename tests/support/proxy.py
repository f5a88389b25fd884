"""A TCP proxy between the processes of a cluster that does to each link what a test asks for.

Every node advertises the address of its proxy, so that nodes and gateways reach it only through
here. Who dials is read from the first frame of a connection (the Hello names its sender), so a
*link* is a direction between two names: `gateway` stands for all gateways. Bytes that flow from a
to b, on whichever side's connection, feel the state of link (a, b).

What a link does is what TCP makes of a bad network: a cut or a loss is a stall, after which the
bytes arrive late and in order, or the connection breaks; corruption is a flipped bit.

It runs in a process of its own (`Proxy` starts and steers it): the clients' interpreter lock must
not become a delay that no test asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
import uvloop

from astra.errors import WireError
from astra.frame import PRELUDE_SIZE, decode_handshake, decode_prelude
from astra.wire import Hello

ROOT: Final = Path(__file__).resolve().parents[2]
GATEWAY: Final = "gateway"
_PIECE_BYTES: Final = 64 * 1024
_PIECES_MAX: Final = 16  # on their way in one direction of one connection
_HELLO_S: Final = 5.0
_STOP_S: Final = 5.0


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """What happens to the bytes of one direction. Chances are per piece (at most 64 KiB)."""

    cut: bool = False
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    bytes_per_s: float = 0.0  # 0: no cap
    stall_chance: float = 0.0  # the loss of a packet: its retransmission takes 200 ms
    break_chance: float = 0.0
    corrupt_chance: float = 0.0


class LinkState(msgspec.Struct, frozen=True, kw_only=True):
    """The state of one link from now on."""

    source: str
    destination: str
    link: Link


class _Setup(msgspec.Struct, frozen=True, kw_only=True):
    seed: int
    ports: dict[str, tuple[int, int]]  # name: (listening, target)


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    """All links that are not whole; `reset` also breaks every connection."""

    links: list[LinkState] = []
    reset: bool = False


class Proxy:
    """The near end: start it with the nodes' real ports, give each node its `port` to advertise."""

    def __init__(self, ports: Mapping[str, tuple[int, int]], *, seed: int) -> None:
        """`ports` has, by node, the port to listen on and the port that the node listens on."""
        self.ports = {name: listening for name, (listening, _) in ports.items()}
        self.links: dict[tuple[str, str], Link] = {}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tests.support.proxy"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={"PYTHONPATH": str(ROOT)},
            start_new_session=True,
        )
        self._say(_Setup(seed=seed, ports=dict(ports)))

    def set(self, links: Mapping[tuple[str, str], Link]) -> None:
        """These links are so from now on; all others stay as they are. Effective on return."""
        self.links.update(links)
        self._order(reset=False)

    def heal(self) -> None:
        """All links are whole; what was held back arrives now."""
        self.links.clear()
        self._order(reset=False)

    def reset(self) -> None:
        """Breaks every connection."""
        self._order(reset=True)

    def _order(self, *, reset: bool) -> None:
        states = [
            LinkState(source=source, destination=destination, link=link)
            for (source, destination), link in self.links.items()
        ]
        self._say(_Order(links=states, reset=reset))

    def _say(self, message: _Setup | _Order) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(msgspec.json.encode(message) + b"\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer == b"done\n", f"the proxy answered {answer!r}"

    def close(self) -> None:
        """Ends the process and with it every connection."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


# --- the far end: everything below runs in the proxy's own process ---------------------------


class _Links:
    """The state of all links, and who waits for a change of it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self._links: dict[tuple[str, str], Link] = {}
        self._changed = asyncio.Event()

    def replace(self, states: list[LinkState]) -> None:
        self._links = {(each.source, each.destination): each.link for each in states}
        self._changed.set()
        self._changed = asyncio.Event()

    def get(self, way: tuple[str, str]) -> Link:
        return self._links.get(way, _WHOLE)

    async def uncut(self, way: tuple[str, str]) -> Link:
        """Returns once the link is not cut."""
        while (link := self.get(way)).cut:
            await self._changed.wait()
        return link


_WHOLE: Final = Link()


class _Pump:
    """One direction of one connection: an order-preserving queue with a delay."""

    def __init__(
        self,
        links: _Links,
        way: tuple[str, str],
        source: asyncio.StreamReader,
        destination: asyncio.StreamWriter,
    ) -> None:
        self._links = links
        self._way = way
        self._source = source
        self._destination = destination
        self._queue: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_PIECES_MAX)

    async def run(self) -> None:
        """Until the end of the stream has been passed on, or the connection breaks."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take_in())
            group.create_task(self._give_out())

    async def _take_in(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            piece = await self._source.read(_PIECE_BYTES)
            link, chance = self._links.get(self._way), self._links.chance
            delay_ms = link.delay_ms + chance.uniform(-link.jitter_ms, link.jitter_ms)
            if chance.random() < link.stall_chance:
                delay_ms += 200
            await self._queue.put((clock() + max(delay_ms, 0) / 1000, piece))
            if not piece:
                return

    async def _give_out(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, piece = await self._queue.get()
            if due > clock():
                await asyncio.sleep(due - clock())
            link = await self._links.uncut(self._way)
            if not piece:
                self._destination.write_eof()
                return
            if link.bytes_per_s:
                await asyncio.sleep(len(piece) / link.bytes_per_s)
            self._destination.write(self._damaged(piece, link))
            await self._destination.drain()

    def _damaged(self, piece: bytes, link: Link) -> bytes:
        chance = self._links.chance
        if chance.random() < link.break_chance:
            raise ConnectionResetError("as asked for")
        if chance.random() >= link.corrupt_chance:
            return piece
        changed = bytearray(piece)
        changed[chance.randrange(len(piece))] ^= 1 << chance.randrange(8)
        return bytes(changed)


class _Connections:
    """Accepts for every node and keeps what runs, so that it can be broken."""

    def __init__(self, links: _Links) -> None:
        self._links = links
        self._running: set[asyncio.Task[None]] = set()

    async def listen(self, name: str, listening: int, target: int) -> None:
        async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            self._running.add(task)
            try:
                await self._serve(name, target, reader, writer)
            except (OSError, TimeoutError, EOFError, ExceptionGroup, asyncio.CancelledError):
                pass  # it broke, as connections do; both ends see it below
            finally:
                self._running.discard(task)
                writer.transport.abort()

        await asyncio.start_server(accepted, "127.0.0.1", listening, backlog=512)

    async def _serve(
        self, name: str, target: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        async with asyncio.timeout(_HELLO_S):
            first, dialler = await _read_hello(reader)
        for way in ((dialler, name), (name, dialler)):
            await self._links.uncut(way)  # neither the SYN nor its answer would arrive
        there_reader, there_writer = await asyncio.open_connection("127.0.0.1", target)
        try:
            there_writer.write(first)
            async with asyncio.TaskGroup() as group:
                group.create_task(_Pump(self._links, (dialler, name), reader, there_writer).run())
                group.create_task(_Pump(self._links, (name, dialler), there_reader, writer).run())
        finally:
            there_writer.transport.abort()

    def break_all(self) -> None:
        for task in tuple(self._running):
            task.cancel()


async def _read_hello(reader: asyncio.StreamReader) -> tuple[bytes, str]:
    """The first frame, and the name of who sent it ("?" when it is no Hello)."""
    start = await reader.readexactly(PRELUDE_SIZE)
    try:
        prelude = decode_prelude(start, trusted=False)
        header = await reader.readexactly(prelude.header_length)
        hello = decode_handshake(prelude, header)
    except WireError:
        return start, "?"
    if not isinstance(hello, Hello):
        return start + header, "?"
    return start + header, hello.peer_id if hello.role == "node" else GATEWAY


async def _main() -> None:
    loop = asyncio.get_running_loop()
    setup = msgspec.json.decode(await asyncio.to_thread(sys.stdin.buffer.readline), type=_Setup)
    links = _Links(setup.seed)
    connections = _Connections(links)
    for name, (listening, target) in setup.ports.items():
        await connections.listen(name, listening, target)
    orders = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin.buffer)
    _done()
    while line := await orders.readline():
        order = msgspec.json.decode(line, type=_Order)
        links.replace(order.links)
        if order.reset:
            connections.break_all()
        _done()
    connections.break_all()


def _done() -> None:
    sys.stdout.buffer.write(b"done\n")
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    uvloop.run(_main())
