"""The HEAD/LIST cache of embedded mode: a least-recently-used map, bounded in bytes."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

_ENTRY_OVERHEAD_BYTES: Final = 200  # two objects, a dict slot and a list node, about


class MemoryCache:
    """Implements astra.ports.Cache. Holds at most `bytes_max`, overhead included."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._bytes = 0
        self._entries: OrderedDict[bytes, bytes] = OrderedDict()

    async def get(self, key: bytes) -> bytes | None:
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    async def put(self, key: bytes, value: bytes) -> None:
        self._drop(key)
        cost = _cost(key, value)
        if cost > self._bytes_max:
            return
        self._entries[key] = value
        self._bytes += cost
        while self._bytes > self._bytes_max:
            oldest, dropped = self._entries.popitem(last=False)
            self._bytes -= _cost(oldest, dropped)

    async def delete(self, keys: Sequence[bytes]) -> None:
        for key in keys:
            self._drop(key)

    def state(self) -> str:
        return "ok"

    async def close(self) -> None:
        self._entries.clear()
        self._bytes = 0

    def bytes_held(self) -> int:
        """Never above `bytes_max`."""
        return self._bytes

    def _drop(self, key: bytes) -> None:
        value = self._entries.pop(key, None)
        if value is not None:
            self._bytes -= _cost(key, value)


def _cost(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + _ENTRY_OVERHEAD_BYTES
