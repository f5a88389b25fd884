"""A node's own durable notes: what it must not forget, and what is nobody else's business.

Rules of every implementation (memory here, node/metadata/sqlite_ledger.py, postgres_ledger.py; one
conformance suite):
- the rows are in the same database as the Raft log, so that an old image of one is an old image
  of both; they are no metadata: no snapshot carries them, none replaces them;
- each row is stored with a checksum over name and document and verified when it is read: a damaged
  one raises DamagedLog, and so does one whose name has become that of another node;
- there are few rows (one per node of the cluster), and they are small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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


def ledger_checksum(name: str, doc: bytes) -> int:
    return crc32c(doc, crc32c(name.encode() + b"\0"))


def verified_rows(stored: Iterable[tuple[str, bytes, int]]) -> dict[str, bytes]:
    """Raises DamagedLog when a row is not one that was stored, or there twice."""
    rows: dict[str, bytes] = {}
    for name, doc, checksum in stored:
        if name in rows or ledger_checksum(name, doc) != checksum:
            raise DamagedLog(f"the ledger's row {name!r} fails its checksum")
        rows[name] = doc
    return rows


class MemoryLedger:
    def __init__(self) -> None:
        self.rows: dict[str, bytes] = {}

    async def read(self) -> dict[str, bytes]:
        return dict(self.rows)

    async def write(self, rows: Mapping[str, bytes]) -> None:
        self.rows.update(rows)
