"""Continuation tokens: where the next page of a listing begins.

Purpose: an opaque text for the client, a validated position for us. The token carries no right:
each page is authorised anew, so a forged one can only name a place to begin.
Rules: pure; versioned by its first byte; bounded before it is decoded.
Invariant: exactly the texts that `encode_*` can produce are accepted, each in one spelling.
"""

import binascii
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Final, TypeVar

import msgspec

from astra.constants import KEY_BYTES_MAX
from astra.decoding import UNREADABLE
from gateway.s3api.errors import S3Error

_VERSION: Final = 1
_TOKEN_LENGTH_MAX: Final = 2 * KEY_BYTES_MAX
_BUCKET_LENGTH_MAX: Final = 63


class ObjectsToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Continue after `after`; with `skip_prefix`, after every key that begins with it."""

    after: bytes
    skip_prefix: bool


class BucketsToken(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Continue after the bucket `after`."""

    after: str


_Token = TypeVar("_Token", ObjectsToken, BucketsToken)

_objects_decoder: Final = msgspec.msgpack.Decoder(ObjectsToken, strict=True)
_buckets_decoder: Final = msgspec.msgpack.Decoder(BucketsToken, strict=True)


def _encode(token: ObjectsToken | BucketsToken) -> str:
    packed = bytes((_VERSION,)) + msgspec.msgpack.encode(token)
    return urlsafe_b64encode(packed).rstrip(b"=").decode()


def _incorrect() -> S3Error:
    return S3Error(
        "InvalidArgument",
        "The continuation token provided is incorrect",
        ArgumentName="continuation-token",
    )


def _decode(text: str, decoder: "msgspec.msgpack.Decoder[_Token]") -> _Token:
    if len(text) > _TOKEN_LENGTH_MAX:
        raise _incorrect()
    try:
        packed = urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        token = decoder.decode(packed[1:])
    except (UnicodeEncodeError, binascii.Error, *UNREADABLE) as error:
        raise _incorrect() from error
    if _encode(token) != text:  # another version, or another spelling of the same
        raise _incorrect()
    return token


def encode_objects_token(after: bytes, *, skip_prefix: bool) -> str:
    return _encode(ObjectsToken(after, skip_prefix))


def decode_objects_token(text: str) -> ObjectsToken:
    """The position, or InvalidArgument. `after` is 1..1024 bytes of UTF-8."""
    token = _decode(text, _objects_decoder)
    try:
        token.after.decode()
    except UnicodeDecodeError as error:
        raise _incorrect() from error
    if not 1 <= len(token.after) <= KEY_BYTES_MAX:
        raise _incorrect()
    return token


def encode_buckets_token(after: str) -> str:
    return _encode(BucketsToken(after))


def decode_buckets_token(text: str) -> BucketsToken:
    """The position, or InvalidArgument."""
    token = _decode(text, _buckets_decoder)
    if not 1 <= len(token.after) <= _BUCKET_LENGTH_MAX:
        raise _incorrect()
    return token
