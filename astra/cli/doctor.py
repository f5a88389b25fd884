"""`astra doctor`: is everything there, and nothing too much? Disks against metadata.

Exit status 0: every blob has its copies, and nothing lies about. 1: something is wrong, or a node
did not answer.

Two options do something else, to a stopped node, which only a person can decide: --accept-empty
says that its empty chunk directory is meant to be empty (a new disk), --accept-old that its disk
counts although it is older than what the node has promised (nothing newer is left).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from astra.census import Report, take_census
from astra.cli.cluster import connected
from astra.cli.output import Format, print_json, print_table
from astra.cli.settings import find_config, node_settings
from astra.config import Config, parse_peers
from astra.errors import ConfigError
from astra.wire import ListMembers, MemberList

if TYPE_CHECKING:  # imported where they are used
    from node.datadir import DataDirectory
    from node.settings import NodeSettings

_SHOWN_MAX = 20
_MEANING = {
    "missing": "a node lacks a copy that the metadata says it has: it is copied again by itself",
    "damaged": "a copy is damaged: it is repaired from the others by itself",
    "under": "fewer good copies than there should be",
    "over": "more copies than there should be: one is dropped by itself",
    "lost": "no good copy on any node that answered: restore a disk or a backup",
    "stray": "a copy that counts no more: it is deleted by itself",
    "orphan": "a file that nothing names: it is deleted by itself",
}


def examine(config: Config, *, verify: bool, output: Format) -> int:
    """Prints the census. Raises ConfigError, Unavailable (no leader)."""
    report = asyncio.run(_census(config, verify=verify))
    if output is Format.JSON:
        print_json(_as_json(report))
    else:
        _print(report)
    return 0 if report.is_clean else 1


async def _census(config: Config, *, verify: bool) -> Report:
    async with connected(config) as leader:
        members = (await leader.ask(ListMembers(), MemberList)).members
        addresses = {member.node.node_id: member.node.address for member in members}
        if not addresses:
            addresses = parse_peers(config.required("cluster.peers"))
        now_ms = time.time_ns() // 1_000_000
        return await take_census(leader.dialer, leader, addresses, now_ms=now_ms, verify=verify)


def _as_json(report: Report) -> dict[str, object]:
    return {
        "clean": report.is_clean,
        "blobs": report.blobs,
        "copies": report.copies,
        "garbage": report.garbage,
        "dropped": report.dropped,
        "young": report.young,
        "unreachable": dict(report.unreachable),
        "findings": [
            {"what": each.what, "blob": each.blob_id, "node": each.node_id or None}
            for each in report.findings
        ],
    }


def _print(report: Report) -> None:
    print_table(
        ("blobs", "copies", "garbage", "dropped", "young"),
        [
            {
                "blobs": report.blobs, "copies": report.copies, "garbage": report.garbage,
                "dropped": report.dropped, "young": report.young,
            }
        ],
    )  # fmt: skip
    for node_id, why in report.unreachable:
        print(f"! {node_id} did not answer: {why}")
    for what, meaning in _MEANING.items():
        found = report.of(what)
        if found:
            print(f"! {len(found)} {what}: {meaning}")
            for each in found[:_SHOWN_MAX]:
                print(f"    {each.blob_id} {each.node_id}")
    if report.is_clean:
        print("everything is there, and nothing too much")


def accept_empty(data: Path | None, config_file: Path | None, node_id: str) -> int:
    """Makes an empty chunk directory of a stopped node into an empty store. Raises ConfigError:
    not empty, in use, or not a directory of this node."""
    from node.chunkstore.layout import initialise

    with _stopped_node(data, config_file, node_id) as (settings, directory):
        directory.chunks.mkdir(exist_ok=True)
        initialise(str(directory.chunks), cluster_id=settings.cluster_id, node_id=settings.node_id)
    print(f"{node_id} may start: its blobs are copied back from the other nodes")
    return 0


def accept_old(data: Path | None, config_file: Path | None, node_id: str) -> int:
    """The disk of a stopped node counts at its next start, however old it is. Raises ConfigError:
    nobody doubts it, in use, or not a directory of this node."""
    from node.app import open_database
    from node.sightings import accept_old as accept

    async def overrule() -> str:
        database = await open_database(settings, directory)
        try:
            return await accept(database.ledger())
        finally:
            await database.close()

    with _stopped_node(data, config_file, node_id) as (settings, directory):
        doubt = asyncio.run(overrule())
    if not doubt:
        raise ConfigError(f"nobody doubts the disk of {node_id}: just start it")
    print(f"{node_id} may start and votes with what it has, although {doubt}")
    return 0


@contextmanager
def _stopped_node(
    data: Path | None, config_file: Path | None, node_id: str
) -> Iterator[tuple[NodeSettings, DataDirectory]]:
    """Its directory, claimed meanwhile."""
    from node.datadir import DataDirectory

    file = config_file if data is None else data / "nodes" / f"{node_id}.toml"
    settings = node_settings(find_config(file, node__id=node_id))
    directory = DataDirectory(
        settings.data_dir, cluster_id=settings.cluster_id, node_id=settings.node_id
    )
    try:
        if directory.is_new:
            raise ConfigError(f"{settings.data_dir} is new: just start the node")
        yield settings, directory
    finally:
        directory.close()
