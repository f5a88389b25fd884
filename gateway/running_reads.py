"""The downloads that run here, told to the holders: what they read is not swept away under them.

An object that is overwritten or deleted is garbage from then on, and its holders delete it after a
grace. Who downloads for longer than that says so to every holder it may still need, every
READ_TOLD_S seconds. Reads that begin and end between two rounds, nearly all, cost no message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from astra.constants import READ_BLOBS_MAX, READ_SECONDS_MAX, READ_TOLD_S
from astra.net import Dialer
from astra.wire import BlobPlace, StillReading


class RunningRead:
    """One download. `position`: how many bytes of its `pieces` (blob id, bytes) it has given."""

    __slots__ = ("_began_s", "_pieces", "_places", "is_old", "position")

    def __init__(
        self, pieces: Sequence[tuple[str, int]], places: Mapping[str, BlobPlace], now_s: float
    ) -> None:
        self._pieces = pieces
        self._places = places
        self._began_s = now_s
        self.position = 0
        self.is_old = False  # it ran when the round before was told

    def is_over_due(self, now_s: float) -> bool:
        return now_s - self._began_s > READ_SECONDS_MAX

    def needs(self) -> Iterator[tuple[str, str]]:
        """Address and blob id, of every copy that may still be asked for."""
        end = 0
        for blob_id, length in self._pieces:
            end += length
            place = self._places.get(blob_id)
            if end > self.position and place is not None:
                for holder in place.holders:
                    yield holder.address, blob_id


class RunningReads:
    """Not thread safe; one per process."""

    def __init__(self, dialer: Dialer, now_s: Callable[[], float]) -> None:
        """`now_s`: monotonic."""
        self._dialer = dialer
        self._now_s = now_s
        self._reads: set[RunningRead] = set()

    @contextmanager
    def reading(
        self, pieces: Sequence[tuple[str, int]], places: Mapping[str, BlobPlace]
    ) -> Iterator[RunningRead]:
        """While inside, the holders in `places` keep what the read still needs."""
        read = RunningRead(pieces, places, self._now_s())
        self._reads.add(read)
        try:
            yield read
        finally:
            self._reads.discard(read)

    async def run(self) -> None:
        """Tells for ever."""
        while True:
            await asyncio.sleep(READ_TOLD_S)
            self.tell()

    def tell(self) -> None:
        """One round. A read is told from its second round on: before that no grace is over."""
        now_s = self._now_s()
        needed: dict[str, set[str]] = {}
        for read in self._reads:
            if read.is_old and not read.is_over_due(now_s):
                for address, blob_id in read.needs():
                    needed.setdefault(address, set()).add(blob_id)
            read.is_old = True
        for address, blob_ids in needed.items():
            self._tell_holder(address, blob_ids)

    def _tell_holder(self, address: str, blob_ids: Iterable[str]) -> None:
        named = sorted(blob_ids)
        for first in range(0, len(named), READ_BLOBS_MAX):
            some = tuple(named[first : first + READ_BLOBS_MAX])
            self._dialer.control(address).send(StillReading(blob_ids=some))
