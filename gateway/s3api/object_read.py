"""GetObject and HeadObject: one version, whole, a range of it, or one of its parts.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from astra.errors import RefusalCode, Refused
from astra.model import NULL_VERSION, Bucket, Extent, ObjectVersion, Part, decode_version_order
from astra.wire import Locate, Located
from gateway.blob_read import cut_segments
from gateway.s3api.conditions import (
    ByteRange,
    PartSpan,
    check_range_or_part,
    check_read,
    parse_range,
    parse_read_conditions,
    select_part,
)
from gateway.s3api.dates import format_http_date
from gateway.s3api.errors import S3Error
from gateway.s3api.names import parse_part_number, parse_version_id
from gateway.s3api.object_head import Headers, checksum_headers, stored_headers
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response

_OVERRIDES: Final = (
    "content-type",
    "content-language",
    "expires",
    "cache-control",
    "content-disposition",
    "content-encoding",
)


async def get_object(request: S3Request) -> S3Response:
    return await _read(request, with_data=True)


async def head_object(request: S3Request) -> S3Response:
    return await _read(request, with_data=False)


async def _read(request: S3Request, *, with_data: bool) -> S3Response:
    conditions = parse_read_conditions(request.headers)
    part_number = request.query.get("partNumber")
    range_header = request.headers.get("range")
    check_range_or_part(range_header=range_header, part_number=part_number)
    located = await locate(request, with_data=with_data, with_parts=part_number is not None)
    version = located.version
    check_read(conditions, etag=version.etag, modified_ms=version.modified_ms)
    if part_number is not None:
        return _answer_part(request, located, parse_part_number(part_number))
    byte_range = parse_range(range_header, size=version.size)
    return _answer(request, located, byte_range, _checksums(request, version, byte_range))


async def locate(
    request: S3Request,
    *,
    with_data: bool = False,
    with_parts: bool = False,
    bucket: str | None = None,
    key: bytes | None = None,
    version_id: str | None = None,
    action: str | None = None,
) -> Located:
    """The version that the request names (or the given one), never a delete marker, if who asks
    may do `action` on it. Raises AccessDenied, and to who may know that it is not there
    NoSuchKey, NoSuchVersion, MethodNotAllowed with the headers that tell of a marker."""
    bucket = bucket if bucket is not None else request.bucket
    if key is None:
        key, version_id = request.key, parse_version_id(request.query)
    name = key.decode()
    wanted = version_id
    if wanted is not None and wanted != NULL_VERSION and decode_version_order(wanted) is None:
        raise S3Error(
            "InvalidArgument",
            "Invalid version id specified",
            ArgumentName="versionId",
            ArgumentValue=wanted[:128],
        )
    try:
        located = await request.session.ask(
            bucket,
            lambda epochs: Locate(
                bucket=bucket,
                key=key,
                epochs=epochs,
                version_id=wanted,
                with_data=with_data,
                with_parts=with_parts,
            ),
            Located,
            action=action,
            deferred=True,
        )
    except Refused as error:
        if error.code in (RefusalCode.NO_SUCH_KEY, RefusalCode.NO_SUCH_VERSION):
            request.session.check_missing(await _allowed_bucket(request, bucket, action))
        if error.code is RefusalCode.NO_SUCH_KEY:
            raise S3Error("NoSuchKey", Key=name) from None
        if error.code is RefusalCode.NO_SUCH_VERSION:
            raise S3Error("NoSuchVersion", Key=name, VersionId=wanted or "") from None
        raise
    settings = await _allowed_bucket(request, bucket, action)
    if located.version.is_marker:
        request.session.check_missing(settings)
        raise _marker_error(located.version, name, named=wanted is not None)
    request.session.check_version(settings, located.version, action)
    return located


async def _allowed_bucket(request: S3Request, bucket: str, action: str | None) -> Bucket:
    """The settings that the answer was asked with."""
    return await request.session.allow(bucket, action, deferred=True)


def _marker_error(marker: ObjectVersion, name: str, *, named: bool) -> S3Error:
    headers = {"x-amz-delete-marker": "true", "x-amz-version-id": marker.version_id}
    if not named:
        return S3Error("NoSuchKey", headers=headers, Key=name)
    headers["allow"] = "DELETE"
    headers["last-modified"] = format_http_date(marker.modified_ms)
    return S3Error("MethodNotAllowed", headers=headers, Method="GET", ResourceType="DeleteMarker")


def extents_of(located: Located) -> Sequence[Extent]:
    """All extents of the version, in order."""
    if not located.parts:
        return located.version.extents
    return [extent for part in located.parts for extent in part.extents]


def _checksums(request: S3Request, version: ObjectVersion, byte_range: ByteRange | None) -> Headers:
    """Only on request, and only of what is sent whole."""
    if byte_range is not None or not _wants_checksums(request):
        return []
    return checksum_headers(version.checksum)


def _wants_checksums(request: S3Request) -> bool:
    return request.headers.get("x-amz-checksum-mode", "").upper() == "ENABLED"


def _answer_part(request: S3Request, located: Located, number: int) -> S3Response:
    version = located.version
    sizes = [part.size for part in located.parts] or [version.size]
    span: PartSpan = select_part(sizes, number)
    headers: Headers = []
    if located.parts:
        headers.append(("x-amz-mp-parts-count", str(version.part_count)))
        if _wants_checksums(request):
            headers.extend(_part_checksum(version, located.parts[number - 1]))
    elif _wants_checksums(request):
        headers.extend(checksum_headers(version.checksum))
    return _answer(request, located, span.byte_range, headers)


def _part_checksum(version: ObjectVersion, part: Part) -> Headers:
    """The part's own value; the type that is told with it is always that of the object."""
    is_composite = version.checksum is not None and version.checksum.composite
    if part.checksum is None:
        return []
    return checksum_headers(replace(part.checksum, composite=is_composite))


def _answer(
    request: S3Request, located: Located, byte_range: ByteRange | None, more: Headers
) -> S3Response:
    version = located.version
    headers = _overridden(request, stored_headers(version, located.versioning))
    headers.extend(more)
    length, first = version.size, 0
    if byte_range is not None:
        length, first = byte_range.length, byte_range.first
        headers.append(("content-range", byte_range.content_range(version.size)))
    headers.append(("content-length", str(length)))
    response = S3Response(status=200 if byte_range is None else 206, headers=headers, length=length)
    if request.operation.name == "GetObject" and length:
        response.stream = request.context.reader.read(
            cut_segments(extents_of(located), first, length),
            dict(located.inline),
            {place.blob_id: place for place in located.places},
        )
    return response


def _overridden(request: S3Request, headers: Headers) -> Headers:
    """response-content-type and the like replace what is stored. Only who signed may ask."""
    wanted = {
        name: value
        for name in _OVERRIDES
        if (value := request.query.get(f"response-{name}")) is not None
    }
    if not wanted:
        return headers
    if request.session.grantee.is_anonymous:
        raise S3Error(
            "InvalidRequest",
            "Request specific response headers cannot be used for anonymous GET requests.",
        )
    for name, value in wanted.items():
        if not value.isprintable() or not value.isascii():
            raise S3Error("InvalidArgument", ArgumentName=f"response-{name}")
    kept = [(name, value) for name, value in headers if name not in wanted]
    return kept + list(wanted.items())
