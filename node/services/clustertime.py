"""The cluster's time, for what a node does by itself.

Log entries carry the leader's wall clock, and the tables the latest one that was applied: what is
stamped in them is never ahead of it. This node's own wall clock may be a day off. So the age of
what is stamped is judged by that time, plus what has passed here since it was first seen: it goes
on while nobody writes anything. Event loop only.
"""

from __future__ import annotations

from astra.model import CLOCK_MS, MARKS
from astra.ports import Clock, MetadataStore, MetadataView


class ClusterTime:
    def __init__(self, store: MetadataStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._mark_ms = -1
        self._seen_ms = 0

    async def now_ms(self) -> int:
        """Not behind anything that the tables are stamped with. Raises StoreError."""
        mark_ms = await self._store.read(_clock_mark)
        if mark_ms != self._mark_ms:
            self._mark_ms, self._seen_ms = mark_ms, self._clock.monotonic_ms()
        return mark_ms + self._clock.monotonic_ms() - self._seen_ms


async def _clock_mark(view: MetadataView) -> int:
    mark = await view.get(MARKS, (CLOCK_MS,))
    return 0 if mark is None else mark.value
