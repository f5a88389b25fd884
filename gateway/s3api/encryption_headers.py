"""The headers of server-side encryption: which of them can stand together.

Encryption itself is not there yet, and a request for it is 501; one that contradicts itself is
refused as S3 refuses it, so that it stays refused when encryption comes. Pure.
Source: AWS "Specifying server-side encryption with customer-provided keys (SSE-C)", PutObject.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Final

from gateway.s3api.errors import S3Error

_METHOD: Final = "x-amz-server-side-encryption"
_KMS_KEY: Final = f"{_METHOD}-aws-kms-key-id"
_KMS: Final = ("aws:kms", "aws:kms:dsse")
_METHODS: Final = ("AES256", *_KMS)
_CUSTOMER: Final = f"{_METHOD}-customer-"
_CUSTOMER_OF_SOURCE: Final = "x-amz-copy-source-server-side-encryption-customer-"
_KEY_BYTES: Final = 32


def check_encryption_headers(method: str, headers: Mapping[str, str]) -> None:
    """Raises InvalidArgument (400) for a contradiction and for a value that means nothing.
    `headers` have lower-case names."""
    if method in ("GET", "HEAD"):
        for name in (_METHOD, _KMS_KEY):
            if name in headers:
                raise _invalid(f"{name} header is not supported for this operation.", name)
    else:
        _check_managed(headers)
    for prefix in (_CUSTOMER, _CUSTOMER_OF_SOURCE):
        _check_customer(prefix, headers)


def _check_managed(headers: Mapping[str, str]) -> None:
    wanted = headers.get(_METHOD)
    if wanted is not None and wanted not in _METHODS:
        raise _invalid("The encryption method specified is not supported", _METHOD)
    if _KMS_KEY in headers and wanted not in _KMS:
        raise _invalid(
            f"Server Side Encryption with KMS managed key requires HTTP header {_METHOD} : aws:kms",
            _METHOD,
        )
    if wanted is not None and any(name.startswith(_CUSTOMER) for name in headers):
        message = "Server Side Encryption with Customer provided key is incompatible with the "
        raise _invalid(f"{message}encryption method specified", _METHOD)


def _check_customer(prefix: str, headers: Mapping[str, str]) -> None:
    """All three or none; a key of 256 bits under its own MD5."""
    algorithm, key, md5 = (headers.get(prefix + part) for part in ("algorithm", "key", "key-md5"))
    if algorithm is key is md5 is None:
        return
    if algorithm is None or key is None or md5 is None:
        message = "Requests specifying Server Side Encryption with Customer provided keys must "
        raise _invalid(f"{message}provide algorithm, key and the key's MD5.", f"{prefix}algorithm")
    if algorithm != "AES256":
        raise _invalid("The encryption algorithm specified is not supported", f"{prefix}algorithm")
    try:
        secret = base64.b64decode(key, validate=True)
        digest = base64.b64decode(md5, validate=True)
    except (binascii.Error, ValueError):
        secret, digest = b"", b""
    if len(secret) != _KEY_BYTES:
        raise _invalid("The secret key was invalid for the specified algorithm.", f"{prefix}key")
    if hashlib.md5(secret, usedforsecurity=False).digest() != digest:
        message = "The calculated MD5 hash of the key did not match the hash that was provided."
        raise _invalid(message, f"{prefix}key-md5")


def _invalid(message: str, header: str) -> S3Error:
    return S3Error("InvalidArgument", message, ArgumentName=header)
