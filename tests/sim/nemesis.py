"""What goes wrong, drawn from the seed. Limits: faults of the network, of processes and of clocks
are free; of the copies of one blob at most one is bad at a time, because a store that may lose all
of them can promise nothing (as TigerBeetle's simulator does)."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Final

from tests.sim.loop import Life
from tests.sim.net import Weather
from tests.sim.node import SimNode
from tests.sim.watch import held_blobs
from tests.sim.world import World

GATEWAYS: Final = ("g1", "g2")


class Nemesis:
    def __init__(self, world: World) -> None:
        self.world = world
        self.net = world.net
        self.rng = random.Random(f"nemesis-{world.seed}")
        self.is_calm = False
        actions: list[tuple[Callable[[], None], int]] = [
            (self.crash_one, 3),
            (self.boot_some, 8),
            (self.stop_cleanly, 1),
            (self.pause_one, 4),
            (self.pause_leader, 2),
            (self.crash_leader, 2),
            (self.isolate, 2),
            (self.isolate_leader, 2),
            (self.cut_one_way, 3),
            (self.cut_halves, 1),
            (self.swizzle, 1),
            (self.heal_links, 6),
            (self.change_weather, 3),
            (self.jump_clock, 2),
            (self.flip_bit, 3),
            (self.arm_chunk_crash, 1),
            (self.break_sync, 1),
            (self.break_database, 1),
            (self.slow_disk, 2),
            (self.transfer, 2),
            (self.hand_to_slow, 1),
            (self.ambush, 1),
            (self.crash_gateway, 1),
            (self.toggle_redis, 1),
            *self.further_actions(),
        ]
        # Each seed has its own mix: some faults never, some often (swarm testing).
        self._actions = [action for action, _ in actions]
        self._weights = [
            weight * self.rng.choice((0, 1, 1, 3)) if weight < 6 else weight
            for _, weight in actions
        ]

    def further_actions(self) -> list[tuple[Callable[[], None], int]]:
        """Of another scenario, with their weights."""
        return []

    def act(self) -> None:
        (action,) = self.rng.choices(self._actions, self._weights)
        action()

    def _some_node(self) -> SimNode:
        return self.rng.choice(list(self.world.nodes.values()))

    def _some_life(self) -> Life | None:
        lives = [node.life for node in self.world.nodes.values() if node.life is not None]
        lives += list(self.world.gateways.values())
        return self.rng.choice(lives) if lives else None

    # --- processes -----------------------------------------------------------------------------

    def crash_one(self) -> None:
        self.world.crash(self._some_node(), is_silent=self.rng.random() < 0.4)

    def crash_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            self.world.crash(leader, is_silent=self.rng.random() < 0.4)

    def boot_some(self) -> None:
        if self.is_calm:
            return
        for node in self.world.nodes.values():
            if node.life is None and self.rng.random() < 0.7:
                self.world.boot(node)

    def stop_cleanly(self) -> None:
        node = self._some_node()
        self.world.note(f"{node.name} is asked to stop")
        node.ask_to_stop()

    def pause_one(self) -> None:
        life = self._some_life()
        if life is not None:
            self.world.pause(life, self.rng.choice((0.05, 0.3, 0.9, 2.0, 4.0)))

    def pause_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None and leader.life is not None:
            self.world.pause(leader.life, self.rng.choice((0.6, 1.2, 1.7, 2.2, 3.0)))

    def crash_gateway(self) -> None:
        name = self.rng.choice(GATEWAYS)
        self.world.crash_gateway(name)

    def transfer(self, to: str | None = None) -> None:
        leader = self.world.leader()
        if self.is_calm or leader is None or leader.process is None or leader.life is None:
            return
        to = to or self.rng.choice(self.world.voters)
        self.world.note(f"{leader.name} is asked to hand over to {to}")
        work = _swallow(leader.process._transfer(to))
        leader.life.context.run(self.world.loop.create_task, work)

    def hand_to_slow(self) -> None:
        """A node whose database is slow has much to apply when it begins to lead."""
        node = self.world.nodes[self.rng.choice(self.world.voters)]
        node.storage.tables.slow, node.storage.tables.delay_s = 0.9, 0.5
        self.world.note(f"the database of {node.name} is slow")
        self.world.loop.call_later(self.rng.uniform(0.3, 1.0), self.transfer, node.name)

    def ambush(self) -> None:
        """The next leaders crash as soon as they lead (figure 8 of the Raft paper)."""
        self.world.ambushes = self.rng.randrange(1, 4)
        self.crash_leader()
        for delay_s in (0.7, 1.4, 2.1, 2.8):
            self.world.loop.call_later(delay_s, self.boot_some)

    # --- network -------------------------------------------------------------------------------

    def _names(self) -> list[str]:
        return [*self.world.nodes, *GATEWAYS]

    def _cut_both(self, one: str, other: str) -> None:
        self.net.cut(one, other)
        self.net.cut(other, one)

    def _isolate(self, name: str) -> None:
        if self.is_calm:
            return
        how = self.rng.choice(("all", "nodes", "out", "in"))
        self.world.note(f"{name} is cut off ({how})")
        others = list(self.world.nodes) if how == "nodes" else self._names()
        for other in others:
            if other != name and how != "in":
                self.net.cut(name, other)
            if other != name and how != "out":
                self.net.cut(other, name)

    def isolate(self) -> None:
        self._isolate(self._some_node().name)

    def isolate_leader(self) -> None:
        leader = self.world.leader()
        if leader is not None:
            self._isolate(leader.name)

    def cut_one_way(self) -> None:
        one, other = self.rng.sample(self._names(), 2)
        self.world.note(f"the link {one} to {other} is cut")
        self.net.cut(one, other)

    def cut_halves(self) -> None:
        names = self._names()
        self.rng.shuffle(names)
        middle = self.rng.randrange(1, len(names))
        self.world.note(f"cut between {names[:middle]} and {names[middle:]}")
        for one in names[:middle]:
            for other in names[middle:]:
                self._cut_both(one, other)

    def swizzle(self) -> None:
        """Links of some nodes are cut one by one, and come back in another order."""
        names = self.rng.sample(self._names(), 3)
        self.world.note(f"the links of {names} are swizzled")
        loop = self.world.loop
        for place, name in enumerate(names):
            loop.call_later(0.2 * place, lambda each=name: self._isolate(each))
        self.rng.shuffle(names)
        for place, name in enumerate(names):
            loop.call_later(1.0 + 0.3 * place, lambda each=name: self._heal_one(each))

    def _heal_one(self, name: str) -> None:
        for one, other in sorted(self.net.cuts):
            if name in (one, other):
                self.net.heal(one, other)

    def heal_links(self) -> None:
        if self.net.cuts:
            self.world.note("all links are healed")
        self.net.heal_all()

    def change_weather(self) -> None:
        rng, weather = self.rng, Weather()
        weather.delay_max_s = rng.choice((0.001, 0.003, 0.02, 0.1))
        weather.loss = rng.choice((0.0, 0.0, 0.05, 0.2))
        weather.duplicates = rng.choice((0.0, 0.05, 0.2))
        weather.reorder = rng.choice((0.0, 0.05, 0.2))
        weather.resets = rng.choice((0.0, 0.0, 0.01))
        self.world.note(f"weather: delay {weather.delay_max_s} loss {weather.loss}")
        self.net.weather = weather

    def toggle_redis(self) -> None:
        self.world.redis.is_down = not self.world.redis.is_down

    # --- clocks and disks ----------------------------------------------------------------------

    def jump_clock(self) -> None:
        name = self.rng.choice(list(self.world.machines))
        seconds = self.rng.choice((-90_000.0, -3600.0, -30.0, 2.0, 30.0, 3600.0, 90_000.0))
        self.world.note(f"the wall clock of {name} jumps by {seconds} s")
        self.world.machines[name].set_wall(self.world.machines[name].wall_offset_s + seconds)

    def flip_bit(self) -> None:
        """In a copy of a blob of which all the copies are good."""
        watch = self.world.watch
        blobs = held_blobs(watch.newest())
        candidates = [
            (blob_id, blob.holders)
            for blob_id, blob in sorted(blobs.items())
            if len(blob.holders) >= 2 and len(watch.good_copies(blob_id, blob)) == len(blob.holders)
        ]
        if not candidates:
            return
        blob_id, holders = self.rng.choice(candidates)
        holder = self.rng.choice(holders)
        bit = self.world.nodes[holder].storage.chunks.flip_bit(blob_id)
        self.world.note(f"bit {bit} of {blob_id} flips on {holder}")

    def arm_chunk_crash(self) -> None:
        self._some_node().storage.chunks.arm_crash()

    def break_sync(self) -> None:
        node = self._some_node()
        self.world.note(f"an fsync of {node.name} will fail")
        if self.rng.random() < 0.5:
            node.storage.is_sync_broken = True
        else:
            node.storage.chunks.break_sync()

    def break_database(self) -> None:
        node = self._some_node()
        self.world.note(f"the database of {node.name} is away for a while")
        node.storage.tables.break_disk("away")
        self.world.loop.call_later(self.rng.uniform(0.2, 3.0), node.storage.tables.break_disk, None)

    def slow_disk(self) -> None:
        node = self._some_node()
        node.storage.sync_s = self.rng.choice((0.0003, 0.001, 0.01, 0.15))
        node.storage.tables.slow = self.rng.choice((0.0, 0.15, 0.8))
        node.storage.tables.delay_s = self.rng.choice((0.004, 0.004, 0.3))

    # --- the end of it -------------------------------------------------------------------------

    def calm(self) -> None:
        """No new faults; what is broken stays so."""
        self.is_calm = True
        self.net.weather = Weather()
        self.world.redis.is_down = False
        self.world.ambushes = 0
        for node in self.world.nodes.values():
            storage = node.storage
            storage.sync_s, storage.tables.slow, storage.tables.delay_s = 0.001, 0.05, 0.004
            storage.is_sync_broken = False
            storage.chunks._is_crash_armed = storage.chunks._is_sync_broken = False
            storage.tables.break_disk(None)

    def heal_core(self, core: list[str]) -> None:
        """The core works; every other node is gone for good."""
        self.world.note(f"core {core} heals, all others are gone")
        for name, node in self.world.nodes.items():
            if name not in core:
                self.world.crash(node, is_silent=True)
        for one, other in sorted(self.net.cuts):
            if {one, other} <= {*core, *GATEWAYS}:
                self.net.heal(one, other)
        for name in core:
            self.world.boot(self.world.nodes[name])
        for name in GATEWAYS:
            self.world.start_gateway(name)


async def _swallow(work: object) -> None:
    try:
        await work  # type: ignore[misc]  # a coroutine; its outcome does not matter
    except Exception:
        return
