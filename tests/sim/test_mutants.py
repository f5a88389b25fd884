"""The simulator can fail: each bug made on purpose is caught within few seeds, which are clean
without it (test_cluster_sim.py runs them). What a seed does shifts with every change of the
product, so the seeds are a range and not a number. `ASTRA_SIM_MUTANTS=all` runs the rare ones too.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.raft.test_scripts import test_script_gives_its_recorded_trace as run_script
from tests.sim.mutants import MUTANTS, broken
from tests.sim.run import run_apart

SCRIPTS = Path(__file__).parents[1] / "raft" / "testdata"
SEEDS_MAX = 30

# Caught in about one seed of fifty: read by hand, or when the checks of reads change.
RARE = {"read_before_apply": 150}
# These seeds caught it when they were looked at last: tried first, for speed only.
LIKELY = {"vote_twice": 19, "lease_without_end": 7, "forget_the_vote_at_restart": 5}
# Needs five exact steps: a script leads there, chance does not.
SCRIPTED = {"commit_old_terms_by_counting": "figure8.txt"}


def first_catch(name: str, seeds_max: int) -> int:
    """A seed that catches the mutant; 0: none."""
    with broken(name):
        seeds = (LIKELY.get(name, 1), *range(1, seeds_max + 1))
        return next((seed for seed in seeds if run_apart(seed).error), 0)


@pytest.mark.parametrize("name", sorted(MUTANTS.keys() - RARE.keys() - SCRIPTED.keys()))
def test_simulator_catches_the_mutant(name: str) -> None:
    assert first_catch(name, SEEDS_MAX), f"{name} survived {SEEDS_MAX} seeds"


@pytest.mark.skipif(os.environ.get("ASTRA_SIM_MUTANTS") != "all", reason="takes minutes")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", sorted(RARE))
def test_simulator_catches_the_rare_mutant(name: str) -> None:
    assert first_catch(name, RARE[name]), f"{name} survived {RARE[name]} seeds"


@pytest.mark.parametrize("name", sorted(SCRIPTED))
def test_script_catches_the_mutant(name: str) -> None:
    script = SCRIPTS / SCRIPTED[name]
    run_script(script)
    with broken(name), pytest.raises(AssertionError):
        run_script(script)
