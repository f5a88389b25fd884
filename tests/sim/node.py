"""One simulated node: a machine with its disks, on which the product's NodeProcess lives and dies.

Nothing of the node is replaced but its backends: composition, services, Raft driver, frames and
chunk store logic are the product's own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from astra.errors import Fatal
from astra.net import Dialer, Routes
from astra.wire import Entry, Notice
from node.apply.touched import Touched
from node.bus.direct import DirectBus
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.memory import MemoryChunkStore
from node.clock import SystemClock
from node.membership import ClusterMap
from node.process import NodeProcess, Parts
from node.raft.config import RaftConfig
from node.raft.core import RaftCore
from node.raft.types import SoftState
from node.services.health import Backends
from node.settings import NodeSettings
from node.transport import FollowerPush
from tests.sim.disk import SimLedger, SimRaftStorage, SimRedis, Storage
from tests.sim.loop import Life, SimLoop
from tests.sim.net import SimNet

SECRET: Final = b"a secret of the simulation, 32 bytes"
PORT: Final = 9010


def sim_raft_config(append_bytes_max: int = 4000) -> RaftConfig:
    """Small limits, so that every border is met within a few hundred entries."""
    return RaftConfig(
        election_timeout_min_ms=500,
        election_timeout_max_ms=1000,
        heartbeat_ms=100,
        tick_ms=100,
        lease_margin_ms=100,
        append_bytes_max=append_bytes_max,
        inflight_max=8,
        apply_bytes_max=6_000,
        memory_bytes_max=20_000,
        snapshot_retry_ms=500,
        entries_retained=25,
    )


def sim_settings(
    name: str, names: Sequence[str], voters: Sequence[str], raft: RaftConfig
) -> NodeSettings:
    return NodeSettings(
        node_id=name,
        cluster_id="sim",
        data_dir=Path("sim"),
        cluster_secret=SECRET,
        listen_host=name,
        listen_port=PORT,
        peers={each: address_of(each) for each in names},
        voters=tuple(voters),
        raft=raft,
        compact_interval_s=2.0,
        report_interval_s=1.0,
        peer_silence_s=2.5,
        garbage_grace_s=4.0,
        garbage_interval_s=1.5,
        sweep_interval_s=3.0,
        repair_delay_s=1.0,
        repair_grace_s=6.0,
        repair_scan_interval_s=2.5,
        rebalance_interval_s=4.0,
        census_interval_s=4.0,
        scrub_period_s=8.0,
        free_bytes_min=1,
    )


def address_of(name: str) -> str:
    """At first."""
    return f"{name}:{PORT}"


class WatchedProcess(NodeProcess):
    """Tells the checker of each change of role."""

    watch: Callable[[SoftState], None] = staticmethod(lambda _: None)

    def _on_role(self, state: SoftState) -> None:
        super()._on_role(state)
        self.watch(state)


class SimNode:
    """A machine. `process` is None while it is down."""

    def __init__(
        self, settings: NodeSettings, storage: Storage, loop: SimLoop, net: SimNet, redis: SimRedis
    ) -> None:
        self.name = settings.node_id
        self.settings = settings
        self.storage = storage
        self.life: Life | None = None
        self.process: WatchedProcess | None = None
        self.chunks: MemoryChunkStore | None = None
        self._loop = loop
        self._net = net
        self._redis = redis
        self._stop: asyncio.Event | None = None

    @property
    def address(self) -> str:
        """Where it is reached by now."""
        return f"{self.name}:{self.settings.listen_port}"

    @property
    def core(self) -> RaftCore | None:
        driver = None if self.process is None else self.process._driver
        return None if driver is None else driver._core

    @property
    def is_leader(self) -> bool:
        return self.process is not None and self.process.consensus.is_leader

    @property
    def applied_index(self) -> int:
        return -1 if self.process is None else self.process.applier.applied_index

    def boot(
        self,
        life: Life,
        watch: Callable[[SoftState], None],
        on_applied: Callable[[Sequence[Entry], Sequence[Touched]], None],
        on_end: Callable[[BaseException | None], None],
    ) -> None:
        """Starts a process; `on_end` when it ends by itself (cleanly: None)."""
        self.life = life
        self.storage.tables.forget_waiters()
        self._net.machine_is_back(self.name)

        async def serve() -> None:
            try:
                await self._serve(watch, on_applied)
            except BaseException as error:
                on_end(_worst_of(error))
            else:
                on_end(None)

        life.context.run(self._loop.create_task, serve())

    async def _serve(
        self,
        watch: Callable[[SoftState], None],
        on_applied: Callable[[Sequence[Entry], Sequence[Touched]], None],
    ) -> None:
        """As node.app.serve_node, with the simulation's backends."""
        parts = self._parts()
        process = WatchedProcess(self.settings, parts)
        process.watch = watch
        process.applier.listen(on_applied)
        self._stop = asyncio.Event()
        try:
            await process.start()
            self.process = process
            await process.run(self._stop)
        finally:
            await process.stop()
            await parts.dialer.close()
            await parts.raft_dialer.close()
            await parts.chunks.close()

    def _parts(self) -> Parts:
        settings, routes = self.settings, Routes()
        self.chunks = MemoryChunkStore(self.storage.chunks)
        dialer, raft_dialer = (
            Dialer(secret=SECRET, role="node", peer_id=self.name) for _ in range(2)
        )
        cluster = ClusterMap(
            node_id=self.name,
            address=self.address,
            peers=settings.other_peers(),
            clock=SystemClock(),
            silence_ms=int(settings.peer_silence_s * 1000),
        )
        return Parts(
            store=self.storage.tables,
            raft_storage=SimRaftStorage(self.storage),
            ledger=SimLedger(self.storage),
            chunks=AsyncChunkStore(self.chunks, threads=4),
            cache=self._redis,
            bus=DirectBus(routes.notify, self._followers(dialer, cluster)),
            dialer=dialer,
            raft_dialer=raft_dialer,
            routes=routes,
            cluster=cluster,
            clock=SystemClock(),
            backends=Backends(metadata="sim", cache="sim", bus="tcp"),
        )

    def _followers(self, dialer: Dialer, cluster: ClusterMap) -> list[Callable[[Notice], bool]]:
        """Who gets pushed entries: of members that change, whoever is one."""
        settings = self.settings
        if settings.voters_max:
            return [FollowerPush(dialer, cluster).send]
        return [
            _pusher(dialer, address)
            for name, address in settings.other_peers().items()
            if name not in settings.voters
        ]

    def ask_to_stop(self) -> None:
        """A clean shutdown begins (SIGTERM)."""
        if self._stop is not None and self.life is not None:
            self.life.context.run(self._stop.set)

    def forget(self) -> None:
        self.life = None
        self.process = None
        self._stop = None


def _pusher(dialer: Dialer, address: str) -> Callable[[Notice], bool]:
    return lambda notice: dialer.control(address).send(notice)


def _worst_of(error: BaseException) -> BaseException:
    """The Fatal in a group, or else its first member."""
    while isinstance(error, BaseExceptionGroup):
        members = error.exceptions
        error = next((each for each in members if isinstance(each, Fatal)), members[0])
    return error
