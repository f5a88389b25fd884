"""The one map from the cluster's own errors to S3's. Complete by test."""

from __future__ import annotations

from typing import Final

from astra.errors import (
    AstraError,
    DeadlineExceeded,
    OutcomeUnknown,
    Overloaded,
    RefusalCode,
    Refused,
    Transient,
)
from gateway.s3api.errors import S3Error

_CODES: Final[dict[RefusalCode, str]] = {
    RefusalCode.NO_SUCH_BUCKET: "NoSuchBucket",
    RefusalCode.NO_SUCH_KEY: "NoSuchKey",
    RefusalCode.NO_SUCH_VERSION: "NoSuchVersion",
    RefusalCode.NO_SUCH_UPLOAD: "NoSuchUpload",
    RefusalCode.NO_SUCH_TAGS: "NoSuchTagSet",
    RefusalCode.NO_SUCH_USER: "AccessDenied",
    RefusalCode.NO_SUCH_ACCESS_KEY: "InvalidAccessKeyId",
    RefusalCode.IS_DELETE_MARKER: "MethodNotAllowed",
    RefusalCode.INVALID_PART: "InvalidPart",
    RefusalCode.INVALID_PART_ORDER: "InvalidPartOrder",
    RefusalCode.PART_TOO_SMALL: "EntityTooSmall",
    RefusalCode.PRECONDITION_FAILED: "PreconditionFailed",
    RefusalCode.CONFLICT: "ConditionalRequestConflict",
    RefusalCode.SOURCE_CHANGED: "OperationAborted",
    RefusalCode.BUCKET_EXISTS: "BucketAlreadyExists",
    RefusalCode.BUCKET_OWNED: "BucketAlreadyOwnedByYou",
    RefusalCode.BUCKET_NOT_EMPTY: "BucketNotEmpty",
    RefusalCode.TOO_MANY_BUCKETS: "TooManyBuckets",
    RefusalCode.USER_EXISTS: "InvalidRequest",
    RefusalCode.ACCESS_KEY_EXISTS: "InvalidRequest",
    RefusalCode.STALE_EPOCH: "OperationAborted",
    RefusalCode.UPLOAD_EXPIRED: "RequestTimeout",
    RefusalCode.CHECKSUM_MISMATCH: "BadDigest",
    RefusalCode.CHECKSUM_TYPE: "InvalidRequest",
    RefusalCode.SIZE_MISMATCH: "InvalidRequest",
    RefusalCode.INVALID_ARGUMENT: "InvalidArgument",
    RefusalCode.UNKNOWN_COMMAND: "NotImplemented",
    RefusalCode.TOO_MANY_PIECES: "InvalidRequest",
}

_RETRY: Final = {"retry-after": "1"}


def s3_code(code: RefusalCode) -> str:
    return _CODES[code]


def s3_error_of(error: AstraError) -> S3Error:
    """What a client is told. What the cluster could not do now is a 503 that clients retry."""
    if isinstance(error, Refused):
        return S3Error(_CODES[error.code])
    if isinstance(error, Overloaded):
        return S3Error("SlowDown", headers=_RETRY)
    if isinstance(error, Transient | OutcomeUnknown | DeadlineExceeded):
        return S3Error("ServiceUnavailable", headers=_RETRY)
    return S3Error("InternalError")
