"""LIST of 1000 keys: what a bucket ten times as large costs.

Keys are DIRECTORIES names of equal size, so that with a delimiter both buckets answer 1000
common prefixes. Every request starts at another key: an answer out of a cache would prove nothing.
"""

from __future__ import annotations

import random
import statistics
import time

from bench import wrk
from bench.result import Goal, Row, Samples
from bench.transfer import TransferFailed
from bench.world import World

_DIRECTORIES = 1250
_SMALL, _LARGE = 10_000, 100_000
_SMALL_QUICK, _LARGE_QUICK = 2_500, 25_000
_PAGE = 1000
_REQUESTS = 12  # of each kind, bucket and round
_FILL_CLIENTS = 16


def listings(world: World) -> list[Row]:
    """Two rows: without a delimiter, and with one."""
    small, large = (_SMALL_QUICK, _LARGE_QUICK) if world.quick else (_SMALL, _LARGE)
    began = time.monotonic()
    for size in (small, large):
        _fill(world, _bucket(size), size)
    note = f"{small + large} objects of 1 byte PUT by wrk in {time.monotonic() - began:.0f} s"
    rows = []
    for delimiter in ("", "/"):
        chance = random.Random(4711)
        taken: dict[int, list[float]] = {small: [], large: []}
        meter = world.meter()
        for _ in range(world.rounds):
            for size in (small, large):
                with meter:
                    taken[size].append(_one_round(world, size, delimiter, chance))
        mine, base = (Samples.of("ms", taken[size]) for size in (large, small))
        rows.append(
            Row(
                name=f"LIST {_PAGE} of {large}, {'with' if delimiter else 'without'} delimiter",
                measured=mine,
                baseline_name=f"of {small}",
                baseline=base,
                ratio=mine.median / base.median,
                ratio_unit="x",
                goal=Goal(at_least=2, aim=1.1, is_ceiling=True),
                cpu=meter.shares(),
                notes=(note,),
            )
        )
    return rows


def _bucket(size: int) -> str:
    return f"list-{size}"


def _key(number: int) -> str:
    return f"dir{number % _DIRECTORIES:04}/{number // _DIRECTORIES:04}"


def _fill(world: World, bucket: str, size: int) -> None:
    world.make_bucket(bucket)
    sign = world.presigner.target
    targets = [sign("PUT", f"/{bucket}/{_key(number)}") for number in range(size)]
    wrk.run(world.host, targets, method="PUT", body_bytes=1, clients=_FILL_CLIENTS, once=True)


def _one_round(world: World, size: int, delimiter: str, chance: random.Random) -> float:
    """The median of some requests of one client, milliseconds."""
    taken = []
    with world.client() as client:
        for _ in range(_REQUESTS):
            after = f"dir{chance.randrange(200):04}/{chance.randrange(9999):04}"
            query = {"list-type": "2", "start-after": after, "max-keys": str(_PAGE)}
            if delimiter:
                query["delimiter"] = delimiter
            target = world.presigner.target("GET", f"/{_bucket(size)}", query)
            answer = client.get(target, keep=True)
            if f"<KeyCount>{_PAGE}</KeyCount>".encode() not in answer.body:
                raise TransferFailed(f"not {_PAGE} keys: {answer.body[:300]!r}")
            taken.append(1000 * answer.seconds)
    return statistics.median(taken)
