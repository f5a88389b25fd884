"""Names on the wire: buckets, keys, copy sources, ETags, url-encoded listings, small numbers.

Purpose: turn what a client wrote into names we may use, or refuse it with S3's code.
Rules: pure functions; every input is bounded and checked once, here. A key is opaque: `..`, `//`,
a leading `/` and control characters are characters like any other (SECURITY S34).
Invariants: percent-encoding is decoded exactly once; a key is 1..1024 bytes of valid UTF-8.
Source: AWS "General purpose bucket naming rules", "Creating object key names", CopyObject.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from astra.constants import BUCKETS_PER_OWNER_MAX, KEY_BYTES_MAX, LIST_KEYS_MAX, PART_NUMBER_MAX
from gateway.s3api.errors import S3Error

_LABEL: Final = "[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
_BUCKET: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_IPV4: Final = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_RESERVED_PREFIXES: Final = ("xn--", "sthree-", "amzn-s3-demo-")
_RESERVED_SUFFIXES: Final = ("-s3alias", "--ol-s3", ".mrap", "--x-s3", "--table-s3")

_BAD_PERCENT: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_ESCAPE: Final = re.compile(rb"%([0-9A-Fa-f]{2})")
_URL_PLAIN: Final = re.compile(r"[A-Za-z0-9_./*-]*", re.ASCII)
_URL_SPECIAL: Final = re.compile(r"[^A-Za-z0-9_./*-]", re.ASCII)
_PERCENT: Final = {chr(octet): f"%{octet:02X}" for octet in range(256)}
_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_INT32_MAX: Final = 2**31 - 1


# --- percent-encoding -----------------------------------------------------------------------


def percent_decode(raw: bytes) -> bytes:
    """The bytes meant by `raw`; `%` that is not followed by two hex digits is InvalidURI.

    Linear; unlike urllib's unquote it never guesses at malformed escapes.
    """
    if b"%" not in raw:
        return raw
    if _BAD_PERCENT.search(raw):
        raise S3Error("InvalidURI")
    return _ESCAPE.sub(lambda match: bytes((int(match[1], 16),)), raw)


def decode_text(raw: bytes) -> str:
    """Percent-decoded UTF-8 text; InvalidURI when it is neither."""
    try:
        return percent_decode(raw).decode()
    except UnicodeDecodeError as error:
        raise S3Error("InvalidURI") from error


def url_encode(text: str) -> str:
    """Names under encoding-type=url: `/` stays, a space is `%20`.

    S3 writes a space as `+`; `%20` means the same to every client, also to those that decode as
    in a path and would keep the `+`, and is what the public test suite asks for.
    """
    if _URL_PLAIN.fullmatch(text):
        return text
    octets = text.encode(errors="replace").decode("latin-1")
    return _URL_SPECIAL.sub(_percent, octets)


def _percent(match: re.Match[str]) -> str:
    return _PERCENT[match.group()]


def parse_encoding_type(value: str | None) -> bool:
    """True when names in the answer are to be url-encoded."""
    if value is None or value == "":
        return False
    if value != "url":
        raise S3Error(
            "InvalidArgument",
            "Invalid Encoding Method specified in Request",
            ArgumentName="encoding-type",
            ArgumentValue=value,
        )
    return True


# --- buckets and keys -----------------------------------------------------------------------


def is_bucket_name(name: str) -> bool:
    """Whether a bucket may have this name at all (also one that already exists)."""
    return 3 <= len(name) <= 63 and _BUCKET.fullmatch(name) is not None


def is_new_bucket_name(name: str) -> bool:
    """Whether S3 lets somebody create it: no IP address, no reserved prefix or suffix."""
    return (
        is_bucket_name(name)
        and _IPV4.fullmatch(name) is None
        and not name.startswith(_RESERVED_PREFIXES)
        and not name.endswith(_RESERVED_SUFFIXES)
    )


def check_bucket_name(name: str) -> None:
    if not is_bucket_name(name):
        raise S3Error("InvalidBucketName", BucketName=name)


def check_new_bucket_name(name: str) -> None:
    if not is_new_bucket_name(name):
        raise S3Error("InvalidBucketName", BucketName=name)


def check_key(key: str) -> bytes:
    """The key's bytes, 1..1024 of them; the key itself is not looked at."""
    try:
        encoded = key.encode()
    except UnicodeEncodeError as error:
        raise S3Error("InvalidURI") from error
    if not encoded:
        raise S3Error("InvalidArgument", "The key must not be empty.", ArgumentName="Key")
    if len(encoded) > KEY_BYTES_MAX:
        raise S3Error("KeyTooLongError", Size=str(len(encoded)), MaxSizeAllowed=str(KEY_BYTES_MAX))
    return encoded


def check_list_text(name: str, value: str) -> str:
    """A prefix, delimiter or marker of a listing: at most as long as a key may be."""
    if len(value.encode(errors="replace")) > KEY_BYTES_MAX:
        raise S3Error(
            "InvalidArgument",
            f"The {name} must not be longer than {KEY_BYTES_MAX} bytes.",
            ArgumentName=name,
        )
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class CopySource:
    bucket: str
    key: str
    key_bytes: bytes
    version_id: str | None


def _bad_copy_source(message: str, value: str) -> S3Error:
    return S3Error(
        "InvalidArgument", message, ArgumentName="x-amz-copy-source", ArgumentValue=value
    )


def parse_copy_source(value: str) -> CopySource:
    """`bucket/key`, `/bucket/key`, percent-encoded, with an optional `?versionId=`.

    Decoded once; a `+` is a plus. A literal `?` that does not start `?versionId=` is part of the
    key, because SDKs differ in whether they encode it.
    """
    malformed = "Copy Source must mention the source bucket and key: sourcebucket/sourcekey"
    path, found, version_id = value.rpartition("?versionId=")
    if not found:
        path, version_id = value, ""
    elif not version_id:
        raise _bad_copy_source("Version id cannot be the empty string", value)
    try:
        decoded = decode_text(path.encode("latin-1").removeprefix(b"/"))
        version = decode_text(version_id.encode("latin-1"))
    except (S3Error, UnicodeEncodeError) as error:
        raise _bad_copy_source("Invalid copy source encoding", value) from error
    bucket, slash, key = decoded.removeprefix("/").partition("/")
    if not slash or not bucket or not key:
        raise _bad_copy_source(malformed, value)
    if not is_bucket_name(bucket):
        raise _bad_copy_source("Invalid copy source bucket name", value)
    return CopySource(
        bucket=bucket, key=key, key_bytes=check_key(key), version_id=version if found else None
    )


# --- ETags ----------------------------------------------------------------------------------


def quote_etag(etag: str) -> str:
    """The ETag as headers and documents show it; quoting twice changes nothing."""
    return etag if etag.startswith('"') else f'"{etag}"'


def unquote_etag(etag: str) -> str:
    """The bare ETag of what a client sent: `"x"`, `W/"x"` or `x`."""
    bare = etag.strip().removeprefix("W/")
    if len(bare) >= 2 and bare[0] == bare[-1] == '"':
        return bare[1:-1]
    return bare


# --- numbers in the query -------------------------------------------------------------------


def _parse_count(query: Mapping[str, str], name: str, *, lowest: int, limit: int) -> int:
    """A page size: absent or empty is `limit`, larger is capped, nonsense is InvalidArgument."""
    text = query.get(name, "")
    if not text:
        return limit
    number = int(text) if _INTEGER.fullmatch(text) else None
    if number is None or number > _INT32_MAX:
        message = f"Provided {name} not an integer or within integer range"
        raise S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=text)
    if number < lowest:
        message = f"Argument {name} must be an integer between {lowest} and {_INT32_MAX}"
        raise S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=text)
    return min(number, limit)


def parse_max_keys(query: Mapping[str, str]) -> int:
    return _parse_count(query, "max-keys", lowest=0, limit=LIST_KEYS_MAX)


def parse_max_parts(query: Mapping[str, str]) -> int:
    return _parse_count(query, "max-parts", lowest=0, limit=LIST_KEYS_MAX)


def parse_max_uploads(query: Mapping[str, str]) -> int:
    return _parse_count(query, "max-uploads", lowest=0, limit=LIST_KEYS_MAX)


def parse_max_buckets(query: Mapping[str, str]) -> int:
    return _parse_count(query, "max-buckets", lowest=1, limit=BUCKETS_PER_OWNER_MAX)


def parse_part_number_marker(query: Mapping[str, str]) -> int:
    """The part after which ListParts begins; 0 when absent. A larger number lists nothing."""
    if not query.get("part-number-marker"):
        return 0
    return _parse_count(query, "part-number-marker", lowest=0, limit=_INT32_MAX)


def parse_part_number(text: str) -> int:
    """1..10000, for UploadPart and for partNumber of GET and HEAD."""
    number = int(text) if _INTEGER.fullmatch(text) else 0
    if not 1 <= number <= PART_NUMBER_MAX:
        raise S3Error(
            "InvalidArgument",
            f"Part number must be an integer between 1 and {PART_NUMBER_MAX}, inclusive",
            ArgumentName="partNumber",
            ArgumentValue=text,
        )
    return number


def parse_version_id(query: Mapping[str, str]) -> str | None:
    """The versionId asked for; the empty one is refused, as S3 does."""
    version_id = query.get("versionId")
    if version_id == "":
        raise S3Error(
            "InvalidArgument",
            "Version id cannot be the empty string",
            ArgumentName="versionId",
            ArgumentValue="",
        )
    return version_id
