"""The members of the cluster: joined, moved, draining, gone."""

from __future__ import annotations

from msgspec.structs import replace

from astra.commands import Done, PutNode, RemoveNode
from astra.errors import RefusalCode
from astra.model import NODES
from node.apply.state import Turn, is_text, refuse_unless


async def put_node(turn: Turn, command: PutNode) -> Done:
    """Refused INVALID_ARGUMENT for what cannot be an id. The first time it joined is kept."""
    node = command.node
    refuse_unless(is_text(node.node_id), RefusalCode.INVALID_ARGUMENT, "not a node id")
    existing = await turn.batch.get(NODES, (node.node_id,))
    joined_ms = existing.joined_ms if existing is not None else turn.now_ms
    await turn.batch.put(NODES, (node.node_id,), replace(node, joined_ms=joined_ms))
    return Done()


async def remove_node(turn: Turn, command: RemoveNode) -> Done:
    await turn.batch.delete(NODES, (command.node_id,))
    return Done()
