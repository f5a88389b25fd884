"""GetObjectAttributes over HTTP."""

import base64
import hashlib
import os
from collections.abc import Sequence
from typing import Any

import pytest
from mypy_boto3_s3 import S3Client
from mypy_boto3_s3.literals import ObjectAttributesType

from tests.support.s3 import answer

MIB = 1 << 20
PART = os.urandom(5 * MIB)
TAIL = b"tail"
ALL: Sequence[ObjectAttributesType] = (
    "ETag",
    "Checksum",
    "ObjectParts",
    "StorageClass",
    "ObjectSize",
)


def sha256(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put_parts(s3: S3Client, bucket: str, *bodies: bytes) -> str:
    """A multipart object "key" with SHA256 checksums; its checksum."""
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="key", ChecksumAlgorithm="SHA256")[
        "UploadId"
    ]
    sent = [
        s3.upload_part(
            Bucket=bucket,
            Key="key",
            UploadId=upload_id,
            PartNumber=n,
            Body=body,
            ChecksumAlgorithm="SHA256",
        )
        for n, body in enumerate(bodies, 1)
    ]
    return s3.complete_multipart_upload(
        Bucket=bucket,
        Key="key",
        UploadId=upload_id,
        MultipartUpload={
            "Parts": [{"PartNumber": n, "ETag": part["ETag"]} for n, part in enumerate(sent, 1)]
        },
    )["ChecksumSHA256"]


def test_attributes_of_a_plain_object(s3: S3Client, bucket: str) -> None:
    put = s3.put_object(Bucket=bucket, Key="key", Body=b"data", ChecksumAlgorithm="SHA256")
    found = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=ALL)
    assert found["ETag"] == put["ETag"].strip('"')
    assert found["Checksum"] == {"ChecksumSHA256": sha256(b"data"), "ChecksumType": "FULL_OBJECT"}
    assert found["StorageClass"] == "STANDARD"
    assert found["ObjectSize"] == 4
    assert "ObjectParts" not in found
    head = s3.head_object(Bucket=bucket, Key="key")
    assert found["LastModified"] == head["LastModified"]


def test_only_the_attributes_asked_for_are_told(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"data")
    found = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["ObjectSize"])
    shown = {name for name in ALL if name in found}
    assert shown == {"ObjectSize"}


def test_attributes_of_a_multipart_object_page_through_its_parts(s3: S3Client, bucket: str) -> None:
    checksum = put_parts(s3, bucket, PART, PART, TAIL)
    found = s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=ALL)
    assert found["ObjectSize"] == 2 * len(PART) + len(TAIL)
    assert found["Checksum"] == {"ChecksumSHA256": checksum, "ChecksumType": "COMPOSITE"}
    assert found["ObjectParts"]["TotalPartsCount"] == 3
    assert [
        (part["PartNumber"], part["Size"], part["ChecksumSHA256"])
        for part in found["ObjectParts"]["Parts"]
    ] == [(1, len(PART), sha256(PART)), (2, len(PART), sha256(PART)), (3, 4, sha256(TAIL))]
    first = s3.get_object_attributes(
        Bucket=bucket, Key="key", ObjectAttributes=ALL, MaxParts=1, PartNumberMarker=1
    )["ObjectParts"]
    assert [part["PartNumber"] for part in first["Parts"]] == [2]
    assert first["IsTruncated"]
    assert first["MaxParts"] == 1
    assert first["PartNumberMarker"] == 1
    assert first["NextPartNumberMarker"] == 2
    rest = s3.get_object_attributes(
        Bucket=bucket, Key="key", ObjectAttributes=ALL, PartNumberMarker=2
    )["ObjectParts"]
    assert [part["PartNumber"] for part in rest["Parts"]] == [3]
    assert not rest["IsTruncated"]


def test_attributes_of_versions(s3: S3Client, versioned: str) -> None:
    old = s3.put_object(Bucket=versioned, Key="key", Body=b"old!")["VersionId"]
    new = s3.put_object(Bucket=versioned, Key="key", Body=b"new")["VersionId"]
    newest = s3.get_object_attributes(Bucket=versioned, Key="key", ObjectAttributes=["ObjectSize"])
    assert (newest["VersionId"], newest["ObjectSize"]) == (new, 3)
    named = s3.get_object_attributes(
        Bucket=versioned, Key="key", VersionId=old, ObjectAttributes=["ObjectSize"]
    )
    assert (named["VersionId"], named["ObjectSize"]) == (old, 4)
    marker = s3.delete_object(Bucket=versioned, Key="key")["VersionId"]
    place: dict[str, Any] = {"Bucket": versioned, "Key": "key", "ObjectAttributes": ["ETag"]}
    assert answer(lambda: s3.get_object_attributes(**place)) == (404, "NoSuchKey")
    found = answer(lambda: s3.get_object_attributes(**place, VersionId=marker))
    assert found == (405, "MethodNotAllowed")


@pytest.mark.parametrize("names", [["Nonsense"], ["ETag", "etag"], [""]])
def test_attributes_that_do_not_exist_are_invalid_argument(
    s3: S3Client, bucket: str, names: list[ObjectAttributesType]
) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"data")
    found = answer(
        lambda: s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=names)
    )
    assert found == (400, "InvalidArgument")


def test_attributes_of_nothing_are_no_such_key(s3: S3Client, bucket: str) -> None:
    found = answer(
        lambda: s3.get_object_attributes(Bucket=bucket, Key="key", ObjectAttributes=["ETag"])
    )
    assert found == (404, "NoSuchKey")
