"""The seams of a node: small Protocols, each with a second implementation in memory and one
conformance suite. The Raft core's storage seam is node/raft/storage.py, the chunk store's is
node/chunkstore/ports.py.

Rules of this file: no implementation. The docstring of each method is its contract.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

from astra.model import D, Key, Table
from astra.wire import Notice

T = TypeVar("T")


class MetadataView(Protocol):
    """A consistent picture of the tables at one applied index."""

    async def get(self, table: Table[D], key: Key) -> D | None:
        """The document at exactly this key."""
        ...

    async def scan(
        self, table: Table[D], start: Key, end: Key | None, limit: int
    ) -> Sequence[tuple[Key, D]]:
        """At most `limit` rows with start <= key < end, in ascending key order, bytes compared
        as bytes. `start` and `end` may name only the first columns: a shorter tuple sorts before
        every longer one that begins with it. `end` None: to the end of the table."""
        ...


class MetadataTxn(MetadataView, Protocol):
    """A view that reads its own writes. All of them become visible together, or none."""

    async def put(self, table: Table[D], key: Key, doc: D) -> None:
        """Inserts or replaces."""
        ...

    async def delete(self, table: Table[D], key: Key) -> None:
        """Idempotent."""
        ...


class MetadataStore(Protocol):
    """All metadata of one node, in its own database. Also holds the Raft log (raft()).

    Durability: a change made by `write` survives a process crash at once and a power loss only
    when a later durable transaction (a Raft append) or `flush` has followed; the Raft log
    replays the rest, because the applied index is stored in the same transaction.
    """

    async def read(self, body: Callable[[MetadataView], Awaitable[T]], *, long: bool = False) -> T:
        """Runs `body` on one consistent snapshot. `body` awaits nothing but the view. `long`
        says that it scans (LIST), so that it must not hold up the event loop. Raises
        StoreError when the database fails."""
        ...

    async def write(self, body: Callable[[MetadataTxn], Awaitable[T]]) -> T:
        """Runs `body` in one transaction; one at a time, in call order. `body` awaits nothing
        but the transaction. An exception rolls everything back."""
        ...

    async def flush(self) -> None:
        """On return everything written before survives a power loss. Raises FsyncFailed."""
        ...

    def export(self) -> AsyncIterator[bytes]:
        """A snapshot of all tables at one applied index, as opaque pieces of at most 1 MiB,
        with format version and checksum. Writes go on meanwhile."""
        ...

    async def replace(self, pieces: AsyncIterator[bytes]) -> int:
        """Atomically replaces all tables by an export and returns its applied index. An
        interrupted or damaged one changes nothing. Raises UnknownFormat, WireError."""
        ...

    def verify(self) -> AsyncGenerator[int, None]:
        """Reads all that this node has in its database, log and ledger included, and compares
        each row with its checksum and with what a lookup finds. Gives after each short step what
        it cost, in bytes; between two steps nothing is held, so the caller may rest for as long as
        it likes, and writes go on. Raises DamagedTables or DamagedLog when something is not what
        was stored (from then on `check` says so); StoreError or Unavailable when the database does
        not answer, which says nothing about it."""
        ...

    async def check(self) -> str | None:
        """What is wrong with the database, or None. Cheap: for health."""
        ...

    async def close(self) -> None: ...


class Cache(Protocol):
    """A bounded HEAD/LIST cache. Loses anything at any time; never raises: a failing backend
    answers None within tens of milliseconds and is bypassed for a while. Truth is judged by the
    caller, who puts term and index into each entry."""

    async def get(self, key: bytes) -> bytes | None: ...

    async def put(self, key: bytes, value: bytes) -> None: ...

    async def delete(self, keys: Sequence[bytes]) -> None: ...

    def state(self) -> str:
        """For status: "ok", or what is wrong."""
        ...

    async def close(self) -> None: ...


class Bus(Protocol):
    """The hint channel: every message may be lost, doubled, late or out of order."""

    def publish(self, notice: Notice) -> None:
        """Never blocks and never raises; a full or broken bus drops. Only the leader calls."""
        ...

    def subscribe(self, handler: Callable[[Notice], None]) -> None:
        """Called for each received notice, in the event loop. Before `start`."""
        ...

    async def start(self) -> None: ...

    def state(self) -> str: ...

    async def close(self) -> None: ...


class Clock(Protocol):
    """Time, injected. Both in whole milliseconds."""

    def monotonic_ms(self) -> int: ...

    def wall_ms(self) -> int: ...


class Random(Protocol):
    """Randomness, injected; random.Random and random.SystemRandom fit."""

    def randbytes(self, n: int, /) -> bytes: ...

    def uniform(self, a: float, b: float, /) -> float: ...

    def randrange(self, start: int, stop: int, /) -> int: ...
