"""THE operation table: every S3 operation, how a request selects it, what it needs.

Purpose: one row per operation of the S3 API (botocore's model, plus PostObject and the CORS
preflight). Routing, authorisation, metrics, the 501 answers and the compatibility page read it.
Rules: data only, no IO. A row says which query parameters and headers select it (`query`,
`header`), which others it understands (`optional`); anything else on the URL is refused by the
router. `implemented` is the only switch between a handler and 501.
Invariants (tests hold them): names are unique; no two rows are selected by the same request,
except the retired names, which say so in `alias_of`; every operation of botocore is here.
Source: AWS "Amazon S3 API Reference"; actions: "Service Authorization Reference", Amazon S3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final


class Level(StrEnum):
    SERVICE = "service"
    BUCKET = "bucket"
    OBJECT = "object"


class Body(StrEnum):
    """How a request body is read: not at all, whole and bounded, or as a stream."""

    NONE = "none"
    XML = "xml"
    JSON = "json"
    STREAM = "stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One row. `query` pairs are (name, required value or None for any); the first one is the
    subresource, the others narrow it. `version_action` is the IAM action when versionId is given.
    """

    name: str
    method: str
    level: Level
    query: tuple[tuple[str, str | None], ...] = ()
    header: str | None = None
    optional: frozenset[str] = frozenset()
    action: str
    version_action: str | None = None
    body: Body = Body.NONE
    status: int = 200
    implemented: bool = False
    alias_of: str | None = None

    @property
    def subresource(self) -> str | None:
        return self.query[0][0] if self.query else None


_READ_OVERRIDES: Final = (
    "response-cache-control response-content-disposition response-content-encoding "
    "response-content-language response-content-type response-expires versionId partNumber"
)
# The three listings accept each other's parameters and ignore them, as S3 does.
_LIST: Final = (
    "delimiter encoding-type marker max-keys prefix continuation-token fetch-owner start-after "
    "key-marker version-id-marker"
)
_UPLOADS: Final = "delimiter encoding-type key-marker max-uploads prefix upload-id-marker"


def _selectors(select: str) -> tuple[tuple[str, str | None], ...]:
    pairs = (item.partition("=") for item in select.split())
    return tuple((name, value or None) for name, _, value in pairs)


def _op(
    level: Level,
    name: str,
    method: str,
    select: str,
    action: str,
    *,
    optional: str = "",
    header: str | None = None,
    version_action: str | None = None,
    body: Body = Body.NONE,
    status: int = 200,
    done: bool = False,
    alias_of: str | None = None,
) -> Operation:
    return Operation(
        name=name,
        method=method,
        level=level,
        query=_selectors(select),
        header=header,
        optional=frozenset(optional.split()),
        action=action if ":" in action else f"s3:{action}",
        version_action=f"s3:{version_action}" if version_action else None,
        body=body,
        status=status,
        implemented=done,
        alias_of=alias_of,
    )


_S, _B, _O = Level.SERVICE, Level.BUCKET, Level.OBJECT
_XML, _JSON, _STREAM = Body.XML, Body.JSON, Body.STREAM

_SERVICE_ROWS: Final = (
    _op(
        _S,
        "ListBuckets",
        "GET",
        "",
        "ListAllMyBuckets",
        optional="max-buckets continuation-token prefix bucket-region",
        done=True,
    ),
    # Sent to a host of its own (s3express-control); on ours only this parameter tells it apart.
    _op(
        _S,
        "ListDirectoryBuckets",
        "GET",
        "max-directory-buckets",
        "s3express:ListAllMyDirectoryBuckets",
        optional="continuation-token",
    ),
    # POST /WriteGetObjectResponse: a fixed path, chosen by its header before the path is split.
    _op(
        _S,
        "WriteGetObjectResponse",
        "POST",
        "",
        "s3-object-lambda:WriteGetObjectResponse",
        header="x-amz-request-route",
        body=_STREAM,
    ),
)


def _config(
    noun: str,
    key: str,
    action: str,
    *,
    verbs: str = "Get Put Delete",
    delete_action: str | None = None,
    body: Body = _XML,
    put_status: int = 200,
    done: bool = False,
) -> tuple[Operation, ...]:
    """Get/Put/Delete of one bucket setting; deleting is the Put action unless said otherwise."""
    rows = {
        "Get": _op(_B, f"Get{noun}", "GET", key, f"Get{action}", done=done),
        "Put": _op(
            _B, f"Put{noun}", "PUT", key, f"Put{action}", body=body, status=put_status, done=done
        ),
        "Delete": _op(
            _B,
            f"Delete{noun}",
            "DELETE",
            key,
            delete_action or f"Put{action}",
            status=204,
            done=done,
        ),
    }
    return tuple(rows[verb] for verb in verbs.split())


def _numbered_config(noun: str, key: str, action: str) -> tuple[Operation, ...]:
    """The four operations of a setting that a bucket may have many of, told apart by `id`."""
    selected = f"{key} id"
    return (
        _op(_B, f"Get{noun}Configuration", "GET", selected, f"Get{action}"),
        _op(_B, f"Put{noun}Configuration", "PUT", selected, f"Put{action}", body=_XML),
        _op(_B, f"Delete{noun}Configuration", "DELETE", selected, f"Put{action}", status=204),
        _op(
            _B,
            f"List{noun}Configurations",
            "GET",
            key,
            f"Get{action}",
            optional="continuation-token",
        ),
    )


_BUCKET_ROWS: Final = (
    _op(_B, "CreateBucket", "PUT", "", "CreateBucket", body=_XML, done=True),
    _op(_B, "HeadBucket", "HEAD", "", "ListBucket", done=True),
    _op(_B, "DeleteBucket", "DELETE", "", "DeleteBucket", status=204, done=True),
    _op(_B, "GetBucketLocation", "GET", "location", "GetBucketLocation", done=True),
    _op(_B, "ListObjects", "GET", "", "ListBucket", optional=_LIST, done=True),
    _op(_B, "ListObjectsV2", "GET", "list-type=2", "ListBucket", optional=_LIST, done=True),
    _op(
        _B, "ListObjectVersions", "GET", "versions", "ListBucketVersions", optional=_LIST, done=True
    ),
    _op(
        _B,
        "ListMultipartUploads",
        "GET",
        "uploads",
        "ListBucketMultipartUploads",
        optional=_UPLOADS,
        done=True,
    ),
    _op(_B, "DeleteObjects", "POST", "delete", "DeleteObject", body=_XML, done=True),
    _op(_B, "PostObject", "POST", "", "PutObject", body=_STREAM, status=204),
    _op(_B, "CreateSession", "GET", "session", "s3express:CreateSession"),
    *_config("BucketVersioning", "versioning", "BucketVersioning", verbs="Get Put", done=True),
    *_config("BucketTagging", "tagging", "BucketTagging", done=True),
    *_config("BucketAbac", "abac", "BucketAbac", verbs="Get Put"),
    *_config(
        "BucketAccelerateConfiguration",
        "accelerate",
        "AccelerateConfiguration",
        verbs="Get Put",
    ),
    *_config("BucketAcl", "acl", "BucketAcl", verbs="Get Put", done=True),
    *_config("BucketCors", "cors", "BucketCORS"),
    *_config("BucketEncryption", "encryption", "EncryptionConfiguration"),
    *_config("BucketLogging", "logging", "BucketLogging", verbs="Get Put"),
    *_config("BucketOwnershipControls", "ownershipControls", "BucketOwnershipControls"),
    *_config(
        "BucketPolicy",
        "policy",
        "BucketPolicy",
        delete_action="DeleteBucketPolicy",
        body=_JSON,
        put_status=204,
    ),
    *_config("BucketPolicyStatus", "policyStatus", "BucketPolicyStatus", verbs="Get"),
    *_config("BucketReplication", "replication", "ReplicationConfiguration"),
    *_config("BucketRequestPayment", "requestPayment", "BucketRequestPayment", verbs="Get Put"),
    *_config("BucketWebsite", "website", "BucketWebsite", delete_action="DeleteBucketWebsite"),
    *_config("PublicAccessBlock", "publicAccessBlock", "BucketPublicAccessBlock"),
    *_config(
        "ObjectLockConfiguration",
        "object-lock",
        "BucketObjectLockConfiguration",
        verbs="Get Put",
    ),
    *_config(
        "BucketLifecycleConfiguration", "lifecycle", "LifecycleConfiguration", verbs="Get Put"
    ),
    _op(
        _B, "DeleteBucketLifecycle", "DELETE", "lifecycle", "PutLifecycleConfiguration", status=204
    ),
    *_config(
        "BucketNotificationConfiguration", "notification", "BucketNotification", verbs="Get Put"
    ),
    # Names S3 retired; the same request as the operation they alias.
    _op(
        _B,
        "GetBucketLifecycle",
        "GET",
        "lifecycle",
        "GetLifecycleConfiguration",
        alias_of="GetBucketLifecycleConfiguration",
    ),
    _op(
        _B,
        "PutBucketLifecycle",
        "PUT",
        "lifecycle",
        "PutLifecycleConfiguration",
        body=_XML,
        alias_of="PutBucketLifecycleConfiguration",
    ),
    _op(
        _B,
        "GetBucketNotification",
        "GET",
        "notification",
        "GetBucketNotification",
        alias_of="GetBucketNotificationConfiguration",
    ),
    _op(
        _B,
        "PutBucketNotification",
        "PUT",
        "notification",
        "PutBucketNotification",
        body=_XML,
        alias_of="PutBucketNotificationConfiguration",
    ),
    *_numbered_config("BucketAnalytics", "analytics", "AnalyticsConfiguration"),
    *_numbered_config(
        "BucketIntelligentTiering", "intelligent-tiering", "IntelligentTieringConfiguration"
    ),
    *_numbered_config("BucketInventory", "inventory", "InventoryConfiguration"),
    *_numbered_config("BucketMetrics", "metrics", "MetricsConfiguration"),
    *(
        _op(
            _B,
            f"{verb}BucketMetadata{table}Configuration",
            method,
            f"metadata{table or 'Configuration'}",
            f"{verb}BucketMetadataTableConfiguration",
            body=_XML if verb == "Create" else Body.NONE,
            status=204 if verb == "Delete" else 200,
        )
        for table in ("", "Table")
        for verb, method in (("Create", "POST"), ("Get", "GET"), ("Delete", "DELETE"))
    ),
    *(
        _op(
            _B,
            f"UpdateBucketMetadata{table}TableConfiguration",
            "PUT",
            f"metadata{table}Table",
            f"UpdateBucketMetadata{table}TableConfiguration",
            body=_XML,
        )
        for table in ("Annotation", "Inventory", "Journal")
    ),
)

_OBJECT_ROWS: Final = (
    _op(_O, "PutObject", "PUT", "", "PutObject", body=_STREAM, done=True),
    _op(
        _O,
        "GetObject",
        "GET",
        "",
        "GetObject",
        optional=_READ_OVERRIDES,
        version_action="GetObjectVersion",
        done=True,
    ),
    _op(
        _O,
        "HeadObject",
        "HEAD",
        "",
        "GetObject",
        optional=_READ_OVERRIDES,
        version_action="GetObjectVersion",
        done=True,
    ),
    _op(
        _O,
        "DeleteObject",
        "DELETE",
        "",
        "DeleteObject",
        optional="versionId",
        version_action="DeleteObjectVersion",
        status=204,
        done=True,
    ),
    # The source is authorised as well: s3:GetObject on it, checked by the handler's context.
    _op(_O, "CopyObject", "PUT", "", "PutObject", header="x-amz-copy-source", done=True),
    _op(_O, "CreateMultipartUpload", "POST", "uploads", "PutObject", done=True),
    _op(_O, "UploadPart", "PUT", "uploadId partNumber", "PutObject", body=_STREAM, done=True),
    _op(
        _O,
        "UploadPartCopy",
        "PUT",
        "uploadId partNumber",
        "PutObject",
        header="x-amz-copy-source",
        done=True,
    ),
    _op(_O, "CompleteMultipartUpload", "POST", "uploadId", "PutObject", body=_XML, done=True),
    _op(
        _O,
        "AbortMultipartUpload",
        "DELETE",
        "uploadId",
        "AbortMultipartUpload",
        status=204,
        done=True,
    ),
    _op(
        _O,
        "ListParts",
        "GET",
        "uploadId",
        "ListMultipartUploadParts",
        optional="max-parts part-number-marker encoding-type",
        done=True,
    ),
    _op(
        _O,
        "GetObjectAttributes",
        "GET",
        "attributes",
        "GetObjectAttributes",
        optional="versionId",
        version_action="GetObjectVersionAttributes",
        done=True,
    ),
    *(
        _op(
            _O,
            f"{verb}ObjectTagging",
            method,
            "tagging",
            f"{verb}ObjectTagging",
            optional="versionId",
            version_action=f"{verb}ObjectVersionTagging",
            body=_XML if verb == "Put" else Body.NONE,
            status=204 if verb == "Delete" else 200,
            done=True,
        )
        for verb, method in (("Get", "GET"), ("Put", "PUT"), ("Delete", "DELETE"))
    ),
    *(
        _op(
            _O,
            f"{verb}ObjectAcl",
            verb.upper(),
            "acl",
            f"{verb}ObjectAcl",
            optional="versionId",
            version_action=f"{verb}ObjectVersionAcl",
            body=_XML if verb == "Put" else Body.NONE,
            done=True,
        )
        for verb in ("Get", "Put")
    ),
    *(
        _op(
            _O,
            f"{verb}Object{noun}",
            verb.upper(),
            key,
            f"{verb}Object{noun}",
            optional="versionId",
            body=_XML if verb == "Put" else Body.NONE,
        )
        for noun, key in (("LegalHold", "legal-hold"), ("Retention", "retention"))
        for verb in ("Get", "Put")
    ),
    *(
        _op(
            _O,
            f"{verb}ObjectAnnotation",
            method,
            "annotation annotationName",
            f"{verb}ObjectAnnotation",
            optional="versionId",
            body=_STREAM if verb == "Put" else Body.NONE,
            status=204 if verb == "Delete" else 200,
        )
        for verb, method in (("Get", "GET"), ("Put", "PUT"), ("Delete", "DELETE"))
    ),
    _op(
        _O,
        "ListObjectAnnotations",
        "GET",
        "annotation",
        "ListObjectAnnotations",
        optional="versionId max-annotation-results annotation-prefix continuation-token",
    ),
    _op(
        _O,
        "GetObjectTorrent",
        "GET",
        "torrent",
        "GetObjectTorrent",
        version_action="GetObjectVersionTorrent",
    ),
    _op(_O, "RenameObject", "PUT", "renameObject", "RenameObject"),
    _op(
        _O,
        "RestoreObject",
        "POST",
        "restore",
        "RestoreObject",
        optional="versionId",
        body=_XML,
        status=202,
    ),
    _op(_O, "SelectObjectContent", "POST", "select select-type=2", "GetObject", body=_XML),
    _op(
        _O,
        "UpdateObjectEncryption",
        "PUT",
        "encryption",
        "UpdateObjectEncryption",
        optional="versionId",
        body=_XML,
    ),
)

# Answered before authentication, on a bucket or on an object, whatever the query says.
PREFLIGHT: Final = _op(_O, "PreflightRequest", "OPTIONS", "", "s3:Preflight")

OPERATIONS: Final[tuple[Operation, ...]] = (
    *_SERVICE_ROWS,
    *_BUCKET_ROWS,
    *_OBJECT_ROWS,
    PREFLIGHT,
)

BY_NAME: Final[Mapping[str, Operation]] = MappingProxyType({op.name: op for op in OPERATIONS})
