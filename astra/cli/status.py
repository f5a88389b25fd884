"""`astra status`: nodes, leader, progress, space, and what is degraded and why."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

from astra.cli.cluster import node_statuses
from astra.cli.output import Format, print_json, print_table
from astra.config import Config
from astra.errors import AstraError
from astra.wire import NodeStatus


def show_status(config: Config, *, data: Path | None, output: Format) -> int:
    """Prints it; exit status 0 when everything is healthy, 1 when not."""
    statuses = asyncio.run(node_statuses(config))
    nodes = [_node_row(node_id, status) for node_id, status in statuses.items()]
    gateways = _gateways(data)
    problems = _problems(nodes)
    if output is Format.JSON:
        leader = next((node["id"] for node in nodes if node["role"] == "leader"), None)
        print_json({"leader": leader, "nodes": nodes, "gateways": gateways, "problems": problems})
    else:
        columns = ("id", "role", "term", "commit", "applied", "pid", "free_gib", "blobs", "health")
        print_table(columns, nodes)
        print_table(("pid", "parent"), gateways)
        for problem in problems:
            print(f"! {problem}")
    return 1 if problems else 0


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
