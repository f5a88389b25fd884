"""Buckets as boto3 sees them: create, list, head, delete, location, and who may."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.handlers import validate_bucket_name
from mypy_boto3_s3 import S3Client

from tests.support.cluster import Cluster
from tests.support.s3 import answer, make_user, new_name


def test_create_bucket_new_name_is_listed_with_its_owner(s3: S3Client) -> None:
    name = new_name()
    created = s3.create_bucket(Bucket=name)
    assert created["Location"] == f"/{name}"
    listed = s3.list_buckets()
    (found,) = [bucket for bucket in listed["Buckets"] if bucket["Name"] == name]
    assert abs(datetime.now(UTC) - found["CreationDate"]) < timedelta(minutes=5)
    assert "BucketRegion" not in found
    assert listed["Owner"]["ID"] == "root"


def test_create_bucket_again_in_us_east_1_succeeds_and_keeps_everything(
    s3: S3Client, bucket: str
) -> None:
    s3.put_object(Bucket=bucket, Key="kept", Body=b"x")
    s3.create_bucket(Bucket=bucket)
    assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["kept"]


def test_create_bucket_again_elsewhere_is_owned_by_you(s3: S3Client) -> None:
    name = new_name()
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    again = answer(lambda: s3.create_bucket(Bucket=name))
    assert again == (409, "BucketAlreadyOwnedByYou")


def test_create_bucket_of_another_user_already_exists(cluster: Cluster, bucket: str) -> None:
    _, other = make_user(cluster)
    assert answer(lambda: other.create_bucket(Bucket=bucket)) == (409, "BucketAlreadyExists")


def test_create_bucket_with_location_tells_it_back(s3: S3Client) -> None:
    name = new_name()
    s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    assert s3.get_bucket_location(Bucket=name)["LocationConstraint"] == "eu-west-1"
    assert s3.head_bucket(Bucket=name)["BucketRegion"] == "eu-west-1"
    (found,) = s3.list_buckets(BucketRegion="eu-west-1", Prefix=name)["Buckets"]
    assert found["BucketRegion"] == "eu-west-1"
    assert s3.list_buckets(BucketRegion="us-east-1", Prefix=name)["Buckets"] == []


def test_create_bucket_with_tags_has_them_at_once(s3: S3Client) -> None:
    name = new_name()
    tags = [{"Key": "team", "Value": "storage"}]
    configuration: Any = {"Tags": tags}
    s3.create_bucket(Bucket=name, CreateBucketConfiguration=configuration)
    assert s3.get_bucket_tagging(Bucket=name)["TagSet"] == tags


def test_create_bucket_with_nonsense_location_is_refused(s3: S3Client) -> None:
    configuration: Any = {"LocationConstraint": "no such/place"}
    refusal = answer(
        lambda: s3.create_bucket(Bucket=new_name(), CreateBucketConfiguration=configuration)
    )
    assert refusal == (400, "InvalidLocationConstraint")


@pytest.mark.parametrize("acl", ["public-read", "public-read-write", "authenticated-read"])
def test_create_bucket_again_with_another_acl_is_refused(s3: S3Client, acl: Any) -> None:
    name = new_name()
    s3.create_bucket(Bucket=name)
    refusal = answer(lambda: s3.create_bucket(Bucket=name, ACL=acl))
    assert refusal == (409, "BucketAlreadyExists")
    assert len(s3.get_bucket_acl(Bucket=name)["Grants"]) == 1


@pytest.mark.parametrize("name", ["192.168.5.4", "a..b", "Upper", "xn--abc", "x" * 64, "ab"])
def test_create_bucket_bad_name_is_refused(s3: S3Client, name: str) -> None:
    s3.meta.events.unregister("before-parameter-build.s3", validate_bucket_name)
    assert answer(lambda: s3.create_bucket(Bucket=name)) == (400, "InvalidBucketName")


def test_head_bucket_tells_region_and_absence(s3: S3Client, bucket: str) -> None:
    assert s3.head_bucket(Bucket=bucket)["BucketRegion"] == "us-east-1"
    assert answer(lambda: s3.head_bucket(Bucket=new_name())) == (404, "404")


def test_get_bucket_location_of_the_classic_region_is_empty(s3: S3Client, bucket: str) -> None:
    assert s3.get_bucket_location(Bucket=bucket)["LocationConstraint"] is None


def test_delete_bucket_empty_is_gone_for_every_worker(s3: S3Client, bucket: str) -> None:
    for _ in range(4):  # whichever worker answers remembers the bucket
        s3.head_bucket(Bucket=bucket)
    assert s3.delete_bucket(Bucket=bucket)["ResponseMetadata"]["HTTPStatusCode"] == 204
    for _ in range(4):
        assert answer(lambda: s3.head_bucket(Bucket=bucket)) == (404, "404")
        assert answer(lambda: s3.list_objects(Bucket=bucket)) == (404, "NoSuchBucket")
    assert answer(lambda: s3.delete_bucket(Bucket=bucket)) == (404, "NoSuchBucket")


def test_delete_bucket_with_objects_is_refused(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"")
    assert answer(lambda: s3.delete_bucket(Bucket=bucket)) == (409, "BucketNotEmpty")
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)


def test_delete_bucket_with_only_a_delete_marker_is_refused(s3: S3Client, versioned: str) -> None:
    marker = s3.delete_object(Bucket=versioned, Key="k")["VersionId"]
    assert answer(lambda: s3.delete_bucket(Bucket=versioned)) == (409, "BucketNotEmpty")
    s3.delete_object(Bucket=versioned, Key="k", VersionId=marker)
    s3.delete_bucket(Bucket=versioned)


def test_bucket_of_a_deleted_name_belongs_to_its_new_owner(
    cluster: Cluster, s3: S3Client, bucket: str
) -> None:
    _, other = make_user(cluster)
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    s3.delete_object(Bucket=bucket, Key="k")
    s3.delete_bucket(Bucket=bucket)
    other.create_bucket(Bucket=bucket)
    for _ in range(4):  # also the worker that remembers the old owner
        assert other.list_objects_v2(Bucket=bucket)["KeyCount"] == 0


# --- ListBuckets ------------------------------------------------------------------------------


def test_list_buckets_shows_own_buckets_only(cluster: Cluster, bucket: str) -> None:
    user_id, other = make_user(cluster, "Somebody Else")
    assert other.list_buckets()["Buckets"] == []
    own = new_name()
    other.create_bucket(Bucket=own)
    listed = other.list_buckets()
    assert [found["Name"] for found in listed["Buckets"]] == [own]
    assert listed["Owner"] == {"ID": user_id, "DisplayName": "Somebody Else"}
    assert bucket != own


def test_list_buckets_pages_are_exact_and_in_order(cluster: Cluster) -> None:
    _, other = make_user(cluster)
    names = sorted(new_name("p") for _ in range(5))
    for name in reversed(names):
        other.create_bucket(Bucket=name)
    pages = other.get_paginator("list_buckets").paginate(PaginationConfig={"PageSize": 2})
    listed = [[found["Name"] for found in page["Buckets"]] for page in pages]
    assert listed == [names[:2], names[2:4], names[4:]]
    whole = other.list_buckets(MaxBuckets=5)
    assert "ContinuationToken" not in whole
    assert len(whole["Buckets"]) == 5


def test_list_buckets_with_prefix_shows_and_echoes_it(cluster: Cluster) -> None:
    _, other = make_user(cluster)
    names = [new_name("aa"), new_name("ab")]
    for name in names:
        other.create_bucket(Bucket=name)
    listed = other.list_buckets(Prefix="ab-")
    assert [found["Name"] for found in listed["Buckets"]] == [names[1]]
    assert listed["Prefix"] == "ab-"


def test_list_buckets_with_a_forged_token_is_refused(s3: S3Client) -> None:
    refusal = answer(lambda: s3.list_buckets(ContinuationToken="bm90IG91cnM"))
    assert refusal == (400, "InvalidArgument")


# --- who may ----------------------------------------------------------------------------------


def test_bucket_of_somebody_else_is_denied(cluster: Cluster, s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="k", Body=b"x")
    _, other = make_user(cluster)
    denied = (403, "AccessDenied")
    assert answer(lambda: other.head_bucket(Bucket=bucket)) == (403, "403")
    assert answer(lambda: other.list_objects_v2(Bucket=bucket)) == denied
    assert answer(lambda: other.list_object_versions(Bucket=bucket)) == denied
    assert answer(lambda: other.delete_object(Bucket=bucket, Key="k")) == denied
    delete: Any = {"Objects": [{"Key": "k"}]}
    assert answer(lambda: other.delete_objects(Bucket=bucket, Delete=delete)) == denied
    assert answer(lambda: other.get_object_tagging(Bucket=bucket, Key="k")) == denied
    assert answer(lambda: other.get_bucket_versioning(Bucket=bucket)) == denied
    assert answer(lambda: other.delete_bucket(Bucket=bucket)) == denied
    assert s3.get_object(Bucket=bucket, Key="k")["Body"].read() == b"x"
