"""Get and Put of ACLs: of a bucket, of one version of an object.

Rules: an object's ACL is changed on exactly the version, and the ACL, on which it was allowed;
when that has changed meanwhile, everything is looked up and judged again.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAcl.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketAcl.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from astra.commands import Done, JudgedAcl, SetBucketAcl, SetObjectAcl, VersionDone
from astra.constants import XML_BODY_BYTES_MAX
from astra.errors import RefusalCode, Refused
from astra.model import USER_GRANTEE, Acl, Grant
from astra.wire import Located
from gateway.s3api import xmlwriter
from gateway.s3api.acl_grants import Wanted, group_uri, parse_acl_headers, shown_grants
from gateway.s3api.acl_request import resolve_acl
from gateway.s3api.bucket import confirm_bucket
from gateway.s3api.documents import AccessControlPolicy, GrantEntry
from gateway.s3api.errors import S3Error
from gateway.s3api.object_head import version_header
from gateway.s3api.object_read import locate
from gateway.s3api.owners import load_owners
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, empty_response, xml_response
from gateway.s3api.xml import parse_access_control_policy

_ROUNDS_MAX: Final = 5


async def get_bucket_acl(request: S3Request) -> S3Response:
    bucket = await confirm_bucket(request)
    return xml_response(await _render(request, bucket.acl, bucket.owner_id))


async def get_object_acl(request: S3Request) -> S3Response:
    located = await locate(request)
    version = located.version
    body = await _render(request, version.acl, version.owner_id)
    return xml_response(body, headers=version_header(version.version_id, located.versioning))


async def _render(request: S3Request, acl: Acl, owner_id: str) -> bytes:
    grants = sorted(shown_grants(acl, owner_id), key=_is_user)  # groups first; stable
    ids = [grant.grantee.removeprefix(USER_GRANTEE) for grant in grants if _is_user(grant)]
    owners = await load_owners(request, (owner_id, *ids))
    entries: list[GrantEntry] = []
    for grant in grants:
        uri = group_uri(grant.grantee)
        if uri is not None:
            entries.append(GrantEntry(kind="Group", value=uri, permission=grant.permission))
            continue
        user = owners.get(grant.grantee.removeprefix(USER_GRANTEE))
        entries.append(
            GrantEntry(
                kind="CanonicalUser",
                value=user.owner_id,
                display_name=user.display_name,
                permission=grant.permission,
            )
        )
    return xmlwriter.render_acl(AccessControlPolicy(owner=owners.get(owner_id), grants=entries))


def _is_user(grant: Grant) -> bool:
    return grant.grantee.startswith(USER_GRANTEE)


# --- put -------------------------------------------------------------------------------------


async def put_bucket_acl(request: S3Request) -> S3Response:
    wanted, named_owner = await _read_wanted(request)
    bucket = await request.session.allow(request.bucket)
    _check_owner(named_owner, bucket.owner_id)
    acl = await resolve_acl(
        request, wanted, owner_id=bucket.owner_id, bucket_owner_id=bucket.owner_id
    )
    try:
        await request.session.commit(
            request.bucket, SetBucketAcl(bucket=request.bucket, acl=acl), Done
        )
    finally:
        request.context.access.forget_bucket(request.bucket)
    return empty_response(200)


async def put_object_acl(request: S3Request) -> S3Response:
    wanted, named_owner = await _read_wanted(request)
    for _ in range(_ROUNDS_MAX):
        located = await locate(request)
        _check_owner(named_owner, located.version.owner_id)
        command = await _command(request, wanted, located)
        try:
            done = await request.session.commit(
                request.bucket, command, VersionDone, deferred=command.judged is not None
            )
        except Refused as error:
            if error.code is not RefusalCode.CONFLICT:
                raise
            continue
        headers = [("x-amz-version-id", done.version_id)] if done.versioned else []
        return empty_response(200, headers)
    raise Refused(RefusalCode.CONFLICT, "the object changes faster than its ACL can be set")


async def _command(request: S3Request, wanted: Wanted, located: Located) -> SetObjectAcl:
    version = located.version
    bucket = await request.session.allow(request.bucket, deferred=True)
    judged: JudgedAcl | None = None
    if not request.session.may(request.operation.action, bucket):
        judged = JudgedAcl(order=version.order, acl=version.acl)
    return SetObjectAcl(
        bucket=request.bucket,
        key=request.key,
        version_id=version.version_id,
        acl=await resolve_acl(
            request, wanted, owner_id=version.owner_id, bucket_owner_id=bucket.owner_id
        ),
        judged=judged,
    )


async def _read_wanted(request: S3Request) -> tuple[Wanted, str | None]:
    """What the headers or the body ask for, and the owner whom the body names. Raises
    MalformedACLError, UnexpectedContent for both, MissingSecurityHeader for neither."""
    wanted = parse_acl_headers(request.headers)
    body = await request.body.read_all(XML_BODY_BYTES_MAX)
    if wanted is not None:
        if body:
            raise S3Error("UnexpectedContent")
        return wanted, None
    if not body:
        raise S3Error("MissingSecurityHeader", MissingHeaderName="x-amz-acl")
    policy = parse_access_control_policy(body)
    grants: Sequence[GrantEntry] = policy.grants
    return tuple(grants), policy.owner.owner_id


def _check_owner(named: str | None, owner_id: str) -> None:
    """The owner cannot be changed, so the body has to name the one there is."""
    if named is not None and named != owner_id:
        raise S3Error("AccessDenied")
