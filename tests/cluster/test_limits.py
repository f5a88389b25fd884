"""Too many connections, too few file descriptors: refused in order, and over when it is over.

FAULTS rows 28 and 70. Limits of running processes are changed from outside, and given back.
"""

import itertools
import os
import resource
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from mypy_boto3_s3 import S3Client

from tests.support.buckets import keys, new_bucket, put, read
from tests.support.clients import Target, boto3_client
from tests.support.cluster import Cluster
from tests.support.load import one_try
from tests.support.wait import wait_until

pytestmark = pytest.mark.cluster

CLIENTS = 24
LARGE = bytes(range(256)) * 800  # chunks on the nodes
SMALL = b"inside the command"
CONNECTIONS = 1000
BURSTS_MAX = 20
POOLED = 60  # connections to holders that a burst of uploads leaves behind
SECONDS = 20.0
REFUSALS = {"503 ServiceUnavailable", "503 SlowDown", "closed"}


@pytest.fixture
def impatient(embedded_cluster: Cluster) -> Iterator[S3Client]:
    """Never tries again, so that what a user would see is counted."""
    embedded_cluster.ensure_running()
    with fresh_client(embedded_cluster) as client:
        yield client


@contextmanager
def fresh_client(cluster: Cluster) -> Iterator[S3Client]:
    """No connection of it is open yet; it never tries again."""
    client = boto3_client(cluster.target, one_try())
    try:
        yield client
    finally:
        client.close()


@contextmanager
def few_files(pids: list[int], spare: int) -> Iterator[None]:
    """These processes may open `spare` files more than they have open now."""
    before = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    try:
        for pid, (_, hard) in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit_for(pid, spare), hard))
        yield
    finally:
        for pid, limits in before.items():
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def limit_for(pid: int, spare: int) -> int:
    """The limit is one of numbers: those below it that are free can still be had."""
    used = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = (number for number in itertools.count() if number not in used)
    return next(itertools.islice(free, spare, None))


def put_many(s3: S3Client, bucket: str) -> Counter[str]:
    """All at once; how they ended."""

    def attempt(number: int) -> str:
        try:
            put(s3, bucket, f"k{number}", LARGE if number % 2 else SMALL)
        except ClientError as error:
            answer = error.response
            return f"{answer['ResponseMetadata']['HTTPStatusCode']} {answer['Error']['Code']}"
        except (BotoCoreError, HTTPClientError):
            return "closed"
        return "ok"

    with ThreadPoolExecutor(CLIENTS) as pool:
        return Counter(pool.map(attempt, range(CLIENTS)))


def check_recovered(cluster: Cluster, s3: S3Client, bucket: str, pids: set[int]) -> None:
    for key in keys(s3, bucket):
        assert read(s3, bucket, key) == (LARGE if int(key[1:]) % 2 else SMALL)
    outcomes = put_many(s3, bucket)
    assert outcomes == Counter(ok=CLIENTS)
    cluster.wait_healthy()
    wait_until(lambda: set(cluster.pids()) == pids, SECONDS, "no process has ended")


def test_gateway_without_file_descriptors_refuses_and_recovers(
    embedded_cluster: Cluster, impatient: S3Client
) -> None:
    bucket = new_bucket(impatient, "files")
    status = embedded_cluster.status()
    workers = [each.pid for each in status.gateways if each.pid]
    for _ in range(BURSTS_MAX):  # what is closed meanwhile makes room
        with few_files(workers, spare=4), fresh_client(embedded_cluster) as client:
            outcomes = put_many(client, bucket)
        assert set(outcomes) <= {"ok", *REFUSALS}
        if set(outcomes) & REFUSALS:
            break
    print(dict(outcomes))
    assert set(outcomes) & REFUSALS, "the limit was felt"
    check_recovered(embedded_cluster, impatient, bucket, set(status.pids()))


def test_node_without_file_descriptors_takes_no_blobs_and_nobody_notices(
    embedded_cluster: Cluster, impatient: S3Client
) -> None:
    bucket = new_bucket(impatient, "files")
    status = embedded_cluster.status()
    follower = next(each.pid for each in status.nodes if each.role == "follower" and each.pid)
    with few_files([follower], spare=2):
        for _ in range(2):
            assert put_many(impatient, bucket) == Counter(ok=CLIENTS)
    check_recovered(embedded_cluster, impatient, bucket, set(status.pids()))


def open_files(pids: list[int]) -> int:
    return sum(len(os.listdir(f"/proc/{pid}/fd")) for pid in pids)


def connect(target: Target) -> socket.socket:
    host, _, port = target.host.rpartition(":")
    return socket.create_connection((host, int(port)), timeout=10)


def test_a_thousand_idle_connections_keep_nobody_out(
    embedded_cluster: Cluster, impatient: S3Client
) -> None:
    bucket = new_bucket(impatient, "crowd")
    workers = [each.pid for each in embedded_cluster.status().gateways if each.pid]
    before = open_files(workers)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))  # for our own ends
    try:
        with ExitStack() as stack:
            for _ in range(CONNECTIONS):
                stack.enter_context(connect(embedded_cluster.target))
            assert put_many(impatient, bucket) == Counter(ok=CLIENTS)
            assert read(impatient, bucket, "k1") == LARGE
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    embedded_cluster.wait_healthy()
    wait_until(
        lambda: open_files(workers) <= before + POOLED, SECONDS, "the connections are forgotten"
    )


def test_processes_may_open_as_many_files_as_the_system_allows(
    embedded_cluster: Cluster,
) -> None:
    for pid in embedded_cluster.pids():
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        assert soft == hard
