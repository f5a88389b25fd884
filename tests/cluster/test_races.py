"""Many clients on one key or bucket: one winner, no mixture (FAULTS 58-66, 70)."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from botocore.exceptions import ClientError
from mypy_boto3_s3 import S3Client
from mypy_boto3_s3.type_defs import CompletedMultipartUploadTypeDef, CopySourceTypeDef

from tests.support.buckets import keys, new_bucket, new_name, put, read
from tests.support.clients import boto3_client
from tests.support.cluster import Cluster
from tests.support.files import MIB
from tests.support.load import one_try
from tests.support.procs import resident_bytes

CLIENTS = 12
PART = 5 * MIB
RESIDENT_BYTES_MAX = 300 * MIB


def _race(calls: list[Callable[[], object]]) -> list[str]:
    """Starts all calls at once; "ok" or the S3 error code of each, in their order."""
    barrier = threading.Barrier(len(calls))

    def run(call: Callable[[], object]) -> str:
        barrier.wait()
        try:
            call()
        except ClientError as error:
            return str(error.response["Error"]["Code"])
        return "ok"

    with ThreadPoolExecutor(len(calls)) as pool:
        return list(pool.map(run, calls))


def _body(number: int, size: int) -> bytes:
    return bytes([number + 1]) * size


def test_puts_of_one_key_leave_one_of_the_bodies(s3: S3Client) -> None:
    bucket = new_bucket(s3, "race")
    for size in (10, 300_000, 3 * MIB):
        calls = [partial(put, s3, bucket, "k", _body(n, size)) for n in range(CLIENTS)]
        assert _race([*calls]) == ["ok"] * CLIENTS
        assert read(s3, bucket, "k") in [_body(n, size) for n in range(CLIENTS)]


def test_only_one_conditional_put_wins(s3: S3Client) -> None:
    bucket = new_bucket(s3, "race")
    outcomes = _race(
        [
            partial(s3.put_object, Bucket=bucket, Key="k", Body=_body(n, 100_000), IfNoneMatch="*")
            for n in range(CLIENTS)
        ]
    )
    assert Counter(outcomes)["ok"] == 1, outcomes
    assert set(outcomes) <= {"ok", "PreconditionFailed", "ConditionalRequestConflict"}
    assert read(s3, bucket, "k") == _body(outcomes.index("ok"), 100_000)
    etag = s3.head_object(Bucket=bucket, Key="k")["ETag"]
    again = _race(
        [
            partial(s3.put_object, Bucket=bucket, Key="k", Body=_body(n, 100), IfMatch=etag)
            for n in range(CLIENTS)
        ]
    )
    assert Counter(again)["ok"] == 1, again
    assert read(s3, bucket, "k") == _body(again.index("ok"), 100)


def test_deleted_bucket_never_holds_an_acknowledged_object(s3: S3Client) -> None:
    for _ in range(6):
        bucket = new_bucket(s3, "race")
        put_outcome, delete_outcome = _race(
            [
                partial(put, s3, bucket, "k", b"x"),
                partial(s3.delete_bucket, Bucket=bucket),
            ]
        )
        assert (put_outcome, delete_outcome) in {
            ("ok", "BucketNotEmpty"),
            ("NoSuchBucket", "ok"),
        }


def test_created_bucket_has_one_creator(s3: S3Client) -> None:
    name = new_name("race")
    outcomes = _race([lambda: s3.create_bucket(Bucket=name)] * CLIENTS)
    # us-east-1 answers 200 to the owner who creates the bucket again.
    assert set(outcomes) <= {"ok", "BucketAlreadyOwnedByYou"}
    assert keys(s3, name) == []


def test_complete_and_abort_of_one_upload_have_one_winner(s3: S3Client) -> None:
    bucket = new_bucket(s3, "race")
    for number in range(3):
        key = f"k{number}"
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        part = s3.upload_part(
            Bucket=bucket, Key=key, UploadId=upload, PartNumber=1, Body=_body(number, PART)
        )
        parts: CompletedMultipartUploadTypeDef = {
            "Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]
        }
        outcomes = _race(
            [
                partial(
                    s3.complete_multipart_upload,
                    Bucket=bucket,
                    Key=key,
                    UploadId=upload,
                    MultipartUpload=parts,
                ),
                partial(s3.abort_multipart_upload, Bucket=bucket, Key=key, UploadId=upload),
            ]
        )
        if outcomes[0] == "ok":
            assert read(s3, bucket, key) == _body(number, PART)
        else:
            assert outcomes == ["NoSuchUpload", "ok"]
            assert key not in keys(s3, bucket)


def test_part_that_is_sent_again_while_its_upload_completes_is_in_no_object_unlisted(
    s3: S3Client,
) -> None:
    """FAULTS row 63: the parts as listed, or no object."""
    bucket = new_bucket(s3, "race")
    for number in range(4):
        key = f"k{number}"
        upload = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
        send = partial(s3.upload_part, Bucket=bucket, Key=key, UploadId=upload, PartNumber=1)
        first = send(Body=_body(1, 200_000))["ETag"]
        listed: CompletedMultipartUploadTypeDef = {"Parts": [{"PartNumber": 1, "ETag": first}]}
        complete = partial(
            s3.complete_multipart_upload, Bucket=bucket, Key=key, UploadId=upload,
            MultipartUpload=listed,
        )  # fmt: skip
        outcomes = _race([complete, partial(send, Body=_body(2, 200_000 + number))])
        assert outcomes in (["ok", "NoSuchUpload"], ["InvalidPart", "ok"])
        if outcomes[0] == "ok":
            assert read(s3, bucket, key) == _body(1, 200_000)
        else:
            assert key not in keys(s3, bucket)


def test_copies_of_an_object_that_is_overwritten_and_deleted_are_one_of_its_versions(
    s3: S3Client,
) -> None:
    """FAULTS row 65: also of a part; or there is nothing to copy."""
    bucket = new_bucket(s3, "race")
    bodies = [_body(n, 200_000 + n) for n in range(4)]
    put(s3, bucket, "source", bodies[0])
    source: CopySourceTypeDef = {"Bucket": bucket, "Key": "source"}
    upload = s3.create_multipart_upload(Bucket=bucket, Key="whole")["UploadId"]
    changes: list[Callable[[], object]] = [partial(put, s3, bucket, "source", b) for b in bodies]
    changes.append(partial(s3.delete_object, Bucket=bucket, Key="source"))
    copies: list[Callable[[], object]] = [
        partial(s3.copy_object, Bucket=bucket, Key=f"copy{n}", CopySource=source) for n in range(4)
    ]
    copies += [
        partial(
            s3.upload_part_copy, Bucket=bucket, Key="whole", UploadId=upload, PartNumber=n,
            CopySource=source,
        )
        for n in range(1, 5)
    ]  # fmt: skip
    outcomes = _race([*changes, *copies])
    assert set(outcomes[: len(changes)]) == {"ok"}
    assert set(outcomes[len(changes) :]) <= {"ok", "NoSuchKey"}
    for key in keys(s3, bucket):
        assert read(s3, bucket, key) in bodies
    for part in s3.list_parts(Bucket=bucket, Key="whole", UploadId=upload).get("Parts", []):
        listed: CompletedMultipartUploadTypeDef = {
            "Parts": [{"PartNumber": part["PartNumber"], "ETag": part["ETag"]}]
        }
        s3.complete_multipart_upload(
            Bucket=bucket, Key="whole", UploadId=upload, MultipartUpload=listed
        )
        assert read(s3, bucket, "whole") in bodies
        return


def test_reader_of_an_overwritten_and_deleted_object_gets_the_old_bytes(s3: S3Client) -> None:
    bucket = new_bucket(s3, "race")
    old = b"".join(_body(n, MIB) for n in range(24))
    put(s3, bucket, "k", old)
    stream = s3.get_object(Bucket=bucket, Key="k")["Body"]
    start = stream.read(MIB)
    put(s3, bucket, "k", _body(99, 24 * MIB))
    s3.delete_object(Bucket=bucket, Key="k")
    assert start + stream.read() == old


def test_copy_of_an_object_that_is_overwritten_is_one_of_its_versions(s3: S3Client) -> None:
    bucket = new_bucket(s3, "race")
    bodies = [_body(n, 200_000) for n in range(6)]
    put(s3, bucket, "source", bodies[0])
    source: CopySourceTypeDef = {"Bucket": bucket, "Key": "source"}
    calls: list[Callable[[], object]] = []
    for number, body in enumerate(bodies):
        calls.append(partial(put, s3, bucket, "source", body))
        copy = f"copy{number}"
        calls.append(partial(s3.copy_object, Bucket=bucket, Key=copy, CopySource=source))
    assert _race(calls) == ["ok"] * len(calls)
    for number in range(len(bodies)):
        assert read(s3, bucket, f"copy{number}") in bodies


def test_two_hundred_uploads_at_once_stay_in_memory_bounds(cluster: Cluster) -> None:
    s3 = boto3_client(cluster.target, one_try(read_timeout=60))
    bucket = new_bucket(s3, "many")
    calls = [partial(put, s3, bucket, f"k{n}", _body(n, MIB)) for n in range(200)]
    outcomes = Counter(_race([*calls]))
    assert set(outcomes) <= {"ok", "SlowDown", "ServiceUnavailable"}
    stored = keys(s3, bucket)
    assert outcomes["ok"] <= len(stored)
    assert outcomes["ok"] >= 20, outcomes
    for key in stored[::20]:
        assert read(s3, bucket, key) == _body(int(key[1:]), MIB)
    sizes = {pid: resident_bytes(pid) // MIB for pid in cluster.pids()}
    print(f"\n{cluster.backend}: {dict(outcomes)}, resident MiB {sizes}")
    assert max(sizes.values()) * MIB < RESIDENT_BYTES_MAX
    s3.close()
