"""One SQLite file per node: its connections, its single writer, and what its errors mean.

Rules of this file: the only one that opens SQLite. One connection writes; transactions have
it one at a time, in call order. Statements of a transaction run on the event loop's thread,
because each statement releases the GIL and a worker thread would wait up to a switch interval
to get it back; what waits for the disk (durable commits, checkpoints) and what has become
long runs in the writer thread, while the transaction keeps the connection.

Durability. The file is in WAL mode. A plain commit (synchronous=NORMAL) writes its frames
without fsync; a durable one (FULL) writes its frames and fsyncs the WAL. There is one WAL and
recovery replays it from its start to the first frame that does not fit its checksum chain, so:

    a durable commit makes every commit before it durable too, in order.

Hence a Raft append flushes the applies before it, and log compaction, which is a durable
transaction behind the apply it depends on, can never outlive that apply. Checkpoints fsync
the WAL before they copy it, and the main file before the WAL starts over. They are ours
(wal_autocheckpoint=0), because SQLite ignores the errors of its automatic ones.

An I/O error on this connection is final: every later write raises it again, nothing is
retried (the kernel may have dropped the pages). A full disk is not: it rolls back.
"""

from __future__ import annotations

import asyncio
import errno
import os
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Final, Generic, TypeVar

from astra.constants import MIB
from astra.errors import DamagedLog, Fatal, FsyncFailed, Overloaded, StorageFull, StoreError
from node.metadata.bodies import Finished, advance, finish
from node.metadata.rows import DamagedRow, DamagedTables

T = TypeVar("T")

Connection = sqlite3.Connection
DuplicateKey = sqlite3.IntegrityError
Steps = Generator[object, None, T]

PAGE_BYTES: Final = 4096
CHECKPOINT_PAGES: Final = 4000  # about 16 MiB of WAL between checkpoints
WAL_PAGES_MAX: Final = 256 * MIB // PAGE_BYTES  # a reader that pins more than this is ended
WRITES_WAITING_MAX: Final = 256
READS_WAITING_MAX: Final = 256
READERS: Final = 2

_NO_SPACE: Final = frozenset((errno.ENOSPC, errno.EDQUOT))
_DAMAGED: Final = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))
_NO_TEXT: Final = "Could not decode to UTF-8"  # Python's error for damaged text; it has no code


async def wait_settled(future: asyncio.Future[T]) -> T:
    """The result of work that must not be left alone: a cancellation waits for its end."""
    cancelled: asyncio.CancelledError | None = None
    while not future.done():
        try:
            await asyncio.wait((future,))
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        future.exception()  # seen: nobody else will look
        raise cancelled
    return future.result()


class Worker:
    """One thread that runs calls in order."""

    def __init__(self, name: str) -> None:
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], T]) -> asyncio.Future[T]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            settle: Callable[[], None]
            try:
                value = function()
            except BaseException as error:
                settle = _failure_of(future, error)
            else:
                settle = _success_of(future, value)
            with suppress(RuntimeError):  # the loop is gone, and so is the caller
                loop.call_soon_threadsafe(settle)

        self._calls.put(run)
        return future

    def stop(self) -> None:
        """Ends the thread behind all calls made so far."""
        self.leave()
        self._thread.join()

    def leave(self) -> None:
        """As stop, but does not wait for it."""
        self._calls.put(None)

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            call()


def _success_of(future: asyncio.Future[T], value: T) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_result(value)


def _failure_of(future: asyncio.Future[T], error: BaseException) -> Callable[[], None]:
    return lambda: None if future.done() else future.set_exception(error)


def connect(path: Path, *, cache_mib: int) -> Connection:
    connection = sqlite3.connect(
        path,
        timeout=5.0,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=512,
    )
    for pragma in (
        f"page_size = {PAGE_BYTES}",
        f"cache_size = -{cache_mib * 1024}",
        "journal_mode = WAL",
        "wal_autocheckpoint = 0",
        "secure_delete = OFF",
        "trusted_schema = OFF",
        "temp_store = MEMORY",
        "journal_size_limit = 67108864",
        "synchronous = FULL",
    ):
        connection.execute(f"PRAGMA {pragma}")
    return connection


def grow_wal(path: Path) -> None:
    """Gives a database that nobody has open a WAL file of its usual size: appending to a file
    makes each fsync journal the new size too, several times the cost of overwriting. SQLite
    takes a WAL whose header does not fit its magic for an empty one (walformat, section 4.1);
    a WAL that is there belongs to a crash, or to another process, and is left alone."""
    wal = path.with_name(path.name + "-wal")
    try:
        with wal.open("xb") as file:
            for _ in range(CHECKPOINT_PAGES * PAGE_BYTES // MIB):
                file.write(bytes(MIB))
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return
    except OSError as error:
        with suppress(OSError):
            wal.unlink(missing_ok=True)
        if error.errno not in _NO_SPACE:  # without the room it is only slower
            raise FsyncFailed(f"cannot make {wal}: {error.strerror}") from error


def connect_reader(path: Path) -> Connection:
    connection = connect(path, cache_mib=16)
    connection.execute("PRAGMA query_only = ON")
    return connection


def read_error(error: sqlite3.Error) -> StoreError:
    """What a failed read means: this node cannot answer; another one may."""
    is_damaged = _code_of(error) in _DAMAGED or _NO_TEXT in str(error)
    kind = DamagedRow if is_damaged else StoreError
    return kind(f"SQLite: {error}")


def _code_of(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF


@contextmanager
def needed_to_vote() -> Iterator[None]:
    """What is damaged inside is more than an answer: this node may take no part."""
    try:
        yield
    except DamagedRow as error:
        raise DamagedLog(str(error)) from error


class Writer:
    """The connection that writes. Used from one event loop."""

    def __init__(self, connection: Connection, checkpointer: Connection) -> None:
        self.connection: Final = connection
        self.failure: Fatal | None = None
        self.wal_pages = 0  # at the last checkpoint that could not finish
        self._worker: Final = Worker("sqlite-writer")
        self._checkpointer: Final = checkpointer
        self._checkpoint_worker: Final = Worker("sqlite-checkpoint")
        self._checkpoint_task: asyncio.Task[None] | None = None
        self._turn: Final = asyncio.Lock()
        self._waiting = 0
        self._is_durable_mode = True
        self._is_closed = False
        self._pages_since_checkpoint = 0.0
        self._changes_seen = 0

    async def run(self, body: Callable[[Connection], Steps[T]], *, durable: bool) -> T:
        """One transaction. When it raises, or is cancelled before its turn, nothing happened;
        cancelled later, it still ends one way or the other before this returns.

        Raises FsyncFailed, StorageFull, DamagedTables, StoreError, Overloaded."""
        if self._waiting >= WRITES_WAITING_MAX:
            raise Overloaded("too many writes are waiting for SQLite")
        self._waiting += 1
        try:
            await self._let_checkpoint_catch_up()
            async with self._turn:
                self._check_usable()
                return await self._transaction(body, durable=durable)
        finally:
            self._waiting -= 1
            if self._pages_since_checkpoint >= CHECKPOINT_PAGES:
                self._start_checkpoint()

    async def _transaction(self, body: Callable[[Connection], Steps[T]], *, durable: bool) -> T:
        try:
            self._begin(durable=durable)
            steps = body(self.connection)
            finished = advance(steps)
        except BaseException as error:
            raise self._rolled_back(error) from error
        if finished is not None and not durable:
            return self._committed(finished)
        if finished is not None:
            done = finished
            return await wait_settled(self._worker.call(lambda: self._committed(done)))
        return await wait_settled(self._worker.call(lambda: self._finish(steps)))

    def _begin(self, *, durable: bool) -> None:
        if durable is not self._is_durable_mode:
            self.connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            self._is_durable_mode = durable
        self.connection.execute("BEGIN IMMEDIATE")

    def _finish(self, steps: Steps[T]) -> T:
        try:
            finished = Finished(finish(steps))
        except BaseException as error:
            raise self._rolled_back(error) from error
        return self._committed(finished)

    def _committed(self, finished: Finished[T]) -> T:
        try:
            self.connection.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._rolled_back(error) from error
        changes = self.connection.total_changes
        self._pages_since_checkpoint += 1.5 * (changes - self._changes_seen)
        self._changes_seen = changes
        return finished.value

    def _rolled_back(self, error: BaseException) -> BaseException:
        """Undoes the transaction; what to raise."""
        try:
            if self.connection.in_transaction:
                self.connection.execute("ROLLBACK")
        except sqlite3.Error as second:
            self.failure = FsyncFailed(f"SQLite: {second} (after: {error})")
            return self.failure
        if isinstance(error, DamagedRow):
            self.failure = DamagedTables(str(error))
            return self.failure
        return self._judged(error) if isinstance(error, sqlite3.Error) else error

    def _judged(self, error: sqlite3.Error) -> StoreError:
        code = _code_of(error)
        if code == sqlite3.SQLITE_FULL:
            return StorageFull(f"SQLite: {error}")
        if code == sqlite3.SQLITE_IOERR:
            self.failure = FsyncFailed(f"SQLite: {error} ({error.sqlite_errorname})")
            return self.failure
        if isinstance(read_error(error), DamagedRow):
            self.failure = DamagedTables(f"SQLite: {error}")
            return self.failure
        return StoreError(f"SQLite: {error}")

    def note_bytes(self, count: int) -> None:
        """A transaction is writing this many bytes: for the pace of checkpoints."""
        self._pages_since_checkpoint += count / PAGE_BYTES

    async def _let_checkpoint_catch_up(self) -> None:
        """Bounds the WAL when writes come faster than they can be copied."""
        task = self._checkpoint_task
        is_far_behind = self._pages_since_checkpoint >= 2 * CHECKPOINT_PAGES
        if is_far_behind and task is not None and not task.done():
            await asyncio.wait((task,))

    def _start_checkpoint(self) -> None:
        is_running = self._checkpoint_task is not None and not self._checkpoint_task.done()
        if not is_running and not self._is_closed and self.failure is None:
            self._pages_since_checkpoint = 0
            self._checkpoint_task = asyncio.create_task(self._checkpoint())

    async def _checkpoint(self) -> None:
        """Copies the WAL into the main file: the bulk beside the writes, then what they added
        meanwhile while none runs, because only a whole copy lets the WAL start over."""
        await wait_settled(self._checkpoint_worker.call(self._copy_wal))
        async with self._turn:
            if not self._is_closed and self.failure is None:
                await wait_settled(self._checkpoint_worker.call(self._copy_wal))

    def _copy_wal(self) -> None:
        """Whatever no reader holds back; both files are fsynced."""
        try:
            row = self._checkpointer.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        except sqlite3.Error as error:
            self._judged(error)  # poisons the writer: nothing durable follows a failed fsync
            return
        _, pages, copied = row
        self.wal_pages = pages if copied < pages else 0

    def _check_usable(self) -> None:
        if self.failure is not None:
            raise type(self.failure)(str(self.failure)) from self.failure
        if self._is_closed:
            raise StoreError("the metadata store is closed")

    async def close(self) -> None:
        """Waits for the transactions before it."""
        async with self._turn:
            if self._is_closed:
                return
            self._is_closed = True
        if self._checkpoint_task is not None:
            await self._checkpoint_task
        with suppress(sqlite3.Error):
            self.connection.execute("PRAGMA synchronous = FULL")
        await wait_settled(self._checkpoint_worker.call(self._checkpointer.close))
        await wait_settled(self._worker.call(self.connection.close))
        self._checkpoint_worker.stop()
        self._worker.stop()


class _Reader(Generic[T]):
    __slots__ = ("connection", "worker")

    def __init__(self, path: Path, number: int) -> None:
        self.connection: Final = connect_reader(path)
        self.worker: Final = Worker(f"sqlite-reader-{number}")


class Readers:
    """Connections that read: one for the event loop, the others with a thread each."""

    def __init__(self, path: Path) -> None:
        self.inline: Final = connect_reader(path)
        self._all: Final = [_Reader[object](path, number) for number in range(READERS)]
        self._free: Final = list(self._all)
        self._available: Final = asyncio.Semaphore(READERS)
        self._waiting = 0
        self.is_closed = False
        self.damage: str | None = None  # the first that a read has met

    def read(self, body: Callable[[Connection], T]) -> T:
        """On the calling thread, in one snapshot. Raises StoreError."""
        self._check_open()
        with self.noting_damage():
            return in_snapshot(self.inline, body)

    async def read_long(self, body: Callable[[Connection], T]) -> T:
        """In a thread, in one snapshot. Raises StoreError, Overloaded."""
        if self._waiting >= READS_WAITING_MAX:
            raise Overloaded("too many reads are waiting for SQLite")
        self._waiting += 1
        try:
            async with self._available:
                self._check_open()
                reader = self._free.pop()
                try:
                    call = reader.worker.call(lambda: in_snapshot(reader.connection, body))
                    with self.noting_damage():
                        return await wait_settled(call)
                finally:
                    self._free.append(reader)
        finally:
            self._waiting -= 1

    @contextmanager
    def noting_damage(self) -> Iterator[None]:
        try:
            yield
        except (DamagedRow, DamagedTables, DamagedLog) as error:
            self.damage = self.damage or str(error)
            raise

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            for reader in self._all:
                reader.worker.stop()
                reader.connection.close()
            self.inline.close()

    def _check_open(self) -> None:
        if self.is_closed:
            raise StoreError("the metadata store is closed")


def in_snapshot(connection: Connection, body: Callable[[Connection], T]) -> T:
    """On the calling thread. Raises StoreError."""
    try:
        connection.execute("BEGIN")
        try:
            return body(connection)
        finally:
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise read_error(error) from error
