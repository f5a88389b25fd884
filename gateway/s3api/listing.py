"""ListObjects, ListObjectsV2, ListObjectVersions: pages of a bucket, in the order of key bytes.

The leader decides what is on a page and where the next one begins; here it is read and written
as S3 does. A page is truncated exactly when there is something to resume from.

https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html and its neighbours
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from astra import wire
from astra.model import Checksum
from gateway.s3api import xmlwriter
from gateway.s3api.documents import (
    DeleteMarkerEntry,
    ObjectEntry,
    ObjectsPage,
    ObjectsPageV2,
    VersionEntry,
    VersionsPage,
)
from gateway.s3api.errors import S3Error
from gateway.s3api.listing_tokens import decode_objects_token, encode_objects_token
from gateway.s3api.names import check_list_text, parse_encoding_type, parse_max_keys
from gateway.s3api.owners import Owners, load_owners
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response, xml_response
from gateway.s3api.version_ids import check_version_id


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What all three listings can be asked for. `delimiter` None: it was not given."""

    prefix: str
    delimiter: str | None
    max_keys: int
    url_encoded: bool


def parse_wanted(query: Mapping[str, str]) -> Wanted:
    """Raises InvalidArgument."""
    return Wanted(
        prefix=list_text(query, "prefix"),
        delimiter=list_text(query, "delimiter") or None,
        max_keys=parse_max_keys(query),
        url_encoded=parse_encoding_type(query.get("encoding-type")),
    )


def list_text(query: Mapping[str, str], name: str) -> str:
    """A prefix, delimiter or marker, "" when it is absent. Raises InvalidArgument."""
    return check_list_text(name, query.get(name, ""))


# --- objects ---------------------------------------------------------------------------------


async def list_objects(request: S3Request) -> S3Response:
    wanted = parse_wanted(request.query)
    marker = list_text(request.query, "marker")
    found = await _ask_objects(request, wanted, marker.encode())
    owners = await load_owners(request, _owner_ids(found.objects))
    page = ObjectsPage(
        bucket=request.bucket,
        prefix=wanted.prefix,
        delimiter=wanted.delimiter,
        marker=marker,
        # Without a delimiter the last key is the marker, and S3 leaves it to the client.
        next_marker=found.resume.decode() if found.resume and wanted.delimiter else None,
        max_keys=wanted.max_keys,
        is_truncated=bool(found.resume),
        url_encoded=wanted.url_encoded,
        entries=object_entries(found.objects, owners),
        common_prefixes=_texts(found.prefixes),
    )
    return xml_response(xmlwriter.render_objects(page))


async def list_objects_v2(request: S3Request) -> S3Response:
    query = request.query
    wanted = parse_wanted(query)
    start_after = list_text(query, "start-after")
    token = query.get("continuation-token")
    after = decode_objects_token(token).after if token else start_after.encode()
    with_owner = query.get("fetch-owner", "").lower() == "true"
    found = await _ask_objects(request, wanted, after)
    owners = await load_owners(request, _owner_ids(found.objects)) if with_owner else None
    page = ObjectsPageV2(
        bucket=request.bucket,
        prefix=wanted.prefix,
        delimiter=wanted.delimiter,
        start_after=query.get("start-after"),
        continuation_token=token,
        next_continuation_token=next_token(found),
        max_keys=wanted.max_keys,
        is_truncated=bool(found.resume),
        url_encoded=wanted.url_encoded,
        entries=object_entries(found.objects, owners),
        common_prefixes=_texts(found.prefixes),
    )
    return xml_response(xmlwriter.render_objects_v2(page))


def next_token(found: wire.ObjectPage) -> str | None:
    """Where the next page begins; None when this is the last."""
    if not found.resume:
        return None
    is_prefix = bool(found.prefixes) and found.prefixes[-1] == found.resume
    return encode_objects_token(found.resume, skip_prefix=is_prefix)


async def _ask_objects(request: S3Request, wanted: Wanted, after: bytes) -> wire.ObjectPage:
    return await request.session.ask(
        request.bucket,
        lambda epochs: wire.ListObjects(
            bucket=request.bucket,
            epochs=epochs,
            prefix=wanted.prefix.encode(),
            delimiter=(wanted.delimiter or "").encode(),
            after=after,
            limit=wanted.max_keys,
        ),
        wire.ObjectPage,
    )


def object_entries(
    objects: Iterable[wire.ListedObject], owners: Owners | None
) -> list[ObjectEntry]:
    """`owners` None: S3 does not show them here."""
    return [
        ObjectEntry(
            key=listed.key.decode(),
            etag=listed.version.etag,
            size=listed.version.size,
            modified_ms=listed.version.modified_ms,
            storage_class=listed.version.storage_class,
            owner=None if owners is None else owners.get(listed.version.owner_id),
            checksum_algorithm=_algorithm(listed.version.checksum),
            checksum_type=_checksum_type(listed.version.checksum),
        )
        for listed in objects
    ]


def _algorithm(checksum: Checksum | None) -> str | None:
    return None if checksum is None else checksum.algorithm


def _checksum_type(checksum: Checksum | None) -> str | None:
    if checksum is None:
        return None
    return "COMPOSITE" if checksum.composite else "FULL_OBJECT"


def _owner_ids(listed: Iterable[wire.ListedObject | wire.ListedVersion]) -> set[str]:
    return {item.version.owner_id for item in listed}


def _texts(names: Iterable[bytes]) -> list[str]:
    return [name.decode() for name in names]


# --- versions --------------------------------------------------------------------------------


async def list_object_versions(request: S3Request) -> S3Response:
    query = request.query
    wanted = parse_wanted(query)
    key_marker = list_text(query, "key-marker")
    version_marker = parse_version_marker(query)
    found = await _ask_versions(request, wanted, key_marker, version_marker)
    owners = await load_owners(request, _owner_ids(found.versions))
    page = VersionsPage(
        bucket=request.bucket,
        prefix=wanted.prefix,
        delimiter=wanted.delimiter,
        key_marker=key_marker,
        version_id_marker=version_marker or "",
        next_key_marker=found.resume_key.decode() if found.resume_key else None,
        next_version_id_marker=found.resume_version if found.resume_key else None,
        max_keys=wanted.max_keys,
        is_truncated=bool(found.resume_key),
        url_encoded=wanted.url_encoded,
        entries=[version_entry(listed, owners) for listed in found.versions],
        common_prefixes=_texts(found.prefixes),
    )
    return xml_response(xmlwriter.render_versions(page))


def parse_version_marker(query: Mapping[str, str]) -> str | None:
    """The version after which the page begins, within the key marker. Raises InvalidArgument."""
    marker = query.get("version-id-marker")
    if not marker:
        return None
    if not query.get("key-marker"):
        raise S3Error(
            "InvalidArgument",
            "A version-id marker cannot be specified without a key marker.",
            ArgumentName="version-id-marker",
            ArgumentValue=marker[:128],
        )
    return check_version_id(marker, "version-id-marker")


async def _ask_versions(
    request: S3Request, wanted: Wanted, key_marker: str, version_marker: str | None
) -> wire.VersionPage:
    return await request.session.ask(
        request.bucket,
        lambda epochs: wire.ListVersions(
            bucket=request.bucket,
            epochs=epochs,
            prefix=wanted.prefix.encode(),
            delimiter=(wanted.delimiter or "").encode(),
            after_key=key_marker.encode(),
            after_version=version_marker,
            limit=wanted.max_keys,
        ),
        wire.VersionPage,
    )


def version_entry(listed: wire.ListedVersion, owners: Owners) -> VersionEntry | DeleteMarkerEntry:
    version = listed.version
    owner = owners.get(version.owner_id)
    if version.is_marker:
        return DeleteMarkerEntry(
            key=listed.key.decode(),
            version_id=version.version_id,
            is_latest=listed.is_latest,
            modified_ms=version.modified_ms,
            owner=owner,
        )
    return VersionEntry(
        key=listed.key.decode(),
        version_id=version.version_id,
        is_latest=listed.is_latest,
        etag=version.etag,
        size=version.size,
        modified_ms=version.modified_ms,
        storage_class=version.storage_class,
        owner=owner,
        checksum_algorithm=_algorithm(version.checksum),
        checksum_type=_checksum_type(version.checksum),
    )
