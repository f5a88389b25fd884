"""One seed from beginning to end: load under faults, liveness, healing, judgement."""

from __future__ import annotations

from collections.abc import Callable

from tests.sim.history import Violation
from tests.sim.nemesis import GATEWAYS, Nemesis
from tests.sim.workload import KEYS, Workload
from tests.sim.world import World

OPERATIONS = 110
CLIENTS_PER_GATEWAY = 3
FAULT_EVERY_S = 0.35
LIVENESS_S = 25.0
HEALING_S = 40.0
AGES_S = 27 * 3600.0
LOOK_S = 0.1


class Scenario:
    """`core`: nodes that are enough, while all others are gone for good."""

    def __init__(self, world: World, nemesis: Nemesis | None = None) -> None:
        self.world = world
        self.nemesis = nemesis or Nemesis(world)
        self.workload = Workload(world, OPERATIONS, CLIENTS_PER_GATEWAY)
        self.core: list[str] = []
        self.fault_every_s = FAULT_EVERY_S

    def play(self) -> int:
        """Raises Violation. How many keys the checker could not decide."""
        self.begin()
        self.suffer()
        self.live_on()
        self.heal_all()
        self.read_everything()
        undecided = self.world.history.judge()
        self.grow_old()
        self.read_everything()
        self.world.history.judge()
        return undecided

    def begin(self) -> None:
        world = self.world
        for each in world.nodes.values():
            world.boot(each)
        for name in GATEWAYS:
            world.start_gateway(name)
        world.spawn("g1", self.workload.prepare(world.clients["g1"]))
        self.require(
            lambda: self.workload.is_ready, 20.0, "a fresh cluster serves its first writes"
        )
        for name in GATEWAYS:
            self.workload.start_clients(name)

    def suffer(self) -> None:
        """Faults, until the clients have done their work."""
        rng, world = self.nemesis.rng, self.world
        end_s = world.loop.now_s + 40.0
        while self.workload.left > 0 and world.loop.now_s < end_s:
            world.run(rng.expovariate(1 / self.fault_every_s))
            self.nemesis.act()
            for name in GATEWAYS:
                if name not in world.gateways and rng.random() < 0.5:
                    world.start_gateway(name)
                    self.workload.start_clients(name)
            world.watch.check_tables()
            world.watch.check_referenced()

    def live_on(self) -> None:
        """A majority that works is enough: new writes and reads succeed in bounded time."""
        world = self.world
        self.nemesis.calm()
        self.workload.left = 0
        self.core = self.choose_core()
        self.nemesis.heal_core(self.core)
        done: list[bool] = []
        world.spawn("g1", self.probe(done))

        def is_done() -> bool:
            self.keep_core()
            return bool(done)

        self.require(is_done, LIVENESS_S, f"the core {self.core} makes progress")

    def keep_core(self) -> None:
        for name in self.core:
            if self.world.nodes[name].life is None:  # one may just have been stopping
                self.world.boot(self.world.nodes[name])

    def choose_core(self) -> list[str]:
        voters = self.world.voters
        return sorted(self.nemesis.rng.sample(voters, len(voters) // 2 + 1))

    async def probe(self, done: list[bool]) -> None:
        client = self.world.clients["g1"]
        key = KEYS[0]
        acknowledged = 0
        while acknowledged < 3:
            before = self.world.history.unanswered
            await self.workload.put(client, key, f"probe #{acknowledged}")
            acknowledged += self.world.history.unanswered == before
            await self.workload.get(client, key, "probe")
        done.append(True)

    def heal_all(self) -> None:
        world = self.world
        world.note("everything heals")
        world.net.heal_all()

        def is_whole() -> bool:
            for each in world.nodes.values():
                if each.life is None:
                    world.boot(each)
            indexes = {each.applied_index for each in world.nodes.values()}
            return len(indexes) == 1 and indexes.pop() >= world.watch.applied_max

        self.require(is_whole, HEALING_S, "all nodes catch up")
        world.watch.check_tables()
        world.watch.check_referenced()

    def read_everything(self) -> None:
        missing = set(KEYS)

        async def read(key: str) -> None:
            while not await self.workload.get(self.world.clients["g2"], key, "final"):
                pass
            missing.discard(key)

        for key in KEYS:
            self.world.spawn("g2", read(key))
        self.require(lambda: not missing, 20.0, "every key can be read at the end")

    def grow_old(self) -> None:
        """A day and more passes: garbage and orphans are gone, and nothing else."""
        world = self.world
        if not self.wait_for(lambda: not world.watch.blobs_without_three_copies(), HEALING_S):
            thin = world.watch.blobs_without_three_copies()
            raise_violation(
                world, f"not three good copies after {HEALING_S:g} s: {thin}", HEALING_S
            )
        world.note("a day passes")
        latest_s = max(machine.wall_latest_s for machine in world.machines.values())
        for machine in world.machines.values():
            machine.set_wall(latest_s + AGES_S)
        world.spawn("g1", self.probe([]))  # with a write the cluster's clock learns of it
        if not self.wait_for(lambda: not world.watch.check_no_garbage(), 30.0):
            raise_violation(world, f"garbage is left: {world.watch.check_no_garbage()}", 30.0)
        world.run(6.5)
        world.watch.check_referenced()
        world.watch.check_no_orphans()
        world.watch.check_tables()

    def wait_for(self, condition: Callable[[], bool], seconds: float) -> bool:
        """As `run`, for a condition that is costly to ask: after each LOOK_S."""
        end_s = self.world.loop.now_s + seconds
        while not condition():
            if self.world.loop.now_s >= end_s:
                return False
            self.world.run(LOOK_S)
        return True

    def require(self, condition: Callable[[], bool], seconds: float, what: str) -> None:
        if not self.world.run(seconds, condition):
            raise_violation(self.world, f"not within {seconds:g} s: {what}", seconds)


def raise_violation(world: World, text: str, waited_s: float) -> None:
    world.note(text)
    raise Violation(text, waited_s=waited_s)
