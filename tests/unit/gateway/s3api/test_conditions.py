"""Conditions and ranges: the RFC's order, S3's refusals, linear time on hostile headers."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3api import conditions
from gateway.s3api.conditions import (
    ByteRange,
    DeleteCondition,
    Verdict,
    WriteCondition,
    parse_range,
)
from gateway.s3api.dates import format_http_date
from gateway.s3api.errors import S3Error

MODIFIED_MS = 1_700_000_000_500
BEFORE = format_http_date(MODIFIED_MS - 1000)
SAME = format_http_date(MODIFIED_MS)
AFTER = format_http_date(MODIFIED_MS + 1000)
ETAG = '"abc-2"'
PROCEED, NOT_MODIFIED, FAILED = Verdict.PROCEED, Verdict.NOT_MODIFIED, Verdict.FAILED


@pytest.mark.parametrize(
    ("headers", "verdict"),
    [
        ({}, PROCEED),
        ({"if-match": ETAG}, PROCEED),
        ({"if-match": "abc-2"}, PROCEED),
        ({"if-match": "*"}, PROCEED),
        ({"if-match": f'"x", {ETAG}'}, PROCEED),
        ({"if-match": '"x"'}, FAILED),
        ({"if-match": ""}, FAILED),
        ({"if-none-match": '"x"'}, PROCEED),
        ({"if-none-match": ETAG}, NOT_MODIFIED),
        ({"if-none-match": "W/" + ETAG}, NOT_MODIFIED),
        ({"if-none-match": "*"}, NOT_MODIFIED),
        ({"if-modified-since": BEFORE}, PROCEED),
        ({"if-modified-since": SAME}, NOT_MODIFIED),
        ({"if-modified-since": AFTER}, NOT_MODIFIED),
        ({"if-modified-since": "nonsense"}, PROCEED),
        ({"if-unmodified-since": BEFORE}, FAILED),
        ({"if-unmodified-since": SAME}, PROCEED),
        ({"if-unmodified-since": AFTER}, PROCEED),
        ({"if-unmodified-since": "nonsense"}, PROCEED),
        # An entity tag beats the date of its pair.
        ({"if-match": ETAG, "if-unmodified-since": BEFORE}, PROCEED),
        ({"if-match": '"x"', "if-unmodified-since": AFTER}, FAILED),
        ({"if-none-match": '"x"', "if-modified-since": AFTER}, PROCEED),
        ({"if-none-match": ETAG, "if-modified-since": BEFORE}, NOT_MODIFIED),
        # 412 beats 304.
        ({"if-match": '"x"', "if-none-match": ETAG}, FAILED),
        ({"if-match": ETAG, "if-none-match": ETAG}, NOT_MODIFIED),
        ({"if-unmodified-since": BEFORE, "if-modified-since": AFTER}, FAILED),
    ],
)
def test_evaluate_headers_follow_the_rfc(headers: dict[str, str], verdict: Verdict) -> None:
    parsed = conditions.parse_read_conditions(headers)
    assert conditions.evaluate(parsed, etag=ETAG, modified_ms=MODIFIED_MS) is verdict
    assert conditions.evaluate(parsed, etag="abc-2", modified_ms=MODIFIED_MS) is verdict


def test_check_read_not_modified_carries_the_validators() -> None:
    parsed = conditions.parse_read_conditions({"if-none-match": ETAG})
    with pytest.raises(S3Error) as caught:
        conditions.check_read(parsed, etag="abc-2", modified_ms=MODIFIED_MS)
    assert caught.value.status == 304
    assert caught.value.headers == {"etag": ETAG, "last-modified": SAME}


def test_check_read_failed_names_the_condition() -> None:
    parsed = conditions.parse_read_conditions({"if-unmodified-since": BEFORE})
    with pytest.raises(S3Error) as caught:
        conditions.check_read(parsed, etag=ETAG, modified_ms=MODIFIED_MS)
    assert (caught.value.status, caught.value.extra) == (412, {"Condition": "If-Unmodified-Since"})


@pytest.mark.parametrize(
    ("headers", "fails"),
    [
        ({"x-amz-copy-source-if-match": ETAG}, False),
        ({"x-amz-copy-source-if-match": "x"}, True),
        ({"x-amz-copy-source-if-none-match": ETAG}, True),
        ({"x-amz-copy-source-if-modified-since": AFTER}, True),
        ({"x-amz-copy-source-if-unmodified-since": BEFORE}, True),
        (
            {
                "x-amz-copy-source-if-match": ETAG,
                "x-amz-copy-source-if-unmodified-since": BEFORE,
            },
            False,
        ),
        ({"if-match": "x", "if-none-match": ETAG}, False),
    ],
)
def test_check_copy_source_failing_is_always_412(headers: dict[str, str], fails: bool) -> None:
    parsed = conditions.parse_copy_conditions(headers)
    if not fails:
        conditions.check_copy_source(parsed, etag=ETAG, modified_ms=MODIFIED_MS)
        return
    with pytest.raises(S3Error) as caught:
        conditions.check_copy_source(parsed, etag=ETAG, modified_ms=MODIFIED_MS)
    assert caught.value.status == 412
    assert caught.value.extra["Condition"].startswith("x-amz-copy-source-If-")


def test_parse_write_condition_forms_of_s3_are_understood() -> None:
    parse = conditions.parse_write_condition
    assert parse({}) == WriteCondition()
    assert parse({}).is_empty
    assert parse({"if-none-match": " * "}) == WriteCondition(must_not_exist=True)
    assert parse({"if-match": ETAG}) == WriteCondition(if_match="abc-2")
    assert parse({"if-match": "*"}) == WriteCondition(if_match="*")
    assert not parse({"if-match": "*"}).is_empty
    assert parse({"if-none-match": ETAG}) == WriteCondition(if_none_match="abc-2")
    assert not parse({"if-none-match": ETAG}).is_empty


@pytest.mark.parametrize(
    "headers",
    [
        {"if-none-match": f'{ETAG}, "x"'},
        {"if-none-match": ""},
        {"if-match": ""},
        {"if-match": f'{ETAG}, "x"'},
        {"if-match": ETAG, "if-none-match": "*"},
        {"if-modified-since": SAME},
        {"if-unmodified-since": SAME},
    ],
)
def test_parse_write_condition_other_forms_are_not_implemented(headers: dict[str, str]) -> None:
    with pytest.raises(S3Error) as caught:
        conditions.parse_write_condition(headers)
    assert caught.value.status == 501
    assert caught.value.extra["Header"]


def test_parse_delete_condition_all_three_are_understood() -> None:
    parsed = conditions.parse_delete_condition(
        {
            "if-match": ETAG,
            "x-amz-if-match-size": "0",
            "x-amz-if-match-last-modified-time": SAME,
        }
    )
    expected_seconds = MODIFIED_MS // 1000
    assert parsed == DeleteCondition(if_match="abc-2", modified_seconds=expected_seconds, size=0)
    assert conditions.parse_delete_condition({}).is_empty
    assert not parsed.is_empty


@pytest.mark.parametrize(
    "headers",
    [
        {"x-amz-if-match-size": "-1"},
        {"x-amz-if-match-size": "9" * 5000},
        {"x-amz-if-match-last-modified-time": "nonsense"},
    ],
)
def test_parse_delete_condition_malformed_is_refused_not_ignored(headers: dict[str, str]) -> None:
    with pytest.raises(S3Error, match="InvalidArgument"):
        conditions.parse_delete_condition(headers)


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("bytes=0-0", (0, 0)),
        ("bytes=0-", (0, 99)),
        ("bytes=99-", (99, 99)),
        ("bytes=10-19", (10, 19)),
        ("bytes=10-1000", (10, 99)),
        ("bytes=-1", (99, 99)),
        ("bytes=-100", (0, 99)),
        ("bytes=-101", (0, 99)),
        ("Bytes=1-2", (1, 2)),
        (" bytes=1-2 ", (1, 2)),
        ("bytes=0-" + "9" * 5000, (0, 99)),
        ("bytes=-" + "9" * 5000, (0, 99)),
        ("bytes=" + "0" * 5000 + "1-2", (1, 2)),
    ],
)
def test_parse_range_satisfiable_is_clamped(header: str, expected: tuple[int, int]) -> None:
    first, last = expected
    assert parse_range(header, size=100) == ByteRange(first=first, last=last)


@pytest.mark.parametrize(
    "header",
    [
        *("", "bytes", "bytes=", "bytes=-", "bytes=a-b", "bytes=1", "1-2", "lines=1-2"),
        *("bytes=5-4", "bytes=0-0,1-1", "bytes=0-0,", "bytes=--1", "bytes=+1-2", "bytes=1-2-3"),
        *("bytes=0x1-2", "bytes=1 - 2", "bytes=٣-٤", "bytes=" + "0-0," * 1000),
    ],
)
def test_parse_range_malformed_or_several_is_the_whole_object(header: str) -> None:
    assert parse_range(header, size=100) is None
    assert parse_range(None, size=100) is None


@pytest.mark.parametrize(
    ("header", "size"),
    [
        ("bytes=100-", 100),
        ("bytes=100-200", 100),
        ("bytes=-0", 100),
        ("bytes=0-", 0),
        ("bytes=-5", 0),
        ("bytes=" + "9" * 5000 + "-", 100),
    ],
)
def test_parse_range_unsatisfiable_is_416(header: str, size: int) -> None:
    with pytest.raises(S3Error) as caught:
        parse_range(header, size=size)
    assert (caught.value.code, caught.value.status) == ("InvalidRange", 416)
    assert caught.value.extra == {"RangeRequested": header, "ActualObjectSize": str(size)}
    assert caught.value.headers == {"content-range": f"bytes */{size}"}


@given(
    size=st.integers(0, 50),
    first=st.none() | st.integers(0, 60),
    last=st.none() | st.integers(0, 60),
)
def test_parse_range_any_numbers_select_what_a_slice_does(
    size: int, first: int | None, last: int | None
) -> None:
    header = f"bytes={'' if first is None else first}-{'' if last is None else last}"
    content = bytes(range(size))
    if first is None:
        expected = content[max(size - last, 0) :] if last else b""
    else:
        expected = content[first : size if last is None else last + 1]
    try:
        found = parse_range(header, size=size)
    except S3Error:
        assert expected == b""
        return
    if found is None:
        assert (first is None and last is None) or (first or 0) > (last or 0)
        return
    assert content[found.first : found.last + 1] == expected
    assert found.length == len(expected)
    assert found.content_range(size) == f"bytes {found.first}-{found.last}/{size}"


@pytest.mark.parametrize(
    "hostile",
    [
        "bytes=" + " " * 60_000 + "x",
        "bytes=" + "9" * 60_000,
        "bytes=" + "1-1," * 15_000,
        " " * 60_000,
    ],
)
def test_parse_range_hostile_header_is_read_in_linear_time(hostile: str) -> None:
    began = time.process_time()
    for _ in range(10):
        try:
            parse_range(hostile, size=100)
            conditions.parse_read_conditions({"if-match": hostile, "if-none-match": hostile})
        except S3Error as error:
            assert error.code == "InvalidRange"
    assert time.process_time() - began < 1.0


def test_parse_copy_source_range_exact_is_taken() -> None:
    assert conditions.parse_copy_source_range(None, size=5) is None
    found = conditions.parse_copy_source_range("bytes=0-4", size=5)
    assert found == ByteRange(first=0, last=4)


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("bytes=0-5", "InvalidRange"),
        ("bytes=0-", "InvalidArgument"),
        ("bytes=-3", "InvalidArgument"),
        ("bytes=3-2", "InvalidArgument"),
        ("0-2", "InvalidArgument"),
        ("bytes=hello-world", "InvalidArgument"),
        ("bytes=0-2,4-5", "InvalidArgument"),
        ("bytes=0-" + "9" * 5000, "InvalidArgument"),
    ],
)
def test_parse_copy_source_range_other_is_refused(header: str, code: str) -> None:
    with pytest.raises(S3Error) as caught:
        conditions.parse_copy_source_range(header, size=5)
    assert caught.value.code == code


def test_select_part_spans_cover_the_object() -> None:
    sizes = [5, 7, 1]
    spans = [conditions.select_part(sizes, number) for number in (1, 2, 3)]
    assert [(span.offset, span.length) for span in spans] == [(0, 5), (5, 7), (12, 1)]
    assert {span.parts_count for span in spans} == {3}
    assert spans[1].byte_range == ByteRange(first=5, last=11)
    assert conditions.select_part([0], 1).byte_range is None
    for number in (0, 4):
        with pytest.raises(S3Error, match="InvalidPart"):
            conditions.select_part(sizes, number)


def test_check_range_or_part_both_is_invalid_request() -> None:
    conditions.check_range_or_part(range_header="bytes=0-1", part_number=None)
    conditions.check_range_or_part(range_header=None, part_number="1")
    with pytest.raises(S3Error, match="InvalidRequest"):
        conditions.check_range_or_part(range_header="bytes=0-1", part_number="1")
