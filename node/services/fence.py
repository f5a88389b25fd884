"""Which copies on this node are being made, and which are being deleted: never one both.

Why: a copy that the metadata dropped is deleted a moment after that was read. A repair that gave
this node a new copy in that moment would see it deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from astra.errors import Overloaded


class CopyFence:
    """Event loop only."""

    def __init__(self) -> None:
        self._filling: set[str] = set()
        self._dropping: set[str] = set()

    @property
    def filling(self) -> int:
        return len(self._filling)

    @contextmanager
    def fill(self, blob_id: str) -> Iterator[None]:
        """Raises Overloaded while somebody else fills or drops it."""
        if blob_id in self._filling or blob_id in self._dropping:
            raise Overloaded("this blob is being repaired or deleted here")
        self._filling.add(blob_id)
        try:
            yield
        finally:
            self._filling.discard(blob_id)

    @contextmanager
    def drop(self, blob_ids: Iterable[str]) -> Iterator[list[str]]:
        """Gives those of the blobs that nobody is filling; nobody can, inside."""
        free = [each for each in blob_ids if each not in self._filling | self._dropping]
        self._dropping.update(free)
        try:
            yield free
        finally:
            self._dropping.difference_update(free)
