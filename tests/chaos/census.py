"""Disks against metadata: every copy there, and, once the nodes have stopped, equal state."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg

from astra.constants import REPLICAS
from astra.model import APPLIED_INDEX, BLOBS, MARKS, Blob, Doc, Key
from node.metadata.postgres import PostgresMetadataStore
from node.metadata.rows import decode_doc
from node.metadata.sqlite import SqliteMetadataStore
from tests.support.metadata_entries import dump
from tests.support.s3_model import check_census

Tables = Mapping[str, Sequence[tuple[Key, Doc]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """Where a node keeps what it has. `dsn` empty: its metadata is in SQLite, in `directory`."""

    directory: Path
    dsn: str = ""

    def holds(self, blob_id: str) -> bool:
        """Whether there is a file of that name; its bytes are not looked at."""
        return (self.directory / "chunks" / "blobs" / blob_id[-2:] / blob_id).exists()


def missing_copies(disks: Mapping[str, Disk], accepted: Collection[str] = ()) -> list[str]:
    """Blobs with fewer copies than they should have, by what one node's tables say now. May run
    beside the nodes."""
    wanted = min(REPLICAS, len(disks))
    found = []
    for blob_id, blob in _blobs(next(iter(disks.values()))).items():
        there = [name for name, disk in disks.items() if disk.holds(blob_id)]
        if blob.is_inline or blob_id in accepted:
            continue
        if len(blob.holders) < wanted or not set(blob.holders) <= set(there):
            found.append(f"{blob_id}: metadata says {sorted(blob.holders)}, on disk {there}")
    return found


def needed(disks: Mapping[str, Disk], node: str, damaged: Mapping[str, str]) -> list[str]:
    """Blobs of which only `node` may have a good copy; `damaged`: whose copy of a blob is not."""
    others = {name: disk for name, disk in disks.items() if name != node}
    return [
        blob_id
        for blob_id, blob in _blobs(next(iter(others.values()))).items()
        if not blob.is_inline
        and not any(
            disk.holds(blob_id) for name, disk in others.items() if name != damaged.get(blob_id)
        )
    ]


def _blobs(disk: Disk) -> dict[str, Blob]:
    sql = "SELECT blob_id, doc FROM blobs"
    rows: Iterable[Sequence[Any]]
    if disk.dsn:
        rows = asyncio.run(_fetch(disk.dsn, sql))
    else:
        file = disk.directory / "metadata.sqlite"
        connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
        try:
            rows = connection.execute(sql).fetchall()
        finally:
            connection.close()
    return {row[0]: decode_doc(BLOBS, row[1]) for row in rows}


async def _fetch(dsn: str, sql: str) -> Sequence[Sequence[Any]]:
    connection = await asyncpg.connect(dsn)
    try:
        return [tuple(row) for row in await connection.fetch(sql)]
    finally:
        await connection.close()


def compare(disks: Mapping[str, Disk]) -> list[str]:
    """What differs between the nodes, and what the tables of each lack. Nodes must be stopped."""
    dumps = asyncio.run(_dump_all(disks))
    found: list[str] = []
    marks = [dict(tables[MARKS.name]).get((APPLIED_INDEX,)) for tables in dumps.values()]
    is_even = len(set(marks)) == 1  # else one has applied an entry more: nothing to compare
    for (one, first), (other, second) in pairwise(dumps.items()):
        found += [
            f"table {name} of {one} and {other}: {_difference(first[name], second[name])}"
            for name in first
            if is_even and first[name] != second[name]
        ]
    for name, tables in dumps.items():
        try:
            check_census({table: list(rows) for table, rows in tables.items()})
        except AssertionError as error:
            found.append(f"the tables of {name} contradict themselves: {error}")
    return found


async def _dump_all(disks: Mapping[str, Disk]) -> dict[str, Tables]:
    dumps: dict[str, Tables] = {}
    for name, disk in disks.items():
        store = await _open(disk)
        try:
            dumps[name] = await dump(store)
        finally:
            await store.close()
    return dumps


async def _open(disk: Disk) -> SqliteMetadataStore | PostgresMetadataStore:
    if disk.dsn:
        return await PostgresMetadataStore.open(disk.dsn)
    return await SqliteMetadataStore.open(disk.directory / "metadata.sqlite")


def _difference(one: Sequence[tuple[Key, Doc]], other: Sequence[tuple[Key, Doc]]) -> str:
    first, second = dict(one), dict(other)
    keys = [key for key in {**first, **second} if first.get(key) != second.get(key)]
    shown = "; ".join(f"{key}: {first.get(key)} / {second.get(key)}" for key in keys[:3])
    return f"{len(keys)} rows: {shown}"


def bytes_below(directory: Path) -> int:
    """Of all files, as far as they stay there while we look."""
    total = 0
    for root, _, names in os.walk(directory):
        for name in names:
            try:
                total += os.stat(os.path.join(root, name)).st_size
            except OSError:
                continue  # deleted meanwhile
    return total
