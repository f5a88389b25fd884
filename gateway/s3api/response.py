"""What a handler returns. It never writes: dispatch does, in one place."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Final

XML_TYPE: Final = "application/xml"

Stream = AsyncIterator[bytes | memoryview]


@dataclass(slots=True, kw_only=True)
class S3Response:
    """`headers` are latin-1 text without line breaks; `body` is whole, or streamed with
    `length` bytes in all (a stream that ends early breaks the connection)."""

    status: int = 200
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    stream: Stream | None = None
    length: int = 0


def xml_response(
    body: bytes, *, status: int = 200, headers: list[tuple[str, str]] | None = None
) -> S3Response:
    return S3Response(
        status=status, headers=[("content-type", XML_TYPE), *(headers or [])], body=body
    )


def empty_response(status: int = 200, headers: list[tuple[str, str]] | None = None) -> S3Response:
    return S3Response(status=status, headers=headers or [])
