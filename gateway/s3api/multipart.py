"""Multipart uploads: begin one, send its parts, abort it.

Rules: a part keeps the checksum that its upload is declared to have. An upload without one takes
parts with any (SDKs send a CRC32 with each part by default, whatever the upload said), and each
part keeps the one it came with, a CRC64NVME when it came with none. Whether the upload still
exists is decided when the part is committed; asking before only spares the client the body.

No part is kept inline, however small: where an object is travels in one answer, inline bytes and
all, and objects that grow by copies and small parts would end up too large for any.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/mpuoverview.html
"""

from __future__ import annotations

from astra.commands import AbortUpload, CreateUpload, Done, PartDone, PutPart, UploadDone
from astra.model import Checksum, Upload, decode_version_order
from astra.wire import ListParts, PartPage
from gateway.checksums import (
    ChecksumAlgorithm,
    ChecksumType,
    DeclaredChecksum,
    parse_algorithm,
    parse_multipart_type,
)
from gateway.s3api.acl_request import read_object_head
from gateway.s3api.documents import UploadStarted
from gateway.s3api.errors import S3Error
from gateway.s3api.names import parse_part_number, quote_etag
from gateway.s3api.object_head import Headers
from gateway.s3api.object_write import place_with
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, empty_response, xml_response
from gateway.s3api.xmlwriter import render_upload_started

_ALGORITHM_HEADER = "x-amz-checksum-algorithm"
_TYPE_HEADER = "x-amz-checksum-type"


async def create_multipart_upload(request: S3Request) -> S3Response:
    if request.session.grantee.is_anonymous:
        raise S3Error("AccessDenied", "Anonymous users cannot initiate multipart uploads.")
    head = await read_object_head(request)
    algorithm, kind = _upload_checksum(request)
    command = CreateUpload(
        bucket=request.bucket,
        key=request.key,
        head=head,
        initiator_id=request.user_id,
        checksum_algorithm=algorithm.value if algorithm is not None else "",
        checksum_composite=kind is ChecksumType.COMPOSITE,
    )
    done = await request.session.commit(request.bucket, command, UploadDone)
    headers: Headers = []
    if algorithm is not None and kind is not None:
        headers = [(_ALGORITHM_HEADER, algorithm.value), (_TYPE_HEADER, kind.value)]
    started = UploadStarted(
        bucket=request.bucket, key=request.key.decode(), upload_id=done.upload_id
    )
    return xml_response(render_upload_started(started), headers=headers)


def _upload_checksum(request: S3Request) -> tuple[ChecksumAlgorithm | None, ChecksumType | None]:
    """What the parts and the whole shall be checked by. Raises InvalidRequest."""
    name = request.headers.get(_ALGORITHM_HEADER)
    declared_type = request.headers.get(_TYPE_HEADER)
    if name is None:
        if declared_type is not None:
            raise S3Error(
                "InvalidRequest",
                f"The {_TYPE_HEADER} header can only be used with the {_ALGORITHM_HEADER} header.",
            )
        return None, None
    algorithm = parse_algorithm(name, _ALGORITHM_HEADER)
    return algorithm, parse_multipart_type(algorithm, declared_type)


# --- parts -----------------------------------------------------------------------------------


async def upload_part(request: S3Request) -> S3Response:
    number = parse_part_number(request.query["partNumber"])
    upload_id = upload_id_of(request)
    declared = request.body.declared()
    upload = await read_upload(request, upload_id)
    algorithm = _part_algorithm(upload, declared)
    uploader = request.context.uploader
    received = await uploader.receive(
        request.body,
        place_with(request, upload_id=upload_id),
        also=algorithm,
        may_inline=False,
    )
    value = received.digests.checksums()[algorithm]
    command = PutPart(
        bucket=request.bucket,
        key=request.key,
        upload_id=upload_id,
        number=number,
        size=received.size,
        etag=received.digests.md5().hex(),
        blob=received.blob,
        checksum=Checksum(algorithm=algorithm.value, value=value),
    )
    done = await request.session.commit(request.bucket, command, PartDone)
    uploader.settle(received)
    headers: Headers = [("etag", quote_etag(done.etag))]
    if upload.checksum_algorithm or declared.algorithm is not None:
        headers.append((algorithm.header, value))
    return empty_response(200, headers)


def _part_algorithm(upload: Upload, declared: DeclaredChecksum) -> ChecksumAlgorithm:
    """What to compute of a part. Raises InvalidRequest when the client checks its part by
    another algorithm than the upload was declared to have."""
    is_given = declared.value is not None or declared.is_trailer
    sent = declared.algorithm if is_given else None
    if not upload.checksum_algorithm:
        return sent or ChecksumAlgorithm.CRC64NVME
    expected = ChecksumAlgorithm(upload.checksum_algorithm)
    if sent not in (None, expected):
        raise checksum_mismatch(expected, sent)
    return expected


def checksum_mismatch(
    expected: ChecksumAlgorithm | None, actual: ChecksumAlgorithm | None
) -> S3Error:
    """The client checks by another algorithm than the upload. Texts as S3 writes them."""
    names = [item.value.lower() if item is not None else "null" for item in (expected, actual)]
    return S3Error(
        "InvalidRequest",
        f"Checksum Type mismatch occurred, expected checksum Type: {names[0]}, "
        f"actual checksum Type: {names[1]}",
    )


async def abort_multipart_upload(request: S3Request) -> S3Response:
    upload_id = upload_id_of(request)
    bucket = await request.session.allow(request.bucket, deferred=True)
    is_deferred = not request.session.may(request.operation.action, bucket)
    if is_deferred:
        await read_upload(request, upload_id)
    command = AbortUpload(bucket=request.bucket, key=request.key, upload_id=upload_id)
    await request.session.commit(request.bucket, command, Done, deferred=is_deferred)
    return empty_response(204)


# --- what the other multipart operations share -----------------------------------------------


def upload_id_of(request: S3Request) -> str:
    """The uploadId of the query. Raises NoSuchUpload for what never was an id of ours."""
    upload_id = request.query["uploadId"]
    if decode_version_order(upload_id) is None:
        raise S3Error("NoSuchUpload", UploadId=upload_id[:128])
    return upload_id


async def read_upload(request: S3Request, upload_id: str) -> Upload:
    """The running upload. Raises as read_parts."""
    return (await read_parts(request, upload_id, after=0, limit=0)).upload


async def read_parts(request: S3Request, upload_id: str, *, after: int, limit: int) -> PartPage:
    """One page of the parts so far. Raises Refused (NO_SUCH_UPLOAD), AccessDenied to who has not
    begun the upload and does not own the bucket."""
    page = await request.session.ask(
        request.bucket,
        lambda epochs: ListParts(
            bucket=request.bucket,
            key=request.key,
            upload_id=upload_id,
            epochs=epochs,
            after=after,
            limit=limit,
        ),
        PartPage,
        deferred=True,
    )
    bucket = await request.session.allow(request.bucket, deferred=True)
    request.session.check_upload(bucket, page.upload)
    return page
