"""From SIGKILL of the leader to the next acknowledged PUT: `python -m tests.chaos.failover`.

Under light load: a few writers, one request at a time each, that never retry; the time is that of
the first PUT that was *begun or waiting* at the kill or later and was acknowledged after it by a
new leader. So it holds election, rediscovery by the gateway and the first commit.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

from astra.wire import NodeStatus
from tests.chaos.clients import Session
from tests.chaos.rig import Rig
from tests.chaos.run import remove
from tests.support.wait import wait_until

WRITERS: Final = 3
PAUSE_S: Final = 0.02
MEDIAN_S_MAX: Final = 2.0
SIZE: Final = 300


class Writers:
    """Small PUTs until stopped; `acks` has the time of each acknowledgement."""

    def __init__(self, rig: Rig) -> None:
        self.acks: list[tuple[float, float]] = []  # (called, answered)
        self.failures = 0
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._write, args=(rig, number), daemon=True)
            for number in range(WRITERS)
        ]
        for thread in self._threads:
            thread.start()

    def _write(self, rig: Rig, number: int) -> None:
        session = Session(rig.target)
        count = 0
        while not self._stop.wait(PAUSE_S):
            count += 1
            called = time.monotonic()
            answer = session.ask("PUT", f"/failover/w{number}-{count % 10}", b"x" * SIZE)
            if answer.status == 200:
                self.acks.append((called, time.monotonic()))
            else:
                self.failures += 1
        session.close()

    def first_after(self, dead: float) -> float:
        """When the first PUT that the dead leader cannot have answered was acknowledged: one that
        was called once it was gone, or that came later after that than any took before."""
        slow = max(
            (answered - called for called, answered in self.acks[-100:] if answered <= dead),
            default=0.0,
        )
        found: list[float] = []

        def look() -> bool:
            found[:] = [
                answered
                for called, answered in self.acks
                if called >= dead or answered - dead > slow
            ]
            return bool(found)

        wait_until(look, 30.0, "a PUT is acknowledged by a new leader")
        return min(found)

    def close(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)


def measure(times: int, *, seed: int) -> list[float]:
    """Seconds of each failover; the killed node is back and well before the next."""
    directory = Path(tempfile.mkdtemp(prefix="failover-"))
    rig = Rig(directory, seed=seed)
    chance = random.Random(seed)
    found: list[float] = []
    try:
        rig.start()
        session = Session(rig.target)
        wait_until(lambda: session.ask("PUT", "/failover").status == 200, 20.0, "a bucket")
        writers = Writers(rig)
        for number in range(times):
            goal = len(writers.acks) + 30
            wait_until(lambda goal=goal: len(writers.acks) >= goal, 30.0, "load")  # type: ignore[misc]  # the default binds it now
            time.sleep(chance.uniform(0.0, 0.3))  # anywhere between two heartbeats
            leader = rig.leader()
            killed = time.monotonic()
            rig.nodes[leader].kill()
            took = writers.first_after(time.monotonic()) - killed
            found.append(took)
            print(f"{number + 1:3}  {leader} killed: {took:.3f} s", flush=True)
            rig.nodes[leader].start()
            _wait_back(rig)
        writers.close()
        print(f"failed requests meanwhile: {writers.failures}")
    finally:
        rig.close()
    remove(directory)
    return found


def _wait_back(rig: Rig) -> None:
    """All nodes answer and one leads."""

    def look() -> bool:
        statuses = rig.statuses().values()
        return all(isinstance(each, NodeStatus) and each.leader for each in statuses)

    wait_until(look, 30.0, "the killed node is back")


def report(seconds: list[float]) -> str:
    """Median, 90th percentile and maximum."""
    ranked = sorted(seconds)
    ninth = ranked[min(int(len(ranked) * 0.9), len(ranked) - 1)]
    return (
        f"failover, {len(ranked)} times: median {statistics.median(ranked):.2f} s, "
        f"p90 {ninth:.2f} s, max {ranked[-1]:.2f} s"
    )


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.failover", description=__doc__)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    found = measure(arguments.times, seed=arguments.seed)
    print(report(found))
    return 0 if statistics.median(found) <= MEDIAN_S_MAX else 1


if __name__ == "__main__":
    sys.exit(main())
