"""Get and Put of ACLs, as far as the only ACL that there is: the owner may do everything.

Other grants come with policies; until then to store one would be a lie, and is 501. What clients
send and ask along with every object (`private`, s3cmd info) works.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAcl.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutBucketAcl.html
"""

from __future__ import annotations

from gateway.s3api import xmlwriter
from gateway.s3api.bucket import confirm_bucket
from gateway.s3api.errors import S3Error, operation_not_implemented
from gateway.s3api.object_head import refuse_grants, version_header
from gateway.s3api.object_read import locate
from gateway.s3api.owners import load_owners
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, empty_response, xml_response


async def get_bucket_acl(request: S3Request) -> S3Response:
    bucket = await confirm_bucket(request)
    owners = await load_owners(request)
    return xml_response(xmlwriter.render_acl(owners.get(bucket.owner_id)))


async def put_bucket_acl(request: S3Request) -> S3Response:
    _check_private(request)
    await confirm_bucket(request)
    return empty_response(200)


async def get_object_acl(request: S3Request) -> S3Response:
    located = await locate(request)
    owners = await load_owners(request)
    headers = version_header(located.version.version_id, located.versioning)
    body = xmlwriter.render_acl(owners.get(located.version.owner_id))
    return xml_response(body, headers=headers)


async def put_object_acl(request: S3Request) -> S3Response:
    _check_private(request)
    located = await locate(request)
    return empty_response(200, version_header(located.version.version_id, located.versioning))


def _check_private(request: S3Request) -> None:
    """Raises NotImplemented for grants, MissingSecurityHeader when nothing was asked for."""
    refuse_grants(request.headers)
    if request.body.length:
        raise operation_not_implemented(f"{request.operation.name} with a list of grants")
    if "x-amz-acl" not in request.headers:
        raise S3Error("MissingSecurityHeader", MissingHeaderName="x-amz-acl")
