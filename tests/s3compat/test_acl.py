"""ACLs as boto3 and clients that do not sign see them: set, shown, and enforced."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import boto3
import pytest
from botocore import UNSIGNED
from botocore.config import Config
from mypy_boto3_s3 import S3Client

from tests.support.cluster import Cluster
from tests.support.s3 import answer, enable_versioning, make_user, new_name, put_all

DENIED: Final = (403, "AccessDenied")
ALL_USERS: Final = "http://acs.amazonaws.com/groups/global/AllUsers"
AUTHENTICATED: Final = "http://acs.amazonaws.com/groups/global/AuthenticatedUsers"
CANNED: Final = {
    "private": set(),
    "public-read": {(ALL_USERS, "READ")},
    "public-read-write": {(ALL_USERS, "READ"), (ALL_USERS, "WRITE")},
    "authenticated-read": {(AUTHENTICATED, "READ")},
    "aws-exec-read": set(),
    "bucket-owner-read": set(),
    "bucket-owner-full-control": set(),
}


def grants(found: Any) -> set[tuple[str, str]]:
    """Who else than the owner may do what, after holding the owner to have everything."""
    given = {
        (grant["Grantee"].get("ID") or grant["Grantee"]["URI"], grant["Permission"])
        for grant in found["Grants"]
    }
    own = (found["Owner"]["ID"], "FULL_CONTROL")
    assert own in given
    return given - {own}


@pytest.fixture
def nobody(cluster: Cluster) -> S3Client:
    """A client that does not sign."""
    client: S3Client = boto3.client(
        "s3",
        endpoint_url=cluster.endpoint,
        region_name="us-east-1",
        config=Config(signature_version=UNSIGNED, s3={"addressing_style": "path"}),
    )
    return client


@pytest.fixture
def user(cluster: Cluster) -> tuple[str, S3Client]:
    return make_user(cluster)


def read(client: S3Client, bucket: str, key: str = "k") -> bytes:
    return client.get_object(Bucket=bucket, Key=key)["Body"].read()


def test_acl_of_bucket_and_object_is_the_owners_by_default(s3: S3Client, bucket: str) -> None:
    put_all(s3, bucket, "k")
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == set()
    assert grants(s3.get_object_acl(Bucket=bucket, Key="k")) == set()


@pytest.mark.parametrize("acl", CANNED)
def test_canned_acl_is_shown_wherever_it_was_set(s3: S3Client, bucket: str, acl: Any) -> None:
    other = new_name()
    s3.create_bucket(Bucket=other, ACL=acl)
    s3.put_bucket_acl(Bucket=bucket, ACL=acl)
    put_all(s3, bucket, "k")
    s3.put_object_acl(Bucket=bucket, Key="k", ACL=acl)
    s3.put_object(Bucket=bucket, Key="put", ACL=acl)
    s3.copy_object(Bucket=bucket, Key="copy", CopySource=f"{bucket}/k", ACL=acl)
    for name in (bucket, other):
        assert grants(s3.get_bucket_acl(Bucket=name)) == CANNED[acl]
    for key in ("k", "put", "copy"):
        assert grants(s3.get_object_acl(Bucket=bucket, Key=key)) == CANNED[acl]


def test_public_object_is_read_without_a_signature_and_no_longer_when_private(
    s3: S3Client, bucket: str, nobody: S3Client, user: tuple[str, S3Client]
) -> None:
    put_all(s3, bucket, "k", "hidden")
    before = s3.head_object(Bucket=bucket, Key="k")["LastModified"]
    assert answer(lambda: read(nobody, bucket)) == DENIED
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
    assert read(nobody, bucket) == read(user[1], bucket) == b"k"
    assert answer(lambda: read(nobody, bucket, "hidden")) == DENIED
    assert answer(lambda: nobody.put_object(Bucket=bucket, Key="k", Body=b"x")) == DENIED
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="authenticated-read")
    assert answer(lambda: read(nobody, bucket)) == DENIED
    assert read(user[1], bucket) == b"k"
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="private")
    assert answer(lambda: read(user[1], bucket)) == DENIED
    assert s3.head_object(Bucket=bucket, Key="k")["LastModified"] == before


def test_copy_needs_the_right_to_read_its_source_and_does_not_take_its_acl(
    s3: S3Client, bucket: str, nobody: S3Client, user: tuple[str, S3Client]
) -> None:
    put_all(s3, bucket, "k")
    own = new_name()
    user[1].create_bucket(Bucket=own)

    def copy() -> object:
        return user[1].copy_object(Bucket=own, Key="k", CopySource=f"{bucket}/k")

    assert answer(copy) == DENIED
    s3.put_object_acl(Bucket=bucket, Key="k", ACL="public-read")
    copy()
    assert answer(lambda: read(nobody, own)) == DENIED


def test_key_that_is_not_there_is_told_only_to_who_may_list(
    s3: S3Client, bucket: str, nobody: S3Client
) -> None:
    assert answer(lambda: read(nobody, bucket, "gone")) == DENIED
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read")
    assert answer(lambda: read(nobody, bucket, "gone")) == (404, "NoSuchKey")
    enable_versioning(s3, bucket)
    put_all(s3, bucket, "k")
    s3.delete_object(Bucket=bucket, Key="k")
    assert answer(lambda: read(nobody, bucket)) == (404, "NoSuchKey")
    s3.put_bucket_acl(Bucket=bucket, ACL="private")
    assert answer(lambda: read(nobody, bucket)) == DENIED


def test_bucket_that_all_may_write_takes_and_deletes_objects_of_nobody(
    s3: S3Client, bucket: str, nobody: S3Client
) -> None:
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    nobody.put_object(Bucket=bucket, Key="k", Body=b"from nobody")
    (listed,) = nobody.list_objects(Bucket=bucket)["Contents"]
    assert listed["Owner"]["ID"] == "anonymous"
    assert answer(lambda: read(nobody, bucket)) == DENIED
    assert read(s3, bucket) == b"from nobody"
    begin = lambda: nobody.create_multipart_upload(Bucket=bucket, Key="m")  # noqa: E731 (one call)
    assert answer(begin) == DENIED
    nobody.delete_object(Bucket=bucket, Key="k")
    assert answer(lambda: read(s3, bucket)) == (404, "NoSuchKey")


def test_bucket_grants_give_what_they_name_and_no_more(
    s3: S3Client, bucket: str, user: tuple[str, S3Client]
) -> None:
    user_id, client = user
    calls: dict[str, Callable[[], object]] = {
        "READ": lambda: client.list_objects_v2(Bucket=bucket),
        "WRITE": lambda: client.put_object(Bucket=bucket, Key="k"),
        "READ_ACP": lambda: client.get_bucket_acl(Bucket=bucket),
        "WRITE_ACP": lambda: client.put_bucket_acl(Bucket=bucket, ACL="private"),
    }
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]
    for permission, permitted in calls.items():
        grantee = {"Type": "CanonicalUser", "ID": user_id}
        policy: Any = {
            "Owner": owner,
            "Grants": [{"Grantee": grantee, "Permission": permission}],
        }
        s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
        for other, call in calls.items():
            if other != permission:
                assert answer(call) == DENIED
        permitted()


def test_versions_are_deleted_for_good_by_the_owner_only(
    s3: S3Client, versioned: str, user: tuple[str, S3Client]
) -> None:
    s3.put_bucket_acl(Bucket=versioned, ACL="public-read-write")
    version_id = s3.put_object(Bucket=versioned, Key="k")["VersionId"]
    done = user[1].delete_objects(
        Bucket=versioned,
        Delete={"Objects": [{"Key": "k", "VersionId": version_id}, {"Key": "k"}]},
    )
    assert [(e["VersionId"], e["Code"]) for e in done["Errors"]] == [(version_id, "AccessDenied")]
    assert [entry["DeleteMarker"] for entry in done["Deleted"]] == [True]
    one = answer(lambda: user[1].delete_object(Bucket=versioned, Key="k", VersionId=version_id))
    assert one == DENIED
    s3.head_object(Bucket=versioned, Key="k", VersionId=version_id)


def test_upload_is_only_of_who_began_it(
    s3: S3Client, bucket: str, cluster: Cluster, user: tuple[str, S3Client]
) -> None:
    s3.put_bucket_acl(Bucket=bucket, ACL="public-read-write")
    other = make_user(cluster)[1]
    upload_id = user[1].create_multipart_upload(Bucket=bucket, Key="m", ACL="public-read")[
        "UploadId"
    ]
    named: Any = {"Bucket": bucket, "Key": "m", "UploadId": upload_id}
    for call in (
        lambda: other.upload_part(**named, PartNumber=1, Body=b"x"),
        lambda: other.list_parts(**named),
        lambda: other.abort_multipart_upload(**named),
    ):
        assert answer(call) == DENIED
    etag = user[1].upload_part(**named, PartNumber=1, Body=b"mine")["ETag"]
    parts: Any = {"Parts": [{"ETag": etag, "PartNumber": 1}]}
    assert answer(lambda: other.complete_multipart_upload(**named, MultipartUpload=parts)) == DENIED
    user[1].complete_multipart_upload(**named, MultipartUpload=parts)
    assert read(other, bucket, "m") == b"mine"


def test_grant_headers_name_users_and_groups(
    s3: S3Client, bucket: str, user: tuple[str, S3Client]
) -> None:
    s3.put_object(
        Bucket=bucket, Key="k", GrantRead=f'id="{user[0]}", uri="{AUTHENTICATED}"', Body=b"k"
    )
    found = s3.get_object_acl(Bucket=bucket, Key="k")
    named = [(g["Grantee"].get("ID"), g["Grantee"].get("DisplayName")) for g in found["Grants"]]
    assert named == [(None, None), (user[0], "Another User")]  # groups first
    assert read(user[1], bucket) == b"k"


@pytest.mark.parametrize(
    ("wanted", "refusal"),
    [
        ({}, (400, "MissingSecurityHeader")),
        ({"ACL": "public-ready"}, (400, "InvalidArgument")),
        ({"ACL": "log-delivery-write"}, (501, "NotImplemented")),
        ({"ACL": "private", "GrantRead": "id=x"}, (400, "InvalidRequest")),
        ({"GrantRead": "id=no-such-user"}, (400, "InvalidArgument")),
        ({"GrantRead": "name=x"}, (400, "InvalidArgument")),
        ({"GrantRead": "uri=http://example.com/"}, (400, "InvalidArgument")),
        ({"GrantRead": "emailAddress=no@example.com"}, (400, "UnresolvableGrantByEmailAddress")),
    ],
)
def test_acl_that_names_nothing_or_nobody_is_refused(
    s3: S3Client, bucket: str, wanted: Any, refusal: tuple[int, str]
) -> None:
    assert answer(lambda: s3.put_bucket_acl(Bucket=bucket, **wanted)) == refusal
    assert grants(s3.get_bucket_acl(Bucket=bucket)) == set()


def test_acl_document_that_is_wrong_is_refused(s3: S3Client, bucket: str) -> None:
    owner = s3.get_bucket_acl(Bucket=bucket)["Owner"]

    def put(policy: Any, **more: Any) -> tuple[int, str]:
        return answer(lambda: s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy, **more))

    grantee = {"Type": "CanonicalUser", "ID": owner["ID"]}
    wrong = {"Owner": owner, "Grants": [{"Grantee": grantee, "Permission": "EVERYTHING"}]}
    assert put(wrong) == (400, "MalformedACLError")
    assert put({"Grants": []}) == (400, "MalformedACLError")
    assert put({"Owner": {"ID": "somebody"}, "Grants": []}) == DENIED
    assert put({"Owner": owner, "Grants": []}, ACL="private") == (400, "UnexpectedContent")


def test_acl_of_no_grants_leaves_the_owner_what_is_needed_to_go_on(
    s3: S3Client, bucket: str
) -> None:
    policy: Any = {"Owner": s3.get_bucket_acl(Bucket=bucket)["Owner"], "Grants": []}
    s3.put_bucket_acl(Bucket=bucket, AccessControlPolicy=policy)
    assert s3.get_bucket_acl(Bucket=bucket)["Grants"] == []
    s3.put_bucket_acl(Bucket=bucket, ACL="private")


def test_acl_of_a_version_is_its_own(s3: S3Client, versioned: str, nobody: S3Client) -> None:
    first = s3.put_object(Bucket=versioned, Key="k", Body=b"1")["VersionId"]
    s3.put_object(Bucket=versioned, Key="k", Body=b"2")
    s3.put_object_acl(Bucket=versioned, Key="k", VersionId=first, ACL="public-read")
    shown = nobody.get_object(Bucket=versioned, Key="k", VersionId=first)
    assert shown["Body"].read() == b"1"
    assert answer(lambda: read(nobody, versioned)) == DENIED


def test_acl_of_nothing_is_not_found(s3: S3Client, bucket: str) -> None:
    missing = answer(lambda: s3.get_object_acl(Bucket=bucket, Key="k"))
    assert missing == (404, "NoSuchKey")
    unset = answer(lambda: s3.put_object_acl(Bucket=bucket, Key="k", ACL="private"))
    assert unset == (404, "NoSuchKey")
    name = new_name()
    assert answer(lambda: s3.get_bucket_acl(Bucket=name)) == (404, "NoSuchBucket")
