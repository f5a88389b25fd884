"""The claim of an AWS Signature Version 4 request: its shapes, and how they are read.

Purpose: `parse_auth` tells who the request says it is from, without believing it. `sigv4.verify`
proves the claim; users import everything from `gateway.sigv4`.
Follows "Authenticating Requests: Using the Authorization Header" and "... Using Query
Parameters" of the Amazon S3 API reference, error texts included.

Rules of this file:
- Pure: no clock, no key lookup, no IO. Only `AuthError` or `RequestError` leaves it.
- Deny by default: an unknown scheme, a second credential, SigV2, SigV4A, a foreign service, a
  scope of another day, a repeated parameter. "A key is named" never means "authenticated".
- The region is not judged (clients send any region, or none): it enters the key derivation.
- X-Amz-Expires out of range answers AccessDenied (403): ceph s3-tests ask for 403 there; a value
  that is no number answers AuthorizationQueryParametersError (400) as AWS does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from functools import lru_cache
from typing import Final

from gateway.request_errors import AuthError
from gateway.request_head import RequestHead

ALGORITHM: Final = "AWS4-HMAC-SHA256"
EXPIRES_S_MAX: Final = 7 * 24 * 3600
SIGNED_HEADERS_MAX: Final = 128

UNSUPPORTED = (
    "The authorization mechanism you have provided is not supported. Please use AWS4-HMAC-SHA256."
)
ONE_MECHANISM = (
    "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, Signature query "
    "string parameter or the Authorization header should be specified"
)
QUERY_INCOMPLETE = (
    "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential, "
    "X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters."
)
CREDENTIAL_SHAPE = '"<YOUR-AKID>/YYYYMMDD/REGION/SERVICE/aws4_request"'

_AMZ_DATE = re.compile(r"[0-9]{8}T[0-9]{6}Z", re.ASCII)
_SHA256_HEX = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NUMBER = re.compile(r"-?[0-9]{1,18}", re.ASCII)
_ACCESS_KEY = re.compile(r"[\x21-\x7e]{1,128}")
_SCOPE_DATE = re.compile(r"[0-9]{8}", re.ASCII)
# Tokens of HTTP: a line feed here would let the list of names pose as other lines.
_SIGNED_HEADERS = re.compile(r"[!#$%&'*+\-.^_`|~0-9a-z;]{1,4096}")
_REGION = re.compile(r"[\x21-\x7e]{0,64}")


class PayloadKind(Enum):
    """How the body is protected, as declared by `x-amz-content-sha256`."""

    SINGLE = "sha256"
    UNSIGNED = "UNSIGNED-PAYLOAD"
    STREAMING_SIGNED = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"
    STREAMING_SIGNED_TRAILER = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD-TRAILER"
    STREAMING_UNSIGNED_TRAILER = "STREAMING-UNSIGNED-PAYLOAD-TRAILER"

    @property
    def is_chunked(self) -> bool:
        """True when the body is aws-chunked and must pass the ChunkedDecoder."""
        return self.name.startswith("STREAMING")

    @property
    def is_chunk_signed(self) -> bool:
        """True when each chunk carries a signature chained to the seed."""
        return self.name.startswith("STREAMING_SIGNED")


_KINDS: Final = {kind.value: kind for kind in PayloadKind if kind is not PayloadKind.SINGLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """The declared body protection; `sha256` (lower-case hex) is set for SINGLE only."""

    kind: PayloadKind
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """The credential scope of a signature."""

    access_key: str
    date: str
    region: str

    @property
    def scope(self) -> str:
        return f"{self.date}/{self.region}/s3/aws4_request"


@dataclass(frozen=True, slots=True)
class Anonymous:
    """No credentials were offered: the caller applies the rules for the public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderAuth:
    """A claim made in the Authorization header. Not proven yet."""

    credential: Credential
    signed_headers: tuple[bytes, ...]
    signature: str = field(repr=False)
    timestamp: str
    security_token: str | None = field(default=None, repr=False)

    @property
    def access_key(self) -> str:
        return self.credential.access_key


@dataclass(frozen=True, slots=True, kw_only=True)
class PresignedAuth:
    """A claim made in the query string. Not proven yet."""

    credential: Credential
    signed_headers: tuple[bytes, ...]
    signature: str = field(repr=False)
    timestamp: str
    expires_s: int
    security_token: str | None = field(default=None, repr=False)
    content_sha256: str | None = None

    @property
    def access_key(self) -> str:
        return self.credential.access_key


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """Proof that the holder of `access_key` signed this head within its time window."""

    access_key: str
    payload: Payload
    seed_signature: str = field(repr=False)
    signing_key: bytes = field(repr=False)
    scope: str
    timestamp: str
    security_token: str | None = field(default=None, repr=False)


Auth = Anonymous | HeaderAuth | PresignedAuth

# The six parameters of a presigned URL, lower-cased; a token may accompany them.
_QUERY_AUTH: Final = frozenset(
    {
        "x-amz-algorithm",
        "x-amz-credential",
        "x-amz-date",
        "x-amz-expires",
        "x-amz-signedheaders",
        "x-amz-signature",
    }
)
# Any of these makes the query a credential; X-Amz-Date or -Expires alone do not.
_QUERY_CLAIMS: Final = frozenset({"x-amz-algorithm", "x-amz-credential", "x-amz-signature"})
_QUERY_SINGLE: Final = _QUERY_AUTH | {"x-amz-security-token", "x-amz-content-sha256"}
_QUERY_V2: Final = frozenset({"Signature", "AWSAccessKeyId"})


def parse_auth(head: RequestHead) -> Auth:
    """Reads the claim of identity; nothing is proven by it.

    Raises `AuthError` when there are two claims, a damaged one, or one of a refused kind.
    """
    lines = head.header_map.get(b"authorization", [])
    query = _query_claims(head)
    in_query = not _QUERY_CLAIMS.isdisjoint(query)
    query_v2 = b"Signature=" in head.query and "Signature" in query
    if len(lines) + in_query + query_v2 > 1:
        raise AuthError("InvalidArgument", ONE_MECHANISM, {"ArgumentName": "Authorization"})
    if query_v2:
        raise AuthError("InvalidRequest", UNSUPPORTED)
    if in_query:
        return _parse_query(query)
    if lines:
        return _parse_header(head, lines[0].decode("latin-1").strip())
    return Anonymous()


def declared_payload(head: RequestHead) -> Payload:
    """How the body is protected, for header auth; the header is required.

    Raises `InvalidRequest` when it is absent, `InvalidArgument` when it names nothing known.
    """
    value = head.header("x-amz-content-sha256")
    if value is None:
        raise AuthError(
            "InvalidRequest", "Missing required header for this request: x-amz-content-sha256"
        )
    return parse_payload(value)


def anonymous_payload(head: RequestHead) -> Payload:
    """How the body of an unauthenticated request is framed; signed chunks are refused."""
    value = head.header("x-amz-content-sha256")
    payload = Payload(kind=PayloadKind.UNSIGNED) if value is None else parse_payload(value)
    if payload.kind.is_chunk_signed:
        raise AuthError("AccessDenied", "Signed chunks need a signed request.")
    return payload


def parse_payload(value: str) -> Payload:
    """Reads one value of x-amz-content-sha256. Raises `InvalidArgument`."""
    kind = _KINDS.get(value)
    if kind is not None:
        return Payload(kind=kind)
    if _SHA256_HEX.fullmatch(value):
        return Payload(kind=PayloadKind.SINGLE, sha256=value)
    raise AuthError(
        "InvalidArgument",
        f"x-amz-content-sha256 must be {', '.join(_KINDS)}, or a valid sha256 value.",
        {"ArgumentName": "x-amz-content-sha256", "ArgumentValue": value[:128]},
    )


@lru_cache(maxsize=256)  # requests of one second share their date
def parse_timestamp(value: str) -> float | None:
    """Epoch seconds of `yyyyMMddTHHmmssZ`, or None when it is no such date."""
    if not _AMZ_DATE.fullmatch(value):
        return None
    numbers = (value[0:4], value[4:6], value[6:8], value[9:11], value[11:13], value[13:15])
    year, month, day, hour, minute, second = map(int, numbers)
    try:
        return datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()
    except ValueError:
        return None


def is_access_key(text: str) -> bool:
    """True for 1 to 128 printable ASCII characters: what a key lookup may be asked for."""
    return _ACCESS_KEY.fullmatch(text) is not None


def parse_credential(value: str, *, timestamp: str, fault: str, prefix: str) -> Credential:
    """Splits `AK/date/region/s3/aws4_request` and holds it against the request's own date.

    The access key may contain `/`. Raises `AuthError(fault)`.
    """
    parts = value.rsplit("/", 4)
    if len(parts) != 5 or not is_access_key(parts[0]) or not _REGION.fullmatch(parts[2]):
        raise AuthError(
            fault, f"{prefix}; the Credential is mal-formed; expecting {CREDENTIAL_SHAPE}."
        )
    access_key, date, region, service, terminal = parts
    if terminal != "aws4_request":
        raise AuthError(fault, f'{prefix}; incorrect terminal. This endpoint uses "aws4_request".')
    if service != "s3":
        raise AuthError(fault, f'{prefix}; incorrect service. This endpoint belongs to "s3".')
    if not _SCOPE_DATE.fullmatch(date) or date != timestamp[:8]:
        raise AuthError(
            fault,
            f"{prefix}; Invalid credential date. This date is not the same as X-Amz-Date: "
            f'"{timestamp[:8]}".',
        )
    return Credential(access_key=access_key, date=date, region=region)


def _query_claims(head: RequestHead) -> dict[str, str]:
    """The parameters that concern authentication; names of SigV4 are lower-cased.

    Their case is folded so that a variant in another case cannot slip past as plain data.
    """
    found: dict[str, str] = {}
    if not head.query:
        return found
    for name, value in head.query_pairs:
        text = name.decode("latin-1")
        folded = text.lower()
        if folded in _QUERY_SINGLE:
            text = folded
        elif text not in _QUERY_V2:
            continue
        if text in found:
            raise AuthError(
                "AuthorizationQueryParametersError", f"The parameter {text} is given twice."
            )
        found[text] = value.decode("latin-1")
    return found


def _parse_query(query: dict[str, str]) -> PresignedAuth:
    fault = "AuthorizationQueryParametersError"
    if query.get("x-amz-algorithm", ALGORITHM) != ALGORITHM:
        raise AuthError(fault, f'X-Amz-Algorithm only supports "{ALGORITHM}"')
    if not query.keys() >= _QUERY_AUTH:
        raise AuthError(fault, QUERY_INCOMPLETE)
    timestamp = query["x-amz-date"]
    if parse_timestamp(timestamp) is None:
        raise AuthError(
            fault, "X-Amz-Date must be in the ISO8601 Long Format \"yyyyMMdd'T'HHmmss'Z'\""
        )
    return PresignedAuth(
        expires_s=_parse_expires(query["x-amz-expires"]),
        credential=parse_credential(
            query["x-amz-credential"],
            timestamp=timestamp,
            fault=fault,
            prefix="Error parsing the X-Amz-Credential parameter",
        ),
        signed_headers=_parse_signed_headers(query["x-amz-signedheaders"], fault),
        signature=query["x-amz-signature"],
        timestamp=timestamp,
        security_token=query.get("x-amz-security-token"),
        content_sha256=query.get("x-amz-content-sha256"),
    )


def _parse_expires(value: str) -> int:
    if not _NUMBER.fullmatch(value):
        raise AuthError("AuthorizationQueryParametersError", "X-Amz-Expires should be a number")
    expires_s = int(value)
    if expires_s < 0:
        raise AuthError("AccessDenied", "X-Amz-Expires must be non-negative")
    if expires_s == 0:
        raise AuthError("AccessDenied", "X-Amz-Expires must be at least 1 second")
    if expires_s > EXPIRES_S_MAX:
        raise AuthError(
            "AccessDenied",
            "X-Amz-Expires must be less than a week (in seconds); that is, the given "
            f"X-Amz-Expires must be less than {EXPIRES_S_MAX} seconds",
        )
    return expires_s


def _parse_header(head: RequestHead, value: str) -> HeaderAuth:
    fault = "AuthorizationHeaderMalformed"
    scheme, _, rest = value.partition(" ")
    if scheme != ALGORITHM:
        raise _refused_scheme(scheme, rest)
    fields = _parse_fields(rest)
    timestamp = _header_timestamp(head)
    return HeaderAuth(
        credential=parse_credential(
            fields["Credential"],
            timestamp=timestamp,
            fault=fault,
            prefix="The authorization header is malformed",
        ),
        signed_headers=_parse_signed_headers(fields["SignedHeaders"], fault),
        signature=fields["Signature"],
        timestamp=timestamp,
        security_token=head.header("x-amz-security-token"),
    )


def _refused_scheme(scheme: str, rest: str) -> AuthError:
    if not scheme:
        return AuthError("AccessDenied", "Access Denied")
    if scheme == "AWS" and ":" not in rest:
        return AuthError(
            "InvalidArgument",
            "AWS authorization header is invalid.  Expected AwsAccessKeyId:signature",
        )
    if scheme == "AWS" or scheme.startswith(("AWS3", "AWS4-")):
        return AuthError("InvalidRequest", UNSUPPORTED)
    return AuthError("InvalidArgument", "Unsupported Authorization Type")


def _parse_fields(rest: str) -> dict[str, str]:
    """`Credential=..., SignedHeaders=..., Signature=...` in any order, each exactly once."""
    fields: dict[str, str] = {}
    for part in rest.split(",", 4):
        name, equals, value = part.strip().partition("=")
        if not equals or name in fields:
            fields.clear()
            break
        fields[name] = value
    if fields.keys() != {"Credential", "SignedHeaders", "Signature"}:
        raise AuthError(
            "AuthorizationHeaderMalformed",
            "The authorization header is malformed; it needs Credential, SignedHeaders and "
            "Signature, each once.",
        )
    return fields


def _header_timestamp(head: RequestHead) -> str:
    """x-amz-date, or else Date turned into the same form."""
    amz_date = head.header("x-amz-date")
    if amz_date is not None and parse_timestamp(amz_date) is not None:
        return amz_date
    date = head.header("date") if amz_date is None else None
    if date is not None:
        if parse_timestamp(date) is not None:
            return date
        moment = _http_date(date)
        if moment is not None:
            return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    raise AuthError("AccessDenied", "AWS authentication requires a valid Date or x-amz-date header")


def _http_date(value: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(value[:64])
        # "-0000" (which botocore writes) and no zone at all both read as naive: UTC is meant.
        aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        # Other years would not print in the fixed-width form, or overflow on the way to UTC.
        return aware if 1971 <= aware.year <= 9998 else None
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _parse_signed_headers(value: str, fault: str) -> tuple[bytes, ...]:
    names = value.encode("latin-1").split(b";", SIGNED_HEADERS_MAX)
    is_list = _SIGNED_HEADERS.fullmatch(value) is not None and len(set(names)) == len(names)
    if not is_list or len(names) > SIGNED_HEADERS_MAX:
        raise AuthError(fault, "SignedHeaders must name each signed header once, in lower case.")
    return tuple(names)
