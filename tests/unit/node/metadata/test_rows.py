"""Keys that every backend can hold, and bounds that divide them the same way."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astra.errors import InvariantBroken
from astra.model import (
    BLOBS,
    COMPLETION_ORDER,
    MARKS,
    OBJECTS,
    PARTS,
    UPLOADS,
    Key,
    Mark,
    ObjectVersion,
    Table,
)
from node.metadata.bodies import drive
from node.metadata.rows import (
    DamagedRow,
    check_key,
    check_put,
    encode_doc,
    is_storable,
    read_row,
    read_rows,
    row_checksum,
    storable_bound,
    verify_row,
)
from node.metadata.tables import POSTGRES, SQLITE, table_statements

ANY_TEXT = st.text(alphabet=st.sampled_from("\0\x01\x02a\ud7ff\ud800\udfff\ue000\U00010000"))
ANY_INTEGER = st.sampled_from([-(2**63), -1, 0, 5, 2**63 - 2, 2**63 - 1, 2**63, 2**70])


@given(ANY_TEXT, ANY_INTEGER, ANY_TEXT, ANY_INTEGER)
def test_storable_bound_divides_storable_keys_as_the_bound_does(
    text: str, number: int, bound_text: str, bound_number: int
) -> None:
    key, bound = (text, number), (bound_text, bound_number)
    if is_storable(key):
        assert is_storable(storable_bound(bound)) or storable_bound(bound)[-1] == 2**63 - 1
        assert (key >= bound) == (key >= storable_bound(bound))


def test_storable_bound_of_a_storable_key_is_itself() -> None:
    assert storable_bound((b"\xff", "é", 5)) == (b"\xff", "é", 5)


DATA = encode_doc(Mark(value=70000))


def test_read_row_of_what_was_stored_is_the_document() -> None:
    assert read_row(MARKS, ("a",), DATA, row_checksum(MARKS, ("a",), DATA)) == Mark(value=70000)


def test_read_row_with_a_flipped_bit_anywhere_in_key_or_document_is_a_damaged_row() -> None:
    key: Key = (123_456_789, b"bucket", b"some key", "upload")
    checksum = row_checksum(COMPLETION_ORDER, key, DATA)
    for bit in range(8 * len(DATA)):
        with pytest.raises(DamagedRow):
            read_row(COMPLETION_ORDER, key, flipped(DATA, bit), checksum)
    for place, part in enumerate(key):
        for bit in range(64 if isinstance(part, int) else 8 * len(part)):
            other = (*key[:place], with_flipped_bit(part, bit), *key[place + 1 :])
            with pytest.raises(DamagedRow):
                read_row(COMPLETION_ORDER, other, DATA, checksum)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def with_flipped_bit(part: bytes | str | int, bit: int) -> bytes | str | int:
    if isinstance(part, int):
        return int.from_bytes(flipped(part.to_bytes(8, "big", signed=True), bit), signed=True)
    if isinstance(part, str):
        return flipped(part.encode(), bit).decode("latin-1")
    return flipped(part, bit)


def test_read_row_of_another_table_or_with_other_columns_is_a_damaged_row() -> None:
    """The bytes are the same, but not where they are."""
    with pytest.raises(DamagedRow):
        read_row(MARKS, ("a",), DATA, row_checksum(BLOBS, ("a",), DATA))
    with pytest.raises(DamagedRow):
        read_row(OBJECTS, (b"a", b"bc"), DATA, row_checksum(OBJECTS, (b"ab", b"c"), DATA))


@pytest.mark.parametrize("data", [None, 5, 1.5, "text"])
def test_read_row_of_another_type_is_a_damaged_row(data: Any) -> None:
    """As a database gives what stands in a damaged page."""
    checksum = row_checksum(MARKS, ("a",), data) if data == "text" else 0
    with pytest.raises(DamagedRow):
        read_row(MARKS, ("a",), data, checksum)
    with pytest.raises(DamagedRow):
        verify_row(MARKS, ("b",), data, checksum)
    with pytest.raises(DamagedRow):
        read_row(MARKS, (data,), DATA, row_checksum(MARKS, ("a",), DATA))


def test_read_row_of_another_shape_is_a_damaged_row() -> None:
    with pytest.raises(DamagedRow):
        read_row(OBJECTS, (b"b", b"k"), DATA, row_checksum(OBJECTS, (b"b", b"k"), DATA))


def stored(*names: str) -> list[tuple[Any, ...]]:
    return [(name, DATA, row_checksum(MARKS, (name,), DATA)) for name in names]


def test_read_rows_in_order_within_the_bounds() -> None:
    rows = read_rows(MARKS, ("a",), ("d",), stored("a", "b", "c"))
    assert [key for key, _ in rows] == [("a",), ("b",), ("c",)]
    assert read_rows(MARKS, (), None, stored("a")) == [(("a",), Mark(value=70000))]
    assert read_rows(MARKS, ("a",), ("d",), []) == []


@pytest.mark.parametrize("names", [("b", "a"), ("a", "a"), ("0", "a"), ("a", "d"), ("a", "e")])
def test_read_rows_out_of_order_or_bounds_is_damage(names: tuple[str, ...]) -> None:
    """Each of them is whole: it is the index that gives them in the wrong place."""
    with pytest.raises(DamagedRow, match="not in order"):
        read_rows(MARKS, ("a",), ("d",), stored(*names))


def test_check_put_of_another_tables_document_is_refused() -> None:
    with pytest.raises(InvariantBroken):
        check_put(OBJECTS, (b"b", b"k"), Mark(value=1))


def test_check_key_takes_subclasses_of_column_types_and_gives_plain_ones() -> None:
    """What is under the checksum is what the database gives back."""

    class Name(str):
        __slots__ = ()

        def __str__(self) -> str:
            return "not this"

    key = check_key(PARTS, (Name("u"), True))
    assert key == ("u", 1)
    assert [type(part) for part in key] == [str, int]
    with pytest.raises(InvariantBroken):
        check_key(PARTS, (b"u", 1))


def test_drive_of_a_body_that_waits_for_something_else_is_refused() -> None:
    class Suspends:
        def __await__(self):  # type: ignore[no-untyped-def] # a foreign awaitable
            yield "elsewhere"

    async def body() -> None:
        await Suspends()

    with pytest.raises(InvariantBroken):
        drive(body())


@pytest.mark.parametrize("dialect", [SQLITE, POSTGRES])
@pytest.mark.parametrize("table", [MARKS, OBJECTS, UPLOADS])
def test_statements_name_no_value(dialect: object, table: Table[ObjectVersion]) -> None:
    sql = table_statements(POSTGRES if dialect is POSTGRES else SQLITE)[table.name]
    mark = "$" if dialect is POSTGRES else "?"
    width = len(table.columns)
    assert sql.put.count(mark) == width + 2
    assert sql.scan((b"x",) * width, (b"y",)).count(mark) == width + 2
    assert sql.scan((), None).count(mark) == 1
