"""The ACL that a request asks for, for what it makes or changes: users looked up, groups named.

Rules: ids and e-mail addresses must be those of users. The users are asked for only when a grant
names somebody else than who owns the thing, its bucket or the request.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectAcl.html
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from astra.commands import ObjectHead
from astra.model import USER_GRANTEE, Acl, Grant, User
from gateway.s3api.acl_grants import Wanted, canned_acl, group_grantee, parse_acl_headers
from gateway.s3api.documents import GrantEntry
from gateway.s3api.errors import S3Error
from gateway.s3api.object_head import parse_object_head
from gateway.s3api.request import S3Request


async def read_object_head(request: S3Request) -> ObjectHead:
    """What the headers say of an object to be written, its ACL included."""
    head = parse_object_head(request.head, request.headers, owner_id=request.user_id)
    return replace(head, acl=await requested_acl(request))


async def requested_acl(request: S3Request) -> Acl:
    """The ACL that the headers give an object which this request writes."""
    wanted = parse_acl_headers(request.headers)
    if wanted is None:
        return None
    bucket = await request.session.allow(request.bucket, deferred=True)
    return await resolve_acl(
        request, wanted, owner_id=request.user_id, bucket_owner_id=bucket.owner_id
    )


async def resolve_acl(
    request: S3Request, wanted: Wanted, *, owner_id: str, bucket_owner_id: str
) -> Acl:
    """`wanted` for something of `owner_id`. Raises InvalidArgument for an id and
    UnresolvableGrantByEmailAddress for an address of nobody."""
    if wanted is None:
        return None
    if isinstance(wanted, str):
        return canned_acl(wanted, owner_id=owner_id, bucket_owner_id=bucket_owner_id)
    known = {owner_id, bucket_owner_id, request.user_id}
    ids = {grant.value for grant in wanted if grant.kind == "CanonicalUser"} - known
    emails = {grant.value for grant in wanted if grant.kind == "AmazonCustomerByEmail"}
    users: Sequence[User] = ()
    if ids or emails:
        users = await request.context.access.find_users(sorted(ids), sorted(emails))
        known.update(user.user_id for user in users)
    return tuple(
        Grant(grantee=_grantee(grant, known, users), permission=grant.permission)
        for grant in wanted
    )


def _grantee(grant: GrantEntry, known: set[str], users: Sequence[User]) -> str:
    if grant.kind == "Group":
        return group_grantee(grant.value)
    if grant.kind == "CanonicalUser":
        if grant.value not in known:
            raise S3Error("InvalidArgument", "Invalid id", ArgumentValue=grant.value[:128])
        return USER_GRANTEE + grant.value
    return USER_GRANTEE + _user_of(grant.value, users)


def _user_of(email: str, users: Sequence[User]) -> str:
    found = [user.user_id for user in users if user.email and user.email == email]
    if not found:
        raise S3Error("UnresolvableGrantByEmailAddress")
    if len(found) > 1:
        raise S3Error("AmbiguousGrantByEmailAddress")
    return found[0]
