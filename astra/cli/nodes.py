"""`astra node add|drain|remove|list`: which nodes the cluster consists of."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from astra.cli.cluster import connected
from astra.cli.devdir import note_removed
from astra.cli.output import Format, print_json, print_table
from astra.config import Config
from astra.errors import AstraError
from astra.leader import LeaderClient
from astra.model import NodeState
from astra.wire import (
    Accepted,
    AddMember,
    CountHeld,
    DrainMember,
    HeldCount,
    ListMembers,
    Member,
    MemberList,
    RemoveMember,
)

_CHANGE_TIMEOUT_S: Final = 60.0  # removing looks through all blobs, and may move the leader
_POLL_S_MIN: Final = 1.0
_POLL_FACTOR: Final = 5.0  # a large count is repeated less often

Show = Callable[[HeldCount], None]


def add_node(config: Config, *, node_id: str, address: str, zone: str, output: Format) -> int:
    """The node may join: start it with `astra node`. Also tells a new address or zone."""

    async def add() -> None:
        async with connected(config, timeout_s=_CHANGE_TIMEOUT_S) as leader:
            await leader.ask(AddMember(node_id=node_id, address=address, zone=zone), Accepted)

    asyncio.run(add())
    row = {"id": node_id, "address": address, "zone": zone, "state": "active"}
    if output is Format.JSON:
        print_json(row)
    else:
        print(f"{node_id} is a member; start it at {address} if it does not run")
    return 0


def list_nodes(config: Config, output: Format) -> int:
    """Every member: where it is, its zone and state, and whether it votes."""

    async def ask() -> MemberList:
        async with connected(config) as leader:
            return await leader.ask(ListMembers(), MemberList)

    found = asyncio.run(ask())
    rows = [member_row(member, found.leader) for member in found.members]
    if output is Format.JSON:
        print_json(rows)
    else:
        print_table(("id", "address", "zone", "state", "part", "live", "applied"), rows)
    return 0


def member_row(member: Member, leader: str) -> dict[str, object]:
    """For people and scripts."""
    node = member.node
    return {
        "id": node.node_id,
        "address": node.address,
        "zone": node.zone,
        "state": node.state.name.lower(),
        "part": "leader" if node.node_id == leader else member.part,
        "live": member.is_live,
        "applied": member.applied_index,
    }


def remove_node(config: Config, *, node_id: str, force: bool, data: Path | None) -> int:
    """Out of the cluster. Refused while blobs name it; `force` leaves them to the repair."""

    async def remove() -> None:
        request = RemoveMember(node_id=node_id, force=force)
        async with connected(
            config, timeout_s=_CHANGE_TIMEOUT_S, attempt_timeout_s=_CHANGE_TIMEOUT_S
        ) as leader:
            found = await leader.ask(ListMembers(), MemberList)
            if all(member.node.node_id != node_id for member in found.members):
                raise AstraError(f"{node_id} is no member of the cluster")
            await leader.ask(request, Accepted)

    asyncio.run(remove())
    if data is not None:
        note_removed(data, node_id)
    print(f"{node_id} is no member any more; stop it")
    return 0


# --- drain -----------------------------------------------------------------------------------


def drain_node(config: Config, *, node_id: str, undo: bool, wait: bool, output: Format) -> int:
    """Moves all blobs off the node, and shows how far that is."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_drain(config, node_id, undo=undo, wait=wait, output=output))
        return 0
    print(f"{node_id} goes on being drained; --undo stops that", file=sys.stderr)
    return 130


async def _drain(config: Config, node_id: str, *, undo: bool, wait: bool, output: Format) -> None:
    async with connected(config, timeout_s=_CHANGE_TIMEOUT_S) as leader:
        await leader.ask(DrainMember(node_id=node_id, undo=undo), Accepted)
        if undo or not wait:
            state = NodeState.ACTIVE if undo else NodeState.DRAINING
            _say(output, {"id": node_id, "state": state.name.lower()})
            return
        with _shown(node_id, output) as show:
            await _until_empty(leader, node_id, show)
        _say(output, {"id": node_id, "state": "drained", "blobs": 0})


async def _until_empty(leader: LeaderClient, node_id: str, show: Show) -> None:
    while True:
        began = time.monotonic()
        held = await count_held(leader, node_id)
        show(held)
        if held.blobs == 0:
            return
        await asyncio.sleep(max(_POLL_S_MIN, _POLL_FACTOR * (time.monotonic() - began)))


async def count_held(leader: LeaderClient, node_id: str) -> HeldCount:
    """All pages of the count."""
    blobs = size = 0
    after = ""
    while True:
        page = await leader.ask(CountHeld(node_id=node_id, after=after), HeldCount)
        blobs, size, after = blobs + page.blobs, size + page.bytes, page.resume
        if not after:
            return HeldCount(blobs=blobs, bytes=size)


@contextlib.contextmanager
def _shown(node_id: str, output: Format) -> Iterator[Show]:
    """A bar on a terminal, JSON lines for scripts, plain lines elsewhere."""
    if output is Format.TABLE and sys.stdout.isatty():
        with _bar(node_id) as show:
            yield show
        return

    def show_line(held: HeldCount) -> None:
        _say(output, {"id": node_id, "state": "draining", "blobs": held.blobs, "bytes": held.bytes})

    yield show_line


@contextlib.contextmanager
def _bar(node_id: str) -> Iterator[Show]:
    columns = (TextColumn(node_id), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console()) as progress:
        task = progress.add_task(node_id, total=None)
        most = 0

        def show(held: HeldCount) -> None:
            nonlocal most
            most = max(most, held.blobs)
            progress.update(task, total=max(most, 1), completed=most - held.blobs)

        yield show


def _say(output: Format, row: dict[str, object]) -> None:
    if output is Format.JSON:
        print(json.dumps(row), flush=True)
    else:
        print(" ".join(f"{name}={value}" for name, value in row.items()), flush=True)


async def members_or_none(config: Config, *, timeout_s: float) -> MemberList | None:
    """None when nobody leads."""
    try:
        async with connected(config, timeout_s=timeout_s) as leader:
            return await leader.ask(ListMembers(), MemberList)
    except AstraError:
        return None
