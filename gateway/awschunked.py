"""Decoding of `Content-Encoding: aws-chunked` bodies, signed or not, with or without trailers.

Purpose: `feed` bytes as they arrive, get the payload back; `finish` at the end of the request.
Follows "Signature Calculations: Transferring Payload in Multiple Chunks" and "... Including
Trailing Headers" of the Amazon S3 API reference.

    body    = *chunk last [trailers] CRLF
    chunk   = size [;chunk-signature=hex64] CRLF data CRLF          size in hex, not 0
    last    = "0" [;chunk-signature=hex64] CRLF
    trailer = name:value CRLF    minio-go ends it by LF and adds an empty line, which is taken too

Rules of this file:
- Pure, O(n), nothing buffered but one line. Pieces of a chunk are handed out *before* its
  signature is known (chunks may be as large as the object: the Go and Rust SDKs send one chunk).
  So the caller commits nothing before `finish` has returned.
- Any fault is final: it is raised again by every later call, so no caller can step over it.
- Bounds: a line LINE_MAX bytes; a chunk never more than the declared length still missing; the
  number of chunks CHUNKS_FREE + one per BYTES_PER_CHUNK of payload. The 8 KiB rule of AWS binds
  signed chunks only: JavaScript and Rust clients send small unsigned chunks, so there the total
  overhead is bounded instead.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from gateway.request_errors import ChunkError, RequestError
from gateway.request_head import RequestHead
from gateway.sigv4_claim import PayloadKind, Verified

LINE_MAX: Final = 1024
CHUNK_SIGNED_MIN: Final = 8 * 1024
CHUNKS_FREE: Final = 1024
BYTES_PER_CHUNK: Final = 512
TRAILERS_MAX: Final = 8
DECODED_MAX: Final = 5 * 1024**4  # the largest object there can be

_EMPTY_SHA256: Final = hashlib.sha256(b"").hexdigest()
_SIGNED_HEADER = re.compile(rb"([0-9A-Fa-f]{1,16});chunk-signature=([0-9a-f]{64})")
_PLAIN_HEADER = re.compile(rb"[0-9A-Fa-f]{1,16}")
_TRAILER = re.compile(rb"([A-Za-z0-9-]{1,128}):[ \t]*([\x21-\x7e]*)[ \t]*")
_TRAILER_NAME = re.compile(r"x-amz-checksum-[a-z0-9]{1,32}", re.ASCII)
_LENGTH = re.compile(r"[0-9]{1,19}", re.ASCII)
_SIGNATURE_TRAILER: Final = "x-amz-trailer-signature"

Piece = bytes | memoryview
# A step reads `view` from an offset and tells the next offset.
_Step = Callable[[memoryview, int, list[Piece]], int]


@dataclass(frozen=True, slots=True)
class Trailers:
    """The verified trailers of a body, each name once."""

    items: tuple[tuple[str, str], ...] = ()

    def get(self, name: str) -> str | None:
        """The value of one trailer, or None."""
        return dict(self.items).get(name)


class ChunkSignatureError(ChunkError):
    """A chunk or the trailers were not signed by the key of the request."""

    def __init__(self) -> None:
        super().__init__(
            "SignatureDoesNotMatch",
            "The signature of a chunk of the body does not match. "
            "Check your key and signing method.",
        )


def decoded_length(head: RequestHead, length_max: int = DECODED_MAX) -> int:
    """x-amz-decoded-content-length, between 0 and `length_max`.

    Raises `MissingContentLength`, `InvalidArgument` or `EntityTooLarge`.
    """
    value = head.header("x-amz-decoded-content-length")
    if value is None:
        raise RequestError(
            "MissingContentLength", "You must provide the x-amz-decoded-content-length HTTP header."
        )
    if not _LENGTH.fullmatch(value):
        raise RequestError(
            "InvalidArgument",
            "x-amz-decoded-content-length must be a whole number of bytes.",
            {"ArgumentName": "x-amz-decoded-content-length", "ArgumentValue": value[:64]},
        )
    length = int(value)
    if length > length_max:
        raise RequestError(
            "EntityTooLarge",
            "Your proposed upload exceeds the maximum allowed size",
            {"ProposedSize": value, "MaxSizeAllowed": str(length_max)},
        )
    return length


def trailer_names(head: RequestHead) -> tuple[str, ...]:
    """The names declared by x-amz-trailer. Raises `InvalidRequest` on any but a checksum."""
    declared = head.header("x-amz-trailer")
    if declared is None:
        return ()
    names = tuple(name.strip().lower() for name in declared.split(",", TRAILERS_MAX))
    if len(set(names)) != len(names) or not all(_TRAILER_NAME.fullmatch(n) for n in names):
        raise RequestError(
            "InvalidRequest", "The value specified in the x-amz-trailer header is not supported"
        )
    return names


def open_decoder(
    head: RequestHead, kind: PayloadKind, verified: Verified | None, length_max: int = DECODED_MAX
) -> ChunkedDecoder:
    """The decoder of this request's body; `verified` is None for the anonymous.

    Raises `RequestError` when the head contradicts itself.
    """
    names = trailer_names(head)
    if names and kind is PayloadKind.STREAMING_SIGNED:
        raise RequestError(
            "InvalidRequest", "x-amz-trailer needs an x-amz-content-sha256 that ends in -TRAILER."
        )
    return ChunkedDecoder(
        kind,
        seed_signature=verified.seed_signature if verified else "",
        signing_key=verified.signing_key if verified else b"",
        scope=verified.scope if verified else "",
        timestamp=verified.timestamp if verified else "",
        decoded_length=decoded_length(head, length_max),
        trailer_names=names,
    )


class ChunkedDecoder:
    """Decodes one body. Guarantee: after `finish` returned, exactly `decoded_length` bytes were
    handed out, every chunk and trailer was signed (signed kinds) and every declared trailer came.
    """

    def __init__(
        self,
        kind: PayloadKind,
        *,
        seed_signature: str,
        signing_key: bytes,
        scope: str,
        timestamp: str,
        decoded_length: int,
        trailer_names: tuple[str, ...] = (),
    ) -> None:
        if not kind.is_chunked or (kind.is_chunk_signed and not signing_key):
            raise ValueError(f"{kind} is not decoded here, or its signing key is missing")
        self._is_signed = kind.is_chunk_signed
        self._has_trailers = kind is not PayloadKind.STREAMING_SIGNED
        self._signing_key = signing_key
        self._scope_lines = f"{timestamp}\n{scope}\n"
        self._previous = seed_signature
        self._declared = trailer_names
        self._missing = decoded_length
        self._received = 0
        self._chunks = 0
        self._chunk_left = 0
        self._chunk_signature = ""
        self._chunk_hash = hashlib.sha256()
        self._is_short_seen = False
        self._line = bytearray()
        self._trailers: dict[str, str] = {}
        self._trailer_signature: str | None = None
        self._is_gap_seen = False
        self._fault: RequestError | None = None
        self._step: _Step = self._read_header

    def feed(self, data: bytes | memoryview) -> list[Piece]:
        """Payload pieces in order, as views into `data`; not to be committed before `finish`.

        Raises `ChunkError`; the decoder is then dead.
        """
        if self._fault is not None:
            raise self._fault
        view = data if isinstance(data, memoryview) else memoryview(data)
        pieces: list[Piece] = []
        offset = 0
        try:
            while offset < len(view):
                offset = self._step(view, offset, pieces)
        except ChunkError as fault:
            self._fault = fault
            raise
        return pieces

    def finish(self) -> Trailers:
        """The trailers, once the request body has ended. Raises `ChunkError` when it is short."""
        if self._fault is not None:
            raise self._fault
        if self._step != self._read_surplus:
            self._fault = _incomplete("The body ended before its last chunk.")
            raise self._fault
        return Trailers(tuple(self._trailers.items()))

    # Steps. Each consumes at least one byte or moves to another step.

    def _read_header(self, view: memoryview, offset: int, _: list[Piece]) -> int:
        line, offset = self._take_line(view, offset)
        if line is not None:
            self._begin_chunk(_without_cr(line))
        return offset

    def _read_data(self, view: memoryview, offset: int, pieces: list[Piece]) -> int:
        piece = view[offset : offset + self._chunk_left]
        if self._is_signed:
            self._chunk_hash.update(piece)
        pieces.append(piece)
        self._chunk_left -= len(piece)
        if not self._chunk_left:
            self._step = self._read_data_end
        return offset + len(piece)

    def _read_data_end(self, view: memoryview, offset: int, _: list[Piece]) -> int:
        # Two bytes at most are looked at: garbage here must not be scanned for a line end.
        taken = bytes(view[offset : offset + 2 - len(self._line)])
        self._line += taken
        if not b"\r\n".startswith(self._line):
            raise _malformed("a chunk is longer than its size")
        if len(self._line) == 2:
            self._line.clear()
            self._end_chunk()
            self._step = self._read_header
        return offset + len(taken)

    def _read_trailer(self, view: memoryview, offset: int, _: list[Piece]) -> int:
        line, offset = self._take_line(view, offset)
        if line is None:
            return offset
        text = line.removesuffix(b"\r")
        if text:
            self._add_trailer(text)
        elif self._is_trailer_section_over():
            self._end_body()
        return offset

    def _read_surplus(self, view: memoryview, offset: int, _: list[Piece]) -> int:
        # minio-go closes with one empty line too many; nothing else may follow.
        taken = bytes(view[offset : offset + 3])
        self._line += taken
        if not b"\r\n".startswith(self._line):
            raise _malformed("it goes on after its end")
        return offset + len(taken)

    def _take_line(self, view: memoryview, offset: int) -> tuple[bytes | None, int]:
        """One whole line without LF, or None while its end has not come."""
        window = bytes(view[offset : offset + LINE_MAX + 1 - len(self._line)])
        end = window.find(b"\n")
        if end < 0:
            self._line += window
            if len(self._line) > LINE_MAX:
                raise _malformed(f"a line is longer than {LINE_MAX} bytes")
            return None, offset + len(window)
        line = bytes(self._line) + window[:end]
        self._line.clear()
        return line, offset + end + 1

    def _begin_chunk(self, line: bytes) -> None:
        size = self._parse_header(line)
        self._chunks += 1
        if self._chunks > CHUNKS_FREE + self._received // BYTES_PER_CHUNK:
            raise _malformed("it is cut into too many chunks")
        if size == 0:
            self._begin_end()
            return
        if size > self._missing:
            raise _incomplete("The body is longer than x-amz-decoded-content-length.")
        self._check_size(size)
        self._missing -= size
        self._received += size
        self._chunk_left = size
        self._step = self._read_data

    def _parse_header(self, line: bytes) -> int:
        pattern = _SIGNED_HEADER if self._is_signed else _PLAIN_HEADER
        match = pattern.fullmatch(line)
        if match is None:
            raise _malformed("a chunk header is not understood")
        if not self._is_signed:
            return int(line, 16)
        self._chunk_signature = match[2].decode()
        return int(match[1], 16)

    def _check_size(self, size: int) -> None:
        """Only the last signed chunk may be short: the one before the empty chunk."""
        if self._is_signed and self._is_short_seen:
            raise ChunkError(
                "InvalidChunkSizeError",
                f"Only the last chunk is allowed to have a size less than {CHUNK_SIGNED_MIN} bytes",
            )
        self._is_short_seen = size < CHUNK_SIGNED_MIN

    def _begin_end(self) -> None:
        if self._missing:
            raise _incomplete("The body is shorter than x-amz-decoded-content-length.")
        self._end_chunk()
        self._step = self._read_trailer

    def _end_chunk(self) -> None:
        if not self._is_signed:
            return
        digest = self._chunk_hash.hexdigest()
        self._check(
            f"AWS4-HMAC-SHA256-PAYLOAD\n{self._scope_lines}{self._previous}\n"
            f"{_EMPTY_SHA256}\n{digest}",
            self._chunk_signature,
        )
        self._chunk_hash = hashlib.sha256()

    def _check(self, to_sign: str, provided: str) -> None:
        expected = hmac.digest(self._signing_key, to_sign.encode("latin-1"), "sha256").hex()
        if not hmac.compare_digest(expected, provided):
            raise ChunkSignatureError
        self._previous = expected

    def _add_trailer(self, line: bytes) -> None:
        match = _TRAILER.fullmatch(line)
        if match is None or not self._has_trailers or self._trailer_signature is not None:
            raise _malformed_trailer("a trailer is not understood")
        name, value = match[1].decode().lower(), match[2].decode()
        if self._is_signed and name == _SIGNATURE_TRAILER:
            self._trailer_signature = value
        elif name in self._declared and name not in self._trailers:
            self._trailers[name] = value
        else:
            raise _malformed_trailer("a trailer was not declared in x-amz-trailer, or came twice")

    def _is_trailer_section_over(self) -> bool:
        """minio-go puts an empty line between the trailers and their signature."""
        needs_signature = self._is_signed and self._has_trailers
        if not needs_signature or self._trailer_signature is not None:
            return True
        if not self._trailers or self._is_gap_seen:
            raise _malformed_trailer("the trailers are not signed")
        self._is_gap_seen = True
        return False

    def _end_body(self) -> None:
        if len(self._trailers) != len(self._declared):
            raise _malformed_trailer("a trailer declared in x-amz-trailer did not come")
        if self._trailer_signature is not None:
            text = "".join(f"{name}:{value}\n" for name, value in self._trailers.items())
            digest = hashlib.sha256(text.encode()).hexdigest()
            self._check(
                f"AWS4-HMAC-SHA256-TRAILER\n{self._scope_lines}{self._previous}\n{digest}",
                self._trailer_signature,
            )
        self._step = self._read_surplus


def _without_cr(line: bytes) -> bytes:
    if not line.endswith(b"\r"):
        raise _malformed("a line does not end with CRLF")
    return line[:-1]


def _incomplete(message: str) -> ChunkError:
    return ChunkError("IncompleteBody", message)


def _malformed(what: str) -> ChunkError:
    return ChunkError("InvalidRequest", f"The aws-chunked body is malformed: {what}.")


def _malformed_trailer(what: str) -> ChunkError:
    return ChunkError(
        "MalformedTrailerError",
        "The request contained trailing data that was not well-formed or did not conform to our "
        f"published schema: {what}.",
    )
