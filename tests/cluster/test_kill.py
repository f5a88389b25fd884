"""kill -9 and SIGSTOP while clients write and read (FAULTS rows 1, 3, 6, 8, 22).

What must hold: every acknowledged write is readable and right, no read shows an older write,
writes go on within GAP_SECONDS_MAX.
"""

import os
import signal
import time

import pytest

from tests.support.cluster import Cluster
from tests.support.load import Load

pytestmark = pytest.mark.cluster

GAP_SECONDS_MAX = 10.0  # that writes go on, not how fast: two busy cores are slow
WRITES_AFTER = 60
FROZEN_SECONDS = 4.0


def _check(load: Load, cluster: Cluster, what: str, since: float) -> None:
    gap = load.longest_gap(since)
    print(f"\n{cluster.backend}, {what}: longest gap {gap:.2f} s; {load.summary()}")
    cluster.wait_healthy()
    assert load.verify(cluster.target) > 0
    assert gap <= GAP_SECONDS_MAX


def test_killed_leader_loses_nothing_and_writes_go_on(breakable: Cluster, load: Load) -> None:
    with load.running():
        leader = breakable.leader()
        since = time.monotonic()
        breakable.kill(leader.id)
        load.wait_for_acks(WRITES_AFTER)
    _check(load, breakable, "leader killed", since)


def test_killed_follower_is_not_noticed(breakable: Cluster, load: Load) -> None:
    follower = breakable.follower()
    with load.running():
        since = time.monotonic()
        breakable.kill(follower.id)
        load.wait_for_acks(WRITES_AFTER)
    _check(load, breakable, "follower killed", since)
    assert not load.failures, load.summary()


def test_killed_gateway_worker_breaks_only_its_connections(breakable: Cluster, load: Load) -> None:
    before = set(breakable.pids())
    with load.running():
        since = time.monotonic()
        killed = breakable.kill_worker()
        load.wait_for_acks(WRITES_AFTER)
    _check(load, breakable, "gateway worker killed", since)
    now = set(breakable.pids())
    assert killed in before - now
    assert len(now) == len(before), "a new worker took its place"


def test_everything_killed_at_once_keeps_every_acknowledged_write(
    breakable: Cluster, load: Load
) -> None:
    with load.running():
        load.wait_for_acks(WRITES_AFTER)
        breakable.kill_everything()
    written = len(load.acks)
    breakable.launch()
    breakable.wait_healthy()
    print(f"\n{breakable.backend}, all killed after {written} writes: {load.summary()}")
    assert load.verify(breakable.target) > 0


def test_frozen_leader_serves_no_stale_read_when_it_thaws(breakable: Cluster, load: Load) -> None:
    with load.running():
        leader = breakable.leader()
        since = time.monotonic()
        assert leader.pid is not None
        os.kill(leader.pid, signal.SIGSTOP)
        try:
            _wait_until_acked_after(load, since + FROZEN_SECONDS)
            assert breakable.leader().id != leader.id
        finally:
            os.kill(leader.pid, signal.SIGCONT)
        load.wait_for_acks(WRITES_AFTER)
    _check(load, breakable, "leader frozen", since)


def _wait_until_acked_after(load: Load, at: float) -> None:
    while not load.acks or load.acks[-1] < at:
        load.wait_for_acks(1)
