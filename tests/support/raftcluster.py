"""Raft drivers on an in-process network, over storage in memory: for driver tests."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence

from astra.errors import Unavailable, WireError
from astra.wire import Entry, Membership, RaftMessage
from node.raft.config import RaftConfig
from node.raft.driver import RaftDriver
from node.raft.memory import MemoryLog, MemoryStorage
from node.raft.types import SnapshotMark, SnapshotOffer

FAST = RaftConfig(
    election_timeout_min_ms=300,
    election_timeout_max_ms=900,
    heartbeat_ms=50,
    tick_ms=10,
    lease_margin_ms=30,
    entries_retained=0,
    snapshot_retry_ms=100,
)


class MonotonicClock:
    """The real one, with a jump that tests may add: as after SIGSTOP."""

    def __init__(self) -> None:
        self.jump_ms = 0

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000 + self.jump_ms

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000


class Peer:
    """One node: state machine (the list of applied entries), storage, driver."""

    def __init__(self, network: Network, node_id: str, config: RaftConfig) -> None:
        self.network = network
        self.node_id = node_id
        self.config = config
        self.clock = MonotonicClock()
        self.rng = random.Random(node_id)
        self.storage = MemoryStorage(MemoryLog())
        self.state: list[Entry] = []
        self.installs_to_break = 0
        self.fatal: list[BaseException] = []
        self.apply_gate = asyncio.Event()
        self.apply_gate.set()
        self.driver = self._new_driver()

    def _new_driver(self) -> RaftDriver:
        return RaftDriver(
            node_id=self.node_id,
            config=self.config,
            storage=self.storage,
            send=self.network.send,
            apply=self.apply,
            snapshots=self,
            clock=self.clock,
            rng=self.rng,
            on_fatal=self.fatal.append,
        )

    async def apply(self, entries: Sequence[Entry]) -> Sequence[object]:
        await self.apply_gate.wait()
        self.state.extend(entries)
        return [entry.data.upper() for entry in entries]

    async def install(
        self, offer: SnapshotOffer, prepare: Callable[[SnapshotMark], Awaitable[None]]
    ) -> SnapshotMark:
        if (self.node_id, offer.leader) in self.network.cut:
            raise Unavailable("unreachable")
        source = self.network.peers[offer.leader]
        mark = source.driver.mark_at(source.driver.applied_index)
        await prepare(mark)
        if self.installs_to_break > 0:
            self.installs_to_break -= 1
            raise WireError("the peer broke off the snapshot")
        self.state = source.state[: mark.index]
        return mark

    async def start(self) -> None:
        await self.driver.start(len(self.state), self.network.bootstrap)

    def has_ended(self, times: int) -> bool:
        """By itself, for something fatal."""
        return len(self.fatal) == times

    async def restart(self) -> None:
        """Ends without farewell, as kill -9; the disk keeps what was durable."""
        await self.driver.stop(timeout_s=0)
        self.storage.log.crash()
        self.driver = self._new_driver()
        await self.start()


class Network:
    """Delivers in the next loop iteration; `cut` names directed pairs that lose everything."""

    def __init__(self, count: int, config: RaftConfig = FAST) -> None:
        ids = tuple(f"n{number}" for number in range(1, count + 1))
        self.bootstrap = Membership(voters=ids)
        self.cut: set[tuple[str, str]] = set()
        self.sent: list[RaftMessage] = []
        self.peers = {each: Peer(self, each, config) for each in ids}

    def send(self, message: RaftMessage) -> None:
        self.sent.append(message)
        if (message.sender, message.to) not in self.cut:
            self.peers[message.to].driver.receive(message)

    def isolate(self, node_id: str) -> None:
        for other in self.peers:
            self.cut |= {(node_id, other), (other, node_id)}

    async def __aenter__(self) -> Network:
        for peer in self.peers.values():
            await peer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self.peers.values():
            peer.storage.release()
            peer.apply_gate.set()
            await peer.driver.stop(timeout_s=0)

    def leaders(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if peer.driver.is_leader]

    async def leader(self, *, other_than: str | None = None) -> Peer:
        """The leader once there is one that the others know."""

        def settled() -> bool:
            leaders = [each for each in self.leaders() if each.node_id != other_than]
            return len(leaders) == 1 and leaders[0].driver.commit_index > 0

        await eventually(settled)
        return next(each for each in self.leaders() if each.node_id != other_than)

    def followers(self) -> list[Peer]:
        return [peer for peer in self.peers.values() if not peer.driver.is_leader]


async def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> None:
    """Waits for a condition, looking every few milliseconds."""
    async with asyncio.timeout(timeout_s):
        while not condition():
            await asyncio.sleep(0.003)
