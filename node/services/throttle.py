"""A rate for background work: whoever wants to move bytes waits for its turn here.

Rules: pacing, not limiting: nothing is refused, and those who wait are served in order. Clock and
sleep are handed in.

Invariant: over any stretch of time no more than `rate * seconds + burst` bytes were let through,
and one taker that is larger than the burst.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from astra.constants import MIB
from astra.errors import invariant

BURST_S: Final = 0.25


class TokenBucket:
    def __init__(
        self,
        *,
        mib_per_s: float,
        now_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        invariant(mib_per_s > 0, "a rate is positive")
        self._bytes_per_ms = mib_per_s * MIB / 1000
        self._now_ms = now_ms
        self._sleep = sleep
        self._paid_until_ms = 0.0

    async def take(self, size: int) -> None:
        """Returns when these bytes may be moved."""
        now = self._now_ms()
        self._paid_until_ms = max(self._paid_until_ms, now - BURST_S * 1000)
        self._paid_until_ms += size / self._bytes_per_ms
        ahead_ms = self._paid_until_ms - now
        if ahead_ms > 0:
            await self._sleep(ahead_ms / 1000)
