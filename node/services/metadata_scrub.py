"""Each node verifies everything in its own database, over and over, and ends when it is damaged.

Promise: every row is compared with its checksum and with what a lookup finds at least every 24
hours, first some minutes after the start, at a rate that requests do not notice (FAULTS row 36). A
walk that is interrupted starts over; while none comes to its end, status says so.

A node with a damaged database may miss what it has promised to keep, and not know it. So it says so
(the store's `check`, which status shows), leads no longer (node/giveway.py), and ends: once it has
been given an empty database it gets everything again from the others. Only what was read and is
wrong is damage: a database that is away, slow or busy is none. While the other voters are no
majority without it, it goes on: with it they can serve, and can be repaired one after the other;
the only voter of a cluster could get its metadata from nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import aclosing
from typing import Final

from astra.errors import AstraError, DamagedLog, Fatal, StoreError
from astra.log import get_logger
from astra.ports import Clock, MetadataStore
from node.metadata.rows import DamagedTables, crc32c
from node.services.ports import Consensus
from node.services.throttle import TokenBucket

PROMISE_S: Final = 24 * 3600
PERIOD_S: Final = 12 * 3600.0  # from the start of a walk to that of the next
_FIRST: Final = 100  # the first walk begins after a hundredth of the period, or two
_RETRY_S: Final = 60.0
_SAY_S: Final = 3.0  # what status says can be seen, before the node ends
_HAND_OVER_S: Final = 10.0  # then it ends as leader: the others notice
_LOOK_S: Final = 0.25

_log = get_logger("metadata-scrub")


class MetadataScrub:
    def __init__(
        self,
        *,
        node_id: str,
        store: MetadataStore,
        consensus: Consensus,
        can_be_spared: Callable[[], bool],
        rate: TokenBucket,
        clock: Clock,
        period_s: float = PERIOD_S,
    ) -> None:
        self._node_id = node_id
        self._store = store
        self._consensus = consensus
        self._can_be_spared = can_be_spared
        self._rate = rate
        self._clock = clock
        self._period_s = period_s
        self._verified_ms = clock.monotonic_ms()  # at the latest start of a walk that came through
        self._walks = 0
        self._is_walking = False
        self._trouble = ""  # why the newest walk came to no end
        self._is_unreadable = False  # then: else it was away or busy
        self._damage = ""

    async def run(self) -> None:
        """For ever. Raises DamagedTables, DamagedLog."""
        await asyncio.sleep(self._first_s())
        while True:
            started_ms = self._clock.monotonic_ms()
            try:
                await self.walk()
            except (DamagedTables, DamagedLog) as error:
                await self._give_up(error)
            except Fatal:
                raise
            except AstraError as error:
                self._trouble = str(error)
                self._is_unreadable = isinstance(error, StoreError)
                _log.warning("the metadata could not be verified", reason=self._trouble)
                await asyncio.sleep(min(_RETRY_S, self._period_s))
                continue
            left_s = self._period_s - (self._clock.monotonic_ms() - started_ms) / 1000
            await asyncio.sleep(max(0.0, left_s))

    def _first_s(self) -> float:
        """Not the same for nodes that start together."""
        share = crc32c(self._node_id.encode()) / 2**32
        return self._period_s / _FIRST * (1 + share)

    async def walk(self) -> None:
        """Once over everything. Raises as MetadataStore.verify."""
        started_ms = self._clock.monotonic_ms()
        self._is_walking = True
        try:
            async with aclosing(self._store.verify()) as steps:
                async for cost in steps:
                    await self._rate.take(cost)
        finally:
            self._is_walking = False
        self._verified_ms = started_ms
        self._walks += 1
        self._trouble, self._is_unreadable = "", False
        took_s = (self._clock.monotonic_ms() - started_ms) / 1000
        _log.info("metadata verified", seconds=round(took_s, 1))

    async def _give_up(self, error: Fatal) -> None:
        """Raises it, once nobody needs this node."""
        self._damage = str(error)
        _log.error("the database of this node is damaged", reason=self._damage)
        await asyncio.sleep(_SAY_S)
        waited_s = 0.0
        while not self._can_be_spared() or (self._consensus.is_leader and waited_s < _HAND_OVER_S):
            await asyncio.sleep(_LOOK_S)
            waited_s += _LOOK_S
        raise error

    # --- for people ---

    def problems(self) -> list[str]:
        if self._damage:
            return [
                "this node ends, to be rebuilt, once the other voters are a majority without it"
            ]
        if self._is_unreadable:
            return [f"the metadata cannot be verified: {self._trouble}"]
        age_s = self._age_s()
        if age_s <= max(PROMISE_S, 2 * self._period_s):
            return []
        why = f" ({self._trouble})" if self._trouble else ": raise node.scrub_mib_per_s"
        return [f"the metadata was not verified for {age_s / 3600:.0f} hours{why}"]

    def summary(self) -> str:
        if self._damage:
            return f"damaged: {self._damage}"
        if self._is_walking:
            return "walking"
        if self._trouble:
            return f"interrupted: {self._trouble}"
        if not self._walks:
            return "waiting for the first walk"
        return f"all was well {self._age_s() / 3600:.1f} hours ago"

    def _age_s(self) -> float:
        return (self._clock.monotonic_ms() - self._verified_ms) / 1000
