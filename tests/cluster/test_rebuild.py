"""A node that comes back with nothing gets all metadata back from its peers (FAULTS 38)."""

import shutil

import pytest

from tests.conftest import StartCluster
from tests.support.buckets import new_bucket, read
from tests.support.clients import boto3_client
from tests.support.load import Load
from tests.support.wait import wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(180)]

BODY = bytes(range(256)) * 1024 * 4 * 3
OBJECTS = 5
HEAL_SECONDS = 60.0


def test_node_with_an_empty_directory_gets_its_metadata_back(
    start_cluster: StartCluster,
) -> None:
    cluster = start_cluster("embedded")
    s3 = boto3_client(cluster.target)
    bucket = new_bucket(s3, "rebuild")
    for number in range(OBJECTS):
        s3.put_object(Bucket=bucket, Key=f"k{number}", Body=BODY)
    load = Load(cluster.target)
    with load.running():
        load.wait_for_acks(20)
    victim = cluster.follower()
    cluster.stop()
    shutil.rmtree(cluster.data / "nodes" / str(victim.id))
    cluster.launch()
    cluster.wait_healthy()
    wait_until(
        lambda: len({node.applied for node in cluster.status().nodes}) == 1,
        HEAL_SECONDS,
        f"{victim.id} has all metadata again",
        poll=0.5,
    )
    other = next(
        node for node in cluster.status().nodes if node.role == "follower" and node.id != victim.id
    )
    cluster.kill(other.id)
    for number in range(OBJECTS):  # the rebuilt node votes, the leader has the bytes
        assert read(s3, bucket, f"k{number}") == BODY
    assert load.verify(cluster.target) > 0
    s3.close()
