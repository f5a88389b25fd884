"""`astra doctor`: is everything there, and nothing too much? Disks against metadata.

Exit status 0: every blob has its copies, and nothing lies about. 1: something is wrong, or a node
did not answer. With --accept-empty it does something else: it tells a stopped node that its empty
chunk directory is meant to be empty (a new disk), which only a person can know.
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from astra.census import Report, take_census
from astra.cli.cluster import connected
from astra.cli.output import Format, print_json, print_table
from astra.cli.settings import find_config, node_settings
from astra.config import Config, parse_peers
from astra.errors import ConfigError
from astra.wire import ListMembers, MemberList

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
    from node.datadir import DataDirectory

    file = config_file if data is None else data / "nodes" / f"{node_id}.toml"
    settings = node_settings(find_config(file, node__id=node_id))
    directory = DataDirectory(
        settings.data_dir, cluster_id=settings.cluster_id, node_id=settings.node_id
    )
    try:
        if directory.is_new:
            raise ConfigError(f"{settings.data_dir} is new: just start the node")
        directory.chunks.mkdir(exist_ok=True)
        initialise(str(directory.chunks), cluster_id=settings.cluster_id, node_id=settings.node_id)
    finally:
        directory.close()
    print(f"{node_id} may start: its blobs are copied back from the other nodes")
    return 0
