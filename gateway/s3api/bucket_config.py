"""Settings of a bucket: versioning and tags.

Reading a setting asks the leader, writing one moves the bucket's epoch; so no gateway goes on
with an older one (DESIGN section 4).

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketVersioning.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketTagging.html
"""

from __future__ import annotations

from typing import Final

from astra.commands import Done, SetBucketTags, SetVersioning
from astra.constants import XML_BODY_BYTES_MAX
from astra.model import Versioning
from gateway.s3api import xmlwriter
from gateway.s3api.bucket import confirm_bucket
from gateway.s3api.errors import S3Error
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, empty_response, xml_response
from gateway.s3api.xml import parse_bucket_tagging, parse_versioning

_STATES: Final = {"Enabled": Versioning.ENABLED, "Suspended": Versioning.SUSPENDED}
_STATUS: Final = {state: status for status, state in _STATES.items()}


async def get_bucket_versioning(request: S3Request) -> S3Response:
    bucket = await confirm_bucket(request)
    return xml_response(xmlwriter.render_versioning(_STATUS.get(bucket.versioning)))


async def put_bucket_versioning(request: S3Request) -> S3Response:
    status = parse_versioning(await request.body.read_all(XML_BODY_BYTES_MAX))
    await _change(request, SetVersioning(bucket=request.bucket, versioning=_STATES[status]))
    return empty_response(200)


async def get_bucket_tagging(request: S3Request) -> S3Response:
    bucket = await confirm_bucket(request)
    if not bucket.tags:
        raise S3Error("NoSuchTagSet", BucketName=request.bucket)
    return xml_response(xmlwriter.render_tagging(bucket.tags))


async def put_bucket_tagging(request: S3Request) -> S3Response:
    tags = parse_bucket_tagging(await request.body.read_all(XML_BODY_BYTES_MAX))
    await _change(request, SetBucketTags(bucket=request.bucket, tags=tags))
    return empty_response(request.operation.status)


async def delete_bucket_tagging(request: S3Request) -> S3Response:
    await _change(request, SetBucketTags(bucket=request.bucket, tags=()))
    return empty_response(204)


async def _change(request: S3Request, command: SetVersioning | SetBucketTags) -> None:
    try:
        await request.session.commit(request.bucket, command, Done)
    finally:
        request.context.access.forget_bucket(request.bucket)
