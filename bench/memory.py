"""Memory: the most that any process ever holds while gigabytes go in and out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from bench.large import MIB, body_file
from bench.procs import forget_peak, peak_rss
from bench.result import Goal, Row, Samples
from bench.world import World

_TOTAL = 5 * 1024 * MIB
_TOTAL_QUICK = 512 * MIB
_CLIENTS = 4


def memory(world: World) -> Row:
    """Uploads and downloads of 256 MiB objects by four clients, 5 GiB each way."""
    file = body_file(world)
    size = file.stat().st_size
    count = (_TOTAL_QUICK if world.quick else _TOTAL) // size
    world.make_bucket("memory")
    for pid in world.pids.values():
        forget_peak(pid)
    sign = world.presigner.target

    def put(number: int) -> None:
        with world.client() as client:
            client.put(sign("PUT", f"/memory/object-{number}"), file)

    def get(number: int) -> None:
        with world.client() as client:
            client.get(sign("GET", f"/memory/object-{number}"))

    meter = world.meter()
    with ThreadPoolExecutor(_CLIENTS) as clients, meter:
        list(clients.map(put, range(count)))
        list(clients.map(get, range(count)))
    peaks = {name: peak_rss(pid) / MIB for name, pid in world.pids.items()}
    for number in range(count):
        world.call("DELETE", f"/memory/object-{number}")
    return Row(
        name=f"memory of any process, {count * size / MIB / 1024:.3g} GiB in and out",
        measured=Samples.of("MiB", [max(peaks.values())]),
        ratio=max(peaks.values()),
        ratio_unit="MiB",
        goal=Goal(at_least=300, aim=150, is_ceiling=True),
        cpu=meter.shares(),
        notes=(
            f"{_CLIENTS} clients; peak resident MiB: "
            + ", ".join(f"{name} {peak:.0f}" for name, peak in peaks.items()),
        ),
    )
