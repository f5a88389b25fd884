"""Creates and checks the schema of a node's PostgreSQL database.

Rules: a server that would lie about durability is refused before anything is written, and so is
a database of another SCHEMA_VERSION. Runs on each new session, because a server may come back with
other settings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from astra.errors import ConfigError
from astra.model import TABLES
from node.metadata.tables import (
    POSTGRES,
    SCHEMA_VERSION,
    STAGING,
    check_schema,
    create_table,
    drop_table,
)

if TYPE_CHECKING:
    from node.metadata.postgres_link import Connection

MAJOR_MIN: Final = 14  # the scrub reads tables by place (postgres_scrub.py)
# Without these an acknowledged commit may be lost, or a page torn, by a power loss.
_REQUIRED: Final = {"fsync": "on", "full_page_writes": "on", "server_encoding": "UTF8"}

_STORE: Final = (
    "CREATE TABLE IF NOT EXISTS astra_store (one INTEGER PRIMARY KEY CHECK (one = 1), "
    "schema_version INTEGER NOT NULL, flushes BIGINT NOT NULL, swaps BIGINT NOT NULL, "
    "store_id UUID NOT NULL)"
)
_FIRST_ROW: Final = "INSERT INTO astra_store VALUES (1, $1, 0, 0, gen_random_uuid())"
_RAFT: Final = (
    "CREATE TABLE IF NOT EXISTS raft_entry (idx BIGINT PRIMARY KEY, term BIGINT NOT NULL, "
    "kind BIGINT NOT NULL, data BYTEA NOT NULL, crc BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS raft_meta (one BIGINT PRIMARY KEY CHECK (one = 1), "
    "term BIGINT NOT NULL, voted_for TEXT, commit_ BIGINT NOT NULL, "
    "mark_index BIGINT NOT NULL, mark_term BIGINT NOT NULL, mark_membership BYTEA NOT NULL, "
    "crc BIGINT NOT NULL, note BYTEA, note_crc BIGINT)",
    # Entries are msgpack already and mostly incompressible: do not spend time on trying.
    "ALTER TABLE raft_entry ALTER COLUMN data SET STORAGE EXTERNAL",
)

_LEDGER: Final = (
    "CREATE TABLE IF NOT EXISTS ledger (name TEXT PRIMARY KEY, doc BYTEA NOT NULL, "
    "crc BIGINT NOT NULL)"
)


async def prepare(connection: Connection) -> str:
    """The identity of the database. Raises ConfigError, UnknownFormat, OldFormat. Durable."""
    await _check_settings(connection)
    await connection.execute(f"SET client_min_messages = warning; {_STORE}")
    version = await connection.fetchval("SELECT schema_version FROM astra_store")
    if version is None:
        statements = [*_RAFT, _LEDGER, *(create_table(table, POSTGRES) for table in TABLES)]
        async with connection.transaction():
            await connection.execute(";".join(statements))
            await connection.execute(_FIRST_ROW, SCHEMA_VERSION)
    else:
        check_schema("the PostgreSQL database", version)
        statements = [_LEDGER, *(create_table(table, POSTGRES) for table in TABLES)]
        await connection.execute(";".join(statements))
    await connection.execute(";".join(drop_table(table, STAGING) for table in TABLES))
    return str(await connection.fetchval("SELECT store_id FROM astra_store"))


async def _check_settings(connection: Connection) -> None:
    if connection.get_server_version().major < MAJOR_MIN:
        raise ConfigError(f"PostgreSQL {MAJOR_MIN} or newer is needed")
    for name, wanted in _REQUIRED.items():
        found = await connection.fetchval(f"SHOW {name}")
        if found != wanted:
            raise ConfigError(
                f"PostgreSQL runs with {name} = {found}, so a power loss could lose or damage "
                f"acknowledged data: set {name} = {wanted} in its configuration"
            )
