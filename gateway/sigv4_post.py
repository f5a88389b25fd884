"""Signatures of browser uploads: POST Object forms, whose policy document is what is signed.

Purpose: prove that the policy of a form was signed by the key the form names. What the policy
allows is judged elsewhere, after this. Follows "Authenticating Requests in Browser-Based Uploads
Using POST" of the Amazon S3 API reference.

Rules of this file:
- Pure. Field names are lower-cased by the caller, who also refuses repeated fields.
- The form's time bound is the policy's own `expiration`; X-Amz-Date only selects the key.
- SigV2 forms (`AWSAccessKeyId`, HMAC-SHA1) have functions of their own, so that accepting them is
  a visible decision of the caller; `parse_post_auth` never does.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field

from gateway.request_errors import AuthError
from gateway.sigv4 import MISMATCH, derive_signing_key
from gateway.sigv4_claim import (
    ALGORITHM,
    Anonymous,
    Credential,
    is_access_key,
    parse_credential,
    parse_timestamp,
)

V4_FIELDS = ("x-amz-algorithm", "x-amz-credential", "x-amz-date", "x-amz-signature")


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAuth:
    """The claim of a SigV4 form over `policy` (base64 as sent). Not proven yet."""

    credential: Credential
    policy: str = field(repr=False)
    signature: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)

    @property
    def access_key(self) -> str:
        return self.credential.access_key


@dataclass(frozen=True, slots=True, kw_only=True)
class PostAuthV2:
    """The claim of a SigV2 form over `policy` (base64 as sent). Not proven yet."""

    access_key: str
    policy: str = field(repr=False)
    signature: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)


def parse_post_auth(fields: Mapping[str, str]) -> Anonymous | PostAuth:
    """Reads the claim of a form; a form without policy and signature is anonymous.

    Raises `AuthError`: `InvalidArgument` for a missing field or another algorithm,
    `InvalidRequest` for SigV2, `AuthorizationQueryParametersError` for a wrong scope.
    """
    if is_v2_form(fields):
        raise AuthError(
            "InvalidRequest",
            "The authorization mechanism you have provided is not supported. "
            f"Please use {ALGORITHM}.",
        )
    if "policy" not in fields and not any(name in fields for name in V4_FIELDS):
        return Anonymous()
    for name in ("policy", *V4_FIELDS):
        _required(fields, name)
    if fields["x-amz-algorithm"] != ALGORITHM:
        raise AuthError("InvalidArgument", f"X-Amz-Algorithm only supports {ALGORITHM!r}")
    timestamp = fields["x-amz-date"]
    if parse_timestamp(timestamp) is None:
        raise AuthError("InvalidArgument", "X-Amz-Date must be like 20130524T000000Z")
    return PostAuth(
        credential=parse_credential(
            fields["x-amz-credential"],
            timestamp=timestamp,
            fault="AuthorizationQueryParametersError",
            prefix="Error parsing the X-Amz-Credential parameter",
        ),
        policy=fields["policy"],
        signature=fields["x-amz-signature"],
        security_token=fields.get("x-amz-security-token"),
    )


def verify_post(auth: PostAuth, secret: str) -> None:
    """Proves that the holder of `secret` signed the policy. Raises `SignatureDoesNotMatch`."""
    key = derive_signing_key(secret, auth.credential.date, auth.credential.region)
    expected = hmac.digest(key, _bytes(auth.policy), "sha256").hex()
    _compare(expected, auth.signature, auth.access_key)


def is_v2_form(fields: Mapping[str, str]) -> bool:
    """True when the form is signed the old way, and only that way."""
    return ("awsaccesskeyid" in fields or "signature" in fields) and not any(
        name in fields for name in V4_FIELDS
    )


def parse_post_auth_v2(fields: Mapping[str, str]) -> PostAuthV2:
    """Reads the claim of a SigV2 form. Raises `InvalidArgument` for a missing field."""
    for name in ("policy", "awsaccesskeyid", "signature"):
        _required(fields, name)
    if not is_access_key(fields["awsaccesskeyid"]):
        raise AuthError("InvalidArgument", "The AWSAccessKeyId field is mal-formed.")
    return PostAuthV2(
        access_key=fields["awsaccesskeyid"],
        policy=fields["policy"],
        signature=fields["signature"],
        security_token=fields.get("x-amz-security-token"),
    )


def verify_post_v2(auth: PostAuthV2, secret: str) -> None:
    """Proves that the holder of `secret` signed the policy. Raises `SignatureDoesNotMatch`."""
    digest = hmac.new(secret.encode(), _bytes(auth.policy), hashlib.sha1).digest()
    _compare(b64encode(digest).decode(), auth.signature, auth.access_key)


def _required(fields: Mapping[str, str], name: str) -> None:
    if not fields.get(name):
        raise AuthError(
            "InvalidArgument",
            f"Bucket POST must contain a field named '{name}'.  "
            "If it is specified, please check the order of the fields.",
            {"ArgumentName": name, "ArgumentValue": ""},
        )


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _compare(expected: str, provided: str, access_key: str) -> None:
    if not hmac.compare_digest(expected.encode(), _bytes(provided)):
        raise AuthError("SignatureDoesNotMatch", MISMATCH, {"AWSAccessKeyId": access_key})
