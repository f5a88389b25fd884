"""What can be done to the cluster. A fault is a generator: it does it, says what it did, lasts
while it is suspended, and undoes it when it is resumed. It may return at once.

Rule: a fault leaves a majority able to come back; data is damaged in one copy of a blob only.
The numbers are rows of the fault matrix (docs/chaos.md).
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.chaos.census import missing_copies, needed
from tests.chaos.rig import TMPFS_BYTES, Rig, resize_tmpfs
from tests.chaos.server import run_for
from tests.support.proxy import GATEWAY, Link
from tests.support.services import POSTGRES_NAMES, SERVER_NAMES
from tests.support.wait import wait_until

EXIT_FATAL: Final = 70
FATAL_S: Final = 20.0
REFILL_S: Final = 90.0
_CUT: Final = Link(cut=True)


@dataclass(slots=True)
class Scene:
    """What faults work on. `wrong` takes what a fault finds that must not be."""

    rig: Rig
    chance: random.Random
    wrong: list[str] = field(default_factory=list)
    damaged: dict[str, str] = field(default_factory=dict)  # blob: the node whose copy we spoilt
    frail: str = ""  # the one node that may lose its disk in this run

    def some_follower(self) -> str:
        return self.chance.choice(self.rig.followers())

    def cut(self, *ways: tuple[str, str]) -> None:
        self.rig.links().set(dict.fromkeys(ways, _CUT))

    def all_ways(self) -> list[tuple[str, str]]:
        """Between nodes, both directions."""
        names = self.rig.names
        return [(a, b) for a in names for b in names if a != b]

    def ways_of(self, node: str, *, gateway: bool) -> list[tuple[str, str]]:
        """Both directions of every link of this node."""
        others = [name for name in self.rig.names if name != node]
        others += [GATEWAY] if gateway else []
        return [way for other in others for way in ((node, other), (other, node))]


Fault = Callable[[Scene], Iterator[str]]


# --- processes: rows 1 to 9, 22 to 24, 71, 72 ---


def kill_leader(scene: Scene) -> Iterator[str]:
    leader = scene.rig.leader()
    scene.rig.nodes[leader].kill()
    yield leader
    scene.rig.nodes[leader].start()


def kill_follower(scene: Scene) -> Iterator[str]:
    node = scene.some_follower()
    scene.rig.nodes[node].kill()
    yield node
    scene.rig.nodes[node].start()


def kill_majority(scene: Scene) -> Iterator[str]:
    dead = scene.chance.sample(scene.rig.names, len(scene.rig.names) // 2 + 1)
    for node in dead:
        scene.rig.nodes[node].kill()
    yield " ".join(dead)
    for node in dead:
        scene.rig.nodes[node].start()


def kill_all(scene: Scene) -> Iterator[str]:
    """And start in any order, with a pause or without."""
    for server in scene.rig.servers():
        server.kill()
    servers = scene.rig.servers()
    scene.chance.shuffle(servers)
    pause = scene.chance.choice([0.0, 0.0, 1.0])
    for server in servers:
        server.start()
        run_for(pause)
    yield " ".join(server.name for server in servers)


def crash_loop(scene: Scene) -> Iterator[str]:
    node = scene.chance.choice(scene.rig.names)
    yield node
    for _ in range(3):
        scene.rig.nodes[node].kill()
        scene.rig.nodes[node].start()
        run_for(scene.chance.uniform(0.1, 2.0))


def kill_worker(scene: Scene) -> Iterator[str]:
    workers = [each for each in scene.rig.gateway.children() if each.is_alive()]
    if workers:
        victim = scene.chance.choice(workers)
        victim.signal(signal.SIGKILL)
        yield str(victim.pid)


def freeze_worker(scene: Scene) -> Iterator[str]:
    """Its clients wait; those of the other workers must not."""
    workers = [each for each in scene.rig.gateway.children() if each.is_alive()]
    if workers:
        victim = scene.chance.choice(workers)
        victim.signal(signal.SIGSTOP)
        yield str(victim.pid)
        victim.signal(signal.SIGCONT)


def kill_gateway(scene: Scene) -> Iterator[str]:
    scene.rig.gateway.kill()
    yield ""
    scene.rig.gateway.start()


def stop_leader_in_order(scene: Scene) -> Iterator[str]:
    leader = scene.rig.leader()
    status = scene.rig.nodes[leader].stop()
    if status != 0:
        scene.wrong.append(f"{leader} ended with status {status} after SIGTERM")
    yield leader
    scene.rig.nodes[leader].start()


def freeze_leader(scene: Scene) -> Iterator[str]:
    leader = scene.rig.leader()
    scene.rig.nodes[leader].signal(signal.SIGSTOP)
    yield leader
    scene.rig.nodes[leader].signal(signal.SIGCONT)


def freeze_follower(scene: Scene) -> Iterator[str]:
    node = scene.some_follower()
    scene.rig.nodes[node].signal(signal.SIGSTOP)
    yield node
    scene.rig.nodes[node].signal(signal.SIGCONT)


def stutter(scene: Scene) -> Iterator[str]:
    """A leader that gets the processor a fifth of the time."""
    leader = scene.rig.leader()
    yield leader
    for _ in range(15):
        scene.rig.nodes[leader].signal(signal.SIGSTOP)
        run_for(0.16)
        scene.rig.nodes[leader].signal(signal.SIGCONT)
        run_for(0.04)


# --- network: rows 12 to 21 ---


def isolate_leader(scene: Scene) -> Iterator[str]:
    """From the other nodes, or from the gateways too."""
    leader, gateway = scene.rig.leader(), scene.chance.random() < 0.5
    scene.cut(*scene.ways_of(leader, gateway=gateway))
    yield f"{leader}{' and from the gateway' if gateway else ''}"


def isolate_follower(scene: Scene) -> Iterator[str]:
    node = scene.some_follower()
    scene.cut(*scene.ways_of(node, gateway=scene.chance.random() < 0.5))
    yield node


def deaf_leader(scene: Scene) -> Iterator[str]:
    leader = scene.rig.leader()
    scene.cut(*(way for way in scene.ways_of(leader, gateway=False) if way[1] == leader))
    yield leader


def mute_leader(scene: Scene) -> Iterator[str]:
    leader = scene.rig.leader()
    scene.cut(*(way for way in scene.ways_of(leader, gateway=False) if way[0] == leader))
    yield leader


def cut_one_pair(scene: Scene) -> Iterator[str]:
    one, other = scene.chance.sample(scene.rig.names, 2)
    scene.cut((one, other), (other, one))
    yield f"{one} {other}"


def cut_one_way(scene: Scene) -> Iterator[str]:
    """One direction between any two, the gateway too: requests arrive and answers do not, or the
    other way round."""
    source, destination = scene.chance.sample([*scene.rig.names, GATEWAY], 2)
    scene.cut((source, destination))
    yield f"from {source} to {destination}"


def cut_gateway_from_leader(scene: Scene) -> Iterator[str]:
    leader = scene.rig.leader()
    scene.cut((GATEWAY, leader), (leader, GATEWAY))
    yield leader


def cut_everything(scene: Scene) -> Iterator[str]:
    scene.cut(*scene.all_ways())
    yield "between all nodes"


def flapping_links(scene: Scene) -> Iterator[str]:
    """Cut one after the other, restored in another order."""
    yield ""
    ways = scene.all_ways()
    for _ in range(2):
        for links in (dict.fromkeys(ways, _CUT), dict.fromkeys(ways, Link())):
            scene.chance.shuffle(ways)
            for way in ways:
                scene.rig.links().set({way: links[way]})
                run_for(scene.chance.uniform(0.05, 0.3))


def slow_links(scene: Scene) -> Iterator[str]:
    link = Link(delay_ms=60, jitter_ms=20)
    scene.rig.links().set(dict.fromkeys(scene.all_ways(), link))
    yield "60 ms"


def narrow_links(scene: Scene) -> Iterator[str]:
    node = scene.chance.choice(scene.rig.names)
    link = Link(bytes_per_s=300_000)
    scene.rig.links().set(dict.fromkeys(scene.ways_of(node, gateway=True), link))
    yield node


def lossy_links(scene: Scene) -> Iterator[str]:
    link = Link(stall_chance=0.1, break_chance=0.005, delay_ms=5, jitter_ms=5)
    ways = [way for name in scene.rig.names for way in scene.ways_of(name, gateway=True)]
    scene.rig.links().set(dict.fromkeys(ways, link))
    yield "10 % stalls"


def corrupt_links(scene: Scene) -> Iterator[str]:
    link = Link(corrupt_chance=0.01)
    ways = [way for name in scene.rig.names for way in scene.ways_of(name, gateway=True)]
    scene.rig.links().set(dict.fromkeys(ways, link))
    yield "1 % of the pieces"


def break_connections(scene: Scene) -> Iterator[str]:
    scene.rig.links().reset()
    yield "all"


# --- disks: rows 25 to 29, 33, 35 ---


def full_disk(scene: Scene) -> Iterator[str]:
    for node in scene.rig.limited:
        scene.rig.wait_serving(node)  # one that starts on a full disk just does not start
        path = scene.rig.data(node)
        used = os.statvfs(path)
        room = scene.chance.choice([0, 4096, 1 << 20])
        size = (used.f_blocks - used.f_bfree) * used.f_frsize + room
        if not resize_tmpfs(path, max(size, 4096)):
            return
        yield f"{node}, {room} bytes left"
        resize_tmpfs(path, TMPFS_BYTES)
        _restart_if_fatal(scene, node)


def fsync_fails(scene: Scene) -> Iterator[str]:
    """The node must end by itself; its disk is well when it comes back."""
    if not scene.rig.has_shim:
        return
    node = scene.chance.choice(scene.rig.names)
    server = scene.rig.nodes[node]
    scene.rig.fault_file(node).write_text("eio")
    status = server.wait_for_exit(FATAL_S)
    if status != EXIT_FATAL:
        scene.wrong.append(f"{node} with failing fsync: exit status {status}, not {EXIT_FATAL}")
    yield node
    scene.rig.fault_file(node).unlink(missing_ok=True)
    server.start()


def slow_disk(scene: Scene) -> Iterator[str]:
    if not scene.rig.has_shim:
        return
    node = scene.chance.choice(scene.rig.names)
    scene.rig.fault_file(node).write_text("200")
    yield f"{node}, 200 ms more for each fsync"
    scene.rig.fault_file(node).unlink(missing_ok=True)


def unreadable_blobs(scene: Scene) -> Iterator[str]:
    """Bad sectors wherever a node looks; other nodes have the bytes."""
    if not scene.rig.has_shim:
        return
    node = scene.chance.choice(scene.rig.names)
    scene.rig.fault_file(node).write_text("unreadable /chunks/blobs/")
    yield node
    scene.rig.fault_file(node).unlink(missing_ok=True)


def damage_chunk(scene: Scene) -> Iterator[str]:
    """One copy of each of some blobs: a bit flips, the end is missing, or all of it."""
    node = scene.chance.choice(scene.rig.names)
    blobs = scene.rig.data(node) / "chunks" / "blobs"
    files = sorted(path for path in blobs.glob("*/*") if path.name not in scene.damaged)
    done = []
    for path in scene.chance.sample(files, min(4, len(files))):
        how = scene.chance.choice([flip_bit, truncate, remove])
        try:
            how(path, scene.chance)
        except OSError:
            continue  # deleted meanwhile
        scene.damaged[path.name] = node
        done.append(f"{how.__name__} {path.name}")
    yield f"{node}: {', '.join(done)}"


def lose_disk(scene: Scene) -> Iterator[str]:
    """A node comes back with nothing: log, metadata and blobs. Always the same one in a run, and
    only while the others have everything, so that no second loss hits what it had to give."""
    rig = scene.rig
    if rig.services is not None:
        return
    scene.frail = node = scene.frail or scene.chance.choice(rig.names)
    rig.wait_healthy()
    if needed(rig.disks(), node, scene.damaged):
        return  # not all is repaired yet
    rig.nodes[node].kill()
    for path in rig.data(node).iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    rig.nodes[node].start()
    yield node
    began = time.monotonic()
    rig.wait_healthy()
    disks = rig.disks()
    try:
        wait_until(
            lambda: not missing_copies(disks, scene.damaged), REFILL_S, "three copies", poll=0.5
        )
    except AssertionError:
        missing = missing_copies(disks, scene.damaged)
        scene.wrong.append(f"{node} lost its disk, {REFILL_S:g} s later: {missing[:5]}")
    rig.say(f"         {node} has everything again, {time.monotonic() - began:.1f} s later")


def flip_bit(path: Path, chance: random.Random) -> None:
    with path.open("r+b") as file:
        place = chance.randrange(os.fstat(file.fileno()).st_size)
        file.seek(place)
        byte = file.read(1)[0] ^ 1 << chance.randrange(8)
        file.seek(place)
        file.write(bytes([byte]))


def truncate(path: Path, chance: random.Random) -> None:
    os.truncate(path, chance.randrange(path.stat().st_size))


def remove(path: Path, chance: random.Random) -> None:
    path.unlink()


def _restart_if_fatal(scene: Scene, node: str) -> None:
    """A node may stop itself when its disk is full: with the status that says so."""
    server = scene.rig.nodes[node]
    if server.is_running():
        return
    expected = f"{node} ended by itself with status {EXIT_FATAL}"
    if server.surprises and server.surprises[-1] == expected:
        server.surprises.pop()
    server.start()


# --- the servers behind the nodes: rows 43 to 50 ---


def stop_backend(scene: Scene) -> Iterator[str]:
    services = scene.rig.services
    if services is None:
        return
    name = scene.chance.choice(SERVER_NAMES)
    stop = scene.chance.choice([services.stop, services.kill])
    stop(name)
    yield f"{name} ({stop.__name__})"
    services.start(name)


def pause_backend(scene: Scene) -> Iterator[str]:
    """SIGSTOP: connections stay open and nothing answers, which is worse than a server that is
    down."""
    services = scene.rig.services
    if services is None:
        return
    name = scene.chance.choice(SERVER_NAMES)
    services.pause(name)
    yield name
    services.resume(name)


def restart_postgres(scene: Scene) -> Iterator[str]:
    services = scene.rig.services
    if services is None:
        return
    name = scene.chance.choice(POSTGRES_NAMES)
    services.restart(name)
    yield name


def flush_redis(scene: Scene) -> Iterator[str]:
    services = scene.rig.services
    if services is None:
        return
    services.flush_redis()
    yield ""


FAULTS: Final[tuple[Fault, ...]] = (
    kill_leader, kill_follower, kill_majority, kill_all, crash_loop, kill_worker, freeze_worker,
    kill_gateway, stop_leader_in_order, freeze_leader, freeze_follower, stutter,
    isolate_leader, isolate_follower, deaf_leader, mute_leader, cut_one_pair,
    cut_one_way, cut_gateway_from_leader, cut_everything, flapping_links,
    slow_links, narrow_links, lossy_links, corrupt_links, break_connections,
    full_disk, fsync_fails, slow_disk, unreadable_blobs, damage_chunk, lose_disk,
)  # fmt: skip
BACKEND_FAULTS: Final[tuple[Fault, ...]] = (
    stop_backend, pause_backend, restart_postgres, flush_redis,
)  # fmt: skip
