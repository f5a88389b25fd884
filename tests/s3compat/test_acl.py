"""The one ACL that there is, the owner's, as boto3 sees it; no other is pretended."""

from typing import Any, Literal

import pytest
from mypy_boto3_s3 import S3Client

from tests.support.s3 import answer, new_name, put_all


def grants(found: Any) -> Any:
    """Who may do what, after holding the owner to be the only one."""
    assert [grant["Grantee"]["ID"] for grant in found["Grants"]] == [found["Owner"]["ID"]]
    return [(g["Grantee"]["Type"], g["Permission"]) for g in found["Grants"]]


def test_acl_of_bucket_and_object_is_the_owners(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")
    everything = [("CanonicalUser", "FULL_CONTROL")]
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == everything
    assert grants(s3.get_object_acl(Bucket=bucket, Key="k")) == everything


def test_acl_private_can_be_set_and_changes_nothing(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")
    before = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="bucket-owner-full-control")
    assert s3.head_object(Bucket=bucket, Key="k")["LastModified"] == before


@pytest.mark.parametrize("acl", ["public-read", "public-read-write", "authenticated-read"])
def test_acl_that_gives_rights_is_not_implemented(
    s3: S3Client, bucket: str, acl: Literal["public-read", "public-read-write"]
) -> None:
    put_all(s3, bucket, "k")
    refused = (501, "NotImplemented")
    assert answer(lambda: s3.put_bucket_acl(Bucket=bucket, ACL=acl)) == refused
    assert answer(lambda: s3.put_object_acl(Bucket=bucket, Key="k", ACL=acl)) == refused


def test_acl_as_a_list_of_grants_is_not_implemented(s3: S3Client, bucket: str) -> None:
    found = s3.get_bucket_acl(Bucket=bucket)
    policy: Any = {"Owner": found["Owner"], "Grants": found["Grants"]}
    refusal = answer(lambda: s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy))
    assert refusal == (501, "NotImplemented")


def test_acl_of_nothing_is_not_found(s3: S3Client, bucket: str) -> None:
    missing = answer(lambda: s3.get_object_acl(Bucket=bucket, Key="k"))
    assert missing == (404, "NoSuchKey")
    unset = answer(lambda: s3.put_object_acl(Bucket=bucket, Key="k", ACL="private"))
    assert unset == (404, "NoSuchKey")
    name = new_name()
    assert answer(lambda: s3.get_bucket_acl(Bucket=name)) == (404, "NoSuchBucket")


def test_acl_without_anything_to_set_is_refused(s3: S3Client, bucket: str) -> None:
    refusal = answer(lambda: s3.put_bucket_acl(Bucket=bucket))
    assert refusal == (400, "MissingSecurityHeader")
