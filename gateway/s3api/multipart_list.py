"""ListParts and ListMultipartUploads: what running uploads there are, and what they have.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListParts.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListMultipartUploads.html
"""

from __future__ import annotations

from astra.model import Checksum, Part, Upload
from astra.wire import ListUploads, UploadPage
from gateway.s3api import documents as doc
from gateway.s3api.multipart import read_parts, upload_id_of
from gateway.s3api.names import (
    check_list_text,
    parse_encoding_type,
    parse_max_parts,
    parse_max_uploads,
    parse_part_number_marker,
)
from gateway.s3api.owners import Owners, load_owners
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, xml_response
from gateway.s3api.xmlwriter import render_parts, render_uploads


async def list_parts(request: S3Request) -> S3Response:
    upload_id = upload_id_of(request)
    url_encoded = parse_encoding_type(request.query.get("encoding-type"))
    limit = parse_max_parts(request.query)
    after = parse_part_number_marker(request.query)
    found = await read_parts(request, upload_id, after=after, limit=limit)
    upload = found.upload
    owners = await load_owners(request, _user_ids(upload))
    page = doc.PartsPage(
        bucket=request.bucket,
        key=request.key.decode(),
        upload_id=upload_id,
        initiator=owners.get(upload.initiator_id or upload.owner_id),
        owner=owners.get(upload.owner_id),
        storage_class=upload.storage_class,
        part_number_marker=after,
        next_part_number_marker=found.parts[-1].number if found.parts else 0,
        max_parts=limit,
        is_truncated=found.resume > 0,
        url_encoded=url_encoded,
        checksum_algorithm=upload.checksum_algorithm or None,
        checksum_type=_checksum_type(upload),
        parts=[_part_entry(upload, part) for part in found.parts],
    )
    return xml_response(render_parts(page))


def _part_entry(upload: Upload, part: Part) -> doc.PartEntry:
    is_shown = part.checksum is not None and part.checksum.algorithm == upload.checksum_algorithm
    return doc.PartEntry(
        part_number=part.number,
        etag=part.etag,
        size=part.size,
        modified_ms=part.modified_ms,
        checksums=document_checksums(part.checksum) if is_shown else (),
    )


async def list_multipart_uploads(request: S3Request) -> S3Response:
    query = request.query
    url_encoded = parse_encoding_type(query.get("encoding-type"))
    texts = {
        name: check_list_text(name, query.get(name, ""))
        for name in ("prefix", "delimiter", "key-marker", "upload-id-marker")
    }
    limit = parse_max_uploads(query)
    found = await _read_uploads(request, texts, limit)
    is_truncated = bool(found.resume_key)
    owners = await load_owners(
        request, (user_id for listed in found.uploads for user_id in _user_ids(listed.upload))
    )
    page = doc.UploadsPage(
        bucket=request.bucket,
        prefix=texts["prefix"],
        delimiter=texts["delimiter"] or None,
        key_marker=texts["key-marker"],
        upload_id_marker=texts["upload-id-marker"],
        next_key_marker=found.resume_key.decode() if is_truncated else None,
        next_upload_id_marker=(found.resume_upload or "") if is_truncated else None,
        max_uploads=limit,
        is_truncated=is_truncated,
        url_encoded=url_encoded,
        uploads=[_upload_entry(owners, listed.key, listed.upload) for listed in found.uploads],
        common_prefixes=[prefix.decode(errors="replace") for prefix in found.prefixes],
    )
    return xml_response(render_uploads(page))


async def _read_uploads(request: S3Request, texts: dict[str, str], limit: int) -> UploadPage:
    """An upload-id-marker without a key-marker is ignored, as S3 does."""
    after_key = texts["key-marker"].encode()
    after_upload = texts["upload-id-marker"] if after_key else ""
    return await request.session.ask(
        request.bucket,
        lambda epochs: ListUploads(
            bucket=request.bucket,
            epochs=epochs,
            prefix=texts["prefix"].encode(),
            delimiter=texts["delimiter"].encode(),
            after_key=after_key,
            after_upload=after_upload or None,
            limit=limit,
        ),
        UploadPage,
    )


def _upload_entry(owners: Owners, key: bytes, upload: Upload) -> doc.UploadEntry:
    return doc.UploadEntry(
        key=key.decode(),
        upload_id=upload.upload_id,
        initiator=owners.get(upload.initiator_id or upload.owner_id),
        owner=owners.get(upload.owner_id),
        initiated_ms=upload.initiated_ms,
        storage_class=upload.storage_class,
        checksum_algorithm=upload.checksum_algorithm or None,
        checksum_type=_checksum_type(upload),
    )


def _user_ids(upload: Upload) -> tuple[str, ...]:
    return (upload.owner_id, upload.initiator_id or upload.owner_id)


def _checksum_type(upload: Upload) -> str | None:
    if not upload.checksum_algorithm:
        return None
    return "COMPOSITE" if upload.checksum_composite else "FULL_OBJECT"


def document_checksums(checksum: Checksum | None) -> tuple[doc.Checksum, ...]:
    """The stored checksum as documents show it."""
    if checksum is None:
        return ()
    return (doc.Checksum(algorithm=checksum.algorithm, value=checksum.value),)


def document_checksum_type(checksum: Checksum | None) -> str | None:
    if checksum is None:
        return None
    return "COMPOSITE" if checksum.composite else "FULL_OBJECT"
