"""Tags of objects, of versions and of buckets as boto3 sees them."""

from typing import Any

import pytest
from mypy_boto3_s3 import S3Client

from tests.support.s3 import answer, new_name, put_all

TAGS = [{"Key": "colour", "Value": "blue"}, {"Key": "size", "Value": ""}]


def tag_set(tags: list[dict[str, str]]) -> Any:
    return {"TagSet": tags}


def test_object_tags_are_kept_replaced_and_deleted(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []
    put = s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(TAGS))
    assert put["ResponseMetadata"]["HTTPStatusCode"] == 200
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == TAGS
    assert s3.get_object(Bucket=bucket, Key="k")["TagCount"] == 2
    other = [{"Key": "only", "Value": "this"}]
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(other))
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == other
    deleted = s3.delete_object_tagging(Bucket=bucket, Key="k")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []


def test_object_tags_of_the_put_are_shown(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"", Tagging="a=1&b=x%20y")
    found = s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"]
    assert found == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "x y"}]


def test_object_tags_do_not_change_the_object(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")
    before = s3.head_object(Bucket=bucket, Key="k")
    s3.put_object_tagging(Bucket=bucket, Key="k", Tagging=tag_set(TAGS))
    after = s3.head_object(Bucket=bucket, Key="k")
    assert (after["ETag"], after["LastModified"]) == (before["ETag"], before["LastModified"])
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"k"


def test_object_tags_belong_to_one_version(s3: S3Client, versioned: str) -> None:
    old = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
    new = s3.put_object(Bucket=versioned, Key="k", Body=b"2")["VersionId"]
    put = s3.put_object_tagging(Bucket=versioned, Key="k", VersionId=old, Tagging=tag_set(TAGS))
    assert put["VersionId"] == old
    assert s3.get_object_tagging(Bucket=versioned, Key="k")["TagSet"] == []
    found = s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=old)
    assert (found["TagSet"], found["VersionId"]) == (TAGS, old)
    assert s3.get_object_tagging(Bucket=versioned, Key="k")["VersionId"] == new
    assert s3.delete_object_tagging(Bucket=versioned, Key="k", VersionId=old)["VersionId"] == old
    assert s3.get_object_tagging(Bucket=versioned, Key="k", VersionId=old)["TagSet"] == []


def test_object_tags_of_nothing_are_refused(s3: S3Client, versioned: str) -> None:
    no_key = (404, "NoSuchKey")
    put: Any = {"Bucket": versioned, "Key": "k", "Tagging": tag_set(TAGS)}
    assert answer(lambda: s3.get_object_tagging(Bucket=versioned, Key="k")) == no_key
    assert answer(lambda: s3.put_object_tagging(**put)) == no_key
    assert answer(lambda: s3.delete_object_tagging(Bucket=versioned, Key="k")) == no_key
    version = s3.put_object(Bucket=versioned, Key="k", Body=b"")["VersionId"]
    s3.delete_object(Bucket=versioned, Key="k", VersionId=version)
    gone = answer(lambda: s3.put_object_tagging(**put, VersionId=version))
    assert gone == (404, "NoSuchVersion")
    never = answer(lambda: s3.put_object_tagging(**put, VersionId="no-id"))
    assert never == (400, "InvalidArgument")


def test_object_tags_of_a_delete_marker_are_refused(s3: S3Client, versioned: str) -> None:
    put_all(s3, versioned, "k")
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    put: Any = {"Bucket": versioned, "Key": "k", "Tagging": tag_set(TAGS)}
    assert answer(lambda: s3.put_object_tagging(**put)) == (404, "NoSuchKey")
    refused = (405, "MethodNotAllowed")
    assert answer(lambda: s3.put_object_tagging(**put, VersionId=marker)) == refused
    get: Any = {"Bucket": versioned, "Key": "k", "VersionId": marker}
    assert answer(lambda: s3.get_object_tagging(**get)) == refused


@pytest.mark.parametrize(
    "tags",
    [
        [{"Key": f"k{number}", "Value": ""} for number in range(11)],
        [{"Key": "x" * 129, "Value": ""}],
        [{"Key": "k", "Value": "x" * 257}],
        [{"Key": "same", "Value": "1"}, {"Key": "same", "Value": "2"}],
        [{"Key": "aws:reserved", "Value": ""}],
    ],
)
def test_object_tags_beyond_the_limits_are_refused(
    s3: S3Client, bucket: str, tags: list[dict[str, str]]
) -> None:
    put_all(s3, bucket, "k")
    put: Any = {"Bucket": bucket, "Key": "k", "Tagging": tag_set(tags)}
    assert answer(lambda: s3.put_object_tagging(**put)) == (400, "InvalidTag")
    assert s3.get_object_tagging(Bucket=bucket, Key="k")["TagSet"] == []


def test_bucket_tags_are_kept_replaced_and_deleted(s3: S3Client, bucket: str) -> None:
    none = (404, "NoSuchTagSet")
    assert answer(lambda: s3.get_bucket_tagging(Bucket=bucket)) == none
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(TAGS))
    for _ in range(4):  # whichever worker answers
        assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == TAGS
    other = [{"Key": "only", "Value": "this"}]
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(other))
    for _ in range(4):
        assert s3.get_bucket_tagging(Bucket=bucket)["TagSet"] == other
    deleted = s3.delete_bucket_tagging(Bucket=bucket)
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert answer(lambda: s3.get_bucket_tagging(Bucket=bucket)) == none


def test_bucket_tags_beyond_the_limit_are_refused(s3: S3Client, bucket: str) -> None:
    tags = [{"Key": f"k{number}", "Value": ""} for number in range(51)]
    put: Any = {"Bucket": bucket, "Tagging": tag_set(tags)}
    assert answer(lambda: s3.put_bucket_tagging(**put)) == (400, "InvalidTag")
    s3.put_bucket_tagging(Bucket=bucket, Tagging=tag_set(tags[:50]))


def test_bucket_tags_of_a_missing_bucket_are_refused(s3: S3Client) -> None:
    name = new_name()
    assert answer(lambda: s3.get_bucket_tagging(Bucket=name)) == (404, "NoSuchBucket")
    put: Any = {"Bucket": name, "Tagging": tag_set(TAGS)}
    assert answer(lambda: s3.put_bucket_tagging(**put)) == (404, "NoSuchBucket")
