"""Large objects by one client: 256 MiB in and out."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from bench.baselines import bare_server, md5_rate
from bench.result import Goal, Row, Samples
from bench.transfer import Client, TransferFailed
from bench.world import World

MIB = 1024 * 1024
_SIZE = 256 * MIB
_SIZE_QUICK = 64 * MIB


def body_file(world: World) -> Path:
    """A file of random bytes in the page cache."""
    size = _SIZE_QUICK if world.quick else _SIZE
    path = world.directory / f"body-{size // MIB}"
    if not path.exists():
        with path.open("wb") as file:
            for _ in range(size // MIB):
                file.write(os.urandom(MIB))
    return path


def get_large(world: World) -> Row:
    """GET of one object by one connection against bare uvicorn sending a cached file."""
    file = body_file(world)
    size = file.stat().st_size
    world.make_bucket("get-large")
    sign = world.presigner.target
    with world.client() as client:
        client.put(sign("PUT", "/get-large/object"), file)
    target = sign("GET", "/get-large/object")
    _check_bytes(world, target, file)
    ours, bare = [], []
    meter = world.meter()
    with bare_server("stream", file) as bare_host:
        for _ in range(world.rounds):
            bare.append(_download(bare_host, "/", size))
            with meter:
                ours.append(_download(world.host, target, size))
    mine, base = Samples.of("MiB/s", ours), Samples.of("MiB/s", bare)
    return Row(
        name=f"GET {size // MIB} MiB, one client",
        measured=mine,
        baseline_name="bare uvicorn",
        baseline=base,
        ratio=100 * mine.median / base.median,
        ratio_unit="%",
        goal=Goal(at_least=20, aim=40),
        cpu=meter.shares(),
    )


def _check_bytes(world: World, target: str, file: Path) -> None:
    """A fast wrong answer is worth nothing."""
    with Client(world.host) as client:
        body = client.get(target, keep=True).body
    if hashlib.sha256(body).digest() != hashlib.sha256(file.read_bytes()).digest():
        raise TransferFailed("the object came back with other bytes")


def _download(host: str, target: str, size: int) -> float:
    """MiB/s from sending the request to the last byte."""
    with Client(host) as client:
        answer = client.get(target)
    if answer.length != size:
        raise TransferFailed(f"{answer.length} of {size} bytes")
    return size / MIB / answer.seconds


def put_large(world: World) -> Row:
    """PUT with an unsigned payload by one connection against one core's MD5."""
    file = body_file(world)
    size = file.stat().st_size
    world.make_bucket("put-large")
    ours, md5 = [], []
    meter = world.meter()
    for number in range(world.rounds):
        md5.append(md5_rate(size) / MIB)
        target = world.presigner.target("PUT", f"/put-large/object-{number}")
        with meter, world.client() as client:
            ours.append(size / MIB / client.put(target, file).seconds)
        world.call("DELETE", f"/put-large/object-{number}")
    mine, base = Samples.of("MiB/s", ours), Samples.of("MiB/s", md5)
    return Row(
        name=f"PUT {size // MIB} MiB, one client, unsigned payload",
        measured=mine,
        baseline_name="one core's MD5",
        baseline=base,
        ratio=100 * mine.median / base.median,
        ratio_unit="%",
        goal=Goal(at_least=25, aim=50),
        cpu=meter.shares(),
    )
