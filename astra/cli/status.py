"""`astra status`: nodes, leader, progress, space, and what is degraded and why."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Final

from astra.cli.cluster import node_statuses
from astra.cli.nodes import member_row, members_or_none
from astra.cli.output import Format, print_json, print_table
from astra.config import Config, parse_peers
from astra.errors import AstraError
from astra.wire import NodeStatus

_MEMBERS_TIMEOUT_S: Final = 2.0
_NO_VOTE_YET: Final = "does not vote yet: wait with stopping another node"


def show_status(config: Config, *, data: Path | None, output: Format) -> int:
    """Prints it; exit status 0 when everything is healthy, 1 when not."""
    nodes = asyncio.run(_node_rows(config))
    gateways = _gateways(data)
    problems = _problems(nodes)
    if output is Format.JSON:
        print_json(_as_json(nodes, gateways, problems))
    else:
        columns = (
            "id", "zone", "state", "part", "role", "term", "commit", "applied", "pid", "free_gib",
            "blobs", "health",
        )  # fmt: skip
        print_table(columns, nodes)
        print_table(("pid", "parent"), gateways)
        for problem in problems:
            print(f"! {problem}")
    return 1 if problems else 0


async def read_status(config: Config, data: Path) -> dict[str, object]:
    """What `astra status -o json` prints."""
    nodes = await _node_rows(config)
    return _as_json(nodes, _gateways(data), _problems(nodes))


def _as_json(
    nodes: list[dict[str, object]], gateways: list[dict[str, object]], problems: list[str]
) -> dict[str, object]:
    leader = next((node["id"] for node in nodes if node["role"] == "leader"), None)
    return {"leader": leader, "nodes": nodes, "gateways": gateways, "problems": problems}


async def _node_rows(config: Config) -> list[dict[str, object]]:
    """The members that the leader knows; without a leader those of the settings. Seeds that were
    removed are left out."""
    addresses = parse_peers(config.required("cluster.peers"))
    found = await members_or_none(config, timeout_s=_MEMBERS_TIMEOUT_S)
    if found is not None and found.members:
        addresses = {each.node.node_id: each.node.address for each in found.members}
    statuses = await node_statuses(config, addresses)
    rows = {node_id: _node_row(node_id, status) for node_id, status in statuses.items()}
    if found is not None:
        for member in found.members:
            row = member_row(member, found.leader)
            rows[member.node.node_id] |= {name: row[name] for name in ("zone", "state", "part")}
    return [judged(row) for row in rows.values()]


def judged(row: dict[str, object]) -> dict[str, object]:
    """A voter for the leader that sits beside the group itself counts as down, however level it
    is: it has just started, or has lost its disk. An upgrade of node after node has to wait."""
    if (row.get("part"), row["role"]) != ("voter", "learner"):
        return row
    problems = row["problems"]
    assert isinstance(problems, list)
    return row | {"health": "degraded", "problems": [*problems, _NO_VOTE_YET]}


def _node_row(node_id: str, status: NodeStatus | AstraError) -> dict[str, object]:
    if isinstance(status, AstraError):
        return {
            "id": node_id, "role": "down", "pid": None, "health": "down", "problems": [str(status)],
        }  # fmt: skip
    return {
        "id": node_id,
        "role": status.role,
        "pid": status.pid,
        "address": status.address,
        "zone": status.zone,
        "term": status.term,
        "leader": status.leader,
        "commit": status.commit_index,
        "applied": status.applied_index,
        "total_bytes": status.total_bytes,
        "free_bytes": status.free_bytes,
        "free_gib": round(status.free_bytes / 2**30, 1),
        "blobs": status.blobs,
        "health": "ok" if status.healthy else "degraded",
        "problems": list(status.problems),
        "backends": dict(status.backends),
    }


def _gateways(data: Path | None) -> list[dict[str, object]]:
    """The worker processes of the gateway of this data directory."""
    path = data / "gateway.json" if data is not None else None
    if path is None or not path.exists():
        return []
    found = json.loads(path.read_text())
    return [{"pid": pid, "parent": found["pid"]} for pid in found["workers"] if _is_running(pid)]


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True


def _problems(nodes: list[dict[str, object]]) -> list[str]:
    found = [
        f"{node['id']}: {problem}"
        for node in nodes
        if isinstance(node["problems"], list)
        for problem in node["problems"]
    ]
    if not any(node["role"] == "leader" for node in nodes):
        found.insert(0, "no leader: nothing can be written until a majority of voters is up")
    return found
