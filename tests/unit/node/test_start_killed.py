"""A node that is killed while it starts can always be started again (FAULTS row 72)."""

import asyncio
import pickle
import random
import subprocess
import sys
from pathlib import Path

from tests.support.nodes import LocalNodes
from tests.support.services import ROOT

KILLS = 15
SLOWEST_START_S = 0.4

# Forks from a parent that has imported everything, so that the moments are those of the start.
SCRIPT = """
import asyncio, os, pickle, signal, sys, time
from astra.log import configure_logging
from node.app import run_node

settings, pauses = pickle.load(sys.stdin.buffer)
for pause in pauses:
    child = os.fork()
    if child == 0:
        os._exit(run_node(settings))
    time.sleep(pause)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), f"ended by itself: {status}"
"""


async def test_node_killed_at_random_moments_of_its_start_starts_again(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    nodes = LocalNodes(tmp_path, voters=1)
    nodes.change("n1", compact_interval_s=0.05)
    async with nodes:
        await nodes.make_bucket("bk")
        for number in range(60):
            await nodes.put_inline("bk", b"k%d" % number, b"x" * 2000)
        await nodes.stop("n1")
        pauses = [chance.uniform(0, SLOWEST_START_S) for _ in range(KILLS)]
        await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", SCRIPT],
            input=pickle.dumps((nodes.settings["n1"], pauses)),
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        await nodes.start("n1")
        for number in range(60):
            located = await nodes.locate("bk", b"k%d" % number)
            assert [data for _, data in located.inline] == [b"x" * 2000]
