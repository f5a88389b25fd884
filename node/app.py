"""The composition root of a node process: the only file that imports concrete backends.

An error of disk, database or state ends the process with EXIT_FATAL, after one line that says what
happened and what to do: it must not go on with what it cannot trust.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final, Protocol

import uvloop

from astra.errors import AstraError, ConfigError, Fatal, ForeignDirectory, StoreError
from astra.log import configure_logging, get_logger
from astra.net import Dialer, Routes
from astra.ports import Bus, Cache, MetadataStore
from node.bus.direct import DirectBus
from node.bus.rabbitmq import RabbitBus
from node.cache.memory import MemoryCache
from node.cache.redis import RedisCache
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.layout import initialise
from node.chunkstore.store import DiskChunkStore
from node.clock import SystemClock
from node.datadir import DataDirectory
from node.lastwords import STOPS, last_words
from node.ledger import Ledger
from node.membership import ClusterMap
from node.metadata.postgres import PostgresMetadataStore
from node.metadata.sqlite import SqliteMetadataStore
from node.notebook import FileNotebook
from node.process import NodeProcess, Parts
from node.raft.storage import RaftStorage
from node.services.health import Backends
from node.settings import NodeSettings
from node.transport import FollowerPush

EXIT_FATAL: Final = 70  # sysexits EX_SOFTWARE

_log = get_logger("node")


class Database(MetadataStore, Protocol):
    """Metadata, Raft log and ledger in one database."""

    def raft(self) -> RaftStorage: ...

    def ledger(self) -> Ledger: ...


def run_node(settings: NodeSettings) -> int:
    """The whole process: serves until SIGTERM or SIGINT, and returns the exit status. Raises
    ConfigError when it cannot start."""
    configure_logging(settings.log_level)
    try:
        uvloop.run(_serve_until_signal(settings))
    except ForeignDirectory as error:
        raise ConfigError(str(error)) from error
    except StoreError as error:
        _log.error(STOPS, **last_words(error, settings)._asdict())
        return EXIT_FATAL
    except AstraError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot serve on port {settings.listen_port}: {error}") from error
    except Exception as error:
        _log.error(STOPS, **last_words(error, settings)._asdict(), exc_info=error)
        return EXIT_FATAL
    return 0


async def _serve_until_signal(settings: NodeSettings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve_node(settings, stop)


async def serve_node(settings: NodeSettings, stop: asyncio.Event) -> None:
    """Serves until `stop` is set, then stops cleanly. Raises ConfigError, Unavailable (the
    database is not up), OSError (port in use), Fatal; never a group."""
    try:
        async with _open_parts(settings) as parts:
            node = NodeProcess(settings, parts)
            try:
                await node.start()
                await node.run(stop)
            finally:
                await node.stop()
    except ExceptionGroup as group:
        raise _worst_of(group) from group


def _worst_of(error: Exception) -> Exception:
    """The Fatal in a group, or else its first member."""
    while isinstance(error, ExceptionGroup):
        members = error.exceptions
        error = next((member for member in members if isinstance(member, Fatal)), members[0])
    return error


# --- opening ---------------------------------------------------------------------------------


@asynccontextmanager
async def _open_parts(settings: NodeSettings) -> AsyncIterator[Parts]:
    """Opens in order of dependence; closes in the opposite one."""
    async with AsyncExitStack() as stack:
        directory = DataDirectory(
            settings.data_dir, cluster_id=settings.cluster_id, node_id=settings.node_id
        )
        stack.callback(directory.close)
        clock = SystemClock()
        chunks = await _open_chunks(settings, directory)
        stack.push_async_callback(chunks.close)
        directory.settle()
        database = await open_database(settings, directory)
        stack.push_async_callback(database.close)
        cache = _make_cache(settings, clock)
        stack.push_async_callback(cache.close)
        dialer, raft_dialer = _make_dialer(settings), _make_dialer(settings)
        stack.push_async_callback(dialer.close)
        stack.push_async_callback(raft_dialer.close)
        routes = Routes()
        cluster = _make_cluster(settings, clock)
        bus = _make_bus(settings, routes, FollowerPush(dialer, cluster))
        stack.push_async_callback(bus.close)
        yield Parts(
            store=database,
            raft_storage=database.raft(),
            ledger=database.ledger(),
            chunks=chunks,
            cache=cache,
            bus=bus,
            dialer=dialer,
            raft_dialer=raft_dialer,
            routes=routes,
            cluster=cluster,
            clock=clock,
            backends=_describe(settings),
            notebook=FileNotebook(settings.data_dir),
        )


async def open_database(settings: NodeSettings, directory: DataDirectory) -> Database:
    if settings.metadata == "sqlite":
        return await SqliteMetadataStore.open(directory.database)
    if settings.metadata.startswith(("postgres://", "postgresql://")):
        return await PostgresMetadataStore.open(settings.metadata)
    raise ConfigError("node.metadata must be sqlite or a postgresql:// DSN")


async def _open_chunks(settings: NodeSettings, directory: DataDirectory) -> AsyncChunkStore:
    """A store that should be there and is not is refused, never made anew."""
    path, owner = str(directory.chunks), (settings.cluster_id, settings.node_id)

    def open_store() -> DiskChunkStore:
        if directory.is_new:
            initialise(path, cluster_id=owner[0], node_id=owner[1])
        return DiskChunkStore(path, cluster_id=owner[0], node_id=owner[1])

    store = await asyncio.to_thread(open_store)
    return AsyncChunkStore(store, threads=settings.disk_threads)


def _make_cache(settings: NodeSettings, clock: SystemClock) -> Cache:
    if settings.redis_url is None:
        return MemoryCache(settings.cache_bytes_max)
    return RedisCache(settings.redis_url, clock)


def _make_dialer(settings: NodeSettings) -> Dialer:
    return Dialer(
        secret=settings.cluster_secret,
        role="node",
        peer_id=settings.node_id,
        tls=settings.peer_tls,
    )


def _make_bus(settings: NodeSettings, routes: Routes, push: FollowerPush) -> Bus:
    """Entries are pushed to the nodes outside of the group; hints go to whoever subscribed."""
    direct = DirectBus(routes.notify, [push.send])
    if settings.amqp_url is None:
        return direct
    return RabbitBus(
        settings.amqp_url,
        direct,
        cluster_id=settings.cluster_id,
        node_id=settings.node_id,
        secret=settings.cluster_secret,
    )


def _make_cluster(settings: NodeSettings, clock: SystemClock) -> ClusterMap:
    return ClusterMap(
        node_id=settings.node_id,
        address=settings.own_address(),
        peers=settings.other_peers(),
        clock=clock,
        silence_ms=int(settings.peer_silence_s * 1000),
    )


def _describe(settings: NodeSettings) -> Backends:
    return Backends(
        metadata="sqlite" if settings.metadata == "sqlite" else "postgresql",
        cache="memory" if settings.redis_url is None else "redis",
        bus="tcp" if settings.amqp_url is None else "rabbitmq",
    )
