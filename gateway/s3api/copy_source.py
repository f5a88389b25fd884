"""The source of a copy: located with the right to read *it*, judged, and read without storing.

CopyObject and UploadPartCopy share bytes by reference, so nothing is moved. What the store does
not know of the copied bytes (the MD5 of a range, another checksum) is computed by reading them.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import aclosing
from typing import Final

from astra.constants import PUT_SIZE_MAX
from astra.errors import Unavailable
from astra.model import Versioning
from astra.wire import Located
from gateway.blob_read import cut_segments
from gateway.checksums import ChecksumAlgorithm, Digests
from gateway.policy import check_expected_owner
from gateway.s3api.conditions import check_copy_source, parse_copy_conditions
from gateway.s3api.errors import S3Error
from gateway.s3api.names import CopySource, parse_copy_source
from gateway.s3api.object_head import Headers
from gateway.s3api.object_read import extents_of, locate
from gateway.s3api.request import S3Request

SOURCE_ROUNDS_MAX: Final = 5  # look-ups of a source that changes again and again


def source_of(request: S3Request) -> CopySource:
    """What x-amz-copy-source names. Raises InvalidArgument."""
    return parse_copy_source(request.headers["x-amz-copy-source"])


async def locate_source(request: S3Request, source: CopySource, *, with_data: bool) -> Located:
    """The source version, if the asker may read it and its conditions hold. Raises NoSuchBucket,
    NoSuchKey, NoSuchVersion, AccessDenied, InvalidRequest (a delete marker by its version id),
    PreconditionFailed."""
    action = "s3:GetObject" if source.version_id is None else "s3:GetObjectVersion"
    bucket = await request.session.allow(source.bucket, action, deferred=True)
    check_expected_owner(bucket, request.headers.get("x-amz-source-expected-bucket-owner"))
    try:
        located = await locate(
            request,
            with_data=with_data,
            with_parts=True,
            bucket=source.bucket,
            key=source.key_bytes,
            version_id=source.version_id,
            action=action,
        )
    except S3Error as error:
        if error.code == "MethodNotAllowed":
            raise S3Error(
                "InvalidRequest",
                "The source of a copy request may not specifically refer to a delete marker by "
                "version id.",
            ) from None
        if error.code == "NoSuchKey":
            raise S3Error("NoSuchKey", Key=source.key) from None  # no headers of a marker
        raise
    version = located.version
    conditions = parse_copy_conditions(request.headers)
    check_copy_source(conditions, etag=version.etag, modified_ms=version.modified_ms)
    return located


def check_copy_size(size: int) -> None:
    """Raises InvalidRequest above what one copy may take."""
    if size > PUT_SIZE_MAX:
        raise S3Error(
            "InvalidRequest",
            "The specified copy source is larger than the maximum allowable size for a copy "
            f"source: {PUT_SIZE_MAX}",
        )


def source_version_header(located: Located) -> Headers:
    """Shown once versioning was ever switched on in the source bucket."""
    if located.versioning is Versioning.OFF:
        return []
    return [("x-amz-copy-source-version-id", located.version.version_id)]


async def digest_source(
    request: S3Request,
    located: Located,
    *,
    offset: int,
    length: int,
    algorithms: Iterable[ChecksumAlgorithm],
    md5: bool,
) -> Digests:
    """Digests of `length` bytes from `offset` of the source, which was located with its data;
    memory does not grow with the length. Raises Unavailable when no holder gives them."""
    digests = Digests(algorithms, md5=md5, sha256=False)
    context = request.context
    loop = asyncio.get_running_loop()
    pieces = context.reader.read(
        cut_segments(extents_of(located), offset, length),
        dict(located.inline),
        {place.blob_id: place for place in located.places},
    )
    async with aclosing(pieces):
        async for piece in pieces:  # the reader fetches ahead while a thread digests
            await loop.run_in_executor(context.digest_threads, digests.update, piece)
    if digests.size != length:
        raise Unavailable("the source of the copy ended too early")
    return digests
