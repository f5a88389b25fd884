"""THE error table: S3 error code to HTTP status and default message; S3Error; rendering.

Purpose: one place knows what each refusal looks like on the wire. Handlers and the pure protocol
files raise; one caller renders.
Rules: no IO. A code that is not in the table cannot be raised (it is a defect of ours). Texts are
S3's own where S3 documents one, because clients match on them.
Invariants: every rendered body is well-formed XML whatever the resource or message holds; HEAD
and 304 answers have no body; no header value can carry a line break.
Source: AWS "Error responses" (API/ErrorResponses.html), its "List of error codes".
"""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from gateway.request_errors import RequestError
from gateway.s3api.xmltext import XML_DECLARATION, escape

_TABLE: Final[dict[str, tuple[int, str]]] = {
    # Not errors, but travel the same way out of a handler.
    "NotModified": (304, "Not Modified"),
    "PermanentRedirect": (
        301,
        "The bucket you are attempting to access must be addressed using the specified endpoint. "
        "Please send all future requests to this endpoint.",
    ),
    "Redirect": (
        307,
        "Please re-send this request to the specified temporary endpoint. Continue to use the "
        "original request endpoint for future requests.",
    ),
    "TemporaryRedirect": (307, "You are being redirected to the bucket while DNS updates."),
    # Access.
    "AccessDenied": (403, "Access Denied"),
    "AccessControlListNotSupported": (400, "The bucket does not allow ACLs"),
    "AccessPointAlreadyOwnedByYou": (
        409,
        "An access point with an identical name already exists in your account.",
    ),
    "AccountProblem": (403, "There is a problem with your account."),
    "AllAccessDisabled": (403, "All access to this resource has been disabled."),
    "AmbiguousGrantByEmailAddress": (
        400,
        "The email address you provided is associated with more than one account.",
    ),
    "AuthorizationHeaderMalformed": (
        400,
        "The authorization header you provided is invalid.",
    ),
    "AuthorizationQueryParametersError": (
        400,
        "The authorization query parameters that you provided are not valid.",
    ),
    "CredentialsNotSupported": (400, "This request does not support credentials."),
    "CrossLocationLoggingProhibited": (403, "Cross-location logging not allowed."),
    "ExpiredToken": (400, "The provided token has expired."),
    "InvalidAccessKeyId": (
        403,
        "The AWS Access Key Id you provided does not exist in our records.",
    ),
    "InvalidObjectState": (
        403,
        "The operation is not valid for the current state of the object.",
    ),
    "InvalidPayer": (403, "All access to this object has been disabled."),
    "InvalidSecurity": (403, "The provided security credentials are not valid."),
    "InvalidToken": (400, "The provided token is malformed or otherwise invalid."),
    "MissingSecurityHeader": (400, "Your request is missing a required header."),
    "NotSignedUp": (403, "Your account is not signed up for the S3 service."),
    "RequestExpired": (400, "Request has expired"),
    "RequestTimeTooSkewed": (
        403,
        "The difference between the request time and the current time is too large.",
    ),
    "SignatureDoesNotMatch": (
        403,
        "The request signature we calculated does not match the signature you provided. "
        "Check your key and signing method.",
    ),
    "TokenCodeInvalidError": (400, "The serial number and/or token code you provided is not valid"),
    "TokenRefreshRequired": (400, "The provided token must be refreshed."),
    "UnauthorizedAccess": (403, "You are not authorized to perform this operation."),
    "UnauthorizedAccessError": (403, "You are not authorized to perform this operation."),
    "XAmzContentSHA256Mismatch": (
        400,
        "The provided 'x-amz-content-sha256' header does not match what was computed.",
    ),
    # Buckets.
    "BucketAlreadyExists": (
        409,
        "The requested bucket name is not available. The bucket namespace is shared by all users "
        "of the system. Please select a different name and try again.",
    ),
    "BucketAlreadyOwnedByYou": (
        409,
        "Your previous request to create the named bucket succeeded and you already own it.",
    ),
    "BucketHasAccessPointsAttached": (
        400,
        "The bucket you tried to delete has access points attached.",
    ),
    "BucketNotEmpty": (409, "The bucket you tried to delete is not empty"),
    "IllegalLocationConstraintException": (
        400,
        "The specified location-constraint is not valid for this endpoint.",
    ),
    "InvalidBucketName": (400, "The specified bucket is not valid."),
    "InvalidBucketOwnerAWSAccountID": (
        400,
        "The value of the expected bucket owner parameter must be an AWS account ID.",
    ),
    "InvalidBucketState": (
        409,
        "The request is not valid with the current state of the bucket.",
    ),
    "InvalidLocationConstraint": (400, "The specified location constraint is not valid."),
    "NoSuchBucket": (404, "The specified bucket does not exist"),
    "TooManyBuckets": (400, "You have attempted to create more buckets than allowed"),
    # Settings of a bucket that are not there, or not right.
    "NoSuchAccessPoint": (404, "The specified access point does not exist."),
    "NoSuchAccessPointPolicy": (404, "The specified access point policy does not exist."),
    "NoSuchAsyncRequest": (404, "The specified request was not found."),
    "NoSuchBucketPolicy": (404, "The bucket policy does not exist"),
    "NoSuchConfiguration": (404, "The specified configuration does not exist."),
    "NoSuchCORSConfiguration": (404, "The CORS configuration does not exist"),
    "NoSuchLifecycleConfiguration": (404, "The lifecycle configuration does not exist"),
    "NoSuchMultiRegionAccessPoint": (
        404,
        "The specified Multi-Region Access Point does not exist.",
    ),
    "NoSuchObjectLockConfiguration": (
        404,
        "The specified object does not have an ObjectLock configuration",
    ),
    "NoSuchPublicAccessBlockConfiguration": (
        404,
        "The public access block configuration was not found",
    ),
    "NoSuchResource": (404, "The specified resource does not exist."),
    "NoSuchTagSet": (404, "The TagSet does not exist"),
    "NoSuchTagSetError": (404, "The TagSet does not exist"),
    "NoSuchWebsiteConfiguration": (
        404,
        "The specified bucket does not have a website configuration",
    ),
    "ObjectLockConfigurationNotFoundError": (
        404,
        "Object Lock configuration does not exist for this bucket",
    ),
    "OwnershipControlsNotFoundError": (404, "The bucket ownership controls were not found"),
    "ReplicationConfigurationNotFoundError": (
        404,
        "The replication configuration was not found",
    ),
    "ServerSideEncryptionConfigurationNotFoundError": (
        404,
        "The server side encryption configuration was not found",
    ),
    "InvalidPolicyDocument": (
        400,
        "The content of the form does not meet the conditions specified in the policy document.",
    ),
    "InvalidBucketAclWithObjectOwnership": (
        400,
        "Bucket cannot have ACLs set with ObjectOwnership's BucketOwnerEnforced setting",
    ),
    "IllegalVersioningConfigurationException": (
        400,
        "The Versioning element must be specified",
    ),
    "InvalidTargetBucketForLogging": (
        400,
        "The target bucket for logging does not exist, is not owned by you, or does not have the "
        "appropriate grants for the log-delivery group.",
    ),
    "MalformedACLError": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    "MalformedPolicy": (400, "The policy is not in the valid JSON format."),
    "UnresolvableGrantByEmailAddress": (
        400,
        "The email address you provided does not match any account on record.",
    ),
    "InvalidPrefix": (400, "The prefix is not valid."),
    "WriteOnceViolation": (400, "The object is protected against being overwritten."),
    # Objects and versions.
    "AnnotationLimitExceeded": (400, "The object has the maximum number of annotations."),
    "AnnotationNameTooLong": (400, "The annotation name is too long."),
    "InvalidAnnotationName": (400, "The annotation name is not valid."),
    "NoSuchAnnotation": (404, "The specified annotation does not exist."),
    "NoSuchKey": (404, "The specified key does not exist."),
    "NoSuchVersion": (404, "The specified version does not exist."),
    "NoSuchUpload": (
        404,
        "The specified multipart upload does not exist. The upload ID may be invalid, or the "
        "upload may have been aborted or completed.",
    ),
    "IdempotencyParameterMismatch": (
        400,
        "The request uses the same client token as a previous request, but other parameters.",
    ),
    "ObjectAlreadyInActiveTierError": (
        403,
        "This object is already in the active tier and cannot be restored.",
    ),
    "ObjectNotInActiveTierError": (
        403,
        "The source object of the COPY action is not in the active tier.",
    ),
    "RestoreAlreadyInProgress": (409, "Object restore is already in progress."),
    # Conditions and conflicts.
    "ConditionalRequestConflict": (
        409,
        "The conditional request cannot succeed due to a conflicting operation against this "
        "resource.",
    ),
    "OperationAborted": (
        409,
        "A conflicting conditional operation is currently in progress against this resource. "
        "Try again.",
    ),
    "ClientTokenConflict": (
        409,
        "Your request is already in progress with the same client token.",
    ),
    "InvalidRange": (416, "The requested range is not satisfiable"),
    "InvalidPartNumber": (416, "The requested partnumber is not satisfiable"),
    "PreconditionFailed": (
        412,
        "At least one of the pre-conditions you specified did not hold",
    ),
    # Requests that are not right.
    "BadRequest": (400, "Bad Request"),
    "ConnectionClosedByRequester": (400, "The client closed the connection."),
    "DeviceNotActiveError": (400, "The device is not currently active."),
    "EncryptionTypeMismatch": (400, "The existing object has another encryption type."),
    "EndpointNotFound": (400, "Direct requests to the correct endpoint."),
    "EntityTooLarge": (
        400,
        "Your proposed upload exceeds the maximum allowed object size",
    ),
    "EntityTooSmall": (
        400,
        "Your proposed upload is smaller than the minimum allowed size",
    ),
    "ExcessHeaderValues": (400, "The request has too many values for one header."),
    "IncompleteBody": (
        400,
        "You did not provide the number of bytes specified by the Content-Length HTTP header",
    ),
    "IncorrectEndpoint": (400, "The specified bucket exists in another Region."),
    "IncorrectNumberOfFilesInPostRequest": (
        400,
        "POST requires exactly one file upload per request.",
    ),
    "InlineDataTooLarge": (400, "Inline data exceeds the maximum allowed size."),
    "InvalidAddressingHeader": (400, "You must specify the Anonymous role."),
    "InvalidArgument": (400, "Invalid Argument"),
    "InvalidChunkSizeError": (
        403,
        "Only the last chunk is allowed to have a size less than 8192 bytes",
    ),
    "InvalidDigest": (400, "The Content-MD5 you specified was invalid."),
    "InvalidEncryptionAlgorithmError": (
        400,
        "The encryption request you specified is not valid. Supported value: AES256.",
    ),
    "InvalidHostHeader": (
        400,
        "The host headers provided in the request used the incorrect style addressing.",
    ),
    "InvalidHttpMethod": (400, "The request used an HTTP method that is not valid."),
    "InvalidPart": (
        400,
        "One or more of the specified parts could not be found. The part may not have been "
        "uploaded, or the specified entity tag may not match the part's entity tag.",
    ),
    "InvalidPartOrder": (
        400,
        "The list of parts was not in ascending order. Parts must be ordered by part number.",
    ),
    "InvalidRegion": (403, "The region provided is not valid for this request."),
    "InvalidRequest": (400, "Invalid Request"),
    "InvalidSOAPRequest": (400, "The SOAP request body is invalid."),
    "InvalidSessionException": (400, "The session no longer exists."),
    "InvalidSignature": (400, "The request signature that the server calculated does not match."),
    "InvalidStorageClass": (400, "The storage class you specified is not valid"),
    "InvalidTag": (400, "The tag provided was not a valid tag."),
    "InvalidURI": (400, "Couldn't parse the specified URI."),
    "InvalidVersionId": (400, "Invalid version id specified"),
    "KeyTooLongError": (400, "Your key is too long"),
    "MalformedPOSTRequest": (
        400,
        "The body of your POST request is not well-formed multipart/form-data.",
    ),
    "MalformedXML": (
        400,
        "The XML you provided was not well-formed or did not validate against our published schema",
    ),
    "MaxMessageLengthExceeded": (400, "Your request was too big."),
    "MaxPostPreDataLengthExceededError": (
        400,
        "Your POST request fields preceding the upload file were too large.",
    ),
    "MetadataTooLarge": (
        400,
        "Your metadata headers exceed the maximum allowed metadata size",
    ),
    "MethodNotAllowed": (
        405,
        "The specified method is not allowed against this resource.",
    ),
    "MissingAttachment": (400, "A SOAP attachment was expected, but none were found."),
    "MissingAuthenticationToken": (403, "The request was not signed."),
    "MissingContentLength": (411, "You must provide the Content-Length HTTP header."),
    "MissingRequestBodyError": (400, "Request body is empty."),
    "MissingSecurityElement": (400, "The SOAP 1.1 request is missing a security element."),
    "NoLoggingStatusForKey": (400, "There is no such thing as a logging status subresource."),
    "InvalidWriteOffset": (
        400,
        "The write offset value that you specified does not match the current object size.",
    ),
    "PartTooLarge": (400, "The uploaded part exceeds the maximum allowed size."),
    "RequestHeaderSectionTooLarge": (
        400,
        "Your request header section exceeds the maximum allowed request header section size",
    ),
    "RequestIsNotMultiPartContent": (
        400,
        "Bucket POST must be of the enclosure-type multipart/form-data.",
    ),
    "RequestTimeout": (
        400,
        "Your socket connection to the server was not read from or written to within the timeout "
        "period.",
    ),
    "RequestTorrentOfBucketError": (
        400,
        "Requesting the torrent file of a bucket is not permitted.",
    ),
    "ResponseInterrupted": (400, "The response was interrupted."),
    "TooManyParts": (400, "The number of parts exceeds the maximum allowed."),
    "UnexpectedContent": (400, "This request does not support content"),
    "UnexpectedIPError": (403, "This request was rejected because the IP was unexpected."),
    "UnsupportedArgument": (400, "The request contained an unsupported argument."),
    "UnsupportedMediaType": (415, "The media type of the body is not supported."),
    "UnsupportedSignature": (
        400,
        "The provided request is signed with an unsupported signature version.",
    ),
    "UserKeyMustBeSpecified": (
        400,
        "The bucket POST must contain the specified field name. If it is specified, check the "
        "order of the fields.",
    ),
    "BadDigest": (400, "The Content-MD5 or checksum you specified did not match what we received."),
    "InvalidTrailer": (400, "The trailer of the request is not valid."),
    "MalformedTrailerError": (
        400,
        "The request contained trailing data that was not well-formed or did not conform to our "
        "published schema.",
    ),
    # Keys of a customer or of a key service.
    "KMS.DisabledException": (400, "The KMS key is disabled."),
    "KMS.InvalidKeyUsageException": (400, "The KMS key cannot be used for this operation."),
    "KMS.InvalidStateException": (400, "The KMS key is in a state that forbids this operation."),
    "KMS.KMSInvalidStateException": (400, "The KMS key is in a state that forbids this operation."),
    "KMS.NotFoundException": (400, "The KMS key does not exist."),
    # Ours to answer for.
    "InternalError": (500, "We encountered an internal error. Please try again."),
    "NotImplemented": (
        501,
        "A header or parameter you provided implies functionality that is not implemented",
    ),
    "ServiceUnavailable": (503, "Service is unable to handle request."),
    "SlowDown": (503, "Please reduce your request rate."),
    "Busy": (503, "The service is busy. Please retry later."),
    "InsufficientCapacity": (507, "There is not enough space to store the object."),
    "QuotaExceeded": (403, "The quota of the bucket or of its owner is used up."),
    # S3 Select.
    "EmptyRequestBody": (400, "Request body cannot be empty."),
    "ExpressionTooLong": (400, "The SQL expression is too long."),
    "IllegalSqlFunctionArgument": (400, "An illegal argument was used in the SQL function."),
    "InvalidCast": (400, "Attempt to convert from one data type to another failed."),
    "InvalidColumnIndex": (400, "The column index in the SQL expression is not valid."),
    "InvalidCompressionFormat": (400, "The file is not in a supported compression format."),
    "InvalidDataSource": (400, "The data source type is not valid."),
    "InvalidDataType": (400, "The SQL expression contains a data type that is not valid."),
    "InvalidExpressionType": (400, "The ExpressionType is not valid."),
    "InvalidFileHeaderInfo": (400, "The FileHeaderInfo value is not valid."),
    "InvalidJsonType": (400, "The JsonType value is not valid."),
    "InvalidKeyPath": (400, "The key path in the SQL expression is not valid."),
    "InvalidQuoteFields": (400, "The QuoteFields value is not valid."),
    "InvalidRequestParameter": (400, "The value of a parameter in SelectRequest is not valid."),
    "InvalidScanRange": (400, "The ScanRange is not valid."),
    "InvalidTableAlias": (400, "The table alias in the SQL expression is not valid."),
    "InvalidTextEncoding": (400, "The encoding type is not valid. Only UTF-8 is supported."),
    "MissingRequiredParameter": (400, "A required parameter in SelectRequest is missing."),
    "OverMaxColumn": (400, "The number of columns in the result is larger than allowed."),
    "OverMaxParquetBlockSize": (400, "The Parquet block size is larger than allowed."),
    "OverMaxRecordSize": (400, "A record is larger than allowed."),
    "ParseExpectedToken": (400, "Did not find the expected token in the SQL expression."),
    "ParseUnexpectedToken": (400, "The SQL expression contains an unexpected token."),
    "UnsupportedFunction": (400, "The SQL function is not supported."),
    "UnsupportedSqlStructure": (400, "The SQL structure is not supported."),
}

ERRORS: Final[Mapping[str, tuple[int, str]]] = MappingProxyType(_TABLE)

_HEADER_BREAKS: Final = re.compile(r"[\r\n\x00]")


class S3Error(RequestError):
    """A refusal with a code of the table. Extra keywords become elements of the XML body.

    Guarantee: `code` has a row in ERRORS; another code raises ValueError here, at the defect.
    """

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        **extra: str,
    ) -> None:
        if code not in ERRORS:
            raise ValueError(f"{code!r} has no row in the S3 error table")
        super().__init__(code, ERRORS[code][1] if message is None else message, extra)
        self.headers: dict[str, str] = dict(headers) if headers else {}

    @property
    def status(self) -> int:
        return ERRORS[self.code][0]


def operation_not_implemented(operation_name: str) -> S3Error:
    """The 501 of an operation that the table has and no handler serves yet."""
    return S3Error("NotImplemented", f"{operation_name} is not implemented.")


def header_not_implemented(header_name: str) -> S3Error:
    """The 501 of a header that would change what the request means."""
    message = "A header you provided implies functionality that is not implemented"
    return S3Error("NotImplemented", message, Header=header_name)


class RenderedError(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


def status_of(error: RequestError) -> int:
    """HTTP status; 500 for a code without a row, so that a slip of ours is never a success."""
    return ERRORS.get(error.code, ERRORS["InternalError"])[0]


def render(
    error: RequestError, *, method: str, resource: str, request_id: str, host_id: str
) -> RenderedError:
    """The whole answer: status, headers (without the request id headers), body.

    `resource` is the path as the client wrote it; it is escaped here.
    """
    status = status_of(error)
    headers = dict(error.headers) if isinstance(error, S3Error) else {}
    headers = {name: _HEADER_BREAKS.sub(" ", value) for name, value in headers.items()}
    if method == "HEAD" or status == ERRORS["NotModified"][0]:
        return RenderedError(status, headers, b"")
    headers["content-type"] = "application/xml"
    body = render_body(error, resource=resource, request_id=request_id, host_id=host_id)
    return RenderedError(status, headers, body)


def render_body(error: RequestError, *, resource: str, request_id: str, host_id: str) -> bytes:
    """The <Error> document: code, message, extras, then where and which request."""
    known = error.code in ERRORS
    code = error.code if known else "InternalError"
    message = error.message if known else ERRORS[code][1]
    fields = [("Code", code), ("Message", message)]
    fields += error.extra.items() if known else ()
    fields += [("Resource", resource), ("RequestId", request_id), ("HostId", host_id)]
    elements = "".join(f"<{name}>{escape(text)}</{name}>" for name, text in fields)
    return f"{XML_DECLARATION}<Error>{elements}</Error>".encode()
