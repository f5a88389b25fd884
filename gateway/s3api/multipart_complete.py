"""CompleteMultipartUpload: the named parts become one object, in one command.

The gateway computes ETag and checksum of the whole from the parts as they are stored, and names
in the command exactly those it computed from; apply refuses when one of them was replaced
meanwhile. An upload that is gone may have been completed by the same request before (a client
whose connection broke asks again): the command is sent all the same, and apply answers the first
answer, or that there is no such upload.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from astra.commands import CompleteUpload, NamedPart, PutDone
from astra.constants import OBJECT_SIZE_MAX, PART_SIZE_MIN, XML_BODY_BYTES_MAX
from astra.errors import RefusalCode, Refused
from astra.model import Checksum, Part, Upload
from gateway.checksums import (
    HEADER_PREFIX,
    ChecksumAlgorithm,
    ChecksumType,
    combine_full_object,
    composite,
    declared_checksum,
    encode,
    multipart_etag,
)
from gateway.checksums import decode as decode_checksum
from gateway.request_head import RequestHead
from gateway.s3api.documents import UploadCompleted
from gateway.s3api.errors import S3Error
from gateway.s3api.multipart import checksum_mismatch, read_parts, upload_id_of
from gateway.s3api.multipart_list import document_checksum_type, document_checksums
from gateway.s3api.object_head import Headers, write_condition
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, xml_response
from gateway.s3api.xml import CompletedPart, parse_complete_multipart
from gateway.s3api.xmlwriter import render_upload_completed

_PARTS_PER_PAGE: Final = 1000
_SIZE_HEADER: Final = "x-amz-mp-object-size"
_TYPE_HEADER: Final = "x-amz-checksum-type"
_SIZE_DIGITS_MAX: Final = 19


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What the client says the whole object is. `checksum` is text: "b64" or "b64-N"."""

    algorithm: ChecksumAlgorithm | None = None
    checksum: str = ""
    kind: ChecksumType | None = None
    size: int | None = None


async def complete_multipart_upload(request: S3Request) -> S3Response:
    upload_id = upload_id_of(request)
    condition = write_condition(request.headers)
    expected = parse_expected(request.headers)
    named = parse_complete_multipart(await _read_document(request))
    parts: Sequence[Part] = ()
    checksum: Checksum | None = None
    try:
        upload, stored = await _read_all_parts(request, upload_id)
        parts = choose_parts(named, stored, upload_id)
        checksum = whole_checksum(upload, parts)
        check_expected(expected, upload, parts, checksum)
    except Refused as error:
        if error.code is not RefusalCode.NO_SUCH_UPLOAD:
            raise
    command = CompleteUpload(
        bucket=request.bucket,
        key=request.key,
        upload_id=upload_id,
        parts=tuple(
            NamedPart(number=part.number, etag=part.etag, checksum=part.checksum) for part in parts
        ),
        etag=multipart_etag([bytes.fromhex(part.etag) for part in parts]),
        checksum=checksum,
        size=expected.size,
        condition=condition,
    )
    return _answer(request, await request.session.commit(request.bucket, command, PutDone))


def _answer(request: S3Request, done: PutDone) -> S3Response:
    path = request.head.raw_path.decode("latin-1")
    completed = UploadCompleted(
        location=f"{request.scheme}://{request.host}{path}",
        bucket=request.bucket,
        key=request.key.decode(),
        etag=done.etag,
        checksums=document_checksums(done.checksum),
        checksum_type=document_checksum_type(done.checksum),
    )
    headers: Headers = [("x-amz-version-id", done.version_id)] if done.versioned else []
    return xml_response(render_upload_completed(completed), headers=headers)


async def _read_document(request: S3Request) -> bytes:
    """The body, verified. The x-amz-checksum headers of this request are about the object, not
    about its body; Content-MD5 and the signed payload hash are about the body as ever."""
    head = request.head
    kept = tuple(item for item in head.headers if not item[0].startswith(HEADER_PREFIX.encode()))
    declared = declared_checksum(
        RequestHead(method=head.method, raw_path=head.raw_path, query=head.query, headers=kept)
    )
    digests = request.body.new_digests(declared, md5=declared.md5 is not None)
    collected = bytearray()
    async for piece in request.body.pieces():
        if len(collected) + len(piece) > XML_BODY_BYTES_MAX:
            raise S3Error("MaxMessageLengthExceeded")
        collected += piece
    document = bytes(collected)
    digests.update(document)
    request.body.verify(declared, digests)
    return document


async def _read_all_parts(request: S3Request, upload_id: str) -> tuple[Upload, list[Part]]:
    """Raises Refused (NO_SUCH_UPLOAD), also when the upload ends between two pages."""
    parts: list[Part] = []
    after = 0
    while True:
        page = await read_parts(request, upload_id, after=after, limit=_PARTS_PER_PAGE)
        parts.extend(page.parts)
        if not page.resume:
            return page.upload, parts
        after = page.resume


# --- what the client expects -----------------------------------------------------------------


def parse_expected(headers: Mapping[str, str]) -> Expected:
    """Raises InvalidRequest for more than one checksum, InvalidArgument for a garbled size."""
    values = [
        (algorithm, value)
        for algorithm in ChecksumAlgorithm
        if (value := headers.get(algorithm.header)) is not None
    ]
    if len(values) > 1:
        raise S3Error(
            "InvalidRequest",
            "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed.",
        )
    algorithm, value = values[0] if values else (None, "")
    return Expected(
        algorithm=algorithm,
        checksum=value,
        kind=_parse_kind(headers.get(_TYPE_HEADER)),
        size=_parse_size(headers.get(_SIZE_HEADER)),
    )


def _parse_kind(text: str | None) -> ChecksumType | None:
    if text is None:
        return None
    wanted = text.upper() if text.isascii() else ""
    if wanted not in ChecksumType.__members__:
        raise S3Error("InvalidRequest", f"Value for {_TYPE_HEADER} header is invalid.")
    return ChecksumType[wanted]


def _parse_size(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= _SIZE_DIGITS_MAX):
        raise S3Error("InvalidArgument", ArgumentName=_SIZE_HEADER, ArgumentValue=text[:64])
    return int(text)


def check_expected(
    expected: Expected, upload: Upload, parts: Sequence[Part], checksum: Checksum | None
) -> None:
    """Raises InvalidRequest (size, kind or algorithm differ) or BadDigest (the value does)."""
    size = sum(part.size for part in parts)
    if expected.size not in (None, size):
        raise S3Error(
            "InvalidRequest",
            f"The provided '{_SIZE_HEADER}' header value {expected.size} does not match what was "
            f"computed: {size}",
        )
    has = ChecksumAlgorithm(checksum.algorithm) if checksum is not None else None
    if expected.kind is not None and upload.checksum_algorithm:
        is_composite = expected.kind is ChecksumType.COMPOSITE
        if is_composite != upload.checksum_composite:
            kind = "COMPOSITE" if upload.checksum_composite else "FULL_OBJECT"
            raise S3Error(
                "InvalidRequest",
                f"The upload was created using the {kind} checksum mode. The complete request "
                "must use the same checksum mode.",
            )
    if expected.algorithm is None:
        return
    if expected.algorithm is not has or checksum is None:
        raise checksum_mismatch(has, expected.algorithm)
    without_count = checksum.value.partition("-")[0]
    if expected.checksum not in (checksum.value, without_count):
        name = expected.algorithm.value.lower()
        raise S3Error(
            "BadDigest", f"The {name} you specified did not match the calculated checksum."
        )


# --- the parts, and the whole of them --------------------------------------------------------


def choose_parts(
    named: Sequence[CompletedPart], stored: Sequence[Part], upload_id: str
) -> list[Part]:
    """The stored parts that the client names, in order. Raises InvalidPart, EntityTooSmall,
    EntityTooLarge; apply decides all of this again."""
    by_number = {part.number: part for part in stored}
    chosen: list[Part] = []
    for wanted in named:
        part = by_number.get(wanted.part_number)
        if part is None or not _is_named(part, wanted):
            raise S3Error(
                "InvalidPart",
                UploadId=upload_id,
                PartNumber=str(wanted.part_number),
                ETag=wanted.etag[:128],
            )
        chosen.append(part)
    for part in chosen[:-1]:
        if part.size < PART_SIZE_MIN:
            raise S3Error(
                "EntityTooSmall",
                ProposedSize=str(part.size),
                MinSizeAllowed=str(PART_SIZE_MIN),
                PartNumber=str(part.number),
                ETag=part.etag,
            )
    size = sum(part.size for part in chosen)
    if size > OBJECT_SIZE_MAX:
        raise S3Error("EntityTooLarge", ProposedSize=str(size), MaxSizeAllowed=str(OBJECT_SIZE_MAX))
    return chosen


def _is_named(part: Part, wanted: CompletedPart) -> bool:
    """Every checksum that the client gives must be the part's own."""
    if part.etag != wanted.etag.lower():
        return False
    return all(
        part.checksum is not None
        and part.checksum.algorithm == given.algorithm
        and part.checksum.value == given.value
        for given in wanted.checksums
    )


def whole_checksum(upload: Upload, parts: Sequence[Part]) -> Checksum | None:
    """The checksum of the object, from those of its parts. Without a declared algorithm the
    object gets one when all parts happen to have the same CRC."""
    algorithms = {part.checksum.algorithm if part.checksum else "" for part in parts}
    if len(algorithms) != 1:
        return None
    found = algorithms.pop()
    if not found or upload.checksum_algorithm not in ("", found):
        return None
    algorithm = ChecksumAlgorithm(found)
    digests = [
        decode_checksum(algorithm, part.checksum.value, algorithm.header)
        for part in parts
        if part.checksum is not None
    ]
    if upload.checksum_algorithm and upload.checksum_composite:
        value = composite(algorithm, digests)
        return Checksum(algorithm=found, value=value, composite=True)
    if not algorithm.is_crc:
        return None
    sizes = [part.size for part in parts]
    whole = combine_full_object(algorithm, zip(digests, sizes, strict=True))
    return Checksum(algorithm=found, value=encode(whole))
