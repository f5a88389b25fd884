"""Copies over HTTP: whole objects and ranges as parts, their heads, conditions and rights."""

import hashlib
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from mypy_boto3_s3 import S3Client

from tests.support.cluster import Cluster
from tests.support.s3 import answer, make_user, new_name, refused, suspend_versioning

MIB = 1 << 20
LARGE = os.urandom(6 * MIB + 321)
PARTS = (LARGE[: 5 * MIB], LARGE[5 * MIB :])


def md5(data: bytes) -> str:
    return f'"{hashlib.md5(data, usedforsecurity=False).hexdigest()}"'


def put_multipart(s3: S3Client, bucket: str, key: str, **head: Any) -> str:
    """LARGE as two parts; its ETag."""
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key, **head)["UploadId"]
    sent = [
        s3.upload_part(Bucket=bucket, Key=key, UploadId=upload_id, PartNumber=n, Body=body)
        for n, body in enumerate(PARTS, 1)
    ]
    return s3.complete_multipart_upload(
        Bucket=bucket,
        Key=key,
        UploadId=upload_id,
        MultipartUpload={
            "Parts": [{"PartNumber": n, "ETag": part["ETag"]} for n, part in enumerate(sent, 1)]
        },
    )["ETag"]


def body_of(s3: S3Client, bucket: str, key: str, **more: Any) -> bytes:
    return s3.get_object(Bucket=bucket, Key=key, **more)["Body"].read()


# --- whole objects ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 64 * 1024, 64 * 1024 + 1, len(LARGE)])
def test_copy_has_the_bytes_and_the_head_of_its_source(
    s3: S3Client, bucket: str, size: int
) -> None:
    data = LARGE[:size]
    s3.put_object(
        Bucket=bucket,
        Key="a source/é+%41",
        Body=data,
        ContentType="text/x-test",
        CacheControl="no-store",
        Metadata={"color": "blue"},
        Tagging="team=a&x=y",
    )
    done = s3.copy_object(
        Bucket=bucket, Key="copy", CopySource={"Bucket": bucket, "Key": "a source/é+%41"}
    )["CopyObjectResult"]
    assert done["ETag"] == md5(data)
    s3.delete_object(Bucket=bucket, Key="a source/é+%41")
    found = s3.get_object(Bucket=bucket, Key="copy")
    assert found["Body"].read() == data
    assert found["ETag"] == md5(data)
    assert found["ContentType"] == "text/x-test"
    assert found["CacheControl"] == "no-store"
    assert found["Metadata"] == {"color": "blue"}
    assert found["TagCount"] == 2
    assert abs(done["LastModified"] - found["LastModified"]) < timedelta(seconds=1)


def test_copy_of_a_multipart_object_keeps_bytes_and_parts(s3: S3Client, bucket: str) -> None:
    etag = put_multipart(s3, bucket, "source")
    other = new_name()
    s3.create_bucket(Bucket=other)
    done = s3.copy_object(Bucket=other, Key="copy", CopySource=f"{bucket}/source")
    assert done["CopyObjectResult"]["ETag"] == etag
    s3.delete_object(Bucket=bucket, Key="source")
    assert body_of(s3, other, "copy") == LARGE
    assert body_of(s3, other, "copy", PartNumber=2) == PARTS[1]


def test_copy_with_replace_has_the_head_of_the_request(s3: S3Client, bucket: str) -> None:
    s3.put_object(
        Bucket=bucket,
        Key="source",
        Body=b"x",
        ContentType="audio/ogg",
        Metadata={"key1": "value1"},
        Tagging="a=b",
        StorageClass="STANDARD_IA",
    )
    s3.copy_object(
        Bucket=bucket,
        Key="copy",
        CopySource=f"{bucket}/source",
        MetadataDirective="REPLACE",
        ContentType="audio/mpeg",
        Metadata={"key2": "value2"},
        TaggingDirective="REPLACE",
        Tagging="c=d",
    )
    found = s3.head_object(Bucket=bucket, Key="copy")
    assert found["ContentType"] == "audio/mpeg"
    assert found["Metadata"] == {"key2": "value2"}
    assert "StorageClass" not in found  # STANDARD, not that of the source
    tags = s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"]
    assert tags == [{"Key": "c", "Value": "d"}]


def test_copy_without_directives_ignores_metadata_and_tags_of_the_request(
    s3: S3Client, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=b"x", Metadata={"a": "b"}, Tagging="a=b")
    s3.copy_object(
        Bucket=bucket,
        Key="copy",
        CopySource=f"{bucket}/source",
        Metadata={"c": "d"},
        Tagging="c=d",
        StorageClass="GLACIER_IR",
    )
    found = s3.head_object(Bucket=bucket, Key="copy")
    assert found["Metadata"] == {"a": "b"}
    assert found["StorageClass"] == "GLACIER_IR"
    tags = s3.get_object_tagging(Bucket=bucket, Key="copy")["TagSet"]
    assert tags == [{"Key": "a", "Value": "b"}]


@pytest.mark.parametrize("what", ["MetadataDirective", "TaggingDirective"])
def test_copy_with_an_unknown_directive_is_invalid_argument(
    s3: S3Client, bucket: str, what: str
) -> None:
    s3.put_object(Bucket=bucket, Key="source", Body=b"x")
    more: dict[str, Any] = {what: "MOVE"}
    found = answer(
        lambda: s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/source", **more)
    )
    assert found == (400, "InvalidArgument")


def test_copy_onto_itself_without_changes_is_invalid_request(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    found = refused(lambda: s3.copy_object(Bucket=bucket, Key="key", CopySource=f"{bucket}/key"))
    assert (found.status, found.code) == (400, "InvalidRequest")
    assert found.message.startswith("This copy request is illegal")


@pytest.mark.parametrize(
    "change",
    [
        {"MetadataDirective": "REPLACE", "Metadata": {"a": "b"}},
        {"StorageClass": "STANDARD"},
        {"TaggingDirective": "REPLACE", "Tagging": "a=b"},
        {"ChecksumAlgorithm": "SHA1"},
    ],
)
@pytest.mark.parametrize("size", [3, len(LARGE)])
def test_copy_onto_itself_with_a_change_keeps_the_bytes(
    s3: S3Client, bucket: str, change: Mapping[str, Any], size: int
) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=LARGE[:size])
    s3.copy_object(Bucket=bucket, Key="key", CopySource=f"{bucket}/key", **change)
    assert body_of(s3, bucket, "key") == LARGE[:size]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{bucket}/missing", (404, "NoSuchKey")),
        ("no-such-bucket-anywhere/key", (404, "NoSuchBucket")),
        ("{bucket}", (400, "InvalidArgument")),
        ("{bucket}/", (400, "InvalidArgument")),
        ("{bucket}/key?versionId=nonsense", (400, "InvalidArgument")),
        ("{bucket}/key?versionId=0000000000000400ffffffffffffffff", (404, "NoSuchVersion")),
    ],
)
def test_copy_of_what_is_not_there_is_refused(
    s3: S3Client, bucket: str, source: str, expected: tuple[int, str]
) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    name = source.format(bucket=bucket)
    assert answer(lambda: s3.copy_object(Bucket=bucket, Key="copy", CopySource=name)) == expected


def test_copy_into_no_bucket_is_no_such_bucket(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    found = answer(
        lambda: s3.copy_object(Bucket=new_name(), Key="copy", CopySource=f"{bucket}/key")
    )
    assert found == (404, "NoSuchBucket")


def test_copy_of_an_old_version_brings_it_back(s3: S3Client, versioned: str) -> None:
    old = s3.put_object(Bucket=versioned, Key="key", Body=b"old")["VersionId"]
    new = s3.put_object(Bucket=versioned, Key="key", Body=b"new")["VersionId"]
    done = s3.copy_object(
        Bucket=versioned,
        Key="key",
        CopySource={"Bucket": versioned, "Key": "key", "VersionId": old},
    )
    assert done["CopySourceVersionId"] == old
    assert done["VersionId"] not in (old, new)
    assert body_of(s3, versioned, "key") == b"old"
    assert body_of(s3, versioned, "key", VersionId=new) == b"new"


def test_copy_of_a_delete_marker_is_refused(s3: S3Client, versioned: str) -> None:
    s3.put_object(Bucket=versioned, Key="key", Body=b"x")
    marker = s3.delete_object(Bucket=versioned, Key="key")["VersionId"]
    source = f"{versioned}/key"
    found = answer(lambda: s3.copy_object(Bucket=versioned, Key="c", CopySource=source))
    assert found == (404, "NoSuchKey")
    named = f"{source}?versionId={marker}"
    found = answer(lambda: s3.copy_object(Bucket=versioned, Key="c", CopySource=named))
    assert found == (400, "InvalidRequest")


def test_copy_of_the_null_version_of_a_suspended_bucket_tells_its_id(
    s3: S3Client, versioned: str
) -> None:
    suspend_versioning(s3, versioned)
    s3.put_object(Bucket=versioned, Key="key", Body=b"x")
    done = s3.copy_object(Bucket=versioned, Key="c", CopySource=f"{versioned}/key?versionId=null")
    assert done["CopySourceVersionId"] == "null"
    assert body_of(s3, versioned, "c") == b"x"


LONG_AGO = datetime(2001, 1, 1, tzinfo=UTC)
FAR_AHEAD = datetime(2099, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("conditions", "holds"),
    [
        ({"CopySourceIfMatch": md5(b"x")}, True),
        ({"CopySourceIfMatch": "*"}, True),
        ({"CopySourceIfMatch": md5(b"y")}, False),
        ({"CopySourceIfNoneMatch": md5(b"y")}, True),
        ({"CopySourceIfNoneMatch": md5(b"x")}, False),
        ({"CopySourceIfModifiedSince": LONG_AGO}, True),
        ({"CopySourceIfModifiedSince": FAR_AHEAD}, False),
        ({"CopySourceIfUnmodifiedSince": FAR_AHEAD}, True),
        ({"CopySourceIfUnmodifiedSince": LONG_AGO}, False),
        ({"CopySourceIfMatch": md5(b"x"), "CopySourceIfUnmodifiedSince": LONG_AGO}, True),
        ({"CopySourceIfNoneMatch": md5(b"x"), "CopySourceIfModifiedSince": LONG_AGO}, False),
    ],
)
def test_copy_with_a_condition_on_its_source(
    s3: S3Client, bucket: str, conditions: Mapping[str, Any], holds: bool
) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="parts")["UploadId"]
    calls = (
        lambda: s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/key", **conditions),
        lambda: s3.upload_part_copy(
            Bucket=bucket,
            Key="parts",
            UploadId=upload_id,
            PartNumber=1,
            CopySource=f"{bucket}/key",
            **conditions,
        ),
    )
    for call in calls:
        if holds:
            call()
        else:
            assert answer(call) == (412, "PreconditionFailed")


def test_copy_between_owners_needs_rights_on_both_buckets(
    cluster: Cluster, s3: S3Client, bucket: str
) -> None:
    """The root user may do everything, so both sides here are other users."""
    _, ann = make_user(cluster, "Ann")
    _, bob = make_user(cluster, "Bob")
    anns, bobs = new_name(), new_name()
    ann.create_bucket(Bucket=anns)
    bob.create_bucket(Bucket=bobs)
    ann.put_object(Bucket=anns, Key="secret", Body=b"x")
    upload_id = bob.create_multipart_upload(Bucket=bobs, Key="parts")["UploadId"]
    denied = (403, "AccessDenied")
    for call in (
        lambda: bob.copy_object(Bucket=bobs, Key="c", CopySource=f"{anns}/secret"),
        lambda: bob.copy_object(Bucket=bobs, Key="c", CopySource=f"{anns}/not-there"),
        lambda: ann.copy_object(Bucket=bobs, Key="c", CopySource=f"{anns}/secret"),
        lambda: bob.upload_part_copy(
            Bucket=bobs,
            Key="parts",
            UploadId=upload_id,
            PartNumber=1,
            CopySource=f"{anns}/secret",
        ),
    ):
        assert answer(call) == denied
    s3.copy_object(Bucket=bobs, Key="c", CopySource=f"{anns}/secret")
    assert body_of(bob, bobs, "c") == b"x"


# --- ranges as parts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "last"),
    [
        (0, len(LARGE) - 1),
        (0, 0),
        (len(LARGE) - 1, len(LARGE) - 1),
        (5 * MIB - 1, 5 * MIB),
        (0, 5 * MIB - 1),
        (5 * MIB, len(LARGE) - 1),
        (1, len(LARGE) - 2),
    ],
)
@pytest.mark.parametrize("source", ["whole", "parts"])
def test_part_copied_from_a_range_has_its_bytes_and_md5(
    s3: S3Client, range_sources: str, first: int, last: int, source: str
) -> None:
    bucket = range_sources
    key = new_name("key")
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    done = s3.upload_part_copy(
        Bucket=bucket,
        Key=key,
        UploadId=upload_id,
        PartNumber=1,
        CopySource=f"{bucket}/{source}",
        CopySourceRange=f"bytes={first}-{last}",
    )["CopyPartResult"]
    assert done["ETag"] == md5(LARGE[first : last + 1])
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key=key,
        UploadId=upload_id,
        MultipartUpload={"Parts": [{"PartNumber": 1, "ETag": done["ETag"]}]},
    )
    assert body_of(s3, bucket, key) == LARGE[first : last + 1]


@pytest.fixture(scope="module")
def ranges() -> dict[str, str]:
    """The bucket of range_sources, by endpoint."""
    return {}


@pytest.fixture
def range_sources(s3: S3Client, ranges: dict[str, str]) -> str:
    """A bucket with LARGE as one object and as one of two parts; made once."""
    endpoint = s3.meta.endpoint_url
    if endpoint not in ranges:
        name = ranges[endpoint] = new_name()
        s3.create_bucket(Bucket=name)
        s3.put_object(Bucket=name, Key="whole", Body=LARGE)
        put_multipart(s3, name, "parts")
    return ranges[endpoint]


def test_parts_copied_from_all_kinds_of_sources_make_one_object(
    s3: S3Client, range_sources: str, bucket: str
) -> None:
    """Long after its sources are gone."""
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    s3.put_object(Bucket=bucket, Key="inline", Body=b"inline")
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="all")["UploadId"]
    sources = [f"{range_sources}/whole", f"{range_sources}/parts", f"{bucket}/inline"]
    etags = [
        s3.upload_part_copy(
            Bucket=bucket, Key="all", UploadId=upload_id, PartNumber=n, CopySource=source
        )["CopyPartResult"]["ETag"]
        for n, source in enumerate(sources, 1)
    ]
    s3.delete_object(Bucket=bucket, Key="inline")
    s3.complete_multipart_upload(
        Bucket=bucket,
        Key="all",
        UploadId=upload_id,
        MultipartUpload={
            "Parts": [{"PartNumber": n, "ETag": etag} for n, etag in enumerate(etags, 1)]
        },
    )
    assert body_of(s3, bucket, "all") == LARGE + LARGE + b"inline"
    edge = f"bytes={2 * len(LARGE) - 1}-{2 * len(LARGE)}"
    assert body_of(s3, bucket, "all", Range=edge) == LARGE[-1:] + b"i"


def test_part_copied_from_an_empty_object_is_empty(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    done = s3.upload_part_copy(
        Bucket=bucket, Key="k", UploadId=upload_id, PartNumber=1, CopySource=f"{bucket}/empty"
    )
    assert done["CopyPartResult"]["ETag"] == md5(b"")
    listed = s3.list_parts(Bucket=bucket, Key="k", UploadId=upload_id)["Parts"]
    assert [part["Size"] for part in listed] == [0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("bytes=0-21", (416, "InvalidRange")),
        ("bytes=5-5", (416, "InvalidRange")),
        ("0-2", (400, "InvalidArgument")),
        ("bytes=0", (400, "InvalidArgument")),
        ("bytes=3-2", (400, "InvalidArgument")),
        ("bytes=-2", (400, "InvalidArgument")),
        ("bytes=0-", (400, "InvalidArgument")),
        ("bytes=0-1,3-4", (400, "InvalidArgument")),
        ("bytes=hello-world", (400, "InvalidArgument")),
    ],
)
def test_part_copy_with_a_bad_range_is_refused(
    s3: S3Client, bucket: str, text: str, expected: tuple[int, str]
) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"12345")
    upload_id = s3.create_multipart_upload(Bucket=bucket, Key="k")["UploadId"]
    found = answer(
        lambda: s3.upload_part_copy(
            Bucket=bucket,
            Key="k",
            UploadId=upload_id,
            PartNumber=1,
            CopySource=f"{bucket}/key",
            CopySourceRange=text,
        )
    )
    assert found == expected


def test_part_copy_into_no_upload_is_no_such_upload(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="key", Body=b"x")
    found = answer(
        lambda: s3.upload_part_copy(
            Bucket=bucket, Key="k", UploadId="0" * 32, PartNumber=1, CopySource=f"{bucket}/key"
        )
    )
    assert found == (404, "NoSuchUpload")


def test_part_copied_from_a_version_tells_which(s3: S3Client, versioned: str) -> None:
    old = s3.put_object(Bucket=versioned, Key="key", Body=b"old")["VersionId"]
    s3.put_object(Bucket=versioned, Key="key", Body=b"new!")
    upload_id = s3.create_multipart_upload(Bucket=versioned, Key="k")["UploadId"]
    done = s3.upload_part_copy(
        Bucket=versioned,
        Key="k",
        UploadId=upload_id,
        PartNumber=1,
        CopySource={"Bucket": versioned, "Key": "key", "VersionId": old},
    )
    assert done["CopySourceVersionId"] == old
    assert done["CopyPartResult"]["ETag"] == md5(b"old")


@pytest.mark.parametrize("header", ["ExpectedBucketOwner", "ExpectedSourceBucketOwner"])
def test_copy_bucket_of_another_owner_than_expected_is_denied(
    s3: S3Client, bucket: str, header: str
) -> None:
    s3.put_object(Bucket=bucket, Key="a", Body=b"x")
    arguments: dict[str, Any] = {header: "somebody-else"}
    source = f"{bucket}/a"
    refusal = refused(
        lambda: s3.copy_object(Bucket=bucket, Key="b", CopySource=source, **arguments)
    )
    assert (refusal.status, refusal.code) == (403, "AccessDenied")
    assert refused(lambda: s3.get_object(Bucket=bucket, Key="b")).code == "NoSuchKey"
