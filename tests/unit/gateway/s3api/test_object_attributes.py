"""GetObjectAttributes: the header that chooses, and the page of parts."""

import pytest

from astra.model import ObjectVersion, Part, Versioning
from astra.wire import Located
from gateway.s3api.errors import S3Error
from gateway.s3api.object_attributes import attributes_of, parse_attributes, parse_parts_page

HEADER = "x-amz-object-attributes"
PARTS = frozenset({"ObjectParts"})


def located(part_count: int) -> Located:
    """Of parts that had other numbers when they were sent."""
    version = ObjectVersion(
        version_id="null",
        order=1024,
        modified_ms=0,
        owner_id="ann",
        part_count=part_count,
    )
    parts = tuple(
        Part(number=10 * n, size=n, etag="", extents=()) for n in range(1, part_count + 1)
    )
    return Located(version=version, versioning=Versioning.OFF, parts=parts)


def test_parse_attributes_reads_a_list() -> None:
    found = parse_attributes({HEADER: "ETag,ObjectSize, Checksum"})
    assert found == {"ETag", "ObjectSize", "Checksum"}


@pytest.mark.parametrize("headers", [{}, {HEADER: ""}, {HEADER: " , "}, {HEADER: "ETag,etag"}])
def test_parse_attributes_of_none_or_unknown_is_invalid_argument(headers: dict[str, str]) -> None:
    with pytest.raises(S3Error) as caught:
        parse_attributes(headers)
    assert caught.value.code == "InvalidArgument"


def test_parse_parts_page_is_bounded() -> None:
    assert parse_parts_page({}) == (1000, 0)
    headers = {"x-amz-max-parts": "5000", "x-amz-part-number-marker": "7"}
    assert parse_parts_page(headers) == (1000, 7)
    with pytest.raises(S3Error) as caught:
        parse_parts_page({"x-amz-max-parts": "many"})
    assert caught.value.code == "InvalidArgument"


@pytest.mark.parametrize(
    ("limit", "after", "numbers", "is_truncated"),
    [
        (1000, 0, [1, 2, 3], False),
        (2, 0, [1, 2], True),
        (1, 2, [3], False),
        (1000, 3, [], False),
        (1000, 2_000_000_000, [], False),
        (0, 0, [], False),
    ],
)
def test_parts_are_paged_by_their_place(
    limit: int, after: int, numbers: list[int], is_truncated: bool
) -> None:
    page = attributes_of(located(3), PARTS, limit=limit, after=after).parts
    assert page is not None
    assert [part.part_number for part in page.parts] == numbers
    assert [part.size for part in page.parts] == numbers
    assert page.is_truncated is is_truncated
    assert page.total_parts_count == 3
    assert page.next_part_number_marker == (numbers[-1] if numbers else 0)


def test_parts_of_an_object_that_has_none_are_left_out() -> None:
    assert attributes_of(located(0), PARTS, limit=1000, after=0).parts is None
