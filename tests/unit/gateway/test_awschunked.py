"""aws-chunked bodies: AWS's vectors, botocore's encoder, and every damage of SECURITY S7-S11."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from functools import cache
from itertools import pairwise

import pytest
from botocore.httpchecksum import AwsChunkedWrapper, Crc32Checksum
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.awschunked import (
    BYTES_PER_CHUNK,
    CHUNK_SIGNED_MIN,
    CHUNKS_FREE,
    LINE_MAX,
    ChunkedDecoder,
    ChunkSignatureError,
    Trailers,
    decoded_length,
    open_decoder,
    trailer_names,
)
from gateway.request_errors import ChunkError, RequestError
from gateway.sigv4 import Payload, PayloadKind, Verified, derive_signing_key
from tests.support.s3_signing import SECRET, request_head, sign_chunks

CRC = "x-amz-checksum-crc32c"
TRAILER = (CRC, "sOO8/Q==")
DATE = "20130524T000000Z"
SIGNED = PayloadKind.STREAMING_SIGNED
SIGNED_TRAILER = PayloadKind.STREAMING_SIGNED_TRAILER
UNSIGNED = PayloadKind.STREAMING_UNSIGNED_TRAILER
SEED = "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"
SEED_TRAILER = "106e2a8a18243abcf37539882f36619c00e2dfc72633413f02d3b74544bfeb8e"


@cache
def verified(kind: PayloadKind, seed: str = SEED) -> Verified:
    return Verified(
        access_key="AKIAIOSFODNN7EXAMPLE",
        payload=Payload(kind=kind),
        seed_signature=seed,
        signing_key=derive_signing_key(SECRET, DATE[:8], "us-east-1"),
        scope=f"{DATE[:8]}/us-east-1/s3/aws4_request",
        timestamp=DATE,
    )


def decoder(
    kind: PayloadKind, length: int, names: Sequence[str] = (), seed: str = SEED
) -> ChunkedDecoder:
    proof = verified(kind, seed)
    return ChunkedDecoder(
        kind,
        seed_signature=proof.seed_signature,
        signing_key=proof.signing_key,
        scope=proof.scope,
        timestamp=proof.timestamp,
        decoded_length=length,
        trailer_names=tuple(names),
    )


def decode(this: ChunkedDecoder, *parts: bytes) -> tuple[bytes, Trailers]:
    payload = b"".join(bytes(piece) for part in parts for piece in this.feed(part))
    return payload, this.finish()


def refuse(this: ChunkedDecoder, *parts: bytes) -> ChunkError:
    with pytest.raises(ChunkError) as caught:
        decode(this, *parts)
    return caught.value


def encode_unsigned(payload: bytes, chunk_size: int) -> bytes:
    """As botocore sends it: chunks, then a CRC32 trailer."""
    wrapper = AwsChunkedWrapper(
        io.BytesIO(payload),
        checksum_cls=Crc32Checksum,
        checksum_name="x-amz-checksum-crc32",
        chunk_size=chunk_size,
    )
    return bytes(wrapper.read())


PIECES = (b"a" * 65536, b"a" * 1024)
PAYLOAD = b"".join(PIECES)


def test_feed_aws_signed_example_decodes() -> None:
    body = sign_chunks(PIECES, verified(SIGNED))
    for signature in (
        b"ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648",
        b"0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497",
        b"b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9",
    ):
        assert signature in body
    assert len(body) == 66824
    assert decode(decoder(SIGNED, 66560), body) == (PAYLOAD, Trailers())


@pytest.mark.parametrize("style", ["sdk", "minio-go"])
def test_feed_aws_trailer_example_decodes(style: str) -> None:
    body = sign_chunks(PIECES, verified(SIGNED_TRAILER, SEED_TRAILER), [TRAILER], style)
    assert b"d81f82fc3505edab99d459891051a732e8730629a2e4a59689829ca17fe2e435" in body
    payload, trailers = decode(decoder(SIGNED_TRAILER, 66560, [CRC], SEED_TRAILER), body)
    assert payload == PAYLOAD
    assert trailers.get(CRC) == "sOO8/Q=="
    assert trailers.get("other") is None


@pytest.mark.parametrize("chunk_size", [1000, 65536, 1 << 20])
@pytest.mark.parametrize("size", [0, 1, 1000, 100_000])
def test_feed_botocore_body_decodes(chunk_size: int, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    body = encode_unsigned(payload, chunk_size)
    got, trailers = decode(decoder(UNSIGNED, size, ["x-amz-checksum-crc32"]), body)
    checksum = Crc32Checksum()
    checksum.update(payload)
    assert got == payload
    assert trailers.items == (("x-amz-checksum-crc32", checksum.b64digest()),)


@pytest.mark.parametrize(
    "end",
    [b"x-amz-checksum-crc32c:sOO8/Q==\n\r\n\r\n", b"X-Amz-Checksum-Crc32c: sOO8/Q== \r\n\r\n"],
)
def test_feed_other_spellings_of_a_trailer_decodes(end: bytes) -> None:
    _, trailers = decode(decoder(UNSIGNED, 3, [CRC]), b"3\r\nabc\r\n0\r\n" + end)
    assert trailers.get(CRC) == "sOO8/Q=="


def test_feed_one_chunk_of_the_whole_object_is_not_buffered() -> None:
    """The Go and Rust SDKs send one chunk; its bytes come out as they come in."""
    this = decoder(UNSIGNED, 1 << 30)
    this.feed(b"40000000\r\n")
    block = bytes(1 << 20)
    for _ in range(1024):
        pieces = this.feed(block)
        assert [len(piece) for piece in pieces] == [1 << 20]
        assert isinstance(pieces[0], memoryview)
        assert pieces[0].obj is block
    assert this.feed(b"\r\n0\r\n\r\n") == []
    assert this.finish() == Trailers()


# --- every damage ends in an error --------------------------------------------------------------

SHORT = {
    "signed": (
        SIGNED, (), sign_chunks((b"a" * 8192, b"tail"), verified(SIGNED)), 8196,
    ),
    "signed-trailer": (
        SIGNED_TRAILER, (CRC,), sign_chunks((b"abc",), verified(SIGNED_TRAILER), [TRAILER]), 3,
    ),
    "unsigned": (UNSIGNED, ("x-amz-checksum-crc32",), encode_unsigned(b"hello" * 10, 20), 50),
}  # fmt: skip


@pytest.mark.parametrize("name", SHORT)
def test_finish_body_cut_at_every_offset_refuses(name: str) -> None:
    """S10: no truncation passes, and none loops."""
    kind, names, body, length = SHORT[name]
    decode(decoder(kind, length, names), body)
    for cut in range(len(body)):
        error = refuse(decoder(kind, length, names), body[:cut])
        assert error.code in ("IncompleteBody", "MalformedTrailerError"), cut


@pytest.mark.parametrize("name", ["signed", "signed-trailer"])
def test_feed_any_signed_byte_changed_refuses(name: str) -> None:
    """S7: whatever single byte is altered, nothing is accepted as something else."""
    kind, names, body, length = SHORT[name]
    for at in range(len(body)):
        changed = bytearray(body)
        changed[at] ^= 0x01
        try:
            payload, trailers = decode(decoder(kind, length, names), bytes(changed))
        except ChunkError:
            continue
        # Only spellings without meaning may pass: none is reached by this flip.
        pytest.fail(
            f"byte {at} changed: {bytes(body[at - 8 : at + 8])!r} {payload[:9]!r} {trailers}"
        )


def test_feed_chunks_swapped_refuses() -> None:
    one, two = b"a" * 8192, b"b" * 8192
    body = sign_chunks((one, two), verified(SIGNED))
    half = body.index(b"2000;", 1)
    end = body.index(b"\r\n0;") + 2
    swapped = body[half:end] + body[:half] + body[end:]
    assert isinstance(refuse(decoder(SIGNED, 16384), swapped), ChunkSignatureError)


def test_feed_chunk_of_another_upload_refuses() -> None:
    body = sign_chunks(PIECES, verified(SIGNED, SEED_TRAILER))
    error = refuse(decoder(SIGNED, 66560), body)
    assert error.code == "SignatureDoesNotMatch"
    assert error.extra == {}


def test_feed_signed_chunk_repeated_refuses() -> None:
    body = sign_chunks((b"a" * 8192,), verified(SIGNED))
    end = body.index(b"\r\n0;") + 2
    assert isinstance(refuse(decoder(SIGNED, 16384), body[:end] + body), ChunkSignatureError)


def test_feed_final_chunk_of_another_length_missing_refuses() -> None:
    body = sign_chunks(PIECES, verified(SIGNED))
    assert refuse(decoder(SIGNED, 66560), body[: body.index(b"\r\n0;") + 2]).code == (
        "IncompleteBody"
    )


@pytest.mark.parametrize("length", [0, 1, 66559, 66561, 1 << 40])
@pytest.mark.parametrize("kind", [SIGNED, UNSIGNED])
def test_feed_decoded_length_differs_refuses(kind: PayloadKind, length: int) -> None:
    """S9: the sum of the chunks must be the declared length."""
    signed = sign_chunks(PIECES, verified(SIGNED))
    body = signed if kind is SIGNED else b"10400\r\n" + PAYLOAD + b"\r\n0\r\n\r\n"
    assert refuse(decoder(kind, length), body).code == "IncompleteBody"


@pytest.mark.parametrize(
    "body",
    [b"FFFFFFFFFFFFFFFF\r\n", b"7fffffffffffffff\r\n", b"400\r\n"],
)
def test_feed_huge_chunk_size_refuses(body: bytes) -> None:
    # At the header already: no byte of such a chunk is ever handed out.
    with pytest.raises(ChunkError) as caught:
        decoder(UNSIGNED, 1023).feed(body)
    assert caught.value.code == "IncompleteBody"


@pytest.mark.parametrize(
    "body",
    [
        b"\r\n", b" 3\r\nabc", b"3 \r\nabc", b"-3\r\nabc", b"+3\r\nabc", b"0x3\r\nabc", b"3_0\r\n",
        b"3\nabc\r\n", b"3;ext=1\r\nabc", b"3\r\nabcd\r\n", b"3\r\nabc\n0\r\n\r\n", b"3\r\nabc0",
        b"g\r\n", b"\xff\r\n", b"00000000000000003\r\nabc", b"3;chunk-signature=" + b"0" * 64,
        b"3\r\nabc\r\n0\r\n\r\nx", b"3\r\nabc\r\n0\r\n\r\n\r\n\r\n",
        b"3\r\nabc\r\n0\r\n\r\n3\r\nabc\r\n",
    ],
)  # fmt: skip
def test_feed_malformed_unsigned_body_refuses(body: bytes) -> None:
    refuse(decoder(UNSIGNED, 3), body)
    refuse(decoder(UNSIGNED, 3), *(body[at : at + 1] for at in range(len(body))))


@pytest.mark.parametrize(
    "header",
    [b"3", b"3;chunk-signature=", b"3;chunk-signature=" + b"F" * 64,
     b"3;chunk-signature=" + b"0" * 65, b"3; chunk-signature=" + b"0" * 64,
     b"3;other=" + b"0" * 64, b"3;chunk-signature=" + b"0" * 64 + b";x=y"],
)  # fmt: skip
def test_feed_malformed_signed_header_refuses(header: bytes) -> None:
    assert refuse(decoder(SIGNED, 3), header + b"\r\nabc\r\n").code == "InvalidRequest"


@pytest.mark.parametrize("kind", [SIGNED, UNSIGNED])
def test_feed_endless_line_is_refused_with_bounded_memory(kind: PayloadKind) -> None:
    this = decoder(kind, 1 << 20)
    with pytest.raises(ChunkError):
        this.feed(b"0" * (1 << 20))
    slow = decoder(kind, 1 << 20)
    with pytest.raises(ChunkError):
        for _ in range(LINE_MAX + 2):
            slow.feed(b"0")


def test_feed_million_tiny_chunks_refuses_early() -> None:
    """S11: overhead is bounded for unsigned chunks."""
    this = decoder(UNSIGNED, 10**6)
    allowed = CHUNKS_FREE + CHUNKS_FREE // (BYTES_PER_CHUNK - 1)
    this.feed(b"1\r\nx\r\n" * CHUNKS_FREE)
    with pytest.raises(ChunkError) as caught:
        this.feed(b"1\r\nx\r\n" * (allowed + 1 - CHUNKS_FREE))
    assert caught.value.code == "InvalidRequest"


def test_feed_small_unsigned_chunks_of_a_stream_decodes() -> None:
    """JavaScript streams send a chunk per read, often 1 to 16 KiB."""
    chunk = b"400\r\n" + bytes(1024) + b"\r\n"
    payload, _ = decode(decoder(UNSIGNED, 1024 * 4000), chunk * 4000 + b"0\r\n\r\n")
    assert payload == bytes(1024 * 4000)


def test_feed_short_signed_chunk_before_the_last_refuses() -> None:
    pieces = (b"a" * (CHUNK_SIGNED_MIN - 1), b"b")
    body = sign_chunks(pieces, verified(SIGNED))
    assert refuse(decoder(SIGNED, CHUNK_SIGNED_MIN), body).code == "InvalidChunkSizeError"
    whole = sign_chunks((b"a" * CHUNK_SIGNED_MIN, b"b"), verified(SIGNED))
    decode(decoder(SIGNED, CHUNK_SIGNED_MIN + 1), whole)


# --- trailers (S8) ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [
        b"\r\n",
        b"x-amz-checksum-crc32:AAAAAA==\r\n\r\n",
        b"x-amz-checksum-crc32c:a\r\nx-amz-checksum-crc32c:a\r\n\r\n",
        b"x-amz-checksum-crc32c:a\r\nx-amz-meta-x:a\r\n\r\n",
        b"x-amz-checksum-crc32c:a\r\nx-amz-trailer-signature:a\r\n\r\n",
        b"x-amz-checksum-crc32c\r\n\r\n",
        b"x-amz-checksum-crc32c :a\r\n\r\n",
        b" x-amz-checksum-crc32c:a\r\n\r\n",
        b"x-amz-checksum-crc32c:a\x00b\r\n\r\n",
        b"x-amz-checksum-crc32c:a b\r\n\r\n",
        b"x-amz-checksum-crc32c:\xff\r\n\r\n",
        b":a\r\n\r\n",
    ],
)
def test_feed_wrong_unsigned_trailers_refuses(end: bytes) -> None:
    error = refuse(decoder(UNSIGNED, 3, [CRC]), b"3\r\nabc\r\n0\r\n" + end)
    assert error.code == "MalformedTrailerError"


def test_feed_trailer_not_declared_refuses() -> None:
    body = b"3\r\nabc\r\n0\r\nx-amz-checksum-crc32c:a\r\n\r\n"
    assert refuse(decoder(UNSIGNED, 3), body).code == "MalformedTrailerError"


def test_feed_trailer_line_without_end_refuses() -> None:
    body = b"3\r\nabc\r\n0\r\nx-amz-checksum-crc32c:" + b"a" * 5000
    assert refuse(decoder(UNSIGNED, 3, [CRC]), body).code == "InvalidRequest"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"sOO8/Q==", b"AAAAAA=="),
        (b"x-amz-trailer-signature:", b"x-amz-trailer-signature:0"),
        (b"x-amz-trailer-signature:", b"x-amz-trailer-signatura:"),
        (b"x-amz-checksum-crc32c:sOO8/Q==\r\n", b""),
    ],
)
def test_feed_altered_signed_trailer_refuses(old: bytes, new: bytes) -> None:
    body = sign_chunks((b"abc",), verified(SIGNED_TRAILER), [TRAILER]).replace(old, new)
    error = refuse(decoder(SIGNED_TRAILER, 3, [CRC]), body)
    assert error.code in ("SignatureDoesNotMatch", "MalformedTrailerError")


def test_feed_signed_trailer_without_signature_refuses() -> None:
    body = sign_chunks((b"abc",), verified(SIGNED_TRAILER), [TRAILER])
    cut = body[: body.index(b"x-amz-trailer-signature")]
    for end in (b"\r\n", b"\r\n\r\n", b"\r\n" * 50):
        refuse(decoder(SIGNED_TRAILER, 3, [CRC]), cut + end)
    last = body[len(cut) :]
    decode(decoder(SIGNED_TRAILER, 3, [CRC]), cut + b"\r\n" + last)
    error = refuse(decoder(SIGNED_TRAILER, 3, [CRC]), cut + b"\r\n\r\n" + last)
    assert error.code == "MalformedTrailerError"


def test_feed_trailer_after_its_signature_refuses() -> None:
    body = sign_chunks((b"abc",), verified(SIGNED_TRAILER), [TRAILER])
    at, end = body.index(b"x-amz-checksum"), body.index(b"x-amz-trailer-signature")
    moved = body[:at] + body[end:-2] + body[at:end] + b"\r\n"
    error = refuse(decoder(SIGNED_TRAILER, 3, [CRC]), moved)
    assert error.code == "MalformedTrailerError"


def test_feed_trailer_on_a_kind_without_trailers_refuses() -> None:
    body = sign_chunks((b"abc",), verified(SIGNED), [TRAILER])
    assert refuse(decoder(SIGNED, 3, [CRC]), body).code == "MalformedTrailerError"


# --- life of a decoder --------------------------------------------------------------------------


def test_feed_after_a_fault_repeats_it() -> None:
    this = decoder(UNSIGNED, 3)
    first = refuse(this, b"zz\r\n")
    for call in (lambda: this.feed(b"3\r\nabc\r\n0\r\n\r\n"), this.finish):
        with pytest.raises(ChunkError) as caught:
            call()
        assert caught.value is first
    short = decoder(UNSIGNED, 3)
    assert refuse(short, b"3\r\nab").code == "IncompleteBody"
    with pytest.raises(ChunkError):
        short.feed(b"c\r\n0\r\n\r\n")


def test_decoder_of_plain_payload_or_without_key_is_our_defect() -> None:
    with pytest.raises(ValueError):
        decoder(PayloadKind.UNSIGNED, 3)
    with pytest.raises(ValueError):
        ChunkedDecoder(
            SIGNED, seed_signature="", signing_key=b"", scope="", timestamp="", decoded_length=0
        )


@settings(max_examples=150, deadline=None)
@given(
    name=st.sampled_from(sorted(SHORT)),
    cuts=st.lists(st.integers(min_value=0, max_value=9000), max_size=40),
)
def test_feed_split_anywhere_gives_the_same(name: str, cuts: list[int]) -> None:
    kind, names, body, length = SHORT[name]
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    parts = [body[a:b] for a, b in pairwise(edges)]
    assert decode(decoder(kind, length, names), *parts) == decode(
        decoder(kind, length, names), body
    )


def test_feed_byte_by_byte_gives_the_same() -> None:
    for kind, names, body, length in SHORT.values():
        parts = [body[at : at + 1] for at in range(len(body))]
        whole = decode(decoder(kind, length, names), body)
        assert decode(decoder(kind, length, names), *parts) == whole


@settings(max_examples=400, deadline=None)
@given(
    kind=st.sampled_from([SIGNED, SIGNED_TRAILER, UNSIGNED]),
    parts=st.lists(
        st.one_of(
            st.binary(max_size=40),
            st.sampled_from([b"\r\n", b"0\r\n", b"3\r\nabc\r\n", b";chunk-signature=", b"\n",
                             b"x-amz-checksum-crc32c:a\r\n", b"0" * 64, b"f" * 15]),
        ),
        max_size=12,
    ),
)  # fmt: skip
def test_feed_fuzzed_body_ends_in_payload_or_chunk_error(
    kind: PayloadKind, parts: list[bytes]
) -> None:
    this = decoder(kind, 3, [CRC])
    try:
        payload, trailers = decode(this, *parts)
    except ChunkError as error:
        assert error.code
        return
    assert kind is UNSIGNED
    assert len(payload) == 3
    assert trailers.get(CRC) is not None


# --- the head -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "code"),
    [
        (None, "MissingContentLength"), ("", "InvalidArgument"), ("-1", "InvalidArgument"),
        ("+5", "InvalidArgument"), ("5,5", "InvalidArgument"), ("0x5", "InvalidArgument"),
        ("1e3", "InvalidArgument"), (str(2**63), "EntityTooLarge"), ("9" * 30, "InvalidArgument"),
        (str(5 * 1024**4 + 1), "EntityTooLarge"), ("\uff15", "InvalidArgument"),
    ],
)  # fmt: skip
def test_decoded_length_bad_value_refuses(value: str | None, code: str) -> None:
    """S9, S41."""
    headers = [] if value is None else [("x-amz-decoded-content-length", value)]
    with pytest.raises(RequestError) as caught:
        decoded_length(request_head("PUT", "/b/k", headers))
    assert caught.value.code == code


@pytest.mark.parametrize(
    "value", ["", ",", "content-type", "x-amz-meta-a", "x-amz-checksum-", f"{CRC},{CRC}",
              f"{CRC},", ",".join(f"x-amz-checksum-{n}" for n in range(20)), "x-amz-checksum-é"],
)  # fmt: skip
def test_trailer_names_bad_value_refuses(value: str) -> None:
    with pytest.raises(RequestError) as caught:
        trailer_names(request_head("PUT", "/b/k", [("x-amz-trailer", value)]))
    assert caught.value.code == "InvalidRequest"


def test_open_decoder_reads_the_head() -> None:
    headers = [("x-amz-trailer", CRC.upper()), ("x-amz-decoded-content-length", "3")]
    head = request_head("PUT", "/b/k", headers)
    body = b"3\r\nabc\r\n0\r\nx-amz-checksum-crc32c:a\r\n\r\n"
    for proof in (None, verified(UNSIGNED)):
        assert decode(open_decoder(head, UNSIGNED, proof), body)[0] == b"abc"
    with pytest.raises(RequestError) as caught:
        open_decoder(head, SIGNED, verified(SIGNED))
    assert caught.value.code == "InvalidRequest"
    with pytest.raises(RequestError) as caught:
        open_decoder(head, UNSIGNED, None, length_max=2)
    assert caught.value.code == "EntityTooLarge"
