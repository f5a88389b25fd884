"""The real clock of a node process. Tests and the simulator use their own."""

from __future__ import annotations

import time


class SystemClock:
    """Implements astra.ports.Clock."""

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

    def wall_ms(self) -> int:
        return time.time_ns() // 1_000_000
