"""AWS Signature Version 4 for S3: was this request really signed by the key it names?

Purpose: `parse_auth` reads the claim, the caller looks the secret key up, `verify` proves it.
Follows "Signature Calculations for the Authorization Header" and "... Using Query Parameters"
of the Amazon S3 API reference; botocore is the oracle of the tests.

Rules of this file:
- Pure: no clock (the caller passes `now`), no lookup, no IO. Only `AuthError` or `RequestError`
  leaves it.
- Every `x-amz-*` header present, and Host, must be signed; otherwise a header such as
  x-amz-copy-source could be added to somebody else's request.
- A path or query is accepted in its canonical encoding and, failing that, as the very bytes that
  came (botocore signs those). Both readings decode to the same key, and bytes that are not
  canonical can match only the second, so one signature never opens two different requests.
- SigV4 has no nonce: a captured request can be repeated, byte for byte, until its 15 minutes (or
  its X-Amz-Expires) are over. TLS is what keeps requests from being captured.
- Signatures are compared by `hmac.compare_digest`. For an unknown access key, call `verify` with
  any secret, drop its outcome, then refuse: it takes the time of a wrong secret (SECURITY S13).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final
from urllib.parse import quote_from_bytes

from gateway.request_errors import AuthError
from gateway.request_head import RequestHead
from gateway.sigv4_claim import (
    ALGORITHM,
    Anonymous,
    Auth,
    Credential,
    HeaderAuth,
    Payload,
    PayloadKind,
    PresignedAuth,
    Verified,
    anonymous_payload,
    declared_payload,
    parse_auth,
    parse_payload,
    parse_timestamp,
)

__all__ = [
    "ALGORITHM",
    "Anonymous",
    "Auth",
    "Credential",
    "HeaderAuth",
    "Payload",
    "PayloadKind",
    "PresignedAuth",
    "Verified",
    "anonymous_payload",
    "derive_signing_key",
    "parse_auth",
    "verify",
]

SKEW_S_MAX: Final = 15 * 60
SIGNING_KEYS_MAX: Final = 4096

MISMATCH: Final = (
    "The request signature we calculated does not match the signature you provided. "
    "Check your key and signing method."
)
# Values that are secrets of the client: signed, but never repeated in an answer.
_SECRET_HEADER = re.compile(rb"^(x-amz-security-token|x-amz-[a-z-]*customer-key):.*$", re.M)
_SECRET_QUERY = re.compile(rb"(X-Amz-Security-Token)=[^&\n]*", re.I)
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_UNRESERVED = re.compile(rb"[A-Za-z0-9\-._~]*")
_UNRESERVED_PATH = re.compile(rb"[A-Za-z0-9\-._~/]*")


def verify(
    head: RequestHead, auth: HeaderAuth | PresignedAuth, secret: str, now: float
) -> Verified:
    """Proves that the holder of `secret` signed `head`, and that it is still in time.

    `now` is in epoch seconds. Raises `AuthError` with the S3 code to answer; a mismatch shows the
    client what was signed here, never the right signature.
    """
    _check_signed_headers(head, auth)
    if isinstance(auth, PresignedAuth):
        _check_lifetime(auth, now)
        content_sha256, payload = _presigned_payload(head, auth)
    else:
        _check_skew(auth.timestamp, now)
        payload = declared_payload(head)
        content_sha256 = payload.sha256 or payload.kind.value
    signing_key = derive_signing_key(secret, auth.credential.date, auth.credential.region)
    _check_signature(head, auth, signing_key, content_sha256.encode("latin-1"))
    return Verified(
        access_key=auth.access_key,
        payload=payload,
        seed_signature=auth.signature,
        signing_key=signing_key,
        scope=auth.credential.scope,
        timestamp=auth.timestamp,
        security_token=auth.security_token,
    )


@lru_cache(maxsize=SIGNING_KEYS_MAX)
def derive_signing_key(secret: str, date: str, region: str) -> bytes:
    """The key of one day, region and secret; the last SIGNING_KEYS_MAX are remembered."""
    key = b"AWS4" + secret.encode()
    for part in (date, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode("latin-1"), "sha256")
    return key


def _check_signed_headers(head: RequestHead, auth: HeaderAuth | PresignedAuth) -> None:
    signed = frozenset(auth.signed_headers)
    missing = [
        name for name in head.header_map if name not in signed and name.startswith(b"x-amz-")
    ]
    if b"host" not in signed:
        missing.append(b"host")
    if missing:
        raise AuthError(
            "AccessDenied",
            "There were headers present in the request which were not signed",
            {"HeadersNotSigned": ", ".join(name.decode("latin-1") for name in missing)},
        )


def _check_skew(timestamp: str, now: float) -> None:
    signed_at = parse_timestamp(timestamp)
    if signed_at is None or abs(now - signed_at) > SKEW_S_MAX:
        raise AuthError(
            "RequestTimeTooSkewed",
            "The difference between the request time and the current time is too large.",
            {
                "RequestTime": timestamp,
                "ServerTime": _iso(now),
                "MaxAllowedSkewMilliseconds": str(SKEW_S_MAX * 1000),
            },
        )


def _check_lifetime(auth: PresignedAuth, now: float) -> None:
    signed_at = parse_timestamp(auth.timestamp)
    if signed_at is None or signed_at - now > SKEW_S_MAX:
        raise AuthError(
            "AccessDenied",
            "Request is not yet valid",
            {"X-Amz-Date": auth.timestamp, "ServerTime": _iso(now)},
        )
    expires_at = signed_at + auth.expires_s
    if now > expires_at:
        raise AuthError(
            "AccessDenied",
            "Request has expired",
            {
                "X-Amz-Expires": str(auth.expires_s),
                "Expires": _iso(expires_at),
                "ServerTime": _iso(now),
            },
        )


def _iso(epoch_s: float) -> str:
    return datetime.fromtimestamp(epoch_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _presigned_payload(head: RequestHead, auth: PresignedAuth) -> tuple[str, Payload]:
    """The hash line of the canonical request, and what it says of the body.

    A presigned URL normally leaves the body open. Some SDKs state so in the query, and a signed
    header may bind the body; when both speak they must agree.
    """
    header = head.header("x-amz-content-sha256")
    if header is not None and auth.content_sha256 not in (None, header):
        raise AuthError(
            "InvalidArgument", "x-amz-content-sha256 differs between the query and the header."
        )
    value = header or auth.content_sha256
    if value is None:
        return PayloadKind.UNSIGNED.value, Payload(kind=PayloadKind.UNSIGNED)
    return value, parse_payload(value)


def _check_signature(
    head: RequestHead,
    auth: HeaderAuth | PresignedAuth,
    signing_key: bytes,
    content_sha256: bytes,
) -> None:
    prefix = f"{ALGORITHM}\n{auth.timestamp}\n{auth.credential.scope}\n".encode("latin-1")
    provided = auth.signature.encode("latin-1")
    tail = _canonical_tail(head, auth.signed_headers, content_sha256)
    tried: list[tuple[bytes, bytes]] = []
    for request_line in _canonical_request_lines(head):
        canonical = request_line + tail
        to_sign = prefix + hashlib.sha256(canonical).hexdigest().encode()
        expected = hmac.digest(signing_key, to_sign, "sha256").hex().encode()
        if hmac.compare_digest(expected, provided):
            return
        tried.append((to_sign, canonical))
    raise _mismatch(auth, *tried[0])


def _canonical_request_lines(head: RequestHead) -> Iterator[bytes]:
    """Method, URI and query: first in canonical encoding, then as the bytes that came."""
    method = head.method.encode("latin-1", "replace")
    recoded = b"%b\n%b\n%b\n" % (method, _canonical_path(head), _canonical_query(head))
    yield recoded
    raw = b"%b\n%b\n%b\n" % (method, head.raw_path or b"/", _raw_query(head))
    if raw != recoded:
        yield raw


def _canonical_path(head: RequestHead) -> bytes:
    """The path decoded once and encoded again; never normalised, never encoded twice."""
    raw = head.raw_path or b"/"
    if _UNRESERVED_PATH.fullmatch(raw):
        return raw
    return quote_from_bytes(head.path_bytes, safe="/").encode() or b"/"


def _canonical_query(head: RequestHead) -> bytes:
    if not head.query:
        return b""
    pairs = sorted(
        (_encode(name), _encode(value))
        for name, value in head.query_pairs
        if not _is_signature(name)
    )
    return b"&".join([b"%b=%b" % pair for pair in pairs])


def _encode(value: bytes) -> bytes:
    if _UNRESERVED.fullmatch(value):
        return value
    return quote_from_bytes(value, safe="").encode()


def _raw_query(head: RequestHead) -> bytes:
    if not head.query:
        return b""
    parts = [part.partition(b"=") for part in head.query.split(b"&")]
    pairs = sorted((name, value) for name, _, value in parts if not _is_signature(name))
    return b"&".join([b"%b=%b" % pair for pair in pairs])


def _is_signature(name: bytes) -> bool:
    return len(name) == 15 and name.lower() == b"x-amz-signature"


def _canonical_tail(
    head: RequestHead, signed_headers: tuple[bytes, ...], content_sha256: bytes
) -> bytes:
    """Headers, their names and the payload hash: all that follows the query."""
    headers = head.header_map
    parts: list[bytes] = []
    for name in signed_headers:
        values = headers.get(name, ())
        # Runs of white space fold to one space, also inside the value.
        parts += (name, b":", b",".join([b" ".join(v.split()) for v in values]), b"\n")
    parts += (b"\n", b";".join(signed_headers), b"\n", content_sha256)
    return b"".join(parts)


def _mismatch(auth: HeaderAuth | PresignedAuth, to_sign: bytes, canonical: bytes) -> AuthError:
    shown = _SECRET_HEADER.sub(rb"\1:***", canonical)
    shown = _SECRET_QUERY.sub(rb"\1=***", shown)
    return AuthError(
        "SignatureDoesNotMatch",
        MISMATCH,
        {
            "AWSAccessKeyId": auth.access_key,
            "StringToSign": to_sign.decode("latin-1"),
            "SignatureProvided": _printable(auth.signature[:128]),
            "StringToSignBytes": to_sign.hex(" "),
            "CanonicalRequest": _printable(shown.decode("utf-8", "replace")),
            "CanonicalRequestBytes": shown.hex(" "),
        },
    )


def _printable(text: str) -> str:
    """Characters that XML cannot carry are replaced, so that the answer stays well-formed."""
    return _UNPRINTABLE.sub("\ufffd", text)
