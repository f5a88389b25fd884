"""The frame that carries one message over TCP. Pure: no sockets.

A frame is a fixed prelude, a msgpack header (one message of the union `Message`) and a raw
payload, which carries blob bytes so that they are never copied through msgpack:

    magic 2s | version B | reserved B | stream I | header_length I | payload_length I
    | payload_crc I | header_crc I | prelude_crc I

`stream` matches answers to requests on one connection. The checksums are CRC32C, so that a
flipped bit on a link breaks the connection instead of reaching a disk (FAULTS row 20). The prelude
has its own, checked before its lengths are believed: else a length with a flipped bit would make
the receiver wait for megabytes that nobody sends, and swallow all frames behind it meanwhile.
Lengths are checked before anything of that length is read; before the handshake is done only
small frames without a payload are allowed.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import msgspec
from awscrt.checksums import crc32c

from astra.constants import FRAME_HEADER_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX
from astra.decoding import UNREADABLE
from astra.errors import WireError
from astra.wire import HandshakeMessage, Message

WIRE_VERSION: Final = 2
_MAGIC: Final = b"AS"
_PRELUDE: Final = struct.Struct("!2sBBIIIII")
_CRC: Final = struct.Struct("!I")
PRELUDE_SIZE: Final = _PRELUDE.size + _CRC.size
HANDSHAKE_HEADER_BYTES_MAX: Final = 1024

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_handshake_decoder: msgspec.msgpack.Decoder[HandshakeMessage] = msgspec.msgpack.Decoder(
    HandshakeMessage
)


class Prelude(NamedTuple):
    stream: int
    header_length: int
    payload_length: int
    payload_crc: int
    header_crc: int


def encode_frame(
    stream: int,
    message: Message,
    *,
    payload_length: int = 0,
    payload_crc: int = 0,
) -> bytes:
    """Prelude and header of one frame; the caller writes the payload right behind it."""
    header = _encoder.encode(message)
    if len(header) > FRAME_HEADER_BYTES_MAX or payload_length > FRAME_PAYLOAD_BYTES_MAX:
        raise WireError(f"a {type(message).__name__} frame would be too large")
    prelude = _PRELUDE.pack(
        _MAGIC, WIRE_VERSION, 0, stream, len(header), payload_length, payload_crc, crc32c(header)
    )
    return prelude + _CRC.pack(crc32c(prelude)) + header


def decode_prelude(data: bytes | bytearray | memoryview, *, trusted: bool) -> Prelude:
    """Reads PRELUDE_SIZE bytes. `trusted` False (before the handshake) allows only small
    frames without payload. Raises WireError."""
    magic, version, _, stream, header_length, payload_length, payload_crc, header_crc = (
        _PRELUDE.unpack_from(data)
    )
    if magic != _MAGIC:
        raise WireError("not an AstraStorage frame")
    if version != WIRE_VERSION:
        raise WireError(f"wire version {version} is not known (mine is {WIRE_VERSION})")
    (own_crc,) = _CRC.unpack_from(data, _PRELUDE.size)
    if crc32c(bytes(memoryview(data)[: _PRELUDE.size])) != own_crc:
        raise WireError("the frame prelude's checksum differs")
    header_max = FRAME_HEADER_BYTES_MAX if trusted else HANDSHAKE_HEADER_BYTES_MAX
    payload_max = FRAME_PAYLOAD_BYTES_MAX if trusted else 0
    if header_length > header_max or payload_length > payload_max:
        raise WireError("the frame is larger than allowed")
    return Prelude(stream, header_length, payload_length, payload_crc, header_crc)


def decode_header(prelude: Prelude, header: bytes | bytearray | memoryview) -> Message:
    """The message of a frame, its checksum verified. Raises WireError."""
    if crc32c(header) != prelude.header_crc:
        raise WireError("the frame header's checksum differs")
    try:
        return _decoder.decode(header)
    except UNREADABLE as error:
        raise WireError(f"the frame header cannot be read: {error}") from error


def decode_handshake(prelude: Prelude, header: bytes | bytearray | memoryview) -> HandshakeMessage:
    """As decode_header, for a peer that has proved nothing yet. Raises WireError."""
    if crc32c(header) != prelude.header_crc:
        raise WireError("the frame header's checksum differs")
    try:
        return _handshake_decoder.decode(header)
    except UNREADABLE as error:
        raise WireError("the handshake cannot be read") from error


def verify_payload(prelude: Prelude, payload: bytes | bytearray | memoryview) -> None:
    """Raises WireError when a bit of the payload flipped on the way."""
    if crc32c(payload) != prelude.payload_crc:
        raise WireError("the frame payload's checksum differs")
