"""Redis, RabbitMQ and PostgreSQL stop, forget, lie and come back under load (FAULTS 43-50).

Redis and RabbitMQ carry no promise: without them, and with nonsense in them, no answer is wrong
and none fails, although no client retries. A node whose PostgreSQL restarts comes back by itself.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis
from botocore.config import Config

from tests.conftest import StartCluster
from tests.support.cluster import Cluster, NodeStatus
from tests.support.load import Load
from tests.support.services import Services
from tests.support.wait import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.services, pytest.mark.timeout(240)]

WRITES = 25
RECOVERY_SECONDS = 90.0
GAP_SECONDS_MAX = 20.0
PAUSE_MS = 1500


@pytest.fixture
def cluster_on_services(services: Services, start_cluster: StartCluster) -> Iterator[Cluster]:
    """A cluster of this test's own; all servers run again afterwards."""
    services.start_all()
    cluster = start_cluster("services")
    cluster.wait_healthy()  # all voters take part: one of them can be missed
    yield cluster
    services.start_all()


def _assert_nobody_noticed(load: Load, cluster: Cluster, what: str) -> None:
    print(f"\n{what}: longest gap {load.longest_gap():.2f} s; {load.summary()}")
    assert not load.failures, load.summary()
    assert load.verify(cluster.target) > 0


def test_redis_comes_and_goes_and_nobody_notices(
    services: Services, cluster_on_services: Cluster
) -> None:
    load = Load(cluster_on_services.target)
    url = cluster_on_services.backends.redis
    with load.running():
        for _ in range(3):
            services.flush_redis(url)
            load.wait_for_acks(WRITES)
        services.stop("redis")
        load.wait_for_acks(WRITES)
        services.start("redis")
        load.wait_for_acks(WRITES)
        services.kill("redis")
        load.wait_for_acks(WRITES)
        services.start("redis")
        load.wait_for_acks(WRITES)
    _assert_nobody_noticed(load, cluster_on_services, "Redis")


def test_redis_that_lies_or_hangs_is_not_believed(cluster_on_services: Cluster) -> None:
    load = Load(cluster_on_services.target)
    client = redis.Redis.from_url(cluster_on_services.backends.redis)
    with load.running():
        for _ in range(3):
            spoilt = _swap_all_values(client)
            load.wait_for_acks(WRITES)
        client.client_pause(PAUSE_MS)
        load.wait_for_acks(WRITES)
        with _full(client):  # every SET is refused
            load.wait_for_acks(WRITES)
        for key in list(client.scan_iter()):
            client.set(key, b"\xff no entry at all")
        load.wait_for_acks(WRITES)
    client.close()
    assert spoilt, "the cache was in use"
    _assert_nobody_noticed(load, cluster_on_services, "lying Redis")


@contextmanager
def _full(client: redis.Redis) -> Iterator[None]:
    """Not a byte more, and nothing is thrown out for it."""
    settings = {"maxmemory": "1", "maxmemory-policy": "noeviction"}
    before = {name: str(client.config_get(name)[name]) for name in settings}
    try:
        for name, value in settings.items():
            client.config_set(name, value)
        with pytest.raises(redis.exceptions.OutOfMemoryError):
            client.set("one more", "value")
        yield
    finally:
        for name, value in before.items():
            client.config_set(name, value)


def _swap_all_values(client: redis.Redis) -> int:
    """Every entry gets another key's value; returns how many there were."""
    keys = [key for key in client.scan_iter() if client.type(key) == b"string"]
    values = [client.get(key) for key in keys]
    for key, value in zip(keys, values[1:] + values[:1], strict=True):
        if value is not None:
            client.set(key, value)
    return len(keys)


def test_rabbitmq_comes_and_goes_and_nobody_notices(
    services: Services, cluster_on_services: Cluster
) -> None:
    load = Load(cluster_on_services.target)
    with load.running():
        services.stop("rabbitmq")
        load.wait_for_acks(WRITES)
        services.start("rabbitmq")
        load.wait_for_acks(WRITES)
        services.kill("rabbitmq")
        load.wait_for_acks(WRITES)
        services.start("rabbitmq")
        load.wait_for_acks(WRITES)
        services.pause("rabbitmq")  # as when its memory is full: it confirms nothing
        try:
            load.wait_for_acks(WRITES)
        finally:
            services.resume("rabbitmq")
        load.wait_for_acks(WRITES)
    _assert_nobody_noticed(load, cluster_on_services, "RabbitMQ")


def test_everything_but_postgres_away_at_start_and_later_back(
    services: Services, cluster_on_services: Cluster
) -> None:
    cluster_on_services.stop()
    services.stop("redis")
    services.stop("rabbitmq")
    cluster_on_services.launch()
    cluster_on_services.wait_healthy()
    load = Load(cluster_on_services.target)
    with load.running():
        load.wait_for_acks(WRITES)
        services.start("redis")
        services.start("rabbitmq")
        load.wait_for_acks(WRITES)
    _assert_nobody_noticed(load, cluster_on_services, "started without")


def test_postgres_of_a_follower_restarts_and_the_node_recovers(
    services: Services, cluster_on_services: Cluster
) -> None:
    load = Load(cluster_on_services.target)
    with load.running():
        follower = cluster_on_services.follower()
        services.kill(_postgres_of(follower))
        load.wait_for_acks(2 * WRITES)
        services.start(_postgres_of(follower))
        load.wait_for_acks(WRITES)
    _wait_recovered(cluster_on_services)
    _assert_nobody_noticed(load, cluster_on_services, "follower's PostgreSQL")


def test_postgres_of_the_leader_restarts_and_another_leads(
    services: Services, cluster_on_services: Cluster
) -> None:
    # As users have it: boto3 with its default retries sees no failure.
    load = Load(cluster_on_services.target, config=Config(read_timeout=30, max_pool_connections=20))
    with load.running():
        leader = cluster_on_services.leader()
        since = time.monotonic()
        services.kill(_postgres_of(leader))
        load.wait_for_acks(2 * WRITES)
        assert cluster_on_services.leader().id != leader.id
        services.start(_postgres_of(leader))
        load.wait_for_acks(WRITES)
    _wait_recovered(cluster_on_services)
    _assert_nobody_noticed(load, cluster_on_services, "leader's PostgreSQL")
    assert load.longest_gap(since) < GAP_SECONDS_MAX


def _postgres_of(node: NodeStatus) -> str:
    return f"postgres-{str(node.id).removeprefix('n')}"


def _wait_recovered(cluster: Cluster) -> None:
    """All nodes healthy, with everything applied that is committed."""

    def recovered() -> bool:
        nodes = cluster.status().nodes
        highest = max(node.commit for node in nodes)
        return all(node.health == "ok" and node.applied == highest for node in nodes)

    wait_until(recovered, RECOVERY_SECONDS, "every node is well and has applied all", poll=0.3)
