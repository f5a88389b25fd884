"""Random faults on 1, 3, 5 and 7 nodes; safety after every event, liveness at the end.

`ASTRA_SIM_SEEDS=2000` runs more; `ASTRA_SIM_FIRST=1234` starts elsewhere. A failure names its seed.
"""

from __future__ import annotations

import os

import pytest

from astra.wire import Membership
from tests.support.raftsim import SimCluster

SEED_COUNT = int(os.environ.get("ASTRA_SIM_SEEDS", "200"))
FIRST_SEED = int(os.environ.get("ASTRA_SIM_FIRST", "1"))
BATCH = 20


def node_count_of(seed: int) -> int:
    return {0: 7, 5: 1}.get(seed % 10, 3 if seed % 2 else 5)


def run_seed(seed: int) -> SimCluster:
    node_count = node_count_of(seed)
    cluster = SimCluster(seed, node_count, spare_count=1 if seed % 3 == 0 else 0)
    for step in range(cluster.rng.randrange(30, 60)):
        inject(cluster)
        load(cluster, step)
        cluster.run(cluster.rng.randrange(10, 80))
        cluster.check_leases()
    heal(cluster)
    require_progress(cluster)
    cluster.check_end()
    return cluster


def inject(cluster: SimCluster) -> None:
    rng = cluster.rng
    node = rng.choice(list(cluster.nodes.values()))
    match rng.randrange(0, 14):
        case 0 | 1:
            if node.core is not None:
                cluster.crash(node)
        case 2 | 3 | 4:
            cluster.restart(node)
        case 5:
            cut_off(cluster, node.node_id)
        case 6:
            cut_one_way(cluster)
        case 7:
            cluster.cut.clear()
        case 8:
            cluster.pause(node, rng.randrange(50, 900))
        case 9:
            cluster.loss = rng.choice((0.0, 0.1, 0.3))
            cluster.duplicates = rng.choice((0.0, 0.1))
            cluster.delay_max = rng.choice((3, 8, 60))
        case 10:
            cluster.compact(node)
        case 11:
            cluster.transfer(node.node_id)
        case 12:
            change_membership(cluster)
        case _:
            leader = cluster.leader()
            if leader is not None and rng.random() < 0.5:
                cluster.crash(leader)


def cut_off(cluster: SimCluster, node_id: str) -> None:
    for other in cluster.nodes:
        cluster.cut |= {(node_id, other), (other, node_id)}


def cut_one_way(cluster: SimCluster) -> None:
    ids = list(cluster.nodes)
    cluster.cut.add((cluster.rng.choice(ids), cluster.rng.choice(ids)))


def change_membership(cluster: SimCluster) -> None:
    leader = cluster.leader()
    if leader is None or leader.core is None:
        return
    old = leader.core.membership
    node_id = cluster.rng.choice(list(cluster.nodes))
    if node_id in old.voters:
        if len(old.voters) > 2:
            rest = tuple(each for each in old.voters if each != node_id)
            cluster.change_membership(Membership(voters=rest, learners=(*old.learners, node_id)))
    else:
        rest = tuple(each for each in old.learners if each != node_id)
        cluster.change_membership(Membership(voters=(*old.voters, node_id), learners=rest))


def load(cluster: SimCluster, step: int) -> None:
    rng = cluster.rng
    for number in range(rng.randrange(0, 4)):
        cluster.propose(f"{cluster.seed}-{step}-{number}-".encode() + b"x" * rng.randrange(0, 60))
    cluster.read(rng.choice(list(cluster.nodes.values())))


def heal(cluster: SimCluster) -> None:
    cluster.cut.clear()
    cluster.loss = cluster.duplicates = 0.0
    cluster.delay_max = 5
    for node in cluster.nodes.values():
        node.paused_until = 0
        cluster.restart(node)


def require_progress(cluster: SimCluster) -> None:
    """A new command commits, and every voter applies it, in bounded time."""
    marker = f"{cluster.seed}-end".encode()

    def everywhere() -> bool:
        leader = cluster.leader()
        if leader is None or leader.core is None:
            return False
        voters = [cluster.nodes[each] for each in leader.core.membership.voters]
        return all(any(e.data == marker for e in node.state[-40:]) for node in voters)

    for _ in range(60):
        heal(cluster)  # a crash during a snapshot's installation is part of the simulation
        cluster.propose(marker)
        if cluster.run(250, until=everywhere):
            return
    raise AssertionError(f"seed {cluster.seed}: no progress after healing")


@pytest.mark.parametrize("first", range(FIRST_SEED, FIRST_SEED + SEED_COUNT, BATCH))
def test_random_faults_keep_every_promise(first: int) -> None:
    clusters = [
        run_seed(seed) for seed in range(first, min(first + BATCH, FIRST_SEED + SEED_COUNT))
    ]
    assert sum(len(each.acknowledged) for each in clusters) > BATCH
    assert sum(each.reads_confirmed for each in clusters) > BATCH


@pytest.mark.parametrize("node_count", [1, 2, 3, 4, 5, 6, 7])
def test_steady_loss_and_doubled_messages_stop_nobody(node_count: int) -> None:
    cluster = SimCluster(node_count, node_count)
    cluster.loss = cluster.duplicates = 0.1
    cluster.delay_max = 20
    for step in range(100):
        load(cluster, step)
        cluster.run(30)
        cluster.check_leases()
    assert len(cluster.acknowledged) > 80
    assert cluster.reads_confirmed > 20
    require_progress(cluster)
    cluster.check_end()


def test_the_same_seed_gives_the_same_history() -> None:
    first, second = run_seed(12), run_seed(12)
    assert first.acknowledged == second.acknowledged
    assert first.leaders == second.leaders
    assert first.now == second.now


def test_the_faults_reach_snapshots() -> None:
    assert sum(run_seed(seed).snapshots_installed for seed in range(1, 30)) > 0
