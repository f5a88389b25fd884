"""The snapshot format: cut anywhere it reads the same, damaged anywhere it is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astra.errors import UnknownFormat, WireError
from astra.model import MARKS, Inline, Mark, Table
from node.metadata.export import (
    PIECE_BYTES_MAX,
    ExportDecoder,
    ExportEncoder,
    ImportedRows,
    Recut,
    StoredRow,
    group_rows,
)
from node.metadata.rows import encode_doc

ROWS: list[StoredRow] = [
    (("a",), encode_doc(Mark(value=1))),
    (("b",), encode_doc(Mark(value=2))),
]


def small_export() -> bytes:
    encoder = ExportEncoder()
    return encoder.head(7) + encoder.rows(MARKS, ROWS) + encoder.end()


def decode(data: bytes, step: int = 1 << 20) -> list[ImportedRows]:
    decoder = ExportDecoder()
    found: list[ImportedRows] = []
    for start in range(0, len(data), step):
        found += decoder.feed(data[start : start + step])
    assert decoder.finish() == 7
    return found


@given(st.integers(1, 200))
def test_export_cut_anywhere_reads_the_same(step: int) -> None:
    (imported,) = decode(small_export(), step)
    assert imported.table is MARKS
    assert imported.rows == ROWS


def test_every_single_flipped_bit_is_noticed() -> None:
    whole = small_export()
    for bit in range(8 * len(whole)):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises((WireError, UnknownFormat)):
            decode(bytes(flipped))


def test_every_cut_is_noticed() -> None:
    whole = small_export()
    for length in range(len(whole)):
        with pytest.raises(WireError):
            decode(whole[:length])


def test_missing_frame_is_noticed() -> None:
    encoder, other = ExportEncoder(), ExportEncoder()
    head = encoder.head(7)
    first, second = encoder.rows(MARKS, ROWS[:1]), encoder.rows(MARKS, ROWS[1:])
    assert other.head(7) == head
    with pytest.raises(WireError):
        decode(head + second + encoder.end())
    with pytest.raises(WireError):
        decode(head + second + first + encoder.end())


def test_huge_frame_is_refused_before_it_is_read() -> None:
    head = ExportEncoder().head(7)
    with pytest.raises(WireError):
        list(ExportDecoder().feed(head + b"\x02\xff\xff\xff\xff" + bytes(4)))


def test_unknown_table_is_a_newer_format() -> None:
    unknown: Table[Mark] = Table("tomorrow", MARKS.columns, Mark)
    encoder = ExportEncoder()
    with pytest.raises(UnknownFormat):
        decode(encoder.head(7) + encoder.rows(unknown, ROWS) + encoder.end())


@pytest.mark.parametrize(
    "row",
    [
        ((b"a",), encode_doc(Mark(value=1))),
        (("a", "b"), encode_doc(Mark(value=1))),
        (("a\0",), encode_doc(Mark(value=1))),
        (("a",), b"\xc1"),
    ],
)
def test_row_that_does_not_fit_its_table_is_refused(row: StoredRow) -> None:
    encoder = ExportEncoder()
    with pytest.raises(WireError):
        decode(encoder.head(7) + encoder.rows(MARKS, [row]) + encoder.end())


def test_recut_pieces_are_bounded_and_whole() -> None:
    recut = Recut()
    data = bytes(range(256)) * 10_000
    pieces = [*recut.feed(data), *recut.feed(data), *recut.rest()]
    assert b"".join(pieces) == data * 2
    assert max(map(len, pieces)) == PIECE_BYTES_MAX


def test_group_rows_closes_groups_by_size() -> None:
    doc = encode_doc(Inline(data=b"x" * 100_000))
    rows: list[StoredRow] = [((f"{number}",), doc) for number in range(10)]
    groups = list(group_rows(rows))
    assert [len(group) for group in groups] == [3, 3, 3, 1]
    assert [row for group in groups for row in group] == rows
