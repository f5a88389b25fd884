"""Disks against metadata, once the nodes have stopped: equal state everywhere, every copy there.

Embedded backend only (each node's SQLite file is opened as the node itself does).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

from astra.constants import REPLICAS
from astra.model import APPLIED_INDEX, BLOBS, MARKS, Blob, Doc, Key
from node.metadata.rows import decode_doc
from node.metadata.sqlite import SqliteMetadataStore
from tests.support.metadata_entries import dump
from tests.support.s3_model import check_census

Tables = Mapping[str, Sequence[tuple[Key, Doc]]]


def missing_copies(data: Mapping[str, Path], accepted: Collection[str] = ()) -> list[str]:
    """Blobs with fewer copies than they should have, by what one node's tables say now. May run
    beside the nodes."""
    wanted = min(REPLICAS, len(data))
    found = []
    for blob_id, blob in _blobs(next(iter(data.values()))).items():
        there = [name for name in data if blob_path(data[name], blob_id).exists()]
        if blob.is_inline or blob_id in accepted:
            continue
        if len(blob.holders) < wanted or not set(blob.holders) <= set(there):
            found.append(f"{blob_id}: metadata says {sorted(blob.holders)}, on disk {there}")
    return found


def blob_path(directory: Path, blob_id: str) -> Path:
    end = blob_id[-3:]
    return directory / "chunks" / "blobs" / end[0] / end[1:] / blob_id


def _blobs(directory: Path) -> dict[str, Blob]:
    connection = sqlite3.connect(f"file:{directory / 'metadata.sqlite'}?mode=ro", uri=True)
    try:
        rows = connection.execute("SELECT blob_id, doc FROM blobs").fetchall()
    finally:
        connection.close()
    return {blob_id: decode_doc(BLOBS, doc) for blob_id, doc in rows}


def compare(data: Mapping[str, Path]) -> list[str]:
    """What differs between the nodes, and what the tables of each lack. Nodes must be stopped."""
    dumps = asyncio.run(_dump_all(data))
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


async def _dump_all(data: Mapping[str, Path]) -> dict[str, Tables]:
    dumps: dict[str, Tables] = {}
    for name, directory in data.items():
        store = await SqliteMetadataStore.open(directory / "metadata.sqlite")
        try:
            dumps[name] = await dump(store)
        finally:
            await store.close()
    return dumps


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
