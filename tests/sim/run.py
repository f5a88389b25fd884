"""One seed: played in this process or in one of its own, and what came out of it."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Generator, MutableMapping
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
from tests.sim.members import FIRST_SEED, MembersScenario, MembersWorld
from tests.sim.scenario import Scenario
from tests.sim.world import World

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


def scenario_of(seed: int, *, story: bool = False) -> Scenario:
    """The number alone says what is played."""
    if seed >= FIRST_SEED:
        return MembersScenario(MembersWorld(seed, story=story))
    return Scenario(World(seed, story=story))


def _play(seed: int, *, story: bool) -> Outcome:
    started = time.process_time()
    scenario = scenario_of(seed, story=story)
    world = scenario.world
    error: str | None = None
    undecided = 0
    hear(world, all_levels=story)
    try:
        with world.loop.installed(), seeded(world.loop, seed), small_parts():
            undecided = scenario.play()
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
