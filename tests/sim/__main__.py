"""The command: `python -m tests.sim 1:200`, `python -m tests.sim --seed 17 --story`.

Exit code 1 when a seed broke a promise. Runs itself again with a fixed hash seed, because the
witness hashes keys with hash().
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import os
import sys
import time
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Final

from tests.sim.mutants import MUTANTS, broken
from tests.sim.run import Outcome, run_apart, run_seed

REGRESSIONS: Final = Path(__file__).with_name("regressions.txt")
PROGRESS_S: Final = 10.0


def main() -> int:
    options = parse()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]])
    with broken(options.mutant) if options.mutant else nullcontext():
        return run(options)


def run(options: argparse.Namespace) -> int:
    if options.seed is not None:
        outcome = run_seed(options.seed, story=options.story)
        tell(outcome)
        return 1 if outcome.error else 0
    seeds = list(regressions()) if options.regressions else []
    for text in options.seeds:
        seeds += parse_range(text)
    return run_many(seeds, options.jobs, brief=options.brief)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("seeds", nargs="*", help="FIRST:LAST or single numbers")
    parser.add_argument("--seed", type=int, help="one seed, told in full")
    parser.add_argument(
        "--story", action="store_true", help="with --seed: every event and log line"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--regressions", action="store_true", help="the seeds that found bugs")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="with this bug")
    parser.add_argument("--brief", action="store_true", help="one line for each failure")
    return parser.parse_args()


def parse_range(text: str) -> Iterable[int]:
    first, _, last = text.partition(":")
    return range(int(first), int(last or first) + 1)


def regressions() -> Iterable[int]:
    for line in REGRESSIONS.read_text().splitlines():
        words = line.split("#")[0].split()
        if words:
            yield int(words[0])


def run_many(seeds: list[int], jobs: int, *, brief: bool = False) -> int:
    started = told = time.monotonic()
    done = failed = operations = undecided = 0
    cpu_s = 0.0
    with multiprocessing.get_context("fork").Pool(jobs, initializer=_freeze) as pool:
        for outcome in pool.imap_unordered(run_apart, seeds, chunksize=4 if len(seeds) > 50 else 1):
            done += 1
            operations += outcome.answered + outcome.unanswered
            undecided += outcome.undecided
            cpu_s += outcome.cpu_s
            if outcome.error:
                failed += 1
                tell(outcome, brief=brief)
            now = time.monotonic()
            if now - told > PROGRESS_S or done == len(seeds):
                told = now
                rate = done / (now - started)
                print(
                    f"{done}/{len(seeds)} seeds, {failed} failed, {operations} operations, "
                    f"{undecided} keys undecided, {rate:.1f} seeds/s, "
                    f"{cpu_s / done:.2f} s of CPU each",
                    flush=True,
                )
    return 1 if failed else 0


def _freeze() -> None:
    """Before seeds are forked off: their memory is shared until it is written to."""
    gc.collect()
    gc.freeze()


def tell(outcome: Outcome, *, brief: bool = False) -> None:
    if brief:
        print(f"seed {outcome.seed}: {(outcome.error or 'ok').splitlines()[0]}", flush=True)
        return
    if outcome.story:
        print("\n".join(outcome.story))
    verdict = outcome.error or "every promise was kept"
    print(f"seed {outcome.seed}: {verdict}")
    print(
        f"  {outcome.answered} answered and {outcome.unanswered} unanswered operations in "
        f"{outcome.virtual_s:.1f} s of virtual time and {outcome.cpu_s:.2f} s of CPU time, "
        f"fingerprint {outcome.fingerprint}"
    )
    if outcome.error:
        print(f"  again: python -m tests.sim --seed {outcome.seed} --story", flush=True)


if __name__ == "__main__":
    sys.exit(main())
