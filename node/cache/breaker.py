"""When to leave a failing backend alone. Pure: the caller says what time it is.

closed --failure--> open until `now + pause` --first call after--> probing (one call only)
probing --success--> closed        probing --failure--> open, twice as long (bounded)
"""

from __future__ import annotations

from typing import Final

PAUSE_MS_MIN: Final = 1000
PAUSE_MS_MAX: Final = 8000


class Breaker:
    """Not thread-safe: one event loop."""

    def __init__(self) -> None:
        self._open_until_ms: int | None = None
        self._pause_ms = PAUSE_MS_MIN
        self._is_probing = False
        self._reason = ""

    def allows(self, now_ms: int) -> bool:
        """Whether a call may go out; each allowed call must end in `succeeded` or `failed`."""
        if self._open_until_ms is None:
            return True
        if self._is_probing or now_ms < self._open_until_ms:
            return False
        self._is_probing = True
        return True

    def succeeded(self) -> bool:
        """True when this closes the breaker: the backend is back."""
        is_back = self._open_until_ms is not None
        self._open_until_ms = None
        self._is_probing = False
        self._pause_ms = PAUSE_MS_MIN
        return is_back

    def failed(self, now_ms: int, reason: str) -> bool:
        """True when this opens the breaker: the backend just went away."""
        is_new = self._open_until_ms is None
        if is_new or self._is_probing:
            self._open_until_ms = now_ms + self._pause_ms
            self._pause_ms = min(self._pause_ms * 2, PAUSE_MS_MAX)
        self._is_probing = False
        self._reason = reason
        return is_new

    @property
    def is_open(self) -> bool:
        return self._open_until_ms is not None

    def state(self) -> str:
        return f"bypassed: {self._reason}" if self.is_open else "ok"
