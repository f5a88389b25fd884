"""The body of one request: decoded, bounded, and held against everything its head promised.

The ASGI server hands over raw pieces; aws-chunked framing is taken off here, digests are
computed in one pass (big bodies off the event loop, by the caller), and `verify` says in the end
whether the body is the one that was declared. Until then nothing of it may be committed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from typing import Any

from gateway.awschunked import ChunkedDecoder, decoded_length, open_decoder
from gateway.checksums import ChecksumAlgorithm, DeclaredChecksum, Digests, declared_checksum
from gateway.request_head import RequestHead
from gateway.s3api.errors import S3Error
from gateway.sigv4 import Payload, Verified

# ASGI fixes these types.
AsgiReceive = Callable[[], Awaitable[MutableMapping[str, Any]]]

Piece = bytes | memoryview


class ClientGone(Exception):
    """The client closed the connection before its body was complete."""


class Body:
    """Read it once: by `pieces` (any size) or `read_all` (small ones), then `verify`."""

    def __init__(
        self,
        receive: AsgiReceive,
        head: RequestHead,
        payload: Payload,
        verified: Verified | None,
        *,
        stall_s: float,
        length_max: int,
    ) -> None:
        self._receive = receive
        self._head = head
        self._payload = payload
        self._stall_s = stall_s
        self._decoder: ChunkedDecoder | None = None
        if payload.kind.is_chunked:
            self._decoder = open_decoder(head, payload.kind, verified, length_max)
            self._decoded_length = decoded_length(head, length_max)
        self.is_complete = False  # every byte was received
        self._length_max = length_max
        self._sent = content_length(head)

    @property
    def length(self) -> int | None:
        """The declared length of the decoded body, if there is one."""
        if self._decoder is not None:
            return self._decoded_length
        return self._sent

    def require_length(self, length_max: int | None = None) -> int:
        """The declared length. Raises MissingContentLength, EntityTooLarge."""
        length = self.length
        if length is None:
            raise S3Error("MissingContentLength")
        limit = self._length_max if length_max is None else length_max
        if length > limit:
            raise S3Error("EntityTooLarge", ProposedSize=str(length), MaxSizeAllowed=str(limit))
        return length

    async def pieces(self) -> AsyncIterator[Piece]:
        """The decoded body as it arrives. Raises ClientGone, RequestTimeout, IncompleteBody and
        what the chunk signatures deserve."""
        received = 0
        while not self.is_complete:
            data = await self._next()
            if self._decoder is not None:
                for piece in self._decoder.feed(data):
                    yield piece
                continue
            received += len(data)
            if received > self._length_max:
                raise S3Error("EntityTooLarge", MaxSizeAllowed=str(self._length_max))
            if data:
                yield data
        if self._decoder is None and self._sent is not None and received != self._sent:
            raise S3Error("IncompleteBody")

    async def _next(self) -> bytes:
        try:
            async with asyncio.timeout(self._stall_s):
                message = await self._receive()
        except TimeoutError:
            raise S3Error("RequestTimeout") from None
        if message["type"] == "http.disconnect":
            raise ClientGone
        self.is_complete = not message.get("more_body", False)
        body: bytes = message.get("body", b"")
        return body

    async def read_all(self, limit: int) -> bytes:
        """The whole body, verified. Raises EntityTooLarge before more than `limit` is kept."""
        if (self.length or 0) > limit:
            raise S3Error("EntityTooLarge", MaxSizeAllowed=str(limit))
        declared = self.declared()
        digests = self.new_digests(declared, md5=declared.md5 is not None)
        collected = bytearray()
        async for piece in self.pieces():
            if len(collected) + len(piece) > limit:
                raise S3Error("EntityTooLarge", MaxSizeAllowed=str(limit))
            collected += piece
        digests.update(memoryview(collected))
        self.verify(declared, digests)
        return bytes(collected)

    def declared(self) -> DeclaredChecksum:
        """What the head promises about the body. Raises InvalidDigest, InvalidRequest."""
        return declared_checksum(self._head)

    def new_digests(
        self,
        declared: DeclaredChecksum,
        *,
        md5: bool,
        also: ChecksumAlgorithm | None = None,
    ) -> Digests:
        """Everything that must be computed while the body passes by."""
        wanted = [algorithm for algorithm in (declared.algorithm, also) if algorithm is not None]
        needs_sha256 = self._payload.sha256 is not None
        return Digests(dict.fromkeys(wanted), md5=md5, sha256=needs_sha256)

    def verify(self, declared: DeclaredChecksum, digests: Digests) -> None:
        """After the last piece: raises BadDigest, XAmzContentSHA256Mismatch, IncompleteBody, or
        what the trailers deserve."""
        trailer: str | None = None
        if self._decoder is not None:
            trailers = self._decoder.finish()
            if declared.is_trailer and declared.algorithm is not None:
                trailer = trailers.get(declared.algorithm.header)
        declared.check(digests, content_sha256=self._payload.sha256, trailer=trailer)


def content_length(head: RequestHead) -> int | None:
    """The Content-Length as a number. The HTTP parser refuses doubled and garbled ones."""
    text = head.header("content-length")
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 19):
        raise S3Error("InvalidArgument", ArgumentName="Content-Length", ArgumentValue=text[:64])
    return int(text)
