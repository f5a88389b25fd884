"""Who may do what. Pure: by who asks, the action, the bucket's ACL and the version's.

Rules: everything that is not allowed is denied, to who has not signed first of all. The root user
and a bucket's owner may do everything in it. Others may what the bucket's ACL gives them; some
actions are decided by the version that is asked for, or by the upload: then the bucket says
`DEFERRED`, and who asks must go on to `allows_version` or `allows_upload` (a Session denies when
the caller did not say that it will). Actions that no ACL can give are the owner's.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/acl-overview.html
https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html (permissions)
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from astra.model import (
    ALL_USERS,
    ANONYMOUS_OWNER,
    AUTHENTICATED_USERS,
    USER_GRANTEE,
    Acl,
    Bucket,
    ObjectVersion,
    Upload,
    User,
)
from gateway.s3api.errors import S3Error


class Verdict(Enum):
    ALLOWED = "allowed"
    DENIED = "denied"
    DEFERRED = "deferred"  # the version, or the upload, decides


# What a user may do without owning a bucket.
_SERVICE_ACTIONS: Final = frozenset({"s3:ListAllMyBuckets", "s3:CreateBucket"})
# What a grant on the bucket gives. Deleting a version for good is the owner's.
_BUCKET_ACTIONS: Final = {
    "s3:ListBucket": "READ",
    "s3:ListBucketVersions": "READ",
    "s3:ListBucketMultipartUploads": "READ",
    "s3:PutObject": "WRITE",
    "s3:DeleteObject": "WRITE",
    "s3:GetBucketAcl": "READ_ACP",
    "s3:PutBucketAcl": "WRITE_ACP",
}
# What a grant on the object gives.
_VERSION_ACTIONS: Final = {
    "s3:GetObject": "READ",
    "s3:GetObjectVersion": "READ",
    "s3:GetObjectAcl": "READ_ACP",
    "s3:GetObjectVersionAcl": "READ_ACP",
    "s3:PutObjectAcl": "WRITE_ACP",
    "s3:PutObjectVersionAcl": "WRITE_ACP",
}
_UPLOAD_ACTIONS: Final = frozenset({"s3:AbortMultipartUpload", "s3:ListMultipartUploadParts"})


def decide(user: User, action: str, bucket: Bucket | None) -> Verdict:
    """What the bucket alone says. One that does not exist (None) is everybody's to ask about:
    the caller answers that there is none."""
    if action in _SERVICE_ACTIONS:
        return _verdict(bool(user.user_id))
    if bucket is None or _is_master(user, bucket):
        return Verdict.ALLOWED
    if action in _VERSION_ACTIONS:
        return Verdict.DEFERRED
    if action in _UPLOAD_ACTIONS:
        return Verdict.DEFERRED if user.user_id else Verdict.DENIED
    permission = _BUCKET_ACTIONS.get(action)
    return _verdict(permission is not None and _grants(bucket.acl, user, permission))


def allows_version(user: User, action: str, bucket: Bucket, version: ObjectVersion) -> bool:
    """Whether `user` may do an action that was DEFERRED (or allowed) on this version. Who owns
    it may read it, and its ACL, and change that."""
    if _is_master(user, bucket):
        return True
    permission = _VERSION_ACTIONS.get(action)
    if permission is None:
        return False
    is_own = bool(user.user_id) and user.user_id == version.owner_id != ANONYMOUS_OWNER
    return is_own or _grants(version.acl, user, permission)


def allows_upload(user: User, bucket: Bucket, upload: Upload) -> bool:
    """Whether `user` may go on with an upload, look at it or end it: who began it, and the
    bucket's owner. What the bucket must allow beside is decided by the bucket."""
    if _is_master(user, bucket):
        return True
    return bool(user.user_id) and user.user_id == (upload.initiator_id or upload.owner_id)


def may_list(user: User, bucket: Bucket) -> bool:
    """Whether `user` may know which keys there are, and so that one is not there."""
    return decide(user, "s3:ListBucket", bucket) is Verdict.ALLOWED


def check_expected_owner(bucket: Bucket, expected: str | None) -> None:
    """Raises AccessDenied when the client names another owner than the bucket's: it would read
    from, or write to, a bucket that changed hands."""
    if expected is not None and expected != bucket.owner_id:
        raise S3Error("AccessDenied")


def _is_master(user: User, bucket: Bucket) -> bool:
    return bool(user.user_id) and (user.is_root or bucket.owner_id == user.user_id)


def _grants(acl: Acl, user: User, permission: str) -> bool:
    """None gives nobody but the owner anything, and the owner was recognised before."""
    names = {ALL_USERS}
    if user.user_id:
        names |= {AUTHENTICATED_USERS, USER_GRANTEE + user.user_id}
    return any(
        grant.grantee in names and grant.permission in (permission, "FULL_CONTROL")
        for grant in acl or ()
    )


def _verdict(allowed: bool) -> Verdict:
    return Verdict.ALLOWED if allowed else Verdict.DENIED
