"""CreateBucket, HeadBucket, DeleteBucket, GetBucketLocation.

The cluster is one place: a region is a name that clients give a bucket and get back, so any
well-formed one is accepted, and a client that is set up for another region works.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CreateBucket.html and its neighbours
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from astra import wire
from astra.commands import CreateBucket, DeleteBucket, Done
from astra.constants import XML_BODY_BYTES_MAX
from astra.errors import RefusalCode, Refused
from astra.model import Bucket
from gateway.s3api import xmlwriter
from gateway.s3api.acl_grants import parse_acl_headers
from gateway.s3api.acl_request import resolve_acl
from gateway.s3api.errors import S3Error, header_not_implemented
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, empty_response, xml_response
from gateway.s3api.xml import parse_create_bucket

# The region that S3 writes as no location at all, and where creating a bucket again is no error.
_CLASSIC_REGION: Final = "us-east-1"
_REGION: Final = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", re.ASCII)
# Settings of a new bucket, with the one value that is how all buckets are.
_ONLY_VALUES: Final = {
    "x-amz-object-ownership": "BucketOwnerEnforced",
    "x-amz-bucket-namespace": "global",
}


async def confirm_bucket(request: S3Request) -> Bucket:
    """The settings of the request's bucket as they are now, not as they were remembered.

    The question about no keys makes the leader hold the remembered epochs against its own."""
    await request.session.ask(
        request.bucket,
        lambda epochs: wire.ListObjects(bucket=request.bucket, epochs=epochs, limit=0),
        wire.ObjectPage,
    )
    return await request.session.allow(request.bucket)


def region_of(bucket: Bucket, default: str) -> str:
    """The region that clients are told; `default` is the gateway's."""
    return bucket.location or default


# --- create ----------------------------------------------------------------------------------


async def create_bucket(request: S3Request) -> S3Response:
    wanted_acl = parse_acl_headers(request.headers)
    _refuse_other_settings(request.headers)
    wanted = parse_create_bucket(await request.body.read_all(XML_BODY_BYTES_MAX))
    location = check_location(wanted.location)
    owner_id = request.user_id
    command = CreateBucket(
        bucket=request.bucket,
        owner_id=owner_id,
        location=location,
        tags=wanted.tags,
        acl=await resolve_acl(request, wanted_acl, owner_id=owner_id, bucket_owner_id=owner_id),
    )
    try:
        await request.session.commit_service(command, Done)
    except Refused as error:
        await _accept_repeat(request, command, error)
    request.context.access.forget_bucket(request.bucket)
    return empty_response(200, [("location", f"/{request.bucket}")])


def _refuse_other_settings(headers: Mapping[str, str]) -> None:
    for name, only in _ONLY_VALUES.items():
        if headers.get(name, only) != only:
            raise header_not_implemented(name)


def check_location(location: str | None) -> str:
    """The location to keep, "" for none. Raises InvalidLocationConstraint."""
    if location is None:
        return ""
    if not _REGION.fullmatch(location):
        raise S3Error("InvalidLocationConstraint", LocationConstraint=location[:128])
    return location


async def _accept_repeat(request: S3Request, command: CreateBucket, error: Refused) -> None:
    """In us-east-1, and only there, creating an own bucket again succeeds and changes nothing:
    so it must not ask for another ACL either."""
    if error.code is not RefusalCode.BUCKET_OWNED:
        raise error
    default = request.context.settings.region
    request.context.access.forget_bucket(request.bucket)
    bucket = await request.context.access.bucket(request.bucket)
    if bucket is not None:
        if bucket.acl != command.acl:
            raise S3Error("BucketAlreadyExists", BucketName=request.bucket)
        regions = {command.location or default, region_of(bucket, default)}
        if regions == {_CLASSIC_REGION}:
            return
    raise S3Error("BucketAlreadyOwnedByYou", BucketName=request.bucket)


# --- the others ------------------------------------------------------------------------------


async def head_bucket(request: S3Request) -> S3Response:
    bucket = await confirm_bucket(request)
    region = region_of(bucket, request.context.settings.region)
    return empty_response(200, [("x-amz-bucket-region", region)])


async def delete_bucket(request: S3Request) -> S3Response:
    command = DeleteBucket(bucket=request.bucket)
    try:
        await request.session.commit(request.bucket, command, Done)
    finally:
        request.context.access.forget_bucket(request.bucket)
    return empty_response(204)


async def get_bucket_location(request: S3Request) -> S3Response:
    bucket = await confirm_bucket(request)
    region = region_of(bucket, request.context.settings.region)
    return xml_response(xmlwriter.render_location(None if region == _CLASSIC_REGION else region))
