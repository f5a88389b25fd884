"""Ledger in the node's SQLite file, beside Raft log and metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from node.ledger import ledger_checksum, verified_rows
from node.metadata.sqlite_engine import Connection, Readers, Steps, Writer, needed_to_vote

_ALL: Final = "SELECT name, doc, crc FROM ledger"
_PUT: Final = "INSERT OR REPLACE INTO ledger (name, doc, crc) VALUES (?, ?, ?)"


class SqliteLedger:
    """Implements node.ledger.Ledger."""

    def __init__(self, writer: Writer, readers: Readers) -> None:
        self._writer = writer
        self._readers = readers

    async def read(self) -> dict[str, bytes]:
        def body(connection: Connection) -> dict[str, bytes]:
            return verified_rows(connection.execute(_ALL))

        with needed_to_vote():
            return self._readers.read(body)

    async def write(self, rows: Mapping[str, bytes]) -> None:
        def body(connection: Connection) -> Steps[None]:
            stored = [(name, doc, ledger_checksum(name, doc)) for name, doc in rows.items()]
            connection.executemany(_PUT, stored)
            return
            yield  # makes this a generator

        await self._writer.run(body, durable=True)
