"""DeleteObject and DeleteObjects: one command, whether it names one version or a thousand.

Whether something is deleted or a delete marker is put on top is decided by apply, in the moment
of the commit; so are the conditions. Here is only what S3 says and hears of it.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObject.html
https://docs.aws.amazon.com/AmazonS3/latest/API/API_DeleteObjects.html
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from astra.commands import (
    NO_CONDITION,
    Condition,
    Deleted,
    DeletedMany,
    DeleteEntry,
    DeleteObjects,
)
from astra.constants import XML_BODY_BYTES_MAX
from gateway.checksums import DeclaredChecksum
from gateway.s3api import documents, xmlwriter
from gateway.s3api.conditions import parse_delete_condition
from gateway.s3api.errors import S3Error, header_not_implemented
from gateway.s3api.names import check_key
from gateway.s3api.object_head import Headers
from gateway.s3api.refusals import s3_code
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, empty_response, xml_response
from gateway.s3api.version_ids import is_version_id, requested_version_id
from gateway.s3api.xml import ObjectToDelete, parse_delete

# Conditions that S3 does not know of a delete. Ignoring one would delete.
_UNKNOWN_CONDITIONS: Final = ("if-none-match", "if-modified-since", "if-unmodified-since")
_MS_PER_S: Final = 1000


# --- one -------------------------------------------------------------------------------------


async def delete_object(request: S3Request) -> S3Response:
    entry = DeleteEntry(
        key=request.key,
        version_id=requested_version_id(request.query),
        condition=delete_condition(request.headers),
    )
    (deleted,) = await _commit(request, (entry,))
    if deleted.refused is not None:
        raise S3Error(s3_code(deleted.refused), Key=request.key.decode())
    return empty_response(204, deleted_headers(deleted))


def delete_condition(headers: Mapping[str, str]) -> Condition:
    """What the version to delete must be like. Raises InvalidArgument, NotImplemented."""
    for name in _UNKNOWN_CONDITIONS:
        if name in headers:
            raise header_not_implemented(name.title())
    parsed = parse_delete_condition(headers)
    return _condition(parsed.if_match, parsed.modified_seconds, parsed.size)


def _condition(etag: str | None, modified_seconds: int | None, size: int | None) -> Condition:
    if etag is None and modified_seconds is None and size is None:
        return NO_CONDITION
    return Condition(
        if_match=() if etag is None else (etag,),
        if_match_size=size,
        if_match_modified_ms=None if modified_seconds is None else modified_seconds * _MS_PER_S,
    )


def deleted_headers(deleted: Deleted) -> Headers:
    """The version that went or the marker that came, and whether either is a delete marker."""
    headers: Headers = []
    if deleted.marker_version_id is not None or deleted.was_marker:
        headers.append(("x-amz-delete-marker", "true"))
    version_id = deleted.marker_version_id or deleted.version_id
    if version_id is not None:
        headers.append(("x-amz-version-id", version_id))
    return headers


# --- many ------------------------------------------------------------------------------------


async def delete_objects(request: S3Request) -> S3Response:
    require_integrity(request.body.declared())
    wanted = parse_delete(await request.body.read_all(XML_BODY_BYTES_MAX))
    entries, failed = split_deletable(wanted.objects)
    entries = await _without_denied(request, entries, failed)
    done = await _commit(request, entries) if entries else ()
    failed += [
        _failure(deleted, S3Error(s3_code(deleted.refused))) for deleted in done if deleted.refused
    ]
    result = documents.DeleteResult(
        deleted=() if wanted.quiet else [_success(d) for d in done if d.refused is None],
        failed=failed,
    )
    return xml_response(xmlwriter.render_deleted(result))


def require_integrity(declared: DeclaredChecksum) -> None:
    """S3 deletes by a list only when the list says how to tell that it is whole."""
    has_checksum = declared.value is not None or declared.is_trailer
    if declared.md5 is None and not has_checksum:
        raise S3Error("InvalidRequest", "Missing required header for this request: Content-MD5")


def split_deletable(
    objects: Sequence[ObjectToDelete],
) -> tuple[tuple[DeleteEntry, ...], list[documents.DeleteFailed]]:
    """What can be asked of the cluster, and what cannot be there: each fails alone."""
    entries: list[DeleteEntry] = []
    failed: list[documents.DeleteFailed] = []
    for wanted in objects:
        try:
            entries.append(_entry(wanted))
        except S3Error as error:
            failed.append(
                documents.DeleteFailed(
                    key=wanted.key,
                    version_id=wanted.version_id,
                    code=error.code,
                    message=error.message,
                )
            )
    return tuple(entries), failed


async def _without_denied(
    request: S3Request, entries: tuple[DeleteEntry, ...], failed: list[documents.DeleteFailed]
) -> tuple[DeleteEntry, ...]:
    """Who may delete keys may not always delete versions for good; adds to `failed`."""
    bucket = await request.session.allow(request.bucket)
    if request.session.may("s3:DeleteObjectVersion", bucket):
        return entries
    for entry in entries:
        if entry.version_id is not None:
            refused = Deleted(key=entry.key, version_id=entry.version_id)
            failed.append(_failure(refused, S3Error("AccessDenied")))
    return tuple(entry for entry in entries if entry.version_id is None)


def _entry(wanted: ObjectToDelete) -> DeleteEntry:
    """Raises KeyTooLongError, NoSuchVersion."""
    key = check_key(wanted.key)
    if wanted.version_id is not None and not is_version_id(wanted.version_id):
        raise S3Error("NoSuchVersion")
    condition = _condition(wanted.etag, wanted.modified_seconds, wanted.size)
    return DeleteEntry(key=key, version_id=wanted.version_id, condition=condition)


def _success(deleted: Deleted) -> documents.Deleted:
    marker = deleted.marker_version_id
    if deleted.was_marker:
        marker = deleted.version_id
    return documents.Deleted(
        key=deleted.key.decode(),
        version_id=deleted.version_id,
        delete_marker=marker is not None,
        delete_marker_version_id=marker,
    )


def _failure(deleted: Deleted, error: S3Error) -> documents.DeleteFailed:
    return documents.DeleteFailed(
        key=deleted.key.decode(),
        version_id=deleted.version_id,
        code=error.code,
        message=error.message,
    )


async def _commit(request: S3Request, entries: tuple[DeleteEntry, ...]) -> tuple[Deleted, ...]:
    """What became of each entry, in their order."""
    command = DeleteObjects(bucket=request.bucket, owner_id=request.user_id, entries=entries)
    done = await request.session.commit(request.bucket, command, DeletedMany)
    return done.entries
