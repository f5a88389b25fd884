"""Keys that every backend can hold, and bounds that divide them the same way."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from astra.errors import InvariantBroken
from astra.model import MARKS, OBJECTS, PARTS, UPLOADS, Mark, ObjectVersion, Table
from node.metadata.bodies import drive
from node.metadata.rows import (
    DamagedRow,
    check_key,
    check_put,
    crc32c,
    encode_doc,
    is_storable,
    read_doc,
    storable_bound,
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


def test_read_doc_of_flipped_bit_is_damaged_row() -> None:
    data = encode_doc(Mark(value=70000))
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    assert read_doc(MARKS, data, crc32c(data)) == Mark(value=70000)
    with pytest.raises(DamagedRow):
        read_doc(MARKS, flipped, crc32c(data))


def test_read_doc_of_another_shape_is_damaged_row() -> None:
    data = encode_doc(Mark(value=1))
    with pytest.raises(DamagedRow):
        read_doc(OBJECTS, data, crc32c(data))


def test_check_put_of_another_tables_document_is_refused() -> None:
    with pytest.raises(InvariantBroken):
        check_put(OBJECTS, (b"b", b"k"), Mark(value=1))


def test_check_key_takes_subclasses_of_column_types() -> None:
    class Name(str):
        __slots__ = ()

    check_key(PARTS, (Name("u"), True))
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
