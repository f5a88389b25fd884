"""GetObjectAttributes: chosen facts of one version, and a page of its parts.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObjectAttributes.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from astra.constants import LIST_KEYS_MAX
from astra.model import Part
from astra.wire import Located
from gateway.s3api import documents as doc
from gateway.s3api.dates import format_http_date
from gateway.s3api.errors import S3Error
from gateway.s3api.multipart_list import document_checksum_type, document_checksums
from gateway.s3api.names import parse_max_parts, parse_part_number_marker
from gateway.s3api.object_head import Headers, version_header
from gateway.s3api.object_read import locate
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, xml_response
from gateway.s3api.xmlwriter import render_attributes

_HEADER: Final = "x-amz-object-attributes"
_ATTRIBUTES: Final = frozenset({"ETag", "Checksum", "ObjectParts", "StorageClass", "ObjectSize"})


async def get_object_attributes(request: S3Request) -> S3Response:
    wanted = parse_attributes(request.headers)
    limit, after = parse_parts_page(request.headers)
    located = await locate(request, with_parts="ObjectParts" in wanted)
    version = located.version
    headers: Headers = [
        ("last-modified", format_http_date(version.modified_ms)),
        *version_header(version.version_id, located.versioning),
    ]
    attributes = attributes_of(located, wanted, limit=limit, after=after)
    return xml_response(render_attributes(attributes), headers=headers)


def parse_attributes(headers: Mapping[str, str]) -> frozenset[str]:
    """The attributes asked for. Raises InvalidArgument for none and for an unknown one."""
    text = headers.get(_HEADER, "")
    names = frozenset(name for item in text.split(",") if (name := item.strip(" \t")))
    if not names:
        raise S3Error(
            "InvalidArgument",
            f"The {_HEADER} header specifying the attributes to be retrieved is either missing "
            "or empty",
            ArgumentName=_HEADER,
        )
    if not names <= _ATTRIBUTES:
        raise S3Error(
            "InvalidArgument",
            "Invalid attribute name specified.",
            ArgumentName=_HEADER,
            ArgumentValue=text[:128],
        )
    return names


def parse_parts_page(headers: Mapping[str, str]) -> tuple[int, int]:
    """How many parts, and after which. Bounded as the query parameters of ListParts are."""
    query = {
        name: headers[header]
        for name, header in (
            ("max-parts", "x-amz-max-parts"),
            ("part-number-marker", "x-amz-part-number-marker"),
        )
        if header in headers
    }
    return min(parse_max_parts(query), LIST_KEYS_MAX), parse_part_number_marker(query)


def attributes_of(
    located: Located, wanted: frozenset[str], *, limit: int, after: int
) -> doc.ObjectAttributes:
    version = located.version
    with_checksum = "Checksum" in wanted
    with_parts = "ObjectParts" in wanted and version.part_count > 0
    return doc.ObjectAttributes(
        etag=version.etag if "ETag" in wanted else None,
        checksums=document_checksums(version.checksum) if with_checksum else (),
        checksum_type=document_checksum_type(version.checksum) if with_checksum else None,
        parts=_parts_page(located.parts, limit=limit, after=after) if with_parts else None,
        storage_class=version.storage_class if "StorageClass" in wanted else None,
        size=version.size if "ObjectSize" in wanted else None,
    )


def _parts_page(parts: Sequence[Part], *, limit: int, after: int) -> doc.AttributesParts:
    """Parts are renumbered from 1 without gaps, as partNumber of a GET counts them."""
    listed = range(after, min(after + limit, len(parts)))
    last = listed[-1] + 1 if listed else 0
    return doc.AttributesParts(
        total_parts_count=len(parts),
        part_number_marker=after,
        next_part_number_marker=last,
        max_parts=limit,
        is_truncated=bool(listed) and last < len(parts),
        parts=[
            doc.AttributesPart(
                part_number=place + 1,
                size=parts[place].size,
                checksums=document_checksums(parts[place].checksum),
            )
            for place in listed
        ],
    )
