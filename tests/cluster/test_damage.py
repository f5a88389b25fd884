"""Damaged and missing blob files, frozen holders, a lost majority (FAULTS 5, 23, 33-35)."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from mypy_boto3_s3 import S3Client

from tests.support.buckets import new_bucket, read
from tests.support.census import blob_files
from tests.support.clients import boto3_client
from tests.support.cluster import Cluster
from tests.support.doctor import take_census
from tests.support.files import MIB
from tests.support.load import one_try
from tests.support.wait import wait_until

pytestmark = pytest.mark.cluster

BODY = bytes(range(256)) * (3 * 4 * 1024) + b"tail"  # four chunks
LARGE = BODY * 3  # three stripes, each asked of another holder
REPAIR_SECONDS = 60.0


@pytest.fixture
def s3(breakable: Cluster) -> Iterator[S3Client]:
    client = boto3_client(breakable.target)
    yield client
    client.close()


def _stored(
    cluster: Cluster, s3: S3Client, bucket: str, key: str, body: bytes = BODY
) -> list[Path]:
    """Stores it; returns its three finished files. A copy of another blob may be under repair."""
    known = {Path(name).name for name in blob_files(cluster)}
    s3.put_object(Bucket=bucket, Key=key, Body=body)
    found: list[Path] = []

    def three() -> bool:
        new = {n for n in blob_files(cluster) if "/blobs/" in n and Path(n).name not in known}
        found[:] = [cluster.data / "nodes" / name for name in sorted(new)]
        return len(found) == 3

    wait_until(three, REPAIR_SECONDS, "three copies")
    return found


def _flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at, os.SEEK_SET if at >= 0 else os.SEEK_END)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 0x40]))


def test_one_damaged_copy_is_never_served_and_gets_repaired(
    breakable: Cluster, s3: S3Client
) -> None:
    bucket = new_bucket(s3, "damage")
    damages = {"head": 10, "first": 5000, "third": 2 * MIB + 17, "end": -3}
    originals: dict[Path, bytes] = {}
    for name, at in damages.items():
        path = _stored(breakable, s3, bucket, name)[0]
        originals[path] = path.read_bytes()
        _flip(path, at)
    for _ in range(6):  # equals take turns: the damaged holder too
        for name in damages:
            assert read(s3, bucket, name) == BODY
    take_census(breakable, verify=True)  # finds and reports what no read came across
    wait_until(
        lambda: all(_is_as_it_was(path, was) for path, was in originals.items()),
        REPAIR_SECONDS,
        "every damaged copy is whole again",
        poll=0.2,
    )
    for name in damages:
        assert read(s3, bucket, name) == BODY


def test_read_that_meets_a_damaged_copy_has_it_repaired(breakable: Cluster, s3: S3Client) -> None:
    """A large read asks all three holders, whichever is the fastest."""
    bucket = new_bucket(s3, "damage")
    path = _stored(breakable, s3, bucket, "large", LARGE)[0]
    was = path.read_bytes()
    _flip(path, -3)  # no byte of this copy can be trusted
    assert read(s3, bucket, "large") == LARGE
    wait_until(lambda: _is_as_it_was(path, was), REPAIR_SECONDS, "it is whole again", poll=0.2)


def _is_as_it_was(path: Path, was: bytes) -> bool:
    """False while the file is away in quarantine."""
    return path.exists() and path.read_bytes() == was


def test_missing_truncated_and_empty_copies_are_served_from_the_third(
    breakable: Cluster, s3: S3Client
) -> None:
    bucket = new_bucket(s3, "damage")
    missing = _stored(breakable, s3, bucket, "missing")
    cut = _stored(breakable, s3, bucket, "cut")
    missing[0].unlink()
    missing[1].write_bytes(b"")
    os.truncate(cut[1], 2 * MIB)
    cut[2].write_bytes(missing[2].read_bytes())  # another blob under this name
    for _ in range(4):
        assert read(s3, bucket, "missing") == BODY
        assert read(s3, bucket, "cut") == BODY


def test_all_copies_damaged_is_an_error_and_never_wrong_bytes(
    breakable: Cluster, s3: S3Client
) -> None:
    bucket = new_bucket(s3, "damage")
    for path in _stored(breakable, s3, bucket, "lost"):
        _flip(path, 2 * MIB + 5)
    client = boto3_client(breakable.target, one_try())
    for _ in range(3):
        with pytest.raises((ClientError, BotoCoreError, HTTPClientError)):
            read(client, bucket, "lost")
    first = client.get_object(Bucket=bucket, Key="lost", Range="bytes=0-99")
    assert first["Body"].read() == BODY[:100]
    client.close()


@contextmanager
def _frozen(pids: list[int]) -> Iterator[None]:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def _follower_pids(cluster: Cluster) -> list[int]:
    return [node.pid for node in cluster.status().nodes if node.role == "follower" and node.pid]


def test_frozen_holder_delays_neither_upload_nor_download_for_long(
    breakable: Cluster, s3: S3Client
) -> None:
    bucket = new_bucket(s3, "frozen")
    s3.put_object(Bucket=bucket, Key="before", Body=BODY)
    with _frozen(_follower_pids(breakable)[:1]):
        for number in range(3):
            assert read(s3, bucket, "before") == BODY
            s3.put_object(Bucket=bucket, Key=f"k{number}", Body=BODY)
            assert read(s3, bucket, f"k{number}") == BODY


def test_holder_that_freezes_in_the_middle_of_a_download_is_replaced_at_the_same_byte(
    breakable: Cluster, s3: S3Client
) -> None:
    """Whichever of the three has the stripe that is under way (FAULTS row 23)."""
    bucket = new_bucket(s3, "frozen")
    body = b"".join(bytes([number]) * MIB for number in range(40))
    s3.put_object(Bucket=bucket, Key="large", Body=body)
    for pid in _follower_pids(breakable):
        stream = s3.get_object(Bucket=bucket, Key="large")["Body"]
        start = stream.read(MIB)
        with _frozen([pid]):
            assert start + stream.read() == body


def _is_unavailable(request: Callable[[], object]) -> bool:
    """Whether it is answered by 503."""
    try:
        request()
    except ClientError as error:
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        return True
    return False


def test_without_a_majority_nothing_is_acknowledged_and_nothing_lost(
    breakable: Cluster, s3: S3Client
) -> None:
    bucket = new_bucket(s3, "minority")
    s3.put_object(Bucket=bucket, Key="k", Body=b"old")
    client = boto3_client(breakable.target, one_try(read_timeout=30))

    def is_not_read_any_more() -> bool:
        """The leader may answer, rightly, for as long as its lease lasts."""
        return _is_unavailable(lambda: read(client, bucket, "k"))

    with _frozen(_follower_pids(breakable)), ThreadPoolExecutor(1) as threads:
        write = threads.submit(
            _is_unavailable, lambda: client.put_object(Bucket=bucket, Key="k", Body=b"new")
        )
        wait_until(is_not_read_any_more, REPAIR_SECONDS, "reads are refused")
        assert write.result(), "a write was acknowledged without a majority"
    client.close()
    breakable.wait_healthy()
    assert read(s3, bucket, "k") in (b"old", b"new")
    s3.put_object(Bucket=bucket, Key="k", Body=b"newer")
    assert read(s3, bucket, "k") == b"newer"
