"""Who may do what: every kind of asker, action and grant; and denied by default."""

from __future__ import annotations

from typing import Final

import pytest

from astra.model import (
    ALL_USERS,
    ANONYMOUS_OWNER,
    AUTHENTICATED_USERS,
    Acl,
    Bucket,
    Grant,
    ObjectVersion,
    Upload,
    User,
)
from gateway.access import ANONYMOUS
from gateway.policy import Verdict, allows_upload, allows_version, decide, may_list
from gateway.s3api.operations import OPERATIONS

ROOT: Final = User(user_id="root", display_name="", is_root=True)
OWNER: Final = User(user_id="owner", display_name="")
ANN: Final = User(user_id="ann", display_name="")
BOB: Final = User(user_id="bob", display_name="")
ACTIONS: Final = sorted(
    {operation.action for operation in OPERATIONS}
    | {operation.version_action for operation in OPERATIONS if operation.version_action}
)
SERVICE: Final = {"s3:ListAllMyBuckets", "s3:CreateBucket"}
BUCKET_RIGHTS: Final = {
    "READ": {"s3:ListBucket", "s3:ListBucketVersions", "s3:ListBucketMultipartUploads"},
    "WRITE": {"s3:PutObject", "s3:DeleteObject"},
    "READ_ACP": {"s3:GetBucketAcl"},
    "WRITE_ACP": {"s3:PutBucketAcl"},
}
VERSION_RIGHTS: Final = {
    "READ": {"s3:GetObject", "s3:GetObjectVersion"},
    "READ_ACP": {"s3:GetObjectAcl", "s3:GetObjectVersionAcl"},
    "WRITE_ACP": {"s3:PutObjectAcl", "s3:PutObjectVersionAcl"},
    "WRITE": set(),
}
BY_VERSION: Final = set().union(*VERSION_RIGHTS.values())
BY_UPLOAD: Final = {"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"}


def bucket(acl: Acl = None) -> Bucket:
    return Bucket(name="b", owner_id="owner", created_ms=0, epoch=1, acl=acl)


def version(owner_id: str = "owner", acl: Acl = None) -> ObjectVersion:
    return ObjectVersion(version_id="null", order=1, modified_ms=0, owner_id=owner_id, acl=acl)


def acl_of(grantee: str, permission: str) -> Acl:
    return (Grant(grantee=grantee, permission=permission),)


def allowed(user: User, in_bucket: Bucket) -> set[str]:
    found = {a for a in ACTIONS if decide(user, a, in_bucket) is Verdict.ALLOWED}
    return found - SERVICE


def deferred(user: User, in_bucket: Bucket) -> set[str]:
    return {a for a in ACTIONS if decide(user, a, in_bucket) is Verdict.DEFERRED}


def on_version(user: User, wanted: ObjectVersion) -> set[str]:
    return {a for a in ACTIONS if allows_version(user, a, bucket(), wanted)}


@pytest.mark.parametrize("user", [ROOT, OWNER])
@pytest.mark.parametrize("acl", [None, ()])
def test_root_and_owner_may_do_everything_whatever_the_acl(user: User, acl: Acl) -> None:
    assert allowed(user, bucket(acl)) == set(ACTIONS) - SERVICE
    assert on_version(user, version("ann", acl)) == set(ACTIONS)


@pytest.mark.parametrize("user", [ANN, ANONYMOUS])
@pytest.mark.parametrize("acl", [None, ()])
def test_others_may_do_nothing_by_default(user: User, acl: Acl) -> None:
    assert allowed(user, bucket(acl)) == set()
    assert on_version(user, version(acl=acl)) == set()
    assert not may_list(user, bucket(acl))


def test_only_versions_and_uploads_are_deferred_and_no_upload_to_the_anonymous() -> None:
    assert deferred(ANN, bucket()) == BY_VERSION | BY_UPLOAD
    assert deferred(ANONYMOUS, bucket()) == BY_VERSION


@pytest.mark.parametrize("user", [ANN, BOB, ANONYMOUS])
@pytest.mark.parametrize("permission", [*BUCKET_RIGHTS, "FULL_CONTROL", "read", "NOTHING"])
@pytest.mark.parametrize(
    ("grantee", "who"),
    [
        ("user:ann", {"ann"}),
        ("user:owner", set()),
        ("user:", set()),
        ("ann", set()),
        (AUTHENTICATED_USERS, {"ann", "bob"}),
        (ALL_USERS, {"ann", "bob", ""}),
    ],
)
def test_grant_gives_its_grantee_its_actions_and_no_more(
    user: User, permission: str, grantee: str, who: set[str]
) -> None:
    def given(rights: dict[str, set[str]]) -> set[str]:
        if user.user_id not in who:
            return set()
        every: set[str] = set().union(*rights.values())
        return every if permission == "FULL_CONTROL" else rights.get(permission, set())

    acl = acl_of(grantee, permission)
    assert allowed(user, bucket(acl)) == given(BUCKET_RIGHTS)
    assert on_version(user, version(acl=acl)) == given(VERSION_RIGHTS)
    assert may_list(user, bucket(acl)) == ("s3:ListBucket" in given(BUCKET_RIGHTS))


def test_owner_of_an_object_in_anothers_bucket_has_it_and_its_acl() -> None:
    assert on_version(ANN, version("ann", ())) == BY_VERSION
    assert on_version(BOB, version("ann", ())) == set()


def test_what_nobody_signed_for_is_owned_by_no_user_of_that_name() -> None:
    impostor = User(user_id=ANONYMOUS_OWNER, display_name="")
    assert on_version(impostor, version(ANONYMOUS_OWNER)) == set()
    assert on_version(ANONYMOUS, version("")) == set()


def test_upload_is_that_of_who_began_it_and_of_the_buckets_owner() -> None:
    upload = Upload(upload_id="u", owner_id="ann", initiator_id="ann", initiated_ms=0)
    askers = (ROOT, OWNER, ANN, BOB, ANONYMOUS)
    found = [user.user_id for user in askers if allows_upload(user, bucket(), upload)]
    assert found == ["root", "owner", "ann"]


def test_missing_bucket_is_told_to_everybody_and_service_actions_want_a_signature() -> None:
    assert decide(ANONYMOUS, "s3:GetObject", None) is Verdict.ALLOWED
    for action in SERVICE:
        assert decide(ANN, action, None) is Verdict.ALLOWED
        assert decide(ANONYMOUS, action, None) is Verdict.DENIED
