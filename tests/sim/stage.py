"""A small cluster of the simulation without any chance of its own: a test sets the scene, and
breaks one thing at one exact point, which no real process can be made to meet.

Three voters and the gateways g1 and g2, a versioned bucket, and a root user. Everything else is as
in a seed (docs/simulation.md), the checks of tests/sim/watch.py included.
"""

from __future__ import annotations

import gc
import re
import sys
import warnings
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Final, TypeVar

import structlog

from astra.commands import AnyCommand, decode_proposal
from astra.errors import UnknownFormat
from astra.wire import Entry
from node.raft.memory import MemoryLog
from tests.sim.chance import seeded
from tests.sim.client import Client, Denied, Unknown
from tests.sim.nemesis import GATEWAYS
from tests.sim.node import SimNode
from tests.sim.run import hear, small_parts
from tests.sim.workload import Workload
from tests.sim.world import World

T = TypeVar("T")

PATIENCE_S: Final = 30.0
_VERSION: Final = re.compile(r"<(Version|DeleteMarker)><Key>([^<]*)</Key>")


class _SmallWorld(World):
    def _shape(self) -> tuple[int, int]:
        return (3, 0)


class _LargerWorld(World):
    def _shape(self) -> tuple[int, int]:
        return (3, 2)


class Stage:
    """Use `staged`."""

    def __init__(self, seed: int, *, is_larger: bool = False) -> None:
        self.world: World = _LargerWorld(seed) if is_larger else _SmallWorld(seed)

    def begin(self) -> None:
        world = self.world
        for node in world.nodes.values():
            world.boot(node)
        for name in GATEWAYS:
            world.start_gateway(name)
        workload = Workload(world, 0, 0)
        world.spawn("g1", workload.prepare(world.clients["g1"]))
        self.until(lambda: workload.is_ready, "the cluster serves its first writes")
        self.ask("g1", lambda client: workload.set_versioning(client, "Enabled"))

    # --- who is who ------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[SimNode]:
        return list(self.world.nodes.values())

    def leader(self) -> SimNode:
        self.until(lambda: self.world.leader() is not None, "a node leads")
        leader = self.world.leader()
        assert leader is not None
        return leader

    def followers(self) -> list[SimNode]:
        leader = self.leader()
        return [node for node in self.nodes if node is not leader]

    # --- time and clients ------------------------------------------------------------------------

    def until(
        self, condition: Callable[[], object], what: str, seconds: float = PATIENCE_S
    ) -> None:
        reached = self.world.run(seconds, lambda: bool(condition()))
        assert reached, f"not within {seconds:g} s: {what}"

    def start(self, gateway: str, call: Callable[[Client], Awaitable[T]]) -> list[T | Exception]:
        """A client's request: the list has its answer, or its Denied or Unknown, when it came."""
        answers: list[T | Exception] = []
        client = self.world.clients[gateway]

        async def run() -> None:
            try:
                answers.append(await call(client))
            except (Denied, Unknown) as error:
                answers.append(error)

        self.world.spawn(gateway, run())
        return answers

    def ask(
        self, gateway: str, call: Callable[[Client], Awaitable[T]], seconds: float = PATIENCE_S
    ) -> T:
        """Waits for the answer. Raises Denied, Unknown."""
        answers = self.start(gateway, call)
        self.until(lambda: answers, "an answer", seconds)
        if isinstance(answers[0], Exception):
            raise answers[0]
        return answers[0]

    def versions(self, key: str) -> list[str]:
        """What there is of a key: "Version" and "DeleteMarker", newest first."""
        page = self.ask("g2", lambda client: client.ask("GET", query={"versions": ""}))
        return [kind for kind, name in _VERSION.findall(page.body.decode()) if name == key]

    # --- breaking --------------------------------------------------------------------------------

    def kill(self, node: SimNode) -> None:
        """kill -9; to be called again is harmless."""
        self.world.crash(node)

    def cut(self, one: str, other: str) -> None:
        self.world.net.cut(one, other)
        self.world.net.cut(other, one)

    def on_durable(
        self, node: SimNode, is_meant: Callable[[AnyCommand], bool], react: Callable[[], None]
    ) -> None:
        """Once, when the command is in this node's log, and nobody knows it yet."""
        watch = node.storage.on_append

        def on_append(name: str, entries: Sequence[Entry], log: MemoryLog) -> None:
            watch(name, entries, log)
            if any(is_meant(command) for command in commands_of(entries)):
                node.storage.on_append = watch
                react()

        node.storage.on_append = on_append

    def on_applied(
        self, node: SimNode, is_meant: Callable[[AnyCommand], bool], react: Callable[[], None]
    ) -> None:
        """When this node has applied the command, and has told nobody yet."""
        assert node.process is not None

        def on_applied(entries: Sequence[Entry], touched: object) -> None:
            if any(is_meant(command) for command in commands_of(entries)):
                react()

        node.process.applier.listen(on_applied)

    # --- the end of it ---------------------------------------------------------------------------

    def heal(self) -> None:
        """All nodes and links work; all nodes end with the same tables and good copies."""
        world = self.world
        world.net.heal_all()

        def is_whole() -> bool:
            for node in self.nodes:
                world.boot(node)
            indexes = {node.applied_index for node in self.nodes}
            return len(indexes) == 1 and indexes.pop() >= world.watch.applied_max

        self.until(is_whole, "all nodes catch up")
        world.watch.check_tables()
        self.until(
            lambda: not world.watch.blobs_without_three_copies(), "three good copies of every blob"
        )
        world.watch.check_referenced()


def commands_of(entries: Sequence[Entry]) -> list[AnyCommand]:
    found = []
    for entry in entries:
        try:
            found.append(decode_proposal(entry.data).command)
        except UnknownFormat:
            continue  # a leader's first entry, or a membership
    return found


@contextmanager
def staged(seed: int = 1, *, is_larger: bool = False) -> Generator[Stage]:
    """The cluster serves inside; a broken promise is raised there. A larger one has two nodes more,
    which vote, too, before long."""
    stage = Stage(seed, is_larger=is_larger)
    hear(stage.world, all_levels=False)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    gc.disable()
    try:
        with (
            warnings.catch_warnings(),
            stage.world.loop.installed(),
            seeded(stage.world.loop, seed),
            small_parts(),
        ):
            warnings.simplefilter("ignore")  # of coroutines that were killed
            stage.begin()
            try:
                yield stage
            except BaseException:
                print("\n".join(f"{at:9.3f} {text}" for at, text in stage.world.story))
                raise
            gc.collect()
    finally:
        structlog.reset_defaults()
        gc.collect()
        sys.unraisablehook = hook
        gc.enable()
