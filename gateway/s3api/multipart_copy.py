"""UploadPartCopy: a part that shares the bytes of a range of another object.

The part's ETag is the MD5 of its bytes as for any part. It is known without reading when the
range is the whole of an object that was put at once, or exactly one part of one that was
completed from parts; otherwise the bytes are read once, and not stored again.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from astra.commands import CopyPart, PartDone, PutPart
from astra.errors import RefusalCode, Refused
from astra.model import Checksum, Upload
from astra.wire import Located
from gateway.blob_read import cut_segments
from gateway.checksums import ChecksumAlgorithm
from gateway.s3api.conditions import parse_copy_source_range
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
from gateway.s3api.multipart import read_upload, upload_id_of
from gateway.s3api.multipart_list import document_checksums
from gateway.s3api.names import CopySource, parse_part_number
from gateway.s3api.object_read import extents_of
from gateway.s3api.object_write import place_with
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, xml_response
from gateway.s3api.xmlwriter import render_copied_part

_TOO_MANY_PIECES: Final = (
    "The object would consist of too many pieces of other objects. Upload its bytes instead of "
    "copying them."
)
_MD5_HEX: Final = re.compile(r"[0-9a-f]{32}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class CopiedBytes:
    """What is known of the bytes of the range."""

    offset: int
    length: int
    etag: str
    checksum: Checksum | None


async def upload_part_copy(request: S3Request) -> S3Response:
    number = parse_part_number(request.query["partNumber"])
    upload_id = upload_id_of(request)
    source = source_of(request)
    upload = await read_upload(request, upload_id)
    for _ in range(SOURCE_ROUNDS_MAX):
        located = await locate_source(request, source, with_data=True)
        copied = await _copied_bytes(request, upload, located)
        data = inline_bytes(located, copied.offset, copied.length)
        if data:
            done = await _put_bytes(request, upload_id, number, copied, data)
            return _answer(upload, done, located)
        command = _command(request, source, located, upload_id, number, copied)
        try:
            done = await request.session.commit(request.bucket, command, PartDone)
        except Refused as error:
            if error.code is RefusalCode.TOO_MANY_PIECES:
                raise S3Error("InvalidRequest", _TOO_MANY_PIECES) from None
            if error.code is not RefusalCode.SOURCE_CHANGED:
                raise
            continue
        return _answer(upload, done, located)
    raise Refused(RefusalCode.SOURCE_CHANGED, "the source changes faster than it can be copied")


def inline_bytes(located: Located, offset: int, length: int) -> bytes:
    """The bytes of the range when they are an inline blob's; b"" otherwise. A part must not share
    them (see multipart.py)."""
    segments = cut_segments(extents_of(located), offset, length)
    if len(segments) != 1:
        return b""
    data = dict(located.inline).get(segments[0].blob_id, b"")
    return data[segments[0].offset : segments[0].offset + length]


async def _put_bytes(
    request: S3Request, upload_id: str, number: int, copied: CopiedBytes, data: bytes
) -> PartDone:
    """The part as if its bytes had been uploaded."""
    uploader = request.context.uploader
    kept = await uploader.keep(data, await place_with(request, upload_id=upload_id)(len(data)))
    command = PutPart(
        bucket=request.bucket,
        key=request.key,
        upload_id=upload_id,
        number=number,
        size=copied.length,
        etag=copied.etag,
        blob=kept.blob,
        checksum=copied.checksum,
    )
    done = await request.session.commit(request.bucket, command, PartDone)
    uploader.settle(kept)
    return done


def _command(
    request: S3Request,
    source: CopySource,
    located: Located,
    upload_id: str,
    number: int,
    copied: CopiedBytes,
) -> CopyPart:
    return CopyPart(
        bucket=request.bucket,
        key=request.key,
        upload_id=upload_id,
        number=number,
        source_bucket=source.bucket,
        source_key=source.key_bytes,
        source_order=located.version.order,
        offset=copied.offset,
        length=copied.length,
        etag=copied.etag,
        checksum=copied.checksum,
    )


async def _copied_bytes(request: S3Request, upload: Upload, located: Located) -> CopiedBytes:
    size = located.version.size
    header = request.headers.get("x-amz-copy-source-range")
    wanted = parse_copy_source_range(header, size=size)
    offset, length = (0, size) if wanted is None else (wanted.first, wanted.length)
    check_copy_size(length)
    known = find_known(located, offset, length, upload.checksum_algorithm)
    if known is not None:
        return known
    algorithm = ChecksumAlgorithm(upload.checksum_algorithm or "CRC64NVME")
    digests = await digest_source(
        request, located, offset=offset, length=length, algorithms=[algorithm], md5=True
    )
    value = digests.checksums()[algorithm]
    return CopiedBytes(
        offset=offset,
        length=length,
        etag=digests.md5().hex(),
        checksum=Checksum(algorithm=algorithm.value, value=value),
    )


def find_known(located: Located, offset: int, length: int, algorithm: str) -> CopiedBytes | None:
    """The digests of the range when the store has them: its MD5, and the checksum of that
    algorithm unless it is "". None: they have to be computed."""
    for start, size, etag, checksum in _pieces(located):
        if (start, size) != (offset, length) or not _MD5_HEX.fullmatch(etag):
            continue
        usable = checksum if checksum is not None and not checksum.composite else None
        if algorithm and (usable is None or usable.algorithm != algorithm):
            continue
        return CopiedBytes(offset=offset, length=length, etag=etag, checksum=usable)
    return None


def _pieces(located: Located) -> list[tuple[int, int, str, Checksum | None]]:
    """Offset, size, MD5 and checksum of what was stored at once."""
    version = located.version
    if not version.part_count:
        return [(0, version.size, version.etag, version.checksum)]
    pieces: list[tuple[int, int, str, Checksum | None]] = []
    start = 0
    for part in located.parts:
        pieces.append((start, part.size, part.etag, part.checksum))
        start += part.size
    return pieces


def _answer(upload: Upload, done: PartDone, located: Located) -> S3Response:
    copied = Copied(
        etag=done.etag,
        modified_ms=done.modified_ms,
        checksums=document_checksums(done.checksum) if upload.checksum_algorithm else (),
    )
    return xml_response(render_copied_part(copied), headers=source_version_header(located))
