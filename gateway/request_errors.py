"""The one exception that reading a request may raise.

Purpose: sigv4, awschunked and checksums judge bytes that a stranger sent. Each refusal is a
`RequestError`; any other exception that leaves those files is a defect of ours, not of the peer.

Rules of this file:
- `code` is an S3 error code (https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html);
  the HTTP status belongs to the S3 layer, which knows the table of codes.
- `extra` holds the additional XML elements of the answer, in the order AWS writes them.
- The secret key, the signing key and the expected signature never enter `message` or `extra`:
  an answer that shows the right signature would be an oracle for forgeries.
"""

from __future__ import annotations

from collections.abc import Mapping


class RequestError(Exception):
    """A request that must be refused.

    Guarantee: `code`, `message` and `extra` are printable text that may be shown to the client.
    """

    def __init__(self, code: str, message: str, extra: Mapping[str, str] | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.extra: dict[str, str] = dict(extra) if extra else {}

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


class AuthError(RequestError):
    """The request is not authenticated: nothing in it may be acted on."""


class ChunkError(RequestError):
    """The aws-chunked body is damaged, cut short, forged or not what its head declared."""


class ChecksumError(RequestError):
    """A declared digest is malformed, forbidden here, or differs from the bytes received."""
