"""When a leader whose disk is slow hands over (FAULTS row 25).

A quorum hides a slow follower, but every write waits for nothing more than the leader's own disk
plus the fastest others; a leader that is much slower than they are costs each client its slowness.

Rules: pure; times in milliseconds of one durable log write, medians of the recent ones.
"""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Mapping
from typing import Final

SLOW_MS: Final = 100.0  # a healthy disk is never that slow for long
SLOW_FACTOR: Final = 10.0  # against the median of the others: a machine-wide stall moves nobody
_WINDOW: Final = 32
_SAMPLES_MIN: Final = 8


class RecentTimes:
    """The last few durations of something, and their median."""

    __slots__ = ("_times",)

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_WINDOW)

    def add(self, duration_ms: float) -> None:
        self._times.append(duration_ms)

    @property
    def median_ms(self) -> float:
        """0 while there are too few to judge by."""
        return statistics.median(self._times) if len(self._times) >= _SAMPLES_MIN else 0.0


def faster_leader(own_ms: float, others_ms: Mapping[str, float]) -> str | None:
    """Whom to hand leadership to because of this node's disk; None: stay. `others_ms` has the
    live voters that could lead, 0 for those that are not measured (they do not count)."""
    measured = {node_id: times for node_id, times in others_ms.items() if times > 0}
    if own_ms <= SLOW_MS or not measured:
        return None
    if own_ms <= SLOW_FACTOR * statistics.median(measured.values()):
        return None
    return min(sorted(measured), key=lambda node_id: measured[node_id])
