"""`make bench`: speed and memory of the embedded cluster beside what the machine does at best.

    python -m bench [--only NAME ...] [--quick] [--json FILE] [--workers N] [--rounds N]

Three nodes with fsync and three copies, one gateway worker, the clients and the baselines share
this machine, and its rounds: baseline and measurement take turns, medians are compared. Exit
status 1 when something is below what is asked for.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench import wrk
from bench.baselines import warm_memory
from bench.large import get_large, put_large
from bench.listing import listings
from bench.memory import memory
from bench.result import Row, render
from bench.small import get_small, put_latency, put_small
from bench.transfer import TransferFailed
from bench.world import World

_LOAD_MAX = 0.5
_WARM_BYTES = 3 * 1024**3

CASES: dict[str, Callable[[World], list[Row]]] = {
    "get-small": lambda world: [get_small(world)],
    "put-small": lambda world: [put_small(world)],
    "put-latency": lambda world: [put_latency(world)],
    "get-large": lambda world: [get_large(world)],
    "put-large": lambda world: [put_large(world)],
    "memory": lambda world: [memory(world)],
    "list": listings,
}


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench ARGS=...")
    parser.add_argument("--only", action="append", choices=CASES, help="may be repeated")
    parser.add_argument("--quick", action="store_true", help="smaller, shorter, less sure")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also as JSON")
    parser.add_argument("--workers", type=int, default=1, help="gateway workers (1)")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement (5; quick: 3)")
    parser.add_argument("--dir", type=Path, help="where the data goes: the disk under test")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> list[Row]:
    """Runs the cases, each printed when it is done."""
    rounds = options.rounds or (3 if options.quick else 5)
    rows: list[Row] = []
    with (
        tempfile.TemporaryDirectory(prefix="astra-bench-", dir=options.dir) as directory,
        World.start(
            Path(directory), workers=options.workers, rounds=rounds, quick=options.quick
        ) as world,
    ):
        for name in options.only or CASES:
            began = time.monotonic()
            found = CASES[name](world)
            print(render(found), flush=True)
            print(f"        ({time.monotonic() - began:.0f} s)", flush=True)
            rows += found
    return rows


def _interrupted(number: int, _frame: object) -> None:
    """SIGTERM ends like Ctrl-C: through what stops the cluster."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def main() -> int:
    options = parse()
    signal.signal(signal.SIGTERM, _interrupted)
    wrk.ensure_wrk()
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.2f}, {options.workers} gateway worker(s)")
    if load > _LOAD_MAX:
        print("this machine is busy with something else: the ratios below are unsure")
    size = min(_WARM_BYTES, os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    print(f"touched {size >> 20} MiB of memory in {warm_memory(size):.0f} s", flush=True)
    rows = measure(options)
    if options.json:
        options.json.write_text(json.dumps([row.as_dict() for row in rows], indent=2) + "\n")
    missed = [row.name for row in rows if row.verdict == "MISS"]
    if missed:
        print(f"below what is asked for: {'; '.join(missed)}")
    return 1 if missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (wrk.LoadFailed, TransferFailed) as error:
        sys.exit(f"bench: {error}")
