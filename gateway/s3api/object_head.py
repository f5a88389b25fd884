"""An object's head between HTTP and the model: what a client says of it, what it is told.

Used by every operation that stores or shows an object. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from astra.commands import Condition, ObjectHead
from astra.model import Checksum, ObjectVersion, Versioning
from gateway.request_head import RequestHead
from gateway.s3api.conditions import parse_write_condition
from gateway.s3api.dates import format_http_date
from gateway.s3api.errors import S3Error
from gateway.s3api.names import quote_etag
from gateway.s3api.tags import parse_tagging_header
from gateway.s3api.usermeta import PREFIX, parse_user_metadata

DEFAULT_CONTENT_TYPE: Final = "binary/octet-stream"
_SYSTEM_HEADERS: Final = (
    "content-type",
    "cache-control",
    "content-disposition",
    "content-encoding",
    "content-language",
    "expires",
)
_STORAGE_CLASSES: Final = frozenset(
    {
        "STANDARD", "REDUCED_REDUNDANCY", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING",
        "GLACIER", "DEEP_ARCHIVE", "GLACIER_IR",
    }
)  # fmt: skip

Headers = list[tuple[str, str]]


def parse_object_head(
    head: RequestHead, headers: Mapping[str, str], *, owner_id: str
) -> ObjectHead:
    """Everything a PutObject, CopyObject or CreateMultipartUpload says of the object, but for its
    ACL (`acl_request`). Raises InvalidStorageClass, MetadataTooLarge, InvalidTag."""
    tagging = headers.get("x-amz-tagging")
    return ObjectHead(
        owner_id=owner_id,
        storage_class=parse_storage_class(headers),
        headers=_system_headers(headers),
        user_metadata=tuple(parse_user_metadata(_with_lifted(head, headers)).items()),
        tags=tuple(parse_tagging_header(tagging)) if tagging else (),
    )


def _with_lifted(head: RequestHead, headers: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The lines of the head, and the metadata that a presigner moved into the query."""
    prefix = PREFIX.decode()
    lifted = [
        (raw_name, value.encode())
        for name, value in headers.items()
        if name.startswith(prefix) and (raw_name := name.encode()) not in head.header_map
    ]
    return [*head.headers, *lifted]


def parse_storage_class(headers: Mapping[str, str]) -> str:
    storage_class = headers.get("x-amz-storage-class", "STANDARD")
    if storage_class not in _STORAGE_CLASSES:
        raise S3Error("InvalidStorageClass", StorageClassRequested=storage_class[:64])
    return storage_class


def _system_headers(headers: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    found: list[tuple[str, str]] = []
    for name in _SYSTEM_HEADERS:
        value = headers.get(name)
        if name == "content-encoding" and value is not None:
            value = _without_aws_chunked(value)
        if name == "content-type" and not value:
            value = DEFAULT_CONTENT_TYPE
        if value:
            found.append((name, value))
    return tuple(found)


def _without_aws_chunked(value: str) -> str:
    """aws-chunked is how the body travelled, not how the object is encoded."""
    codings = [coding.strip() for coding in value.split(",")]
    if "aws-chunked" not in codings:
        return value
    return ", ".join(coding for coding in codings if coding and coding != "aws-chunked")


def write_condition(headers: Mapping[str, str]) -> Condition:
    """If-Match and If-None-Match of a write, as apply decides them."""
    parsed = parse_write_condition(headers)
    unwanted = "*" if parsed.must_not_exist else parsed.if_none_match
    return Condition(
        if_match=(parsed.if_match,) if parsed.if_match is not None else (),
        if_none_match=(unwanted,) if unwanted is not None else (),
    )


def stored_headers(version: ObjectVersion, versioning: Versioning) -> Headers:
    """What every GET and HEAD of the version shows, beside length and range."""
    headers: Headers = [
        ("last-modified", format_http_date(version.modified_ms)),
        ("etag", quote_etag(version.etag)),
        ("accept-ranges", "bytes"),
        *version.headers,
    ]
    prefix = PREFIX.decode()
    headers.extend((prefix + name, value) for name, value in version.user_metadata)
    headers.extend(version_header(version.version_id, versioning))
    if version.storage_class != "STANDARD":
        headers.append(("x-amz-storage-class", version.storage_class))
    if version.tags:
        headers.append(("x-amz-tagging-count", str(len(version.tags))))
    return headers


def version_header(version_id: str, versioning: Versioning) -> Headers:
    """Shown once versioning was ever switched on; the null version is then called null."""
    return [] if versioning is Versioning.OFF else [("x-amz-version-id", version_id)]


def checksum_headers(checksum: Checksum | None) -> Headers:
    """x-amz-checksum-* and its type."""
    if checksum is None:
        return []
    return [
        (f"x-amz-checksum-{checksum.algorithm.lower()}", checksum.value),
        ("x-amz-checksum-type", "COMPOSITE" if checksum.composite else "FULL_OBJECT"),
    ]
