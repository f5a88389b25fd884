"""The whole cluster of one seed: nodes, gateways, network, disks, clocks, and the story of it."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final

from astra.errors import Fatal, FsyncFailed, StoreError, Unavailable
from astra.wire import Entry
from node.apply.touched import Touched
from node.chunkstore.memory import SimulatedCrash
from node.raft.types import Role, SoftState
from tests.sim.chance import Clocks
from tests.sim.client import Client, gateway_settings
from tests.sim.disk import SimRedis, Storage
from tests.sim.history import History, Violation
from tests.sim.loop import LIFE, Life, Machine, SimLoop
from tests.sim.net import SimNet
from tests.sim.node import SimNode, sim_raft_config, sim_settings
from tests.sim.watch import Watch

BUCKET: Final = "bucket"
STORY_LINES: Final = 40
STORY_S: Final = 10.0  # what happened so long before a violation may have caused it


class World:
    def __init__(self, seed: int, *, story: bool = False) -> None:
        self.seed = seed
        self.rng = random.Random(f"world-{seed}")
        self.loop = SimLoop(random.Random(f"executor-{seed}"))  # type: ignore[abstract]  # the rest of asyncio's interface is not used
        self.net = SimNet(self.loop, random.Random(f"net-{seed}"))
        self.loop.sockets = self.net
        self.loop.on_error = self._on_error
        self.loop.on_crash = self._crash_life
        self.loop.crash_type = SimulatedCrash
        self.clocks = Clocks(self.loop)
        self.watch = Watch()
        self.history = History(lambda: self.loop.now_s)
        self.redis = SimRedis(random.Random(f"redis-{seed}"))
        self.violation: Violation | None = None
        self.trace = 0
        self.story: list[tuple[float, str]] = []
        self._tells_all = story
        self._lives = 0
        self.ambushes = 0  # so many new leaders will be crashed as soon as they lead
        self.raft = sim_raft_config(self.rng.choice((300, 4000)))  # or one entry per Append
        voters, learners = self._shape()
        names = [f"n{number}" for number in range(1, voters + learners + 1)]
        self.founders = names[:voters]
        self.machines = {name: self._machine() for name in [*names, "g1", "g2"]}
        self.nodes = {name: self._node(name, names) for name in names}
        self.watch.nodes = self.watch.members = self.nodes
        self.gateways: dict[str, Life] = {}
        self.clients: dict[str, Client] = {}

    def _shape(self) -> tuple[int, int]:
        """Voters and learners."""
        return self.rng.choice(((3, 0), (3, 0), (3, 1), (3, 1), (5, 0)))

    def _machine(self) -> Machine:
        rng = self.rng
        return Machine(rng.uniform(0, 1e6), rng.uniform(0.99, 1.01), rng.uniform(-2, 2))

    def _node(self, name: str, names: Sequence[str]) -> SimNode:
        storage = Storage(name, random.Random(f"{name}-{self.seed}"), self.watch.on_append)
        settings = sim_settings(name, names, self.founders, self.raft)
        return SimNode(settings, storage, self.loop, self.net, self.redis)

    @property
    def voters(self) -> list[str]:
        return self.founders

    # --- the story -------------------------------------------------------------------------------

    def note(self, text: str) -> None:
        self._fingerprint(text)
        self.story.append((self.loop.now_s, text))

    def note_often(self, text: str) -> None:
        """As `note`, of what happens all the time: told only in the whole story."""
        self._fingerprint(text)
        if self._tells_all:
            self.story.append((self.loop.now_s, text))

    def note_aside(self, text: str) -> None:
        """For the reader only: depends on how much is logged."""
        self.story.append((self.loop.now_s, text))

    def _fingerprint(self, text: str) -> None:
        self.trace = zlib.crc32(f"{self.loop.now_s:9.4f} {text}".encode(), self.trace)

    def tell(self) -> tuple[str, ...]:
        """The whole story if that was asked for, or else what happened around a violation."""
        told = self.story
        if self.violation is not None and not self._tells_all:
            since_s, until_s = self.violation.span(self.loop.now_s)
            told = [each for each in told if since_s - STORY_S <= each[0] <= until_s]
            if len(told) > STORY_LINES:
                told = [*told[: STORY_LINES // 2], (since_s, "..."), *told[-STORY_LINES // 2 :]]
        return tuple(f"{at_s:9.4f} {text}" for at_s, text in told)

    def fail(self, violation: Violation) -> None:
        """The first one counts; the run ends at the next moment."""
        if self.violation is None:
            self.violation = violation
            self.loop.is_stopped = True
            self.note(f"VIOLATION {violation}")

    def _on_error(self, life: Life | None, text: str) -> None:
        name = life.name if life is not None else "the simulation"
        self.fail(Violation(f"on {name}: {text}"))

    def fingerprint(self) -> str:
        """Equal for equal runs."""
        return f"{self.trace:08x}-{self.loop.steps}-{self.net.frames}-{self.rng.random():.9f}"

    # --- running ---------------------------------------------------------------------------------

    def run(self, seconds: float, condition: Callable[[], bool] | None = None) -> bool:
        """Raises the violation that was found meanwhile. Whether `condition` came true."""
        try:
            reached = self.loop.run_until(self.loop.now_s + seconds, condition)
        except Violation as violation:
            self.fail(violation)
        if self.violation is not None:
            raise self.violation
        return reached

    def _new_life(self, name: str) -> Life:
        self._lives += 1
        return Life(name, self._lives, self.machines[name])

    # --- nodes -----------------------------------------------------------------------------------

    def boot(self, node: SimNode) -> None:
        if node.life is not None:
            return
        life = self._new_life(node.name)
        self.note(f"{node.name} boots")

        def on_role(state: SoftState) -> None:
            self.note(f"{node.name} is {state.role} in term {state.term}, leader {state.leader}")
            self._guard(lambda: self.watch.on_role(node.name, state, self._node_times()))
            if state.role is Role.LEADER and self.ambushes:
                self.ambushes -= 1
                self.loop.call_later(self.rng.expovariate(100), self._crash_if_alive, life)

        def on_applied(entries: Sequence[Entry], touched: Sequence[Touched]) -> None:
            self.note_often(f"{node.name} applied up to {entries[-1].index}")
            self._guard(lambda: self.watch.on_applied(node.name, entries))

        def on_end(error: BaseException | None) -> None:
            if life.is_alive:
                self._process_ended(node, life, error)

        node.boot(life, on_role, on_applied, on_end)

    def _guard(self, check: Callable[[], None]) -> None:
        """A violation must not be swallowed by the product's error handling."""
        try:
            check()
        except Violation as violation:
            self.fail(violation)

    def _node_times(self) -> dict[str, int]:
        now_s = self.loop.now_s
        return {
            name: int((each.mono_offset_s + each.mono_rate * now_s) * 1000)
            for name, each in self.machines.items()
        }

    def _process_ended(self, node: SimNode, life: Life, error: BaseException | None) -> None:
        """By itself: a clean stop, or a fatal error, of which only disk errors are expected."""
        self.note(
            f"{node.name} ended: {type(error).__name__ if error else 'stopped'} {error or ''}"
        )
        if isinstance(error, Fatal) and not isinstance(error, FsyncFailed):
            self.fail(Violation(f"{node.name} stopped with {type(error).__name__}: {error}"))
        elif error is not None and not isinstance(error, FsyncFailed | Unavailable | StoreError):
            self.fail(Violation(f"{node.name} died of a bug: {type(error).__name__}: {error}"))
        self._end_life(life, is_silent=False)
        node.storage.crash()
        node.forget()

    def crash(self, node: SimNode, *, is_silent: bool = False) -> None:
        if node.life is None:
            return
        self.note(f"{node.name} crashes{' (power)' if is_silent else ''}")
        self._end_life(node.life, is_silent=is_silent)
        node.storage.crash()
        node.forget()

    def _crash_if_alive(self, life: Life) -> None:
        if life.is_alive:
            self.crash(self.watch.nodes[life.name])

    def _crash_life(self, life: Life) -> None:
        """A crash that the chunk disk was armed with."""
        self.crash(self.watch.nodes[life.name], is_silent=True)

    def _end_life(self, life: Life, *, is_silent: bool) -> None:
        life.is_alive = False
        self.net.process_died(life, is_silent=is_silent)

    def pause(self, life: Life, seconds: float) -> None:
        if life.is_paused or not life.is_alive:
            return
        self.note(f"{life.name} is paused for {seconds:.3f} s")
        life.is_paused = True

        def resume() -> None:
            self.note(f"{life.name} goes on")
            self.loop.resume(life)

        self.loop.call_later(seconds, resume)

    def leader(self) -> SimNode | None:
        """The running leader of the highest term."""
        leading = [node for node in self.nodes.values() if node.is_leader]
        return max(leading, key=lambda node: node.core.term if node.core else 0, default=None)

    # --- gateways --------------------------------------------------------------------------------

    def start_gateway(self, name: str) -> None:
        if name in self.gateways:
            return
        life = self._new_life(name)
        self.note(f"{name} starts")
        self.gateways[name] = life
        self.net.machine_is_back(name)
        addresses = tuple(node.address for node in self.nodes.values())
        patience_s = 2.5 if name == "g1" else 0.5  # one of them is quick to ask somebody else
        settings = gateway_settings(name, addresses, patience_s=patience_s)
        client = self.clients[name] = life.context.run(Client, settings, BUCKET)
        self.spawn(name, client.context.reader.running.run())

    def crash_gateway(self, name: str) -> None:
        life = self.gateways.pop(name, None)
        if life is not None:
            self.note(f"{name} crashes")
            del self.clients[name]
            self._end_life(life, is_silent=False)

    def spawn(self, gateway: str, work: Coroutine[Any, Any, object]) -> None:
        """Work of a client, which dies with its gateway."""
        self.gateways[gateway].context.run(self.loop.create_task, self._watched(work))

    async def _watched(self, work: Coroutine[Any, Any, object]) -> None:
        try:
            await work
        except Violation as violation:
            self.fail(violation)
        except Exception as error:
            life = LIFE.get()
            name = life.name if life is not None else "?"
            self.fail(Violation(f"a client at {name} failed: {type(error).__name__}: {error}"))
