"""Who administers a simulated cluster: what `astra node add|drain|remove` does, one change at a
time, patiently. A process of its own, which is never cut off; it is interrupted once, anywhere.

It keeps to docs/members.md: starts what it has added, waits for a drain to end, stops what it has
removed, and gives up with --force only what is dead for good.

There may be two, who do not know of each other: what one does is refused or undone by the other.
What cannot be survived is not done by both together either, so whatever that depends on is in the
world (`going`, `removing`, `leaving`, `dead`), and holds for all of them.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from astra.cli.nodes import count_held
from astra.errors import AstraError, Refused
from astra.leader import LeaderClient
from astra.model import NodeState
from astra.net import Dialer
from astra.wire import Accepted, AddMember, DrainMember, ListMembers, MemberList, RemoveMember
from tests.sim.history import Violation
from tests.sim.loop import Life
from tests.sim.node import SECRET, SimNode
from tests.sim.watch import held_blobs

if TYPE_CHECKING:
    from tests.sim.members import MembersWorld

NODES_MIN: Final = 3  # or three copies cannot be had
NODES_MAX: Final = 6
PAUSE_S: Final = 1.0
CHANGE_S: Final = 60.0  # as astra/cli/nodes.py
DRAIN_PATIENCE_S: Final = 20.0
LOOK_S: Final = 0.4
STATUS_S: Final = 3.0  # so long after a disk was lost everybody knows: nobody is removed meanwhile


class Operator:
    def __init__(self, world: MembersWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.rng = random.Random(f"operator-{name}-{world.seed}")
        self.is_settled = False
        self._life: Life | None = None

    def start(self) -> None:
        self._live(self._administer())

    def interrupt(self) -> None:
        """Whatever it was doing; what it has asked for may still be done."""
        if self._life is not None:
            self.world._end_life(self._life, is_silent=False)
        self._forget()

    def _forget(self) -> None:
        """Nothing is under way."""
        self.world.going.pop(self.name, None)
        self.world.removing.discard(self.name)

    def settle(self) -> None:
        """Again, until what is in service is what the cluster consists of."""
        self._live(self._settle())

    def _live(self, work: object) -> None:
        self._life = life = self.world._new_life(self.name)
        life.context.run(self.world.loop.create_task, self.world._watched(work))  # type: ignore[arg-type]  # a coroutine

    # --- what it does ----------------------------------------------------------------------------

    async def _administer(self) -> None:
        while True:
            await asyncio.sleep(self.rng.expovariate(1 / PAUSE_S))
            try:
                await self._change_something()
            except Refused as error:
                self._note(f"refused: {error}")
            except AstraError as error:
                self._note(f"no answer: {error}")
            finally:
                self._forget()

    async def _change_something(self) -> None:
        count = len(self.world.staying())
        chance = self.rng.random()
        is_full = len(self.world.nodes) >= NODES_MAX
        if count > NODES_MIN and (is_full or chance < 0.5):
            if chance < 0.12:
                await self._replace_dead()
            else:
                await self._take_away()
        elif not is_full:
            await self._join()

    async def _join(self) -> None:
        world, name = self.world, self._new_name()
        node = world.everybody.get(name)
        if node is not None and self.rng.random() < 0.5 and not world.is_one_unnoticed():
            world.lose_disk(node)
        node = world.enlist(name)
        if self.rng.random() < 0.3:
            world.boot(node)
        await self._add(name)
        world.boot(node)

    def _new_name(self) -> str:
        """Of a machine that was here before, or of one that was not."""
        gone = sorted(self.world.everybody.keys() - self.world.nodes.keys() - self.world.dead)
        if gone and self.rng.random() < 0.5:
            return self.rng.choice(gone)
        return f"n{len(self.world.everybody) + 1}"

    async def _take_away(self) -> None:
        """Drained and removed, or taken back in the middle of it."""
        name = self.world.going[self.name] = self._victim()
        await self._drain(name)
        if self.rng.random() < 0.2:
            await asyncio.sleep(self.rng.uniform(0.0, 3.0))
            await self._drain(name, undo=True)
            return
        if not await self._is_drained(name):
            await self._drain(name, undo=True)
            return
        await self._remove(name)

    def _victim(self) -> str:
        leader = self.world.leader()
        if leader is not None and self.rng.random() < 0.35:
            return leader.name
        return self.rng.choice(sorted(self.world.nodes))

    async def _is_drained(self, name: str) -> bool:
        """As the progress shows it, or False when that takes too long."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + DRAIN_PATIENCE_S
        shown = -1
        while loop.time() < end_s:
            async with self._leader() as leader:
                held = await count_held(leader, name)
            if held.blobs != shown:
                shown = held.blobs
                self._note(f"{name} still holds {shown} blobs")
            if not shown:
                return True
            await asyncio.sleep(LOOK_S)
        return False

    async def _replace_dead(self) -> None:
        """A node dies with its disk; another one takes its place."""
        world = self.world
        name = self._victim()
        if world.removing or not world.can_spare(name):
            return
        node = world.nodes[name]
        world.lose_disk(node)
        world.dead.add(name)
        world.retire(name)
        await self._remove(name, force=True)
        if len(world.nodes) < NODES_MAX:
            await self._join()

    def _note(self, text: str) -> None:
        self.world.note(f"{self.name}: {text}")

    # --- questions -------------------------------------------------------------------------------

    @asynccontextmanager
    async def _leader(self, attempt_s: float = 3.0) -> AsyncIterator[LeaderClient]:
        """As astra.cli.cluster.connected."""
        dialer = Dialer(secret=SECRET, role="gateway", peer_id="astra-cli")
        addresses = [node.address for node in self.world.nodes.values()]
        try:
            yield LeaderClient(dialer, addresses, timeout_s=CHANGE_S, attempt_timeout_s=attempt_s)
        finally:
            await dialer.close()

    async def _add(self, name: str) -> None:
        self._note(f"add {name}")
        address = self.world.everybody[name].address
        async with self._leader() as leader:
            await leader.ask(AddMember(node_id=name, address=address), Accepted)
        self._note(f"{name} is a member")

    async def _drain(self, name: str, *, undo: bool = False) -> None:
        self._note(f"{'undo the draining of' if undo else 'drain'} {name}")
        async with self._leader() as leader:
            await leader.ask(DrainMember(node_id=name, undo=undo), Accepted)

    async def _remove(self, name: str, *, force: bool = False) -> None:
        world = self.world
        self._note(f"remove {name}{' --force' if force else ''}")
        world.removing.add(self.name)
        while world.lost_log_s > world.loop.now_s - STATUS_S:
            await asyncio.sleep(LOOK_S)
        world.leaving.add(name)
        stay, named = world.stays[name], set() if force else self._blobs_of(name)
        async with self._leader(CHANGE_S) as leader:
            await leader.ask(RemoveMember(node_id=name, force=force), Accepted)
        self._note(f"{name} is no member any more")
        if force or (name in world.nodes and world.stays[name] == stay):
            still = named & self._blobs_of(name)
            if still:
                raise Violation(f"{name} is removed, and {still} still count on it")
            self._is_gone(name)
        # Or else the other one has removed it before, and may have added it again.

    def _is_gone(self, name: str) -> None:
        world = self.world
        world.leaving.discard(name)
        world.dead.discard(name)
        world.removing.discard(self.name)
        if name in world.nodes:
            self._stop_soon(world.retire(name))

    def _blobs_of(self, name: str) -> set[str]:
        blobs = held_blobs(self.world.watch.newest())
        return {blob_id for blob_id, blob in blobs.items() if name in blob.holders}

    def _stop_soon(self, node: SimNode) -> None:
        """Or not: a removed node disturbs nobody. Not when it has joined again meanwhile."""
        world, life = self.world, node.life
        chance = self.rng.random()
        if life is None or chance < 0.3:
            return

        def stop() -> None:
            if node.life is life and node.name not in world.nodes:
                world.note(f"{node.name} is stopped")
                node.ask_to_stop() if chance < 0.7 else world.crash(node)

        world.loop.call_later(self.rng.uniform(0.0, 10.0), stop)

    # --- the end of it ---------------------------------------------------------------------------

    async def _settle(self) -> None:
        """For ever: an earlier request may still take effect."""
        while True:
            try:
                self.is_settled = not await self._settle_something()
            except AstraError as error:
                self._note(f"not settled yet: {error}")
            await asyncio.sleep(LOOK_S)

    async def _settle_something(self) -> bool:
        """Whether there was anything."""
        world = self.world
        async with self._leader() as leader:
            found = await leader.ask(ListMembers(), MemberList)
        members = {member.node.node_id: member.node for member in found.members}
        for name in sorted(world.nodes.keys() - members.keys()):
            if name in world.leaving:
                self._is_gone(name)
            else:
                await self._add(name)
            return True
        for name, node in sorted(members.items()):
            if node.state is NodeState.DRAINING:
                await self._drain(name, undo=True)
                return True
        # Also who died before a row of it was written: the list does not name it.
        for name in sorted((members.keys() - world.nodes.keys()) | world.dead):
            await self._remove(name, force=True)
            return True
        if len(world.nodes) < NODES_MIN:
            await self._join()
            return True
        world.leaving.clear()
        return False
