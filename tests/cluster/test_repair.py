"""Lost, damaged and empty disks of one, two and all holders (FAULTS 33-35, 38, 40)."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_s3 import S3Client

from tests.support.buckets import new_bucket, read
from tests.support.clients import boto3_client
from tests.support.cluster import Cluster
from tests.support.doctor import run_doctor, take_census, wait_until_clean
from tests.support.services import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

MIB = 1 << 20
NODES = ("n1", "n2", "n3")
BODIES = {f"k{number}": bytes([number]) * (3 * MIB + number) for number in range(6)}
COPIES = 3 * len(BODIES)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    cluster = Cluster.start(backend="embedded", directory=tmp_path_factory.mktemp("repair"))
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def s3(cluster: Cluster) -> Iterator[S3Client]:
    client = boto3_client(cluster.target)
    yield client
    client.close()


@pytest.fixture(scope="module")
def bucket(cluster: Cluster, s3: S3Client) -> str:
    name = new_bucket(s3, "repair")
    for key, body in BODIES.items():
        s3.put_object(Bucket=name, Key=key, Body=body)
    wait_until_clean(cluster, copies=COPIES)
    return name


def files(cluster: Cluster, node: str) -> list[Path]:
    """The blob files of one node, by id."""
    blobs = cluster.data / "nodes" / node / "chunks" / "blobs"
    return sorted((p for p in blobs.rglob("*") if p.is_file()), key=lambda p: p.name)


def flip(path: Path, offset: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        old = file.read(1)
        file.seek(offset)
        file.write(bytes([old[0] ^ 0x40]))


def check_all(s3: S3Client, bucket: str) -> None:
    for key, body in BODIES.items():
        assert read(s3, bucket, key) == body


def test_bits_flipped_and_a_file_deleted_on_one_node_are_never_served_and_repaired(
    cluster: Cluster, s3: S3Client, bucket: str
) -> None:
    header, tail, cut, gone, *_ = files(cluster, "n1")
    flip(header, 100)
    flip(header, 2 * MIB + 7)
    flip(tail, tail.stat().st_size - 5)
    cut.write_bytes(cut.read_bytes()[:MIB])
    gone.unlink()
    check_all(s3, bucket)
    damaged = {(path.name, "n1") for path in (header, tail, cut)}
    census = take_census(cluster, verify=True)
    assert census.of("damaged") <= damaged, "some may be repaired already"
    cluster.restart()  # the node looks for the file that is gone when it starts
    wait_until_clean(cluster, copies=COPIES)
    check_all(s3, bucket)


def test_same_chunk_damaged_on_two_of_three_is_repaired_from_the_third(
    cluster: Cluster, s3: S3Client, bucket: str
) -> None:
    for node in NODES[:2]:
        flip(files(cluster, node)[0], MIB + 1)
    flip(files(cluster, "n3")[0], 5)  # and another chunk on the third: each is good somewhere
    check_all(s3, bucket)
    wait_until_clean(cluster, copies=COPIES)
    check_all(s3, bucket)


def test_empty_chunk_directory_is_refused_until_a_person_accepts_it_then_refilled(
    cluster: Cluster, s3: S3Client, bucket: str
) -> None:
    cluster.stop()
    shutil.rmtree(cluster.data / "nodes" / "n2" / "chunks")
    (cluster.data / "nodes" / "n2" / "chunks").mkdir()
    argv = [sys.executable, "-m", "astra.cli.main", "node"]
    argv += ["--config", str(cluster.data / "nodes" / "n2.toml")]
    refused = subprocess.run(
        argv, capture_output=True, text=True, cwd=ROOT, timeout=60, check=False
    )
    assert refused.returncode != 0
    assert "is its disk mounted" in refused.stdout + refused.stderr
    accepted = run_doctor(cluster, "--accept-empty", "n2")
    assert accepted.returncode == 0, accepted.stderr
    needless = run_doctor(cluster, "--accept-old", "n2")  # its database is as new as it was
    assert needless.returncode == 1
    assert "nobody doubts the disk of n2" in needless.stderr
    cluster.launch()
    cluster.wait_healthy()
    wait_until_clean(cluster, copies=COPIES)
    assert len(files(cluster, "n2")) == len(BODIES)
    check_all(s3, bucket)


def test_chunk_damaged_on_all_three_is_an_error_and_never_wrong_bytes(
    cluster: Cluster, s3: S3Client, bucket: str
) -> None:
    """Last: what is lost stays lost."""
    for node in NODES:
        flip(files(cluster, node)[0], 10)
    census = take_census(cluster, verify=True)
    (lost,) = census.of("lost")
    assert len(census.of("damaged")) == len(NODES)
    outcomes = {key: _try_to_read(s3, bucket, key) for key in BODIES}
    (broken,) = [key for key, body in outcomes.items() if body is None]
    assert all(body == BODIES[key] for key, body in outcomes.items() if body is not None)
    s3.delete_object(Bucket=bucket, Key=broken)
    assert lost[0] not in {blob for blob, _ in take_census(cluster).of("lost")}


def _try_to_read(s3: S3Client, bucket: str, key: str) -> bytes | None:
    """None: an error, at the head or in the middle of the body."""
    try:
        return s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except (BotoCoreError, ClientError):
        return None
