"""The witness: which cached answers may be stale, in a fixed few hundred KiB. Pure.

An array of slots, each the last log index that touched anything hashed to it. A cached answer
filled at applied index `i` of this term is true while no slot of what it shows is above `i`.
Two things in one slot cost a miss, never a stale answer.

Rules
- `touch` comes before the entries become visible in the store. So a reader who filled the cache
  with the state before a write cannot be believed once anybody may have seen the write.
- A filler takes its index before it reads. It may be too low (a miss), never too high.
- Entries of other terms do not count: an older leader may have filled them without our knowing.
"""

from __future__ import annotations

from mmap import mmap
from typing import Final

from node.apply.touched import Touched

_SLOTS: Final = 1 << 16  # a power of two


class Witness:
    """Event loop only."""

    def __init__(self, slots: int = _SLOTS) -> None:
        """`slots` is a power of two; small ones are for tests."""
        self._mask = slots - 1
        self._keys = _zeros(slots)
        self._contents = _zeros(slots)  # by bucket: any key of it
        self._settings = _zeros(slots)  # by bucket: its document
        self._access = 0
        self._everything = 0

    def touch(self, touched: Touched, index: int) -> None:
        """What one log entry may change."""
        for place in touched.keys:
            _raise(self._keys, hash(place) & self._mask, index)
        for bucket in touched.listings:
            _raise(self._contents, hash(bucket) & self._mask, index)
        for bucket in touched.buckets:
            _raise(self._settings, hash(bucket) & self._mask, index)
        if touched.access:
            self._access = max(self._access, index)

    def touch_all(self, index: int) -> None:
        """The whole state was replaced (snapshot)."""
        self._everything = max(self._everything, index)

    def last_change_of_key(self, bucket: str, key: bytes) -> int:
        """Of the key, its bucket's document, or the access state: what a HEAD shows."""
        settings = self._settings[hash(bucket) & self._mask]
        slot = self._keys[hash((bucket, key)) & self._mask]
        return max(slot, settings, self._access, self._everything)

    def last_change_of_bucket(self, bucket: str) -> int:
        """Of any key, the bucket's document, or the access state: what a LIST shows."""
        slot = hash(bucket) & self._mask
        return max(self._contents[slot], self._settings[slot], self._access, self._everything)


def _zeros(slots: int) -> memoryview[int]:
    """Pages that were never touched take neither time nor memory."""
    return memoryview(mmap(-1, 8 * slots)).cast("Q")


def _raise(slots: memoryview[int], position: int, index: int) -> None:
    if slots[position] < index:
        slots[position] = index
