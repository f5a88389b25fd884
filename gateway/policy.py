"""Who may do what. Pure. Today: the root user everything, an owner everything on own buckets.

Bucket policies, ACLs and public access come here later; the question stays the same: this user,
this action, this bucket. Everything that is not allowed is denied, the anonymous first of all.
"""

from __future__ import annotations

from typing import Final

from astra.model import Bucket, User
from gateway.s3api.errors import S3Error

# What a user may do without owning a bucket.
_SERVICE_ACTIONS: Final = frozenset({"s3:ListAllMyBuckets", "s3:CreateBucket"})


def authorise(user: User, action: str, bucket: Bucket | None) -> None:
    """Raises AccessDenied unless `user` may do `action` on `bucket`. A bucket that does not
    exist (None) is everybody's to ask about who has signed in: the caller answers that."""
    if not user.user_id:
        raise S3Error("AccessDenied")
    if user.is_root or bucket is None or action in _SERVICE_ACTIONS:
        return
    if bucket.owner_id != user.user_id:
        raise S3Error("AccessDenied")


def check_expected_owner(bucket: Bucket, expected: str | None) -> None:
    """Raises AccessDenied when the client names another owner than the bucket's: it would read
    from, or write to, a bucket that changed hands."""
    if expected is not None and expected != bucket.owner_id:
        raise S3Error("AccessDenied")
