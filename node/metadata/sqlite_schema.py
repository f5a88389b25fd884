"""Creates and checks the schema of a node's SQLite file.

Rules: a file of another SCHEMA_VERSION is refused untouched; tables that an interrupted `replace`
left behind are dropped.
"""

from __future__ import annotations

from typing import Final

from astra.errors import ForeignDirectory
from astra.model import TABLES
from node.metadata.sqlite_engine import Connection
from node.metadata.tables import (
    RETIRED,
    SCHEMA_VERSION,
    SQLITE,
    STAGING,
    check_schema,
    create_table,
    drop_table,
)

APPLICATION_ID: Final = 0x41535452  # "ASTR"

_RAFT: Final = (
    "CREATE TABLE IF NOT EXISTS raft_entry (idx INTEGER PRIMARY KEY, term INTEGER NOT NULL, "
    "kind INTEGER NOT NULL, data BLOB NOT NULL, crc INTEGER NOT NULL)",
    "CREATE TABLE IF NOT EXISTS raft_meta (one INTEGER PRIMARY KEY CHECK (one = 1), "
    "term INTEGER NOT NULL, voted_for TEXT, commit_ INTEGER NOT NULL, "
    "mark_index INTEGER NOT NULL, mark_term INTEGER NOT NULL, mark_membership BLOB NOT NULL, "
    "crc INTEGER NOT NULL, note BLOB, note_crc INTEGER)",
)
_LEDGER: Final = (
    "CREATE TABLE IF NOT EXISTS ledger (name TEXT PRIMARY KEY, doc BLOB NOT NULL, "
    "crc INTEGER NOT NULL)"
)
_STORE: Final = (
    "CREATE TABLE IF NOT EXISTS astra_store (one INTEGER PRIMARY KEY CHECK (one = 1), "
    "schema_version INTEGER NOT NULL, flushes INTEGER NOT NULL)"
)


def prepare(connection: Connection) -> None:
    """Raises UnknownFormat, OldFormat, ForeignDirectory, sqlite3.Error. Durable."""
    (application_id,) = connection.execute("PRAGMA application_id").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
    if application_id != APPLICATION_ID:
        if tables:
            raise ForeignDirectory("the SQLite file is not that of an AstraStorage node")
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute("BEGIN IMMEDIATE")
    try:
        _check_version(connection)
        for statement in (*_RAFT, _LEDGER):
            connection.execute(statement)
        for table in TABLES:
            connection.execute(create_table(table, SQLITE))
            connection.execute(drop_table(table, STAGING))
            connection.execute(drop_table(table, RETIRED))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _check_version(connection: Connection) -> None:
    connection.execute(_STORE)
    row = connection.execute("SELECT schema_version FROM astra_store").fetchone()
    if row is None:
        connection.execute("INSERT INTO astra_store VALUES (1, ?, 0)", (SCHEMA_VERSION,))
    else:
        check_schema("the SQLite file", row[0])
