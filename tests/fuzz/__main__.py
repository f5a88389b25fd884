"""python -m tests.fuzz --count 1000000 --seed 1: inputs against everything that decodes bytes.

Prints the input of the first failure in hex; the same seed and target give it again.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.fuzz.run import TARGETS, Failure, fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs for all targets")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--target", choices=[target.name for target in TARGETS], default=None)
    arguments = parser.parse_args()
    chosen = [each for each in TARGETS if arguments.target in (None, each.name)]
    status = 0
    for target in chosen:
        began = time.monotonic()
        count = arguments.count // len(chosen)
        try:
            grown = fuzz(target, count=count, seed=arguments.seed)
        except Failure as failure:
            print(f"{target.name}: {failure}")
            status = 1
            continue
        took = time.monotonic() - began
        print(
            f"{target.name}: {count} inputs in {took:.0f} s, memory grew by {grown >> 20} MiB",
            flush=True,
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
