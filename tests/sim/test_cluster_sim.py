"""The whole cluster under faults: seeds 1 to 200, 40 in which members change, those that found
bugs; a seed is one story.

`make sim SEEDS=201:2000` runs others; a failure names its seed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.sim.members import FIRST_SEED
from tests.sim.run import run_seed

ROOT = Path(__file__).parents[2]
SEEDS = 200
BLOCK = 25
MEMBERS_SEEDS = 40


def simulate(*arguments: str) -> subprocess.CompletedProcess[str]:
    """As the command does it, so that a seed that fails here fails there."""
    return subprocess.run(
        [sys.executable, "-m", "tests.sim", "--jobs", "1", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "0"}, capture_output=True, text=True,
        check=False, timeout=280,
    )  # fmt: skip


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(1, SEEDS + 1, BLOCK))
def test_seeds_keep_every_promise(first: int) -> None:
    play(first, BLOCK)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + MEMBERS_SEEDS, 20))
def test_seeds_whose_members_change_keep_every_promise(first: int) -> None:
    play(first, 20)


def play(first: int, count: int) -> None:
    done = simulate(f"{first}:{first + count - 1}")
    assert done.returncode == 0, done.stdout + done.stderr
    counts = re.search(
        r"(\d+)/\d+ seeds, 0 failed, (\d+) operations, 0 keys undecided",
        done.stdout.splitlines()[-1],
    )
    assert counts is not None, done.stdout
    assert int(counts[1]) == count
    assert int(counts[2]) > 40 * count


@pytest.mark.timeout(300)
def test_seeds_that_once_found_a_bug_keep_every_promise() -> None:
    done = simulate("--regressions")
    assert done.returncode == 0, done.stdout + done.stderr
    assert " 0 failed" in done.stdout


def fingerprint_of(seed: int) -> str:
    return simulate("--seed", str(seed)).stdout.rpartition("fingerprint ")[2].strip()


@pytest.mark.parametrize("seed", [3, 7, 9, FIRST_SEED + 3])
def test_the_same_seed_twice_in_one_process_gives_the_same_run(seed: int) -> None:
    """Also while the story is told: looking changes nothing."""
    assert run_seed(seed).fingerprint == run_seed(seed, story=True).fingerprint


def test_the_same_seed_in_two_processes_gives_the_same_run() -> None:
    first = fingerprint_of(5)
    assert first
    assert first == fingerprint_of(5)
    assert first != fingerprint_of(6)
