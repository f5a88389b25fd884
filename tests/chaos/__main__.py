"""python -m tests.chaos --seconds N --seed S: real processes under real faults (docs/chaos.md)."""

from __future__ import annotations

import argparse
import sys
import time
from contextlib import ExitStack

from tests.chaos.faults import BACKEND_FAULTS, FAULTS
from tests.chaos.run import Failed, Plan, run
from tests.support.services import Services, acquire_services, stop_services_if_last


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="time under faults of one run")
    parser.add_argument("--seed", type=int, default=None, help="default: from the clock")
    parser.add_argument("--runs", type=int, default=1, help="with the seeds that follow")
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--keys", type=int, default=24)
    parser.add_argument("--backend", choices=("embedded", "services"), default="embedded")
    names = ", ".join(fault.__name__ for fault in (*FAULTS, *BACKEND_FAULTS))
    parser.add_argument("--only", default="", help=f"comma separated, of: {names}")
    return parser.parse_args()


def main() -> int:
    arguments = _arguments()
    seed = int(time.time()) % 1_000_000 if arguments.seed is None else arguments.seed
    with ExitStack() as stack:
        services: Services | None = None
        if arguments.backend == "services":
            services, handle = acquire_services()
            stack.callback(stop_services_if_last)
            stack.callback(handle.close)
        for number in range(seed, seed + arguments.runs):
            plan = Plan(
                seed=number,
                seconds=arguments.seconds,
                clients=arguments.clients,
                keys=arguments.keys,
                only=tuple(name for name in arguments.only.split(",") if name),
            )
            print(f"chaos: seed {number}, {arguments.seconds:g} s, {arguments.backend}", flush=True)
            try:
                print(run(plan, services=services, say=_say), flush=True)
            except Failed as failure:
                print(f"FAILED\n{failure}", flush=True)
                print(f"again: {_command(arguments, number)}", flush=True)
                return 1
    return 0


def _command(arguments: argparse.Namespace, seed: int) -> str:
    more = [f"--backend {arguments.backend}"] if arguments.backend != "embedded" else []
    more += [f"--only {arguments.only}"] if arguments.only else []
    options = f' ARGS="{" ".join(more)}"' if more else ""
    return f"make chaos SECONDS={arguments.seconds:g} SEED={seed}{options}"


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
