"""Where small objects should stop travelling inside the metadata command (ADR 0003).

    .venv/bin/python -m bench.inline

Runs two clusters in turn on the same disk: one that keeps everything up to 256 KiB inline, one that
sends everything as chunks. For each size: PUT and GET latency of one client (medians), and PUTs
per second of eight clients.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import threading
import time
from pathlib import Path

from bench.transfer import Client
from bench.world import World
from tests.support.wait import wait_until

_SIZES_KIB = (4, 16, 32, 64, 128, 256)
_COUNT = 60
_CLIENTS = 8
_CLIENT_COUNT = 25


def _file(directory: Path, size: int) -> Path:
    path = directory / f"body-{size}"
    path.write_bytes(os.urandom(size))
    return path


def _puts(world: World, bucket: str, prefix: str, file: Path, count: int) -> list[float]:
    with world.client() as client:
        return [_put(world, client, f"/{bucket}/{prefix}-{n}", file) for n in range(count)]


def _put(world: World, client: Client, path: str, file: Path) -> float:
    return client.put(world.presigner.target("PUT", path), file).seconds


def _gets(world: World, bucket: str, prefix: str, count: int) -> list[float]:
    with world.client() as client:
        return [
            client.get(world.presigner.target("GET", f"/{bucket}/{prefix}-{n}")).seconds
            for n in range(count)
        ]


def _rate(world: World, bucket: str, file: Path, size: int) -> float:
    threads = [
        threading.Thread(
            target=_puts, args=(world, bucket, f"r{size}-{number}", file, _CLIENT_COUNT)
        )
        for number in range(_CLIENTS)
    ]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return _CLIENTS * _CLIENT_COUNT / (time.perf_counter() - began)


def _measure(inline_bytes: int) -> dict[int, tuple[float, float, float]]:
    settings = {"ASTRA_NODE_INLINE_BYTES": str(inline_bytes)}
    found: dict[int, tuple[float, float, float]] = {}
    with (
        tempfile.TemporaryDirectory() as directory,
        World.start(Path(directory), workers=1, rounds=1, quick=True, settings=settings) as world,
    ):
        world.make_bucket("inline")
        wait_until(lambda: world.cluster.leader() is not None, 10, "a leader")
        for kib in _SIZES_KIB:
            file = _file(Path(directory), kib * 1024)
            _puts(world, "inline", f"warm{kib}", file, 10)
            put = statistics.median(_puts(world, "inline", f"o{kib}", file, _COUNT))
            get = statistics.median(_gets(world, "inline", f"o{kib}", _COUNT))
            found[kib] = (1000 * put, 1000 * get, _rate(world, "inline", file, kib))
    return found


def main() -> None:
    inline, chunks = _measure(256 * 1024), _measure(0)
    print("| KiB | PUT ms inline / chunks | GET ms inline / chunks | PUT/s inline / chunks |")
    print("|---|---|---|---|")
    for kib in _SIZES_KIB:
        (ip, ig, ir), (cp, cg, cr) = inline[kib], chunks[kib]
        print(
            f"| {kib} | {ip:.2f} / {cp:.2f} | {ig:.2f} / {cg:.2f} | {ir:.0f} / {cr:.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
