"""GetObjectTagging, PutObjectTagging, DeleteObjectTagging: the tags of one version.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_PutObjectTagging.html
"""

from __future__ import annotations

from typing import Final

from astra.commands import SetObjectTags, VersionDone
from astra.constants import XML_BODY_BYTES_MAX
from astra.errors import RefusalCode, Refused
from gateway.s3api import xmlwriter
from gateway.s3api.errors import S3Error
from gateway.s3api.object_head import Headers, version_header
from gateway.s3api.object_read import locate
from gateway.s3api.refusals import s3_code
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, empty_response, xml_response
from gateway.s3api.tags import Tags
from gateway.s3api.version_ids import requested_version_id
from gateway.s3api.xml import parse_object_tagging

_ABOUT_THE_KEY: Final = frozenset(
    {RefusalCode.NO_SUCH_KEY, RefusalCode.NO_SUCH_VERSION, RefusalCode.IS_DELETE_MARKER}
)


async def get_object_tagging(request: S3Request) -> S3Response:
    located = await locate(request)
    headers = version_header(located.version.version_id, located.versioning)
    return xml_response(xmlwriter.render_tagging(located.version.tags), headers=headers)


async def put_object_tagging(request: S3Request) -> S3Response:
    tags = parse_object_tagging(await request.body.read_all(XML_BODY_BYTES_MAX))
    return empty_response(200, await _set_tags(request, tags))


async def delete_object_tagging(request: S3Request) -> S3Response:
    return empty_response(204, await _set_tags(request, ()))


async def _set_tags(request: S3Request, tags: Tags) -> Headers:
    """Replaces the tags; the headers that name the version."""
    command = SetObjectTags(
        bucket=request.bucket,
        key=request.key,
        version_id=requested_version_id(request.query),
        tags=tags,
    )
    try:
        done = await request.session.commit(request.bucket, command, VersionDone)
    except Refused as error:
        if error.code in _ABOUT_THE_KEY:
            raise S3Error(s3_code(error.code), Key=request.key.decode()) from None
        raise
    return [("x-amz-version-id", done.version_id)] if done.versioned else []
