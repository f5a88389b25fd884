"""User metadata: the x-amz-meta-* headers of a request and of an answer.

Rules: pure. A value is kept as the bytes that were sent, one character per byte (latin-1), and
sent back as the same bytes. So UTF-8 clients get UTF-8, latin-1 clients latin-1, and RFC 2047
encoded words come back as they were: each reader finds what it wrote. (S3 itself re-encodes
unprintable values by RFC 2047; a client that reads those still has to decode what it encoded.)
Invariants: names are lower-case header tokens; no value can break a header line; names and
values together are at most 2 KiB.
Source: AWS "Working with object metadata", RFC 9110 section 5.5.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from astra.constants import USER_METADATA_BYTES_MAX
from gateway.s3api.errors import S3Error

PREFIX: Final = b"x-amz-meta-"
_TOKEN: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


def parse_user_metadata(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Name (without prefix) to value. Equal names are joined by a comma, as HTTP says.

    MetadataTooLarge above 2 KiB; InvalidArgument for a name or value no header can carry.
    """
    found: dict[bytes, bytes] = {}
    for raw_name, raw_value in headers:
        name = raw_name.lower()
        if not name.startswith(PREFIX):
            continue
        name, value = name.removeprefix(PREFIX), raw_value.strip(b" \t")
        if not _TOKEN.fullmatch(name) or _CONTROL.search(value):
            raise S3Error(
                "InvalidArgument",
                "The user metadata header is not valid",
                ArgumentName=raw_name.decode("latin-1"),
            )
        found[name] = found[name] + b"," + value if name in found else value
    size = sum(len(name) + len(value) for name, value in found.items())
    if size > USER_METADATA_BYTES_MAX:
        raise S3Error(
            "MetadataTooLarge", Size=str(size), MaxSizeAllowed=str(USER_METADATA_BYTES_MAX)
        )
    return {name.decode("ascii"): value.decode("latin-1") for name, value in found.items()}


def metadata_headers(metadata: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    """The headers of an answer: the bytes that parse_user_metadata was given."""
    return [
        (PREFIX + name.encode("ascii"), value.encode("latin-1")) for name, value in metadata.items()
    ]
