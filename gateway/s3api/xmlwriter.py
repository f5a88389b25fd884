"""The XML documents of S3 answers, from the values in `documents.py`.

Rules: string joins, no element tree: a listing of 1000 keys must render in a few milliseconds.
Each function returns the whole body as UTF-8.
Invariants: every text goes through `escape` (or is a number or a date), so each document is
well-formed whatever keys hold; element order is S3's; `tests/.../test_xmlwriter.py` parses each
with the SDK's own parser.
Source: AWS "Amazon S3 API Reference", response syntax of each operation.
"""

import functools
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from gateway.s3api.dates import format_iso8601
from gateway.s3api.documents import (
    AccessControlPolicy,
    AttributesParts,
    BucketsPage,
    Checksum,
    Copied,
    Deleted,
    DeleteFailed,
    DeleteMarkerEntry,
    DeleteResult,
    GrantEntry,
    KeysPage,
    ObjectAttributes,
    ObjectEntry,
    ObjectsPage,
    ObjectsPageV2,
    Owner,
    PartEntry,
    PartsPage,
    UploadCompleted,
    UploadEntry,
    UploadsPage,
    UploadStarted,
    VersionEntry,
    VersionsPage,
)
from gateway.s3api.names import unquote_etag, url_encode
from gateway.s3api.xmltext import XML_DECLARATION, escape

_XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
NAMESPACE: Final = "http://s3.amazonaws.com/doc/2006-03-01/"

# What url-decoding would change, or XML cannot hold.
_DECODED_OR_LOST: Final = re.compile("[%+\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")

_Encode = Callable[[str], str]


def _document(root: str, *content: str) -> bytes:
    inner = "".join(content)
    return f'{XML_DECLARATION}<{root} xmlns="{NAMESPACE}">{inner}</{root}>'.encode()


def _element(name: str, text: str | None) -> str:
    """`<name>text</name>`, or nothing for None."""
    return "" if text is None else f"<{name}>{escape(text)}</{name}>"


def _number(name: str, number: int | None) -> str:
    return "" if number is None else f"<{name}>{number}</{name}>"


def _flag(name: str, value: bool) -> str:
    return f"<{name}>{'true' if value else 'false'}</{name}>"


def _etag(etag: str) -> str:
    return f"<ETag>&quot;{escape(unquote_etag(etag))}&quot;</ETag>"


def _owner(owner: Owner | None, name: str = "Owner") -> str:
    if owner is None:
        return ""
    return (
        f"<{name}><ID>{escape(owner.owner_id)}</ID>"
        f"<DisplayName>{escape(owner.display_name)}</DisplayName></{name}>"
    )


def _checksums(checksums: Iterable[Checksum]) -> str:
    return "".join(
        f"<Checksum{item.algorithm}>{escape(item.value)}</Checksum{item.algorithm}>"
        for item in checksums
    )


@functools.lru_cache(maxsize=64)  # a few values, for each entry of a listing
def _checksum_kind(algorithm: str | None, checksum_type: str | None) -> str:
    if algorithm is checksum_type is None:
        return ""
    return _element("ChecksumAlgorithm", algorithm) + _element("ChecksumType", checksum_type)


def _names_as(url_encoded: bool) -> tuple[_Encode, str]:
    """How names are written, and the EncodingType element that says so."""
    if url_encoded:
        return url_encode, "<EncodingType>url</EncodingType>"
    return escape, ""


def _common_prefixes(prefixes: Iterable[str], encode: _Encode) -> str:
    return "".join(
        f"<CommonPrefixes><Prefix>{encode(prefix)}</Prefix></CommonPrefixes>" for prefix in prefixes
    )


def _named(name: str, text: str | None, encode: _Encode) -> str:
    return "" if text is None else f"<{name}>{encode(text)}</{name}>"


# --- listings --------------------------------------------------------------------------------


def render_buckets(page: BucketsPage) -> bytes:
    """ListAllMyBucketsResult."""
    buckets = "".join(
        f"<Bucket><Name>{escape(bucket.name)}</Name>"
        f"<CreationDate>{format_iso8601(bucket.created_ms)}</CreationDate>"
        f"{_element('BucketRegion', bucket.region)}</Bucket>"
        for bucket in page.buckets
    )
    return _document(
        "ListAllMyBucketsResult",
        _owner(page.owner),
        f"<Buckets>{buckets}</Buckets>",
        _element("Prefix", page.prefix),
        _element("ContinuationToken", page.continuation_token),
    )


def _keys_page_end(page: KeysPage, entries: str) -> str:
    """How the listings of objects and of versions end."""
    encode, encoding_type = _names_as(page.url_encoded)
    return "".join(
        (
            _number("MaxKeys", page.max_keys),
            _named("Delimiter", page.delimiter, encode),
            encoding_type,
            _flag("IsTruncated", page.is_truncated),
            entries,
            _common_prefixes(page.common_prefixes, encode),
        )
    )


def _stored(entry: ObjectEntry) -> str:
    """What is said of an object, and of a version, after its name and time."""
    return (
        f"{_etag(entry.etag)}"
        f"{_checksum_kind(entry.checksum_algorithm, entry.checksum_type)}"
        f"<Size>{entry.size}</Size>{_owner(entry.owner)}"
        f"<StorageClass>{escape(entry.storage_class)}</StorageClass>"
    )


def _contents(entries: Iterable[ObjectEntry], encode: _Encode) -> str:
    return "".join(
        f"<Contents><Key>{encode(entry.key)}</Key>"
        f"<LastModified>{format_iso8601(entry.modified_ms)}</LastModified>"
        f"{_stored(entry)}</Contents>"
        for entry in entries
    )


def render_objects(page: ObjectsPage) -> bytes:
    """ListBucketResult of ListObjects.

    The SDK for Python does not decode the Prefix of this one, others do: where both readings of
    the plain text are the same, it stays plain.
    """
    encode, _ = _names_as(page.url_encoded)
    is_plain = not _DECODED_OR_LOST.search(page.prefix)
    return _document(
        "ListBucketResult",
        _element("Name", page.bucket),
        _named("Prefix", page.prefix, escape if is_plain else encode),
        _named("Marker", page.marker, encode),
        _named("NextMarker", page.next_marker, encode),
        _keys_page_end(page, _contents(page.entries, encode)),
    )


def render_objects_v2(page: ObjectsPageV2) -> bytes:
    """ListBucketResult of ListObjectsV2."""
    encode, _ = _names_as(page.url_encoded)
    return _document(
        "ListBucketResult",
        _element("Name", page.bucket),
        _named("Prefix", page.prefix, encode),
        _named("StartAfter", page.start_after, encode),
        _element("ContinuationToken", page.continuation_token),
        _element("NextContinuationToken", page.next_continuation_token),
        _number("KeyCount", len(page.entries) + len(page.common_prefixes)),
        _keys_page_end(page, _contents(page.entries, encode)),
    )


def _version(entry: VersionEntry | DeleteMarkerEntry, encode: _Encode) -> str:
    head = (
        f"<Key>{encode(entry.key)}</Key><VersionId>{escape(entry.version_id)}</VersionId>"
        f"{_flag('IsLatest', entry.is_latest)}"
        f"<LastModified>{format_iso8601(entry.modified_ms)}</LastModified>"
    )
    if isinstance(entry, DeleteMarkerEntry):
        return f"<DeleteMarker>{head}{_owner(entry.owner)}</DeleteMarker>"
    return f"<Version>{head}{_stored(entry)}</Version>"


def render_versions(page: VersionsPage) -> bytes:
    """ListVersionsResult."""
    encode, _ = _names_as(page.url_encoded)
    return _document(
        "ListVersionsResult",
        _element("Name", page.bucket),
        _named("Prefix", page.prefix, encode),
        _named("KeyMarker", page.key_marker, encode),
        _element("VersionIdMarker", page.version_id_marker),
        _named("NextKeyMarker", page.next_key_marker, encode),
        _element("NextVersionIdMarker", page.next_version_id_marker),
        _keys_page_end(page, "".join([_version(entry, encode) for entry in page.entries])),
    )


# --- multipart uploads -----------------------------------------------------------------------


def render_upload_started(upload: UploadStarted) -> bytes:
    """InitiateMultipartUploadResult."""
    return _document(
        "InitiateMultipartUploadResult",
        _element("Bucket", upload.bucket),
        _element("Key", upload.key),
        _element("UploadId", upload.upload_id),
    )


def render_upload_completed(upload: UploadCompleted) -> bytes:
    """CompleteMultipartUploadResult."""
    return _document(
        "CompleteMultipartUploadResult",
        _element("Location", upload.location),
        _element("Bucket", upload.bucket),
        _element("Key", upload.key),
        _etag(upload.etag),
        _checksums(upload.checksums),
        _element("ChecksumType", upload.checksum_type),
    )


def _part(part: PartEntry) -> str:
    return (
        f"<Part><PartNumber>{part.part_number}</PartNumber>"
        f"<LastModified>{format_iso8601(part.modified_ms)}</LastModified>"
        f"{_etag(part.etag)}<Size>{part.size}</Size>{_checksums(part.checksums)}</Part>"
    )


def render_parts(page: PartsPage) -> bytes:
    """ListPartsResult."""
    encode, encoding_type = _names_as(page.url_encoded)
    return _document(
        "ListPartsResult",
        _element("Bucket", page.bucket),
        encoding_type,
        _named("Key", page.key, encode),
        _element("UploadId", page.upload_id),
        _owner(page.initiator, "Initiator"),
        _owner(page.owner),
        _element("StorageClass", page.storage_class),
        _number("PartNumberMarker", page.part_number_marker),
        _number("NextPartNumberMarker", page.next_part_number_marker),
        _number("MaxParts", page.max_parts),
        _flag("IsTruncated", page.is_truncated),
        _checksum_kind(page.checksum_algorithm, page.checksum_type),
        "".join([_part(part) for part in page.parts]),
    )


def _upload(upload: UploadEntry, encode: _Encode) -> str:
    return (
        f"<Upload><Key>{encode(upload.key)}</Key>"
        f"<UploadId>{escape(upload.upload_id)}</UploadId>"
        f"{_owner(upload.initiator, 'Initiator')}{_owner(upload.owner)}"
        f"<StorageClass>{escape(upload.storage_class)}</StorageClass>"
        f"<Initiated>{format_iso8601(upload.initiated_ms)}</Initiated>"
        f"{_checksum_kind(upload.checksum_algorithm, upload.checksum_type)}</Upload>"
    )


def render_uploads(page: UploadsPage) -> bytes:
    """ListMultipartUploadsResult."""
    encode, encoding_type = _names_as(page.url_encoded)
    return _document(
        "ListMultipartUploadsResult",
        _element("Bucket", page.bucket),
        _named("KeyMarker", page.key_marker, encode),
        _element("UploadIdMarker", page.upload_id_marker),
        _named("NextKeyMarker", page.next_key_marker, encode),
        _element("NextUploadIdMarker", page.next_upload_id_marker),
        _named("Delimiter", page.delimiter, encode),
        _named("Prefix", page.prefix, encode),
        encoding_type,
        _number("MaxUploads", page.max_uploads),
        _flag("IsTruncated", page.is_truncated),
        "".join([_upload(upload, encode) for upload in page.uploads]),
        _common_prefixes(page.common_prefixes, encode),
    )


# --- objects ---------------------------------------------------------------------------------


def _copied(root: str, copied: Copied) -> bytes:
    return _document(
        root,
        _etag(copied.etag),
        _element("LastModified", format_iso8601(copied.modified_ms)),
        _element("ChecksumType", copied.checksum_type),
        _checksums(copied.checksums),
    )


def render_copied_object(copied: Copied) -> bytes:
    """CopyObjectResult."""
    return _copied("CopyObjectResult", copied)


def render_copied_part(copied: Copied) -> bytes:
    """CopyPartResult."""
    return _copied("CopyPartResult", copied)


def _deleted(item: Deleted) -> str:
    marker = _flag("DeleteMarker", item.delete_marker) if item.delete_marker else ""
    return (
        f"<Deleted><Key>{escape(item.key)}</Key>{_element('VersionId', item.version_id)}{marker}"
        f"{_element('DeleteMarkerVersionId', item.delete_marker_version_id)}</Deleted>"
    )


def _delete_failed(item: DeleteFailed) -> str:
    return (
        f"<Error><Key>{escape(item.key)}</Key>{_element('VersionId', item.version_id)}"
        f"<Code>{escape(item.code)}</Code><Message>{escape(item.message)}</Message></Error>"
    )


def render_deleted(result: DeleteResult) -> bytes:
    """DeleteResult of DeleteObjects."""
    return _document(
        "DeleteResult",
        "".join([_deleted(item) for item in result.deleted]),
        "".join([_delete_failed(item) for item in result.failed]),
    )


def _attributes_parts(parts: AttributesParts) -> str:
    listed = "".join(
        f"<Part><PartNumber>{part.part_number}</PartNumber><Size>{part.size}</Size>"
        f"{_checksums(part.checksums)}</Part>"
        for part in parts.parts
    )
    return (
        f"<ObjectParts>{_number('PartsCount', parts.total_parts_count)}"
        f"{_number('PartNumberMarker', parts.part_number_marker)}"
        f"{_number('NextPartNumberMarker', parts.next_part_number_marker)}"
        f"{_number('MaxParts', parts.max_parts)}{_flag('IsTruncated', parts.is_truncated)}"
        f"{listed}</ObjectParts>"
    )


def render_attributes(attributes: ObjectAttributes) -> bytes:
    """GetObjectAttributesResponse. Its ETag, alone among all, has no quotes."""
    checksum = _checksums(attributes.checksums)
    if checksum:
        kind = _element("ChecksumType", attributes.checksum_type)
        checksum = f"<Checksum>{checksum}{kind}</Checksum>"
    etag = None if attributes.etag is None else unquote_etag(attributes.etag)
    return _document(
        "GetObjectAttributesResponse",
        _element("ETag", etag),
        checksum,
        "" if attributes.parts is None else _attributes_parts(attributes.parts),
        _element("StorageClass", attributes.storage_class),
        _number("ObjectSize", attributes.size),
    )


# --- settings --------------------------------------------------------------------------------


def render_location(region: str | None) -> bytes:
    """LocationConstraint; None is the default region, which S3 writes as the empty element."""
    return _document("LocationConstraint", escape(region or ""))


def render_versioning(status: str | None) -> bytes:
    """VersioningConfiguration; None for a bucket on which versioning was never switched on."""
    return _document("VersioningConfiguration", _element("Status", status))


def render_tagging(tags: Sequence[tuple[str, str]]) -> bytes:
    """Tagging."""
    listed = "".join(
        f"<Tag><Key>{escape(key)}</Key><Value>{escape(value)}</Value></Tag>" for key, value in tags
    )
    return _document("Tagging", f"<TagSet>{listed}</TagSet>")


def _grant(grant: GrantEntry) -> str:
    if grant.kind == "Group":
        inner = _element("URI", grant.value)
    else:
        inner = _element("ID", grant.value) + _element("DisplayName", grant.display_name)
    return (
        f'<Grant><Grantee xmlns:xsi="{_XSI}" xsi:type="{grant.kind}">{inner}</Grantee>'
        f"{_element('Permission', grant.permission)}</Grant>"
    )


def render_acl(policy: AccessControlPolicy) -> bytes:
    """AccessControlPolicy, of users and groups."""
    granted = "".join([_grant(grant) for grant in policy.grants])
    return _document(
        "AccessControlPolicy",
        _owner(policy.owner),
        f"<AccessControlList>{granted}</AccessControlList>",
    )
