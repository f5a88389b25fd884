"""Small objects: 4 KiB by 16 clients, and the latency of one."""

from __future__ import annotations

import os
import statistics

from bench import wrk
from bench.baselines import bare_server, fdatasync_seconds
from bench.result import Goal, Row, Samples
from bench.world import World

_OBJECT_BYTES = 4096
_CLIENTS = 16
_OBJECTS = 1000
_PUTS_PER_S_MAX = 4000  # that many different keys are prepared for each second
_SYNCS = 300


class Keys:
    """Presigned PUTs of keys that were never written before."""

    def __init__(self, world: World, bucket: str) -> None:
        self._world = world
        self._bucket = bucket
        self._made = 0

    def take(self, count: int) -> list[str]:
        first, self._made = self._made, self._made + count
        sign = self._world.presigner.target
        return [sign("PUT", f"/{self._bucket}/object-{n:08}") for n in range(first, first + count)]


def get_small(world: World) -> Row:
    """GET 4 KiB of 1000 different objects against a bare Starlette answer of 4 KiB."""
    world.make_bucket("get-small")
    _fill(world, "get-small")
    sign = world.presigner.target
    targets = [sign("GET", f"/get-small/object-{n:04}") for n in range(_OBJECTS)]
    ours, bare = [], []
    meter = world.meter()
    with bare_server("small") as bare_host:
        wrk.run(world.host, targets, clients=_CLIENTS, seconds=1)  # warm
        for _ in range(world.rounds):
            bare.append(wrk.run(bare_host, ["/"], clients=_CLIENTS, seconds=world.seconds))
            with meter:
                load = wrk.run(world.host, targets, clients=_CLIENTS, seconds=world.seconds)
            ours.append(load)
    return _rate_row("GET 4 KiB, 16 clients", ours, bare, Goal(at_least=8, aim=20), meter.shares())


def _fill(world: World, bucket: str) -> None:
    body = world.directory / "4k"
    body.write_bytes(os.urandom(_OBJECT_BYTES))
    with world.client() as client:
        for n in range(_OBJECTS):
            client.put(world.presigner.target("PUT", f"/{bucket}/object-{n:04}"), body)


def put_small(world: World) -> Row:
    """PUT of 4 KiB to keys never used before against a bare Starlette answer of 4 KiB."""
    world.make_bucket("put-small")
    keys = Keys(world, "put-small")
    wanted = _PUTS_PER_S_MAX * world.seconds
    ours, bare = [], []
    meter = world.meter()
    with bare_server("small") as bare_host:
        _put(world, keys.take(_PUTS_PER_S_MAX), clients=_CLIENTS, seconds=1)  # warm
        for _ in range(world.rounds):
            bare.append(wrk.run(bare_host, ["/"], clients=_CLIENTS, seconds=world.seconds))
            targets = keys.take(wanted)
            with meter:
                load = _put(world, targets, clients=_CLIENTS, seconds=world.seconds)
            ours.append(load)
    return _rate_row("PUT 4 KiB, 16 clients", ours, bare, Goal(at_least=3, aim=8), meter.shares())


def _put(world: World, targets: list[str], *, clients: int, seconds: int) -> wrk.Load:
    return wrk.run(
        world.host,
        targets,
        method="PUT",
        body_bytes=_OBJECT_BYTES,
        clients=clients,
        seconds=seconds,
    )


def _rate_row(
    name: str, ours: list[wrk.Load], bare: list[wrk.Load], goal: Goal, cpu: dict[str, float]
) -> Row:
    mine = Samples.of("requests/s", [load.rate for load in ours])
    base = Samples.of("requests/s", [load.rate for load in bare])
    return Row(
        name=name,
        measured=mine,
        baseline_name="bare Starlette",
        baseline=base,
        ratio=100 * mine.median / base.median,
        ratio_unit="%",
        goal=goal,
        cpu=cpu,
        notes=(_latency(ours), _cpu(ours, cpu), _generator(ours, bare)),
    )


def _latency(loads: list[wrk.Load]) -> str:
    p50 = statistics.median(load.p50_us for load in loads)
    p99 = statistics.median(load.p99_us for load in loads)
    return f"latency p50 {p50 / 1000:.2f} ms, p99 {p99 / 1000:.2f} ms"


def _cpu(loads: list[wrk.Load], cpu: dict[str, float]) -> str:
    """What a request costs in each process: less shaken by a busy machine than rates are."""
    per_s = sum(load.requests for load in loads) / sum(load.elapsed for load in loads)
    shares = (f"{name} {1e6 * busy / per_s:.0f}" for name, busy in cpu.items())
    return f"CPU microseconds per request: {', '.join(shares)}"


def _generator(ours: list[wrk.Load], bare: list[wrk.Load]) -> str:
    """Why the generator is not the bottleneck, in numbers of this run."""
    busy = statistics.median(load.generator_cpu for load in ours)
    base = statistics.median(load.generator_cpu for load in bare)
    faster = statistics.median(b.rate for b in bare) / statistics.median(o.rate for o in ours)
    return (
        f"generator: wrk used {busy:.2f} of its one core here ({base:.2f} against the bare "
        f"server, which it drove {faster:.1f} x as fast)"
    )


def put_latency(world: World) -> Row:
    """PUT of 4 KiB by one client, its median against the median of one fdatasync."""
    world.make_bucket("put-one")
    keys = Keys(world, "put-one")
    ours, syncs = [], []
    meter = world.meter()
    _put(world, keys.take(_PUTS_PER_S_MAX), clients=1, seconds=1)  # warm
    for _ in range(world.rounds):
        syncs.append(statistics.median(fdatasync_seconds(world.directory, _SYNCS)))
        targets = keys.take(_PUTS_PER_S_MAX * world.seconds)
        with meter:
            ours.append(_put(world, targets, clients=1, seconds=world.seconds))
    mine = Samples.of("ms", [load.p50_us / 1000 for load in ours])
    base = Samples.of("ms", [1000 * seconds for seconds in syncs])
    return Row(
        name="PUT 4 KiB, one client, p50",
        measured=mine,
        baseline_name="fdatasync of 4 KiB appended",
        baseline=base,
        ratio=mine.median / base.median,
        ratio_unit="x",
        goal=Goal(at_least=20, aim=8, is_ceiling=True),
        cpu=meter.shares(),
        notes=(_latency(ours), _cpu(ours, meter.shares())),
    )
