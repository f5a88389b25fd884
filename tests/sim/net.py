"""The simulated network: connections between processes, with everything that goes wrong.

It stands below the product's own frames (astra.connection): the handshake, reconnects, checksums
and deadlines are the real ones. A connection keeps the order of its bytes, as TCP does. What is on
a link when it is cut waits and arrives after the heal, or the connection is reset. Frames of
stream 0 (one way: Raft, reports, hints) may also be lost, doubled or overtake each other, because
nobody may rely on them.

A killed process resets its connections; one that lost its power leaves them half open until its
machine is back. A paused one accepts and receives nothing, but its kernel does.
"""

from __future__ import annotations

import asyncio
import random
import struct
from collections.abc import Callable
from typing import Any, Final, TypeVar, cast

from astra.frame import PRELUDE_SIZE
from tests.sim.loop import LIFE, Life, SimLoop

T = TypeVar("T")

_STREAM: Final = struct.Struct("!4xI")
_HANDSHAKE_FRAMES: Final = 2  # of each side: they travel as stream 0 too
_BUFFER_SIZE: Final = 1 << 16

Factory = Callable[[], asyncio.BaseProtocol]


class Weather:
    """How the network is doing. Times in seconds."""

    def __init__(self) -> None:
        self.delay_min_s = 0.0002
        self.delay_max_s = 0.003
        self.loss = 0.0  # of one-way frames; of others: the chance of a retransmission
        self.duplicates = 0.0
        self.reorder = 0.0
        self.resets = 0.0  # chance, per frame, that the connection breaks
        self.retransmit_s = 0.2


class SimNet:
    def __init__(self, loop: SimLoop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.weather = Weather()
        self.cuts: set[tuple[str, str]] = set()
        self.frames = 0
        self._listeners: dict[tuple[str, int], tuple[Factory, Life]] = {}
        self._transports: dict[Life, dict[SimTransport, None]] = {}

    # --- what the loop asks --------------------------------------------------------------------

    async def connect(
        self, factory: Factory, host: str, port: int
    ) -> tuple[asyncio.BaseTransport, asyncio.BaseProtocol]:
        life = LIFE.get()
        if life is None:
            raise OSError("only a process may connect")
        await asyncio.sleep(self.delay() + self.delay())
        if self.is_cut(life.name, host) or self.is_cut(host, life.name):
            await self.loop.create_future()  # until the caller's patience ends
        listener = self._listeners.get((host, port))
        if listener is None or not listener[1].is_alive:
            raise ConnectionRefusedError(f"{host}:{port} refused")
        here, there = SimTransport(self, life), SimTransport(self, listener[1])
        here.peer, there.peer = there, here
        protocol = factory()
        here.start(protocol)
        accept = self.loop.call_soon(
            lambda: there.start(listener[0]()), context=listener[1].context
        )  # after a pause, if the process is paused
        accept.is_input = True
        return here, protocol

    def listen(self, factory: Factory, host: str, port: int) -> asyncio.AbstractServer:
        life = LIFE.get()
        if life is None:
            raise OSError("only a process may listen")
        self._listeners[(host, port)] = (factory, life)
        return cast(asyncio.AbstractServer, _Server(self, host, port))

    def stop_listening(self, host: str, port: int) -> None:
        self._listeners.pop((host, port), None)

    # --- links ---------------------------------------------------------------------------------

    def delay(self) -> float:
        return self.rng.uniform(self.weather.delay_min_s, self.weather.delay_max_s)

    def is_cut(self, source: str, target: str) -> bool:
        return (source, target) in self.cuts

    def cut(self, source: str, target: str) -> None:
        self.cuts.add((source, target))

    def heal(self, source: str, target: str) -> None:
        """What waited arrives, or finds its connection reset."""
        if (source, target) not in self.cuts:
            return
        self.cuts.discard((source, target))
        for life, transports in list(self._transports.items()):
            if life.name == target:
                for transport in list(transports):
                    if transport.peer is not None and transport.peer.life.name == source:
                        transport.link_is_back(is_reset=self.rng.random() < 0.3)

    def heal_all(self) -> None:
        for source, target in sorted(self.cuts):
            self.heal(source, target)

    # --- processes -----------------------------------------------------------------------------

    def add(self, transport: SimTransport) -> None:
        self._transports.setdefault(transport.life, {})[transport] = None

    def remove(self, transport: SimTransport) -> None:
        self._transports.get(transport.life, {}).pop(transport, None)

    def process_died(self, life: Life, *, is_silent: bool) -> None:
        """Its kernel resets the connections, unless the power went."""
        for transport in list(self._transports.get(life, ())):
            transport.is_open = False
            if not is_silent:
                self._reset_peer(transport)
                self.remove(transport)

    def machine_is_back(self, name: str) -> None:
        """Whoever still holds a connection to an earlier life learns that it is gone."""
        for life in [each for each in self._transports if each.name == name and not each.is_alive]:
            for transport in self._transports.pop(life):
                self._reset_peer(transport)

    def _reset_peer(self, transport: SimTransport) -> None:
        if transport.peer is not None:
            transport.peer.lose_later(self.delay(), ConnectionResetError("reset by peer"))


class _Server:
    """What the product uses of asyncio.Server."""

    def __init__(self, net: SimNet, host: str, port: int) -> None:
        self._net = net
        self._address = (host, port)
        self.sockets = [self]

    def getsockname(self) -> tuple[str, int]:
        return self._address

    def close(self) -> None:
        self._net.stop_listening(*self._address)


class SimTransport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, net: SimNet, life: Life) -> None:
        super().__init__()
        self.life = life
        self.peer: SimTransport | None = None
        self.is_open = True
        self._net = net
        self._loop = net.loop
        self._protocol: Any = None
        self._frames = 0
        self._last_arrival_s = 0.0
        self._unsent = 0
        self._is_reading = True
        self._inbox: list[bytes] = []  # reading is paused
        self._stalled: list[Callable[[], None]] = []  # the link to us is cut
        net.add(self)

    def __hash__(self) -> int:
        return id(self)

    def start(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol
        protocol.connection_made(self)
        if not self.is_open:
            self.lose(None)

    # --- sending -------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        peer = self.peer
        if not self.is_open or peer is None:
            return
        self._net.frames += 1
        self._frames += 1
        weather, rng = self._net.weather, self._net.rng
        piece, delay_s = bytes(data), self._net.delay()
        self._unsent += len(piece)
        if weather.resets and rng.random() < weather.resets:
            self.break_both()
            return
        if weather.loss or weather.duplicates or weather.reorder:
            if self._is_one_way(piece):
                self._send_carelessly(piece, delay_s)
                return
            if rng.random() < weather.loss:
                delay_s += weather.retransmit_s
        self._send_in_order(delay_s, peer.arrive, piece)

    def _is_one_way(self, piece: bytes) -> bool:
        is_frame = len(piece) >= PRELUDE_SIZE and piece.startswith(b"AS")
        is_zero = is_frame and _STREAM.unpack_from(piece)[0] == 0
        return is_zero and self._frames > _HANDSHAKE_FRAMES

    def _send_carelessly(self, piece: bytes, delay_s: float) -> None:
        weather, rng, peer = self._net.weather, self._net.rng, self.peer
        if peer is None or rng.random() < weather.loss:
            self._unsent -= len(piece)
            return
        if rng.random() < weather.duplicates:
            later_s = delay_s + rng.uniform(0, 50 * weather.delay_max_s)
            self._loop.call_later(later_s, peer.arrive, piece, context=peer.life.context)
            self._unsent += len(piece)
        if rng.random() < weather.reorder:
            later_s = delay_s + rng.uniform(0, 20 * weather.delay_max_s)
            self._loop.call_later(later_s, peer.arrive, piece, context=peer.life.context)
        else:
            self._send_in_order(delay_s, peer.arrive, piece)

    def _send_in_order(self, delay_s: float, event: Callable[[T], None], what: T) -> None:
        if self.peer is None:
            return
        self._last_arrival_s = max(self._last_arrival_s, self._loop.now_s + delay_s)
        context = self.peer.life.context
        handle = self._loop.call_at(self._last_arrival_s, event, what, context=context)
        handle.is_input = True

    def get_write_buffer_size(self) -> int:
        return self._unsent

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        return None

    # --- receiving -----------------------------------------------------------------------------

    def arrive(self, piece: bytes) -> None:
        if not self.is_open or self.peer is None:
            return
        if self._stalled or self._net.is_cut(self.peer.life.name, self.life.name):
            self._stalled.append(lambda: self.arrive(piece))
            return
        self.peer._unsent -= len(piece)
        if self._is_reading:
            self._feed(piece)
        else:
            self._inbox.append(piece)

    def _feed(self, piece: bytes) -> None:
        position = 0
        while position < len(piece) and self.is_open:
            buffer = self._protocol.get_buffer(_BUFFER_SIZE)
            count = min(len(buffer), len(piece) - position)
            buffer[:count] = piece[position : position + count]
            position += count
            self._protocol.buffer_updated(count)

    def link_is_back(self, *, is_reset: bool) -> None:
        if self._stalled and is_reset:
            self.break_both()
        elif self._stalled:
            delay_s = self._net.weather.delay_max_s
            self._loop.call_later(delay_s, self._flush_stalled, context=self.life.context)

    def _flush_stalled(self) -> None:
        stalled, self._stalled = self._stalled, []
        for event in stalled:
            event()  # stalls again if the link was cut again

    def pause_reading(self) -> None:
        self._is_reading = False

    def resume_reading(self) -> None:
        self._is_reading = True
        self._loop.call_soon(self._drain_inbox, context=self.life.context)

    def _drain_inbox(self) -> None:
        while self._inbox and self._is_reading and self.is_open:
            self._feed(self._inbox.pop(0))

    # --- ending --------------------------------------------------------------------------------

    def close(self) -> None:
        """Sends what is queued, then the end."""
        peer = self.peer
        if self.is_open and peer is not None:
            self._send_in_order(self._net.delay(), peer.end_arrives, None)
            self.lose_later(0.0, None)
        self.is_open = False

    def abort(self) -> None:
        peer = self.peer
        if self.is_open and peer is not None:
            reset = ConnectionResetError("reset by peer")
            delay_s = self._net.delay()
            self._loop.call_later(
                delay_s, lambda: peer.end_arrives(reset), context=peer.life.context
            )
            self.lose_later(0.0, None)
        self.is_open = False

    def is_closing(self) -> bool:
        return not self.is_open

    def end_arrives(self, error: Exception | None) -> None:
        if self.peer is not None and self._net.is_cut(self.peer.life.name, self.life.name):
            self._stalled.append(lambda: self.end_arrives(error))
        else:
            self.lose(error)

    def break_both(self) -> None:
        """The network broke it: both ends learn."""
        for end in (self, self.peer):
            if end is not None:
                end.lose_later(self._net.delay(), ConnectionResetError("connection broken"))

    def lose_later(self, delay_s: float, error: Exception | None) -> None:
        self._loop.call_later(delay_s, self.lose, error, context=self.life.context)

    def lose(self, error: Exception | None) -> None:
        """connection_lost, once."""
        protocol, self._protocol = self._protocol, None
        self.is_open = False
        self._net.remove(self)
        if protocol is not None:
            protocol.connection_lost(error)
