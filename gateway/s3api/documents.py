"""What the XML documents say, as plain values: the seam between handlers and `xmlwriter`.

Rules: values only, independent of the metadata model. Times are milliseconds since the epoch,
ETags may be quoted or bare, `None` means the element is left out. `url_encoded` says that the
client asked for encoding-type=url; names are given plain, the writer encodes them.
Structs are msgspec's because a listing makes a thousand of them per request.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec


class _Document(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Base: immutable, keyword-only."""


class Owner(_Document, frozen=True, kw_only=True, gc=False):
    owner_id: str
    display_name: str


class Checksum(_Document, frozen=True, kw_only=True, gc=False):
    """One checksum: the algorithm as S3 writes it (CRC32, CRC64NVME, SHA256 ...), base64 value."""

    algorithm: str
    value: str


# --- ACLs ------------------------------------------------------------------------------------

GranteeKind = Literal["CanonicalUser", "AmazonCustomerByEmail", "Group"]


class GrantEntry(_Document, frozen=True, kw_only=True, gc=False):
    """`value`: a user id, an e-mail address or the URI of a group, by `kind`."""

    kind: GranteeKind
    value: str
    permission: str
    display_name: str = ""


class AccessControlPolicy(_Document, frozen=True, kw_only=True, gc=False):
    owner: Owner
    grants: Sequence[GrantEntry]


# --- listings --------------------------------------------------------------------------------


class BucketEntry(_Document, frozen=True, kw_only=True, gc=False):
    name: str
    created_ms: int
    region: str | None = None


class BucketsPage(_Document, frozen=True, kw_only=True, gc=False):
    owner: Owner
    buckets: Sequence[BucketEntry]
    prefix: str | None = None
    continuation_token: str | None = None


class ObjectEntry(_Document, frozen=True, kw_only=True, gc=False):
    key: str
    etag: str
    size: int
    modified_ms: int
    storage_class: str = "STANDARD"
    owner: Owner | None = None
    checksum_algorithm: str | None = None
    checksum_type: str | None = None


class _Listing(_Document, frozen=True, kw_only=True, gc=False):
    """What each listing of a bucket says of its names."""

    bucket: str
    prefix: str = ""
    delimiter: str | None = None
    is_truncated: bool
    url_encoded: bool = False
    common_prefixes: Sequence[str] = ()


class KeysPage(_Listing, frozen=True, kw_only=True, gc=False):
    """What the listings of objects and of versions share."""

    max_keys: int


class ObjectsPage(KeysPage, frozen=True, kw_only=True, gc=False):
    """ListObjects (version 1)."""

    marker: str = ""
    next_marker: str | None = None
    entries: Sequence[ObjectEntry] = ()


class ObjectsPageV2(KeysPage, frozen=True, kw_only=True, gc=False):
    """ListObjectsV2; KeyCount is counted by the writer."""

    start_after: str | None = None
    continuation_token: str | None = None
    next_continuation_token: str | None = None
    entries: Sequence[ObjectEntry] = ()


class VersionEntry(ObjectEntry, frozen=True, kw_only=True, gc=False):
    version_id: str
    is_latest: bool


class DeleteMarkerEntry(_Document, frozen=True, kw_only=True, gc=False):
    key: str
    version_id: str
    is_latest: bool
    modified_ms: int
    owner: Owner | None = None


class VersionsPage(KeysPage, frozen=True, kw_only=True, gc=False):
    """ListObjectVersions; `entries` in listing order, versions and markers mixed."""

    key_marker: str = ""
    version_id_marker: str = ""
    next_key_marker: str | None = None
    next_version_id_marker: str | None = None
    entries: Sequence[VersionEntry | DeleteMarkerEntry] = ()


# --- multipart uploads -----------------------------------------------------------------------


class UploadStarted(_Document, frozen=True, kw_only=True, gc=False):
    """InitiateMultipartUploadResult."""

    bucket: str
    key: str
    upload_id: str


class UploadCompleted(_Document, frozen=True, kw_only=True, gc=False):
    """CompleteMultipartUploadResult."""

    location: str
    bucket: str
    key: str
    etag: str
    checksums: Sequence[Checksum] = ()
    checksum_type: str | None = None


class PartEntry(_Document, frozen=True, kw_only=True, gc=False):
    part_number: int
    etag: str
    size: int
    modified_ms: int
    checksums: Sequence[Checksum] = ()


class PartsPage(_Document, frozen=True, kw_only=True, gc=False):
    """ListPartsResult."""

    bucket: str
    key: str
    upload_id: str
    initiator: Owner
    owner: Owner
    storage_class: str = "STANDARD"
    part_number_marker: int = 0
    next_part_number_marker: int | None = None
    max_parts: int
    is_truncated: bool
    url_encoded: bool = False
    checksum_algorithm: str | None = None
    checksum_type: str | None = None
    parts: Sequence[PartEntry] = ()


class UploadEntry(_Document, frozen=True, kw_only=True, gc=False):
    key: str
    upload_id: str
    initiator: Owner
    owner: Owner
    initiated_ms: int
    storage_class: str = "STANDARD"
    checksum_algorithm: str | None = None
    checksum_type: str | None = None


class UploadsPage(_Listing, frozen=True, kw_only=True, gc=False):
    """ListMultipartUploadsResult."""

    key_marker: str = ""
    upload_id_marker: str = ""
    next_key_marker: str | None = None
    next_upload_id_marker: str | None = None
    max_uploads: int
    uploads: Sequence[UploadEntry] = ()


# --- objects ---------------------------------------------------------------------------------


class Copied(_Document, frozen=True, kw_only=True, gc=False):
    """CopyObjectResult and CopyPartResult."""

    etag: str
    modified_ms: int
    checksums: Sequence[Checksum] = ()
    checksum_type: str | None = None


class Deleted(_Document, frozen=True, kw_only=True, gc=False):
    """One success of DeleteObjects. The marker fields as S3 has them: made or removed a marker."""

    key: str
    version_id: str | None = None
    delete_marker: bool = False
    delete_marker_version_id: str | None = None


class DeleteFailed(_Document, frozen=True, kw_only=True, gc=False):
    key: str
    version_id: str | None = None
    code: str
    message: str


class DeleteResult(_Document, frozen=True, kw_only=True, gc=False):
    """`deleted` is empty when the client asked for quiet."""

    deleted: Sequence[Deleted] = ()
    failed: Sequence[DeleteFailed] = ()


class AttributesPart(_Document, frozen=True, kw_only=True, gc=False):
    part_number: int
    size: int
    checksums: Sequence[Checksum] = ()


class AttributesParts(_Document, frozen=True, kw_only=True, gc=False):
    """The ObjectParts of GetObjectAttributes; `parts` only when each part has a checksum."""

    total_parts_count: int
    part_number_marker: int = 0
    next_part_number_marker: int = 0
    max_parts: int = 1000
    is_truncated: bool = False
    parts: Sequence[AttributesPart] = ()


class ObjectAttributes(_Document, frozen=True, kw_only=True, gc=False):
    """GetObjectAttributesResponse: only the attributes that were asked for are not None."""

    etag: str | None = None
    checksums: Sequence[Checksum] = ()
    checksum_type: str | None = None
    parts: AttributesParts | None = None
    storage_class: str | None = None
    size: int | None = None
