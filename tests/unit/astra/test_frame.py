"""Frames: nothing but a whole, unflipped, small enough frame of our version is ever decoded."""

from __future__ import annotations

import pytest
from awscrt.checksums import crc32c
from hypothesis import given
from hypothesis import strategies as st

from astra.constants import FRAME_HEADER_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX
from astra.errors import WireError
from astra.frame import (
    PRELUDE_SIZE,
    decode_handshake,
    decode_header,
    decode_prelude,
    encode_frame,
    verify_payload,
)
from astra.wire import BlobPiece, Epochs, GetStatus, Locate, Message, Welcome

MESSAGE = Locate(bucket="b", key=b"k", epochs=Epochs(access=1, bucket=2))


def decode(frame: bytes, *, trusted: bool = True) -> Message:
    prelude = decode_prelude(frame, trusted=trusted)
    return decode_header(prelude, frame[PRELUDE_SIZE : PRELUDE_SIZE + prelude.header_length])


def test_encode_frame_decodes_to_the_same_message() -> None:
    assert decode(encode_frame(7, MESSAGE)) == MESSAGE
    assert decode_prelude(encode_frame(7, MESSAGE), trusted=True).stream == 7


def test_decode_every_flipped_bit_is_refused() -> None:
    frame = encode_frame(7, MESSAGE)
    for bit in range(len(frame) * 8):
        flipped = bytearray(frame)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            decode(bytes(flipped))


@pytest.mark.parametrize(
    ("header", "payload", "trusted"),
    [
        (FRAME_HEADER_BYTES_MAX + 1, 0, True),
        (0, FRAME_PAYLOAD_BYTES_MAX + 1, True),
        (2000, 0, False),
        (10, 1, False),
    ],
)
def test_decode_prelude_too_large_is_refused(header: int, payload: int, trusted: bool) -> None:
    frame = bytearray(encode_frame(1, GetStatus()))
    frame[8:12] = header.to_bytes(4, "big")
    frame[12:16] = payload.to_bytes(4, "big")
    frame[24:28] = crc32c(bytes(frame[:24])).to_bytes(4, "big")
    with pytest.raises(WireError, match="larger"):
        decode_prelude(frame, trusted=trusted)


def test_decode_prelude_every_flipped_bit_is_refused_before_more_is_awaited() -> None:
    prelude = encode_frame(7, MESSAGE, payload_length=100, payload_crc=1)[:PRELUDE_SIZE]
    for bit in range(PRELUDE_SIZE * 8):
        flipped = bytearray(prelude)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(WireError):
            decode_prelude(flipped, trusted=True)


def test_encode_frame_too_large_is_refused() -> None:
    with pytest.raises(WireError):
        encode_frame(1, BlobPiece(), payload_length=FRAME_PAYLOAD_BYTES_MAX + 1)


def test_decode_handshake_other_message_is_refused() -> None:
    frame = encode_frame(0, GetStatus())
    prelude = decode_prelude(frame, trusted=False)
    with pytest.raises(WireError):
        decode_handshake(prelude, frame[PRELUDE_SIZE:])
    welcome = encode_frame(0, Welcome())
    prelude = decode_prelude(welcome, trusted=False)
    assert decode_handshake(prelude, welcome[PRELUDE_SIZE:]) == Welcome()


def test_verify_payload_flipped_bit_is_refused() -> None:
    frame = encode_frame(1, BlobPiece(), payload_length=3, payload_crc=crc32c(b"abc"))
    prelude = decode_prelude(frame, trusted=True)
    verify_payload(prelude, b"abc")
    with pytest.raises(WireError):
        verify_payload(prelude, b"abd")


@given(st.binary(min_size=PRELUDE_SIZE, max_size=200), st.booleans())
def test_decode_any_bytes_end_in_a_wire_error(data: bytes, trusted: bool) -> None:
    with pytest.raises(WireError):
        decode(data, trusted=trusted)


@given(st.binary(max_size=300))
def test_decode_header_any_bytes_with_right_checksum_end_in_a_wire_error(data: bytes) -> None:
    frame = bytearray(encode_frame(1, GetStatus()))[:PRELUDE_SIZE]
    frame[8:12] = len(data).to_bytes(4, "big")
    frame[20:24] = crc32c(data).to_bytes(4, "big")
    frame[24:28] = crc32c(bytes(frame[:24])).to_bytes(4, "big")
    prelude = decode_prelude(frame, trusted=True)
    try:
        decode_header(prelude, data)
    except WireError:
        return
    assert data.startswith((b"\x81", b"\x82", b"\x83", b"\xde"))  # a map with a known tag
