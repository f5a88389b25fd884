"""ACLs as headers name them, and what each canned one gives."""

from __future__ import annotations

import pytest

from astra.model import ALL_USERS, AUTHENTICATED_USERS, Grant
from gateway.s3api.acl_grants import (
    canned_acl,
    group_grantee,
    group_uri,
    parse_acl_headers,
    shown_grants,
)
from gateway.s3api.errors import S3Error

OWN = Grant(grantee="user:own", permission="FULL_CONTROL")
READ = Grant(grantee=ALL_USERS, permission="READ")
WRITE = Grant(grantee=ALL_USERS, permission="WRITE")


@pytest.mark.parametrize(
    ("name", "acl"),
    [
        ("private", None),
        ("aws-exec-read", None),
        ("public-read", (READ, OWN)),
        ("public-read-write", (READ, WRITE, OWN)),
        ("authenticated-read", (Grant(grantee=AUTHENTICATED_USERS, permission="READ"), OWN)),
        ("bucket-owner-read", (Grant(grantee="user:box", permission="READ"), OWN)),
        ("bucket-owner-full-control", (Grant(grantee="user:box", permission="FULL_CONTROL"), OWN)),
    ],
)
def test_canned_acl_gives_what_its_name_says(name: str, acl: tuple[Grant, ...] | None) -> None:
    assert parse_acl_headers({"x-amz-acl": name}) == name
    assert canned_acl(name, owner_id="own", bucket_owner_id="box") == acl


@pytest.mark.parametrize("name", ["bucket-owner-read", "bucket-owner-full-control"])
def test_canned_acl_for_the_buckets_owner_gives_an_own_object_nothing_more(name: str) -> None:
    assert canned_acl(name, owner_id="own", bucket_owner_id="own") is None


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("id=ann", [("CanonicalUser", "ann")]),
        ('id="ann", id=bob', [("CanonicalUser", "ann"), ("CanonicalUser", "bob")]),
        ('emailAddress="a@b.c"', [("AmazonCustomerByEmail", "a@b.c")]),
        ("uri=http://x/y", [("Group", "http://x/y")]),
    ],
)
def test_grant_header_names_its_grantees(value: str, found: list[tuple[str, str]]) -> None:
    grants = parse_acl_headers({"x-amz-grant-write-acp": value, "host": "h"})
    assert isinstance(grants, tuple)
    assert [(grant.kind, grant.value) for grant in grants] == found
    assert {grant.permission for grant in grants} == {"WRITE_ACP"}


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"x-amz-acl": ""}, "InvalidArgument"),
        ({"x-amz-acl": "public"}, "InvalidArgument"),
        ({"x-amz-acl": "log-delivery-write"}, "NotImplemented"),
        ({"x-amz-acl": "private", "x-amz-grant-read": "id=a"}, "InvalidRequest"),
        ({"x-amz-grant-everything": "id=a"}, "NotImplemented"),
        ({"x-amz-grant-read": ""}, "InvalidArgument"),
        ({"x-amz-grant-read": "id="}, "InvalidArgument"),
        ({"x-amz-grant-read": "id=a,,"}, "InvalidArgument"),
        ({"x-amz-grant-read": "name=a"}, "InvalidArgument"),
        ({"x-amz-grant-read": ",".join(["id=a"] * 101)}, "InvalidRequest"),
    ],
)
def test_acl_headers_that_name_nothing_are_refused(headers: dict[str, str], code: str) -> None:
    with pytest.raises(S3Error) as caught:
        parse_acl_headers(headers)
    assert caught.value.code == code


def test_no_acl_headers_ask_for_nothing() -> None:
    assert parse_acl_headers({"x-amz-meta-acl": "private"}) is None


@pytest.mark.parametrize("group", [ALL_USERS, AUTHENTICATED_USERS])
def test_group_is_the_one_that_its_uri_names(group: str) -> None:
    uri = group_uri(group)
    assert uri is not None
    assert group_grantee(uri) == group


@pytest.mark.parametrize(
    ("uri", "code"),
    [
        ("http://acs.amazonaws.com/groups/s3/LogDelivery", "NotImplemented"),
        ("http://acs.amazonaws.com/groups/global/allusers", "InvalidArgument"),
        ("group:AllUsers", "InvalidArgument"),
    ],
)
def test_other_groups_are_refused(uri: str, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        group_grantee(uri)
    assert caught.value.code == code


def test_shown_grants_without_an_acl_are_the_owners_and_of_an_empty_one_none() -> None:
    assert shown_grants(None, "own") == (OWN,)
    assert shown_grants((), "own") == ()
