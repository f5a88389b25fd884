"""CopyObject: a new version that shares the bytes of another, in one command.

The command names exactly one source version, so the copy is of what was located and judged; when
that version has gone meanwhile, everything is looked up and judged again. A copy of an object
that was completed from parts keeps these parts, and so its ETag.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from astra.commands import Condition, CopyObject, ObjectHead, Pairs, PutDone
from astra.errors import RefusalCode, Refused
from astra.model import Checksum
from astra.wire import Located
from gateway.checksums import ChecksumAlgorithm, parse_algorithm
from gateway.s3api.acl_request import requested_acl
from gateway.s3api.copy_source import (
    SOURCE_ROUNDS_MAX,
    check_copy_size,
    digest_source,
    locate_source,
    source_of,
    source_version_header,
)
from gateway.s3api.documents import Copied
from gateway.s3api.errors import S3Error
from gateway.s3api.multipart_list import document_checksum_type, document_checksums
from gateway.s3api.names import CopySource
from gateway.s3api.object_head import (
    parse_object_head,
    parse_storage_class,
    write_condition,
)
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, xml_response
from gateway.s3api.tags import parse_tagging_header
from gateway.s3api.xmlwriter import render_copied_object

_ALGORITHM_HEADER = "x-amz-checksum-algorithm"


class Directive(Enum):
    COPY = "COPY"
    REPLACE = "REPLACE"


@dataclass(frozen=True, slots=True, kw_only=True)
class CopyWish:
    """What the request asks for, beside the bytes. None: as the source has it."""

    source: CopySource
    head: ObjectHead | None
    tags: Pairs | None
    storage_class: str
    names_storage_class: bool
    algorithm: ChecksumAlgorithm | None
    condition: Condition

    @property
    def changes_something(self) -> bool:
        """Whether a copy of the object onto itself would make any difference."""
        return (
            self.head is not None
            or self.tags is not None
            or self.names_storage_class
            or self.algorithm is not None
            or self.source.version_id is not None
        )


async def copy_object(request: S3Request) -> S3Response:
    if request.session.grantee.is_anonymous:
        raise S3Error("AccessDenied", "Anonymous users cannot copy objects. Please authenticate")
    wish = parse_wish(request)
    _refuse_idle_copy(request, wish)
    for _ in range(SOURCE_ROUNDS_MAX):
        located = await locate_source(request, wish.source, with_data=wish.algorithm is not None)
        check_copy_size(located.version.size)
        command = await _command(request, wish, located)
        try:
            done = await request.session.commit(request.bucket, command, PutDone)
        except Refused as error:
            if error.code is not RefusalCode.SOURCE_CHANGED:
                raise
            continue
        return _answer(done, located)
    raise Refused(RefusalCode.SOURCE_CHANGED, "the source changes faster than it can be copied")


def parse_wish(request: S3Request) -> CopyWish:
    """Raises what the headers deserve."""
    headers = request.headers
    head: ObjectHead | None = None
    if parse_directive(headers, "metadata") is Directive.REPLACE:
        head = parse_object_head(request.head, headers, owner_id=request.user_id)
    tags: Pairs | None = None
    if parse_directive(headers, "tagging") is Directive.REPLACE:
        tags = tuple(parse_tagging_header(headers.get("x-amz-tagging", "")))
    algorithm = headers.get(_ALGORITHM_HEADER)
    return CopyWish(
        source=source_of(request),
        head=head,
        tags=tags,
        storage_class=parse_storage_class(headers),
        names_storage_class="x-amz-storage-class" in headers,
        algorithm=None if algorithm is None else parse_algorithm(algorithm, _ALGORITHM_HEADER),
        condition=write_condition(headers),
    )


def parse_directive(headers: Mapping[str, str], what: str) -> Directive:
    """x-amz-metadata-directive or x-amz-tagging-directive. Raises InvalidArgument."""
    name = f"x-amz-{what}-directive"
    value = headers.get(name, "COPY")
    try:
        return Directive(value)
    except ValueError:
        raise S3Error(
            "InvalidArgument",
            f"Unknown {what} directive.",
            ArgumentName=name,
            ArgumentValue=value[:64],
        ) from None


def _refuse_idle_copy(request: S3Request, wish: CopyWish) -> None:
    is_itself = wish.source.bucket == request.bucket and wish.source.key_bytes == request.key
    if is_itself and not wish.changes_something:
        raise S3Error(
            "InvalidRequest",
            "This copy request is illegal because it is trying to copy an object to itself "
            "without changing the object's metadata, storage class, website redirect location "
            "or encryption attributes.",
        )


async def _command(request: S3Request, wish: CopyWish, located: Located) -> CopyObject:
    return CopyObject(
        bucket=request.bucket,
        key=request.key,
        source_bucket=wish.source.bucket,
        source_key=wish.source.key_bytes,
        source_order=located.version.order,
        owner_id=request.user_id,
        storage_class=wish.storage_class,
        head=wish.head,
        tags=wish.tags,
        checksum=await _other_checksum(request, wish.algorithm, located),
        condition=wish.condition,
        acl=await requested_acl(request),
    )


async def _other_checksum(
    request: S3Request, algorithm: ChecksumAlgorithm | None, located: Located
) -> Checksum | None:
    """The checksum asked for, of all bytes; None when the source has it already."""
    has = located.version.checksum
    if algorithm is None:
        return None
    if has is not None and has.algorithm == algorithm.value and not has.composite:
        return None
    digests = await digest_source(
        request,
        located,
        offset=0,
        length=located.version.size,
        algorithms=[algorithm],
        md5=False,
    )
    return Checksum(algorithm=algorithm.value, value=digests.checksums()[algorithm])


def _answer(done: PutDone, located: Located) -> S3Response:
    copied = Copied(
        etag=done.etag,
        modified_ms=done.modified_ms,
        checksums=document_checksums(done.checksum),
        checksum_type=document_checksum_type(done.checksum),
    )
    headers = source_version_header(located)
    if done.versioned:
        headers.append(("x-amz-version-id", done.version_id))
    return xml_response(render_copied_object(copied), headers=headers)
