"""One seed from beginning to end: load under faults, liveness, healing, judgement."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Callable, Generator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any, Never

import structlog

import gateway.s3api.multipart_complete
import node.apply.multipart
from astra.constants import PART_SIZE_MIN
from tests.sim.chance import seeded
from tests.sim.history import Violation
from tests.sim.loop import LIFE
from tests.sim.nemesis import GATEWAYS, Nemesis
from tests.sim.workload import KEYS, Workload
from tests.sim.world import World

OPERATIONS = 110
CLIENTS_PER_GATEWAY = 3
LIVENESS_S = 25.0
HEALING_S = 40.0
AGES_S = 27 * 3600.0
LOOK_S = 0.1
HANGS_S = 60  # of processor time: a seed that needs more goes round in circles


class Hangs(SystemExit):
    """Where the processor was when its time was up. asyncio lets this pass, out of any task."""

    @classmethod
    def raise_here(cls, _: int, frame: FrameType | None) -> Never:
        raise cls("".join(traceback.format_stack(frame)[-8:]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    seed: int
    error: str | None
    story: tuple[str, ...]
    fingerprint: str
    answered: int
    unanswered: int
    undecided: int
    virtual_s: float
    cpu_s: float


def run_seed(seed: int, *, story: bool = False) -> Outcome:
    """Never raises for a broken promise: the outcome tells."""
    gc.disable()  # collected once, at the end: nothing may be finalised in another seed's time
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of coroutines that were killed
            outcome = _play(seed, story=story)
            structlog.reset_defaults()
            gc.collect()
    finally:
        sys.unraisablehook = hook
        gc.enable()
    return outcome


def run_apart(seed: int) -> Outcome:
    """As run_seed, in a process of its own that is left as it is: what a seed leaves behind
    reaches no other one, and costs no time to be collected."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        _play_and_exit(seed, writing)
    os.close(writing)
    with open(reading, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    if status:
        raise RuntimeError(f"the process of seed {seed} ended with status {status}")
    outcome: Outcome = pickle.loads(answer)
    return outcome


def _play_and_exit(seed: int, writing: int) -> Never:
    status = 1
    try:
        signal.signal(signal.SIGVTALRM, Hangs.raise_here)
        signal.setitimer(signal.ITIMER_VIRTUAL, HANGS_S)
        gc.disable()
        warnings.simplefilter("ignore")  # of coroutines that were killed
        sys.unraisablehook = lambda _: None
        with open(writing, "wb") as pipe:
            pickle.dump(_play(seed, story=False), pipe)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def _play(seed: int, *, story: bool) -> Outcome:
    started = time.process_time()
    world = World(seed, story=story)
    error: str | None = None
    undecided = 0
    hear(world, all_levels=story)
    try:
        with world.loop.installed(), seeded(world.loop, seed), small_parts():
            undecided = Scenario(world).play()
    except Violation as violation:
        error = str(violation)
        world.violation = violation
    except Hangs as hang:
        error = f"goes round in circles at {world.loop.now_s:.4f}:\n{hang}"
    return Outcome(
        seed=seed,
        error=error,
        story=world.tell() if error or story else (),
        fingerprint=world.fingerprint(),
        answered=world.history.answered,
        unanswered=world.history.unanswered,
        undecided=undecided,
        virtual_s=world.loop.now_s,
        cpu_s=time.process_time() - started,
    )


class Scenario:
    def __init__(self, world: World) -> None:
        self.world = world
        self.nemesis = Nemesis(world)
        self.workload = Workload(world, OPERATIONS, CLIENTS_PER_GATEWAY)

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
            world.run(rng.expovariate(1 / 0.35))
            self.nemesis.act()
            for name in GATEWAYS:
                if name not in world.gateways and rng.random() < 0.5:
                    world.start_gateway(name)
                    self.workload.start_clients(name)
            world.watch.check_tables()
            world.watch.check_referenced()

    def live_on(self) -> None:
        """A majority that works is enough: new writes and reads succeed in bounded time."""
        rng, world = self.nemesis.rng, self.world
        self.nemesis.calm()
        self.workload.left = 0
        majority = len(world.voters) // 2 + 1
        core = sorted(rng.sample(world.voters, majority))
        self.nemesis.heal_core(core)
        done: list[bool] = []
        world.spawn("g1", self.probe(done))

        def is_done() -> bool:
            for name in core:
                if world.nodes[name].life is None:  # one may just have been stopping
                    world.boot(world.nodes[name])
            return bool(done)

        self.require(is_done, LIVENESS_S, f"the core {core} makes progress")

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


def hear(world: World, *, all_levels: bool) -> None:
    """The product's log lines go into the story; one that speaks of a bug is a violation."""

    def listen(_: object, level: str, event: MutableMapping[str, Any]) -> str:
        life = LIFE.get()
        name = life.name if life is not None else "-"
        facts = " ".join(f"{key}={value}" for key, value in event.items() if key != "event")
        text = str(event.get("event"))
        world.note_aside(f"{name} {level}: {text} {facts}")
        if "a bug" in text:
            error = event.get("exc_info")
            world.fail(Violation(f"{name} logged: {text} {error!r} {sys.exc_info()[1]!r}"))
        raise structlog.DropEvent

    structlog.configure(
        processors=[listen],
        wrapper_class=structlog.make_filtering_bound_logger(10 if all_levels else 40),
        cache_logger_on_first_use=False,
    )


@contextmanager
def small_parts() -> Generator[None]:
    """Parts of an upload may be small, so that multipart costs nothing here: the limit is S3's."""
    modules = (node.apply.multipart, gateway.s3api.multipart_complete)
    for module in modules:
        vars(module)["PART_SIZE_MIN"] = 1
    try:
        yield
    finally:
        for module in modules:
            vars(module)["PART_SIZE_MIN"] = PART_SIZE_MIN
