"""A node's own durable notes: what it must not forget, and what is nobody else's business.

Rules of every implementation (memory here, node/metadata/sqlite_ledger.py, postgres_ledger.py; one
conformance suite):
- the rows are in the same database as the Raft log, so that an old image of one is an old image
  of both; they are no metadata: no snapshot carries them, none replaces them;
- each row is stored with a checksum and verified when it is read: a damaged one raises DamagedLog;
- there are few rows (one per node of the cluster), and they are small.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from astra.errors import DamagedLog
from node.metadata.rows import crc32c


class Ledger(Protocol):
    async def read(self) -> dict[str, bytes]:
        """All rows. Raises DamagedLog."""
        ...

    async def write(self, rows: Mapping[str, bytes]) -> None:
        """Puts these rows, leaves the others: all of it or nothing, durable on return. Raises
        FsyncFailed, StorageFull."""
        ...


def verified_row(name: str, doc: bytes, checksum: int) -> bytes:
    """Raises DamagedLog when the row is not the one that was stored."""
    if crc32c(doc) != checksum:
        raise DamagedLog(f"the ledger's row {name!r} fails its checksum")
    return doc


class MemoryLedger:
    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    async def read(self) -> dict[str, bytes]:
        return dict(self.rows)

    async def write(self, rows: Mapping[str, bytes]) -> None:
        self.rows.update(rows)
