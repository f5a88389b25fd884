"""The connections of a node to its own PostgreSQL database, and what to do when they break.

Rules of this file: the only one that connects. All connections of one moment form a Session;
when one of them breaks, the whole session ends and a new one is made, with bounded backoff.
While there is none, reads fail at once and writes wait.

Losing PostgreSQL is not an fsync failure. A restart (even kill -9) has these effects, and
each is repaired before a new session is used:
- a durable commit that was acknowledged is still there: PostgreSQL fsynced its WAL;
- a commit with synchronous_commit=off may be gone although this process goes on. Therefore
  every batch of metadata changes stays in `redo` until a durable commit behind it has been
  acknowledged, and a new session starts by doing all of `redo` again, in order. Batches are
  plain puts and deletes, so doing them again from any state in between ends in the same state;
- a commit whose answer was lost may or may not be there. A Raft append is the same rows with
  the same content (idempotent), so it is done again until it is known to be durable.

Durability: there is one WAL. A commit with synchronous_commit=on flushes it up to itself, so
it makes every commit that was acknowledged before it durable, on whichever connection.

No connection of a dead PostgreSQL can answer from a new one, and no connection is added to a
running session: so no reader ever sees the state before `redo` was done.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeVar

import asyncpg

from astra.constants import MIB
from astra.errors import (
    AstraError,
    ConfigError,
    Fatal,
    ForeignDirectory,
    FsyncFailed,
    Overloaded,
    StorageFull,
    StoreError,
    Unavailable,
)
from node.metadata.rows import DamagedRow, DamagedTables

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

T = TypeVar("T")

CONNECT_SECONDS: Final = 5.0
COMMAND_SECONDS: Final = 60.0  # then the connection counts as broken
BACKOFF_SECONDS: Final = (0.05, 2.0)
READERS: Final = 6
READS_WAITING_MAX: Final = 256
REDO_COUNT_MAX: Final = 256
REDO_BYTES_MAX: Final = 16 * MIB
_LOCK_KEY: Final = 0x41535452  # advisory: one node per database
_LOCK_TRIES: Final = 20  # the sessions of a killed node may linger for a moment
_BEGIN_READ: Final = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"

# Plans follow the primary keys; nothing here is worth a planner's guess per execution.
_SETTINGS: Final = {
    "application_name": "astrastorage",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_bitmapscan": "off",
    "idle_in_transaction_session_timeout": "0",
    "statement_timeout": "0",
    "lock_timeout": "10s",
}

# InternalClientError: what asyncpg says on a connection that was terminated under it.
_BROKEN: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.TooManyConnectionsError,
    asyncpg.QueryCanceledError,
)


# Everything that connecting and talking to PostgreSQL may raise.
DATABASE_ERRORS: Final = (asyncpg.PostgresError, *_BROKEN)


def is_broken(error: BaseException) -> bool:
    """Whether the connection, not the statement, has failed."""
    return isinstance(error, _BROKEN)


def judged(error: asyncpg.PostgresError) -> StoreError:
    """What an error of a statement means for the store."""
    code = getattr(error, "sqlstate", "") or ""
    if code == "53100":
        return StorageFull(f"PostgreSQL: {error}")
    if code.startswith("58"):
        return FsyncFailed(f"PostgreSQL: {error}")
    if code.startswith("XX"):
        return DamagedTables(f"PostgreSQL: {error}")
    return StoreError(f"PostgreSQL: {error}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """One write transaction as one statement: puts and deletes only, so it may be repeated."""

    statement: str
    arguments: Sequence[object]
    size: int
    number: int  # consecutive


class Session:
    """Connections that were made together and end together."""

    def __init__(self, meta: Connection, raft: Connection, readers: list[Connection]) -> None:
        self.meta: Final = meta  # synchronous_commit=off
        self.raft: Final = raft  # synchronous_commit=on; holds the advisory lock
        self.raft_turn: Final = asyncio.Lock()
        self.is_over = False
        self._readers: Final = readers
        self._free: Final = list(readers)
        self._slots: Final = asyncio.Semaphore(len(readers))
        self._waiting = 0

    async def take_reader(self) -> Connection:
        """Raises Unavailable when the session ends, Overloaded."""
        if self._waiting >= READS_WAITING_MAX:
            raise Overloaded("too many reads are waiting for PostgreSQL")
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        if self.is_over:
            raise Unavailable("PostgreSQL: the connection was lost")
        return self._free.pop()

    def give_reader(self, connection: Connection) -> None:
        self._free.append(connection)
        self._slots.release()

    @asynccontextmanager
    async def no_readers(self) -> AsyncIterator[None]:
        """Reads wait until the block ends."""
        taken: list[Connection] = []
        try:
            for _ in self._readers:
                taken.append(await self.take_reader())  # noqa: PERF401 what was taken is given back
            yield
        finally:
            for connection in taken:
                self.give_reader(connection)

    def terminate(self) -> None:
        self.is_over = True
        for connection in self.connections():
            connection.terminate()
        for _ in range(READS_WAITING_MAX):
            self._slots.release()  # wakes the waiting, who see that it is over

    def connections(self) -> list[Connection]:
        return [self.meta, self.raft, *self._readers]


async def connect(dsn: str, *, synchronous_commit: str) -> Connection:
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_SECONDS,
        command_timeout=COMMAND_SECONDS,
        statement_cache_size=1000,
        max_cached_statement_lifetime=0,
        max_cacheable_statement_size=65536,
        server_settings=_SETTINGS | {"synchronous_commit": synchronous_commit},
    )


class Link:
    """Makes sessions, and runs work on the current one. Used from one event loop."""

    def __init__(self, dsn: str, prepare: Callable[[Connection], Awaitable[str]]) -> None:
        self.dsn: Final = dsn
        self.failure: AstraError | None = None  # final: there will be no new session
        self.redo: Final[deque[Batch]] = deque()
        self.acknowledged = 0  # number of the newest batch that PostgreSQL has committed
        self._redo_bytes = 0
        self._prepare: Final = prepare  # brings the schema up to date; the store's identity
        self._identity: str | None = None
        self._session: Session | None = None
        self._problem = "not connected yet"
        self._changed: Final = asyncio.Condition()
        self._tasks: Final[set[asyncio.Task[object]]] = set()
        self._is_closed = False

    # --- sessions ----------------------------------------------------------------------------

    async def start(self) -> None:
        """The first session. Raises ConfigError, UnknownFormat, OldFormat,
        ForeignDirectory, Unavailable."""
        try:
            self._session = await self._open()
        except asyncpg.PostgresError as error:
            if is_broken(error):
                raise Unavailable(f"PostgreSQL does not answer: {error}") from error
            raise ConfigError(f"PostgreSQL refuses this node: {error}") from error
        except (OSError, TimeoutError) as error:
            raise Unavailable(f"PostgreSQL does not answer: {error}") from error
        except (ValueError, asyncpg.InterfaceError) as error:
            raise ConfigError("the PostgreSQL address cannot be used") from error

    def current(self) -> Session:
        """Raises Unavailable at once while there is none."""
        if self._session is None:
            raise self.failure or Unavailable(f"PostgreSQL: {self._problem}")
        return self._session

    async def wait(self) -> Session:
        """The current session, or the next one. Raises what ended the link."""
        async with self._changed:
            while self._session is None:
                if self.failure is not None:
                    raise self.failure
                await self._changed.wait()
            return self._session

    def broken(self, session: Session, error: BaseException) -> None:
        """A connection of this session has failed: all of them go."""
        session.terminate()
        if self._session is session:
            self._session = None
            self._problem = f"reconnecting after: {error}"
            if not self._is_closed:
                self.own(self._reconnect())

    def state(self) -> str | None:
        """What is wrong, or None."""
        if self.failure is not None:
            return str(self.failure)
        return f"PostgreSQL: {self._problem}" if self._session is None else None

    async def _reconnect(self) -> None:
        delay, delay_max = BACKOFF_SECONDS
        while not self._is_closed:
            try:
                session = await self._open()
            except AstraError as error:
                await self.fail(error)
                return
            except DATABASE_ERRORS as error:
                self._problem = f"reconnecting: {error}"
                await asyncio.sleep(delay)
                delay = min(2 * delay, delay_max)
            else:
                async with self._changed:
                    self._session = session
                    self._changed.notify_all()
                return

    async def fail(self, error: AstraError) -> None:
        """The end: every later call raises this."""
        async with self._changed:
            self.failure = self.failure or error
            session, self._session = self._session, None
            if session is not None and not self._is_closed:
                session.terminate()
            self._changed.notify_all()

    async def _open(self) -> Session:
        made: list[Connection] = []
        try:
            made.append(await connect(self.dsn, synchronous_commit="on"))
            await self._take_lock(made[0])
            await self._check_identity(await self._prepare(made[0]))
            made.append(await connect(self.dsn, synchronous_commit="off"))
            for batch in self.redo:
                await made[1].execute(batch.statement, *batch.arguments)
            for _ in range(READERS):
                made.append(await connect(self.dsn, synchronous_commit="off"))
                await made[-1].execute(_BEGIN_READ)
        except BaseException:
            for connection in made:
                connection.terminate()
            raise
        return Session(made[1], made[0], made[2:])

    async def _take_lock(self, connection: Connection) -> None:
        for _ in range(_LOCK_TRIES):
            if await connection.fetchval("SELECT pg_try_advisory_lock($1)", _LOCK_KEY):
                return
            await asyncio.sleep(0.25)
        raise ForeignDirectory("the PostgreSQL database is in use by another node")

    async def _check_identity(self, identity: str) -> None:
        if self._identity is None:
            self._identity = identity
        if identity != self._identity:
            raise ForeignDirectory("PostgreSQL came back with another database")

    # --- redo --------------------------------------------------------------------------------

    def remember(self, batch: Batch) -> None:
        """Before it is sent for the first time."""
        self.redo.append(batch)
        self._redo_bytes += batch.size

    def retract(self, batch: Batch) -> None:
        """The newest batch was refused for good."""
        if self.redo and self.redo[-1] is batch:
            self.redo.pop()
            self._redo_bytes -= batch.size

    def forget(self, number: int) -> None:
        """Batches up to this one are durable."""
        while self.redo and self.redo[0].number <= number:
            self._redo_bytes -= self.redo.popleft().size

    def is_redo_full(self) -> bool:
        return len(self.redo) >= REDO_COUNT_MAX or self._redo_bytes >= REDO_BYTES_MAX

    async def make_durable(self, use: Callable[[Connection], Awaitable[T]]) -> T:
        """A change on the connection that commits durably, and with it all batches that were
        acknowledged before. `use` must be safe to repeat."""
        number = self.acknowledged

        async def on_session(session: Session) -> T:
            async with session.raft_turn:
                return await use(session.raft)

        value = await self.persist(on_session)
        self.forget(number)
        return value

    # --- work --------------------------------------------------------------------------------

    async def persist(self, use: Callable[[Session], Awaitable[T]]) -> T:
        """Runs `use` on one session after the other until it has an answer. `use` must be
        safe to repeat. Raises what `judged` makes of a statement's error, or what ended the
        link."""
        while True:
            session = await self.wait()
            try:
                return await use(session)
            except Exception as error:
                if is_broken(error):
                    self.broken(session, error)
                elif isinstance(error, asyncpg.PostgresError):
                    meaning = judged(error)
                    if isinstance(meaning, Fatal):
                        await self.fail(meaning)
                    raise meaning from error
                else:
                    raise

    async def read(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        """Runs `body` on one snapshot of the current session: a transaction that has begun but
        has no snapshot yet waits on every reader, and the next one is begun behind the
        caller's back, so that a read costs no round trip but its own. Raises Unavailable,
        StoreError."""
        session = self.current()
        connection = await session.take_reader()
        try:
            return await body(connection)
        except Exception as error:
            if is_broken(error):
                self.broken(session, error)
                raise Unavailable(f"PostgreSQL: {error}") from error
            if isinstance(error, asyncpg.PostgresError):
                raise judged(error) from error
            if isinstance(error, UnicodeDecodeError):  # PostgreSQL checks text when it comes in
                raise DamagedRow(f"PostgreSQL: {error}") from error
            raise
        finally:
            self.own(self._rewind(session, connection))

    async def read_patiently(self, body: Callable[[Connection], Awaitable[T]]) -> T:
        """As `read`, but waits for PostgreSQL to come back. `body` must be safe to repeat."""
        while True:
            try:
                await self.wait()
                return await self.read(body)
            except Unavailable:
                continue

    async def _rewind(self, session: Session, connection: Connection) -> None:
        try:
            if not session.is_over:
                await connection.execute(f"ROLLBACK; {_BEGIN_READ}")
        except DATABASE_ERRORS as error:
            self.broken(session, error)
        else:
            session.give_reader(connection)

    def own(self, work: Coroutine[object, object, T]) -> asyncio.Task[T]:
        """A task that lives until it ends or the link is closed, whoever waits for it."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    def _forget(self, task: asyncio.Task[T]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has seen it

    async def close(self) -> None:
        self._is_closed = True
        session, self._session = self._session, None
        await self.fail(StoreError("the metadata store is closed"))
        for task in list(self._tasks):
            task.cancel()
            with suppress(BaseException):
                await task
        if session is not None:
            for connection in session.connections():
                with suppress(Exception):
                    await connection.close(timeout=2.0)
