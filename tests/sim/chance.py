"""Everything a process may draw from outside of itself, made to follow from the seed.

While a simulation runs, the clocks of `time` show the virtual time of the process that asks, and
the system's randomness (os.urandom, and through it secrets, uuid and random.SystemRandom) comes
from the seed. So the product needs no seams for them, and code that is added tomorrow is
deterministic too.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

from tests.sim.loop import LIFE, SimLoop

EPOCH_S: Final = 1_800_000_000  # the wall clock when a simulation begins


class Clocks:
    """The clocks of the process that is running."""

    def __init__(self, loop: SimLoop) -> None:
        self._loop = loop

    def monotonic(self) -> float:
        life = LIFE.get()
        if life is None:
            return self._loop.now_s
        machine = life.machine
        return machine.mono_offset_s + machine.mono_rate * self._loop.now_s

    def wall(self) -> float:
        life = LIFE.get()
        offset_s = 0.0 if life is None else life.machine.wall_offset_s
        return EPOCH_S + offset_s + self._loop.now_s


@contextmanager
def seeded(loop: SimLoop, seed: int) -> Generator[None]:
    """Inside, time and randomness are the simulation's."""
    clocks, source = Clocks(loop), random.Random(f"system-{seed}")
    global_state = random.getstate()
    random.seed(seed)
    patches: list[tuple[object, str, object]] = [
        (time, "monotonic", clocks.monotonic),
        (time, "monotonic_ns", lambda: int(clocks.monotonic() * 1e9)),
        (time, "time", clocks.wall),
        (time, "time_ns", lambda: int(clocks.wall() * 1e9)),
        (os, "urandom", source.randbytes),
        (random, "_urandom", source.randbytes),
    ]
    saved = [(module, name, getattr(module, name)) for module, name, _ in patches]
    for module, name, value in patches:
        setattr(module, name, value)
    try:
        yield
    finally:
        for module, name, value in saved:
            setattr(module, name, value)
        random.setstate(global_state)
