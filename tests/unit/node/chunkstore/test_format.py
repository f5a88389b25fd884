"""The footer: what is written is read back, everything else is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astra.constants import CHUNK_SIZE
from astra.errors import InvariantBroken
from node.chunkstore.format import (
    BLOB_CHUNKS_MAX,
    BLOB_SIZE_MAX,
    FOOTER_BYTES_MAX,
    TAIL_BYTES,
    Footer,
    FooterDamaged,
    blob_time_ms,
    chunk_count,
    chunk_length,
    crc32c,
    decode_footer,
    encode_footer,
    footer_length,
    is_blob_id,
    make_blob_id,
    read_footer_length,
)

ID = "0123456789abcdef" * 2

sizes = st.one_of(st.integers(0, 40 * CHUNK_SIZE), st.just(BLOB_SIZE_MAX))


@given(size=sizes, seed=st.integers(0, 2**32 - 1))
def test_footer_encoded_decodes_to_itself(size: int, seed: int) -> None:
    count = chunk_count(size)
    crcs = tuple((seed + 2654435761 * n) % 2**32 for n in range(count))
    footer = Footer(blob_id=ID, size=size, chunk_crcs=crcs)
    block = encode_footer(footer)
    assert len(block) == footer_length(size) <= FOOTER_BYTES_MAX
    assert decode_footer(block, blob_id=ID, file_size=size + len(block)) == footer


@given(junk=st.binary(max_size=200), file_size=st.integers(0, 2**40))
def test_decode_of_junk_is_damaged(junk: bytes, file_size: int) -> None:
    with pytest.raises(FooterDamaged):
        decode_footer(junk, blob_id=ID, file_size=file_size)


def test_footer_length_that_cannot_be_is_damaged_also_with_a_right_checksum() -> None:
    block = encode_footer(Footer(blob_id=ID, size=1, chunk_crcs=(1,)))
    for length in (0, 1, len(block) + 1, FOOTER_BYTES_MAX + 1, 2**32 - 1):
        tail = length.to_bytes(4, "little") + block[-TAIL_BYTES + 4 : -4]
        tail += crc32c(tail).to_bytes(4, "little")
        with pytest.raises(FooterDamaged):
            read_footer_length(tail, len(block))


def test_footer_guess_is_never_shorter_than_the_footer() -> None:
    """store.py reads footer_length(file size) bytes at once and expects the footer in them."""
    for size in (0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 2047 * CHUNK_SIZE):
        assert footer_length(size + footer_length(size)) >= footer_length(size)


def test_encode_of_an_inconsistent_footer_is_our_bug() -> None:
    for size, count in ((1, 0), (0, 1), (BLOB_SIZE_MAX + 1, BLOB_CHUNKS_MAX + 1)):
        with pytest.raises(InvariantBroken):
            encode_footer(Footer(blob_id=ID, size=size, chunk_crcs=(0,) * count))


def test_chunk_length_of_the_last_is_the_rest() -> None:
    assert [chunk_length(2 * CHUNK_SIZE + 1, n) for n in range(3)] == [CHUNK_SIZE, CHUNK_SIZE, 1]
    assert chunk_length(CHUNK_SIZE, 0) == CHUNK_SIZE
    for size, index in ((0, 0), (CHUNK_SIZE, 1), (1, -1)):
        with pytest.raises(InvariantBroken):
            chunk_length(size, index)


def test_make_blob_id_keeps_its_time() -> None:
    blob_id = make_blob_id(time_ms=1_790_000_000_123, salt=bytes(range(10)))
    assert is_blob_id(blob_id)
    assert blob_time_ms(blob_id) == 1_790_000_000_123


def test_crc32c_is_castagnoli() -> None:
    assert crc32c(b"123456789") == 0xE3069283  # the check value of the catalogue of CRCs
