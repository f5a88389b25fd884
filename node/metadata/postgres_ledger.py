"""Ledger in the node's PostgreSQL database, beside Raft log and metadata."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from node.ledger import ledger_checksum, verified_rows
from node.metadata.postgres_link import Link

if TYPE_CHECKING:
    from node.metadata.postgres_link import Connection

_ALL: Final = "SELECT name, doc, crc FROM ledger"
_PUT: Final = (
    "INSERT INTO ledger (name, doc, crc) SELECT * FROM "
    "unnest($1::TEXT[], $2::BYTEA[], $3::BIGINT[]) "
    "ON CONFLICT (name) DO UPDATE SET doc = excluded.doc, crc = excluded.crc"
)


class PostgresLedger:
    """Implements node.ledger.Ledger. Waits while PostgreSQL is away."""

    def __init__(self, link: Link) -> None:
        self._link = link

    async def read(self) -> dict[str, bytes]:
        async def body(connection: Connection) -> dict[str, bytes]:
            return verified_rows([(row[0], row[1], row[2]) for row in await connection.fetch(_ALL)])

        return await self._link.read_patiently(body)

    async def write(self, rows: Mapping[str, bytes]) -> None:
        names, docs = list(rows), list(rows.values())
        checksums = [ledger_checksum(name, doc) for name, doc in rows.items()]
        work = self._link.make_durable(lambda c: c.execute(_PUT, names, docs, checksums))
        await asyncio.shield(self._link.own(work))  # it ends, whoever waits for it
