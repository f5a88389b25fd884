"""Which blobs here are still being read by downloads that take longer than the garbage grace.

Their gateways say so again and again (StillReading); nobody has to say that a read has ended. After
a start it is not known who reads what: for one round of messages, everything may be. Memory is
bounded: beyond _BLOBS_MAX no further blob is noted, and its readers have the grace only; what is no
blob id is not kept.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from astra.constants import READ_KEPT_S, READ_TOLD_S
from astra.ports import Clock
from node.apply.blobs import is_blob_id

_BLOBS_MAX: Final = 200_000
_SLACK_S: Final = 5


class Readers:
    """Event loop only. Monotonic time: it concerns this process alone."""

    def __init__(self, clock: Clock, grace_ms: int) -> None:
        """A node whose garbage has a shorter grace than a round takes waits no longer than that."""
        self._clock = clock
        self._until_ms: dict[str, int] = {}
        first_round_ms = (2 * READ_TOLD_S + _SLACK_S) * 1000
        self._knows_at_ms = clock.monotonic_ms() + min(grace_ms, first_round_ms)

    def __len__(self) -> int:
        return len(self._until_ms)

    def note(self, blob_ids: Iterable[str]) -> None:
        """They are being read: a gateway says so."""
        until_ms = self._clock.monotonic_ms() + READ_KEPT_S * 1000
        for blob_id in filter(is_blob_id, blob_ids):
            if blob_id in self._until_ms or self._has_room():
                self._until_ms[blob_id] = until_ms

    def _has_room(self) -> bool:
        if len(self._until_ms) >= _BLOBS_MAX:
            self.forget_old()
        return len(self._until_ms) < _BLOBS_MAX

    def forget_old(self) -> None:
        """Drops those that nobody has named lately."""
        now_ms = self._clock.monotonic_ms()
        self._until_ms = {each: until for each, until in self._until_ms.items() if until > now_ms}

    def unread(self, blob_ids: Iterable[str]) -> list[str]:
        """Those that no download needs, as far as can be known."""
        now_ms = self._clock.monotonic_ms()
        if now_ms < self._knows_at_ms:
            return []
        return [each for each in blob_ids if self._until_ms.get(each, 0) <= now_ms]
