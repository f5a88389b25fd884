"""Encryption headers that contradict themselves, and those that do not."""

from __future__ import annotations

import base64
import hashlib

import pytest

from gateway.s3api.encryption_headers import check_encryption_headers
from gateway.s3api.errors import S3Error

METHOD = "x-amz-server-side-encryption"
KMS_KEY = "x-amz-server-side-encryption-aws-kms-key-id"
SOURCE = "x-amz-copy-source-server-side-encryption"
KEY = bytes(range(32))


def customer(prefix: str = METHOD, **changed: str | None) -> dict[str, str]:
    """The three headers of a customer's key; a change to None leaves one out."""
    values: dict[str, str | None] = {
        "algorithm": "AES256",
        "key": base64.b64encode(KEY).decode(),
        "md5": base64.b64encode(hashlib.md5(KEY).digest()).decode(),
        **changed,
    }
    names = {"algorithm": "algorithm", "key": "key", "md5": "key-md5"}
    return {
        f"{prefix}-customer-{names[part]}": value
        for part, value in values.items()
        if value is not None
    }


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {METHOD: "AES256"},
        {METHOD: "aws:kms"},
        {METHOD: "aws:kms", KMS_KEY: "key-1"},
        {METHOD: "aws:kms:dsse", KMS_KEY: "key-1"},
        customer(),
        customer(SOURCE),
        {**customer(SOURCE), METHOD: "AES256"},
    ],
)
def test_check_of_headers_that_agree_passes(headers: dict[str, str]) -> None:
    check_encryption_headers("PUT", headers)


@pytest.mark.parametrize(
    "headers",
    [
        {METHOD: "aes:kms"},
        {METHOD: ""},
        {KMS_KEY: "key-1"},
        {METHOD: "AES256", KMS_KEY: "key-1"},
        {METHOD: "AES256", **customer()},
        {METHOD: "aws:kms", **customer()},
        customer(algorithm=None),
        customer(key=None),
        customer(md5=None),
        customer(algorithm="AES128"),
        customer(key="no base64!"),
        customer(key=base64.b64encode(b"short").decode()),
        customer(md5="AAAAAAAAAAAAAAAAAAAAAA=="),
        customer(md5="é"),
        customer(SOURCE, md5="AAAAAAAAAAAAAAAAAAAAAA=="),
    ],
)
def test_check_of_headers_that_contradict_is_invalid_argument(headers: dict[str, str]) -> None:
    with pytest.raises(S3Error) as caught:
        check_encryption_headers("PUT", headers)
    assert (caught.value.status, caught.value.code) == (400, "InvalidArgument")


@pytest.mark.parametrize("name", [METHOD, KMS_KEY])
def test_check_of_a_read_that_asks_for_encryption_is_invalid_argument(name: str) -> None:
    with pytest.raises(S3Error) as caught:
        check_encryption_headers("GET", {name: "aws:kms"})
    assert caught.value.extra["ArgumentName"] == name
