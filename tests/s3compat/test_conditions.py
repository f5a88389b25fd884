"""Conditions over HTTP: reads that may be spared, and writes of which one must win."""

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError
from mypy_boto3_s3 import S3Client

from tests.support.s3 import answer

LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2099, 1, 1, tzinfo=UTC)
ETAG = f'"{hashlib.md5(b"x", usedforsecurity=False).hexdigest()}"'
OTHER = '"' + "0" * 32 + '"'

Write = Callable[..., object]


# --- reads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["get_object", "head_object"])
@pytest.mark.parametrize(
    ("conditions", "status"),
    [
        ({"IfMatch": ETAG}, 200),
        ({"IfMatch": "*"}, 200),
        ({"IfMatch": f"{OTHER}, {ETAG}"}, 200),
        ({"IfMatch": OTHER}, 412),
        ({"IfNoneMatch": OTHER}, 200),
        ({"IfNoneMatch": ETAG}, 304),
        ({"IfNoneMatch": "*"}, 304),
        ({"IfModifiedSince": LONG_AGO}, 200),
        ({"IfModifiedSince": FAR_AHEAD}, 304),
        ({"IfUnmodifiedSince": FAR_AHEAD}, 200),
        ({"IfUnmodifiedSince": LONG_AGO}, 412),
        ({"IfMatch": ETAG, "IfUnmodifiedSince": LONG_AGO}, 200),
        ({"IfNoneMatch": ETAG, "IfModifiedSince": LONG_AGO}, 304),
        ({"IfMatch": OTHER, "IfNoneMatch": ETAG}, 412),
    ],
)
def test_read_with_a_condition(
    s3: S3Client, bucket: str, operation: str, conditions: Mapping[str, Any], status: int
) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    read: Write = getattr(s3, operation)
    if status == 200:
        read(Bucket=bucket, Key="key", **conditions)
        return
    with pytest.raises(ClientError) as caught:
        read(Bucket=bucket, Key="key", **conditions)
    told = caught.value.response["ResponseMetadata"]
    assert told["HTTPStatusCode"] == status
    if status == 304:
        assert told["HTTPHeaders"]["etag"] == ETAG
        assert "last-modified" in told["HTTPHeaders"]


# --- writes ----------------------------------------------------------------------------------


def put(s3: S3Client, bucket: str, **condition: Any) -> object:
    return s3.put_object(Bucket=bucket, Key="key", Body=b"x", **condition)


def copy(s3: S3Client, bucket: str, **condition: Any) -> object:
    s3.put_object(Bucket=bucket, Key="source", Body=b"x")
    return s3.copy_object(Bucket=bucket, Key="key", CopySource=f"{bucket}/source", **condition)


def complete(s3: S3Client, bucket: str, **condition: Any) -> object:
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="key")["UploadId"]
    part = s3.upload_part(Bucket=bucket, Key="key", UploadId=upload_id, PartNumber=1, Body=b"x")
    return s3.complete_multipart_upload(
        Bucket=bucket,
        Key="key",
        UploadId=upload_id,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]},
        **condition,
    )


WRITES = pytest.mark.parametrize("write", [put, copy, complete])


@WRITES
def test_write_if_none_match_any_creates_and_never_replaces(
    s3: S3Client, bucket: str, write: Write
) -> None:
    write(s3, bucket, IfNoneMatch="*")
    found = answer(lambda: write(s3, bucket, IfNoneMatch="*"))
    assert found == (412, "PreconditionFailed")
    s3.delete_object(Bucket=bucket, Key="key")
    write(s3, bucket, IfNoneMatch="*")


@WRITES
def test_write_if_none_match_any_takes_a_delete_marker_for_nothing(
    s3: S3Client, versioned: str, write: Write
) -> None:
    write(s3, versioned)
    s3.delete_object(Bucket=versioned, Key="key")
    write(s3, versioned, IfNoneMatch="*")
    assert s3.get_object(Bucket=versioned, Key="key")["Body"].read() == b"x"


@WRITES
def test_write_if_none_match_etag_replaces_every_other_object(
    s3: S3Client, bucket: str, write: Write
) -> None:
    write(s3, bucket, IfNoneMatch=OTHER)
    etag = s3.head_object(Bucket=bucket, Key="key")["ETag"]
    found = answer(lambda: write(s3, bucket, IfNoneMatch=etag))
    assert found == (412, "PreconditionFailed")
    write(s3, bucket, IfNoneMatch=OTHER)


@WRITES
def test_write_if_match_replaces_only_that_object(s3: S3Client, bucket: str, write: Write) -> None:
    assert answer(lambda: write(s3, bucket, IfMatch=ETAG)) == (404, "NoSuchKey")
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    found = answer(lambda: write(s3, bucket, IfMatch=OTHER))
    assert found == (412, "PreconditionFailed")
    write(s3, bucket, IfMatch=ETAG)
    write(s3, bucket, IfMatch="*")


@WRITES
@pytest.mark.parametrize(
    "conditions",
    [{"IfNoneMatch": f"{ETAG}, {OTHER}"}, {"IfMatch": ETAG, "IfNoneMatch": "*"}],
)
def test_write_with_a_condition_that_s3_does_not_know_is_not_implemented(
    s3: S3Client, bucket: str, write: Write, conditions: Mapping[str, Any]
) -> None:
    found = answer(lambda: write(s3, bucket, **conditions))
    assert found == (501, "NotImplemented")


def test_complete_that_failed_its_condition_can_be_tried_again(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"old")
    place: dict[str, Any] = {"Bucket": bucket, "Key": "key"}
    place["UploadId"] = s3.create_multipart_upload(**place)["UploadId"]
    part = s3.upload_part(**place, PartNumber=1, Body=b"new")
    place["MultipartUpload"] = {"Parts": [{"PartNumber": 1, "ETag": part["ETag"]}]}
    found = answer(lambda: s3.complete_multipart_upload(**place, IfNoneMatch="*"))
    assert found == (412, "PreconditionFailed")
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"old"
    s3.complete_multipart_upload(**place)
    assert s3.get_object(Bucket=bucket, Key="key")["Body"].read() == b"new"


@WRITES
def test_of_concurrent_creations_one_wins(s3: S3Client, bucket: str, write: Write) -> None:
    def try_it(_: int) -> bool:
        try:
            write(s3, bucket, IfNoneMatch="*")
        except ClientError as error:
            assert error.response["Error"]["Code"] == "PreconditionFailed"
            return False
        return True

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(try_it, range(8))) == 1


def test_concurrent_increments_by_if_match_lose_none(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="counter", Body=b"0")

    def add_one(_: int) -> None:
        while True:
            found = s3.get_object(Bucket=bucket, Key="counter")
            number = int(found["Body"].read())
            try:
                s3.put_object(
                    Bucket=bucket,
                    Key="counter",
                    Body=str(number + 1).encode(),
                    IfMatch=found["ETag"],
                )
            except ClientError as error:
                assert error.response["Error"]["Code"] == "PreconditionFailed"
                continue
            return

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(add_one, range(12)))
    assert s3.get_object(Bucket=bucket, Key="counter")["Body"].read() == b"12"
