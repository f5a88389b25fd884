"""Dates: the three HTTP forms, ISO 8601, agreement with the standard library."""

from datetime import UTC, datetime
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3api.dates import (
    format_http_date,
    format_iso8601,
    parse_http_date,
    parse_iso8601_ms,
)

TIME_MS = st.integers(0, 253_402_300_799_999)  # to the end of the year 9999


@given(time_ms=TIME_MS)
def test_format_http_date_agrees_with_email_and_reads_back(time_ms: int) -> None:
    text = format_http_date(time_ms)
    assert text == formatdate(time_ms // 1000, usegmt=True)
    assert parse_http_date(text) == time_ms // 1000


@given(time_ms=TIME_MS)
def test_format_iso8601_agrees_with_datetime_and_reads_back(time_ms: int) -> None:
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    expected = f"{moment:%Y-%m-%dT%H:%M:%S}.{time_ms % 1000:03}Z".rjust(24, "0")
    assert format_iso8601(time_ms) == expected
    assert parse_iso8601_ms(expected) == time_ms


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 06 Nov 1994 08:49:37 GMT",
        "Sunday, 06-Nov-94 08:49:37 GMT",
        "Sun Nov  6 08:49:37 1994",
        "Sun, 6 Nov 1994 08:49:37 +0000",
        " Sun, 06 Nov 1994 08:49:37 UTC ",
    ],
)
def test_parse_http_date_each_form_is_the_same_second(text: str) -> None:
    assert parse_http_date(text) == 784111777


def test_parse_http_date_two_digit_years_are_1970_to_2069() -> None:
    assert parse_http_date("Thursday, 01-Jan-70 00:00:00 GMT") == 0
    assert parse_http_date("Tuesday, 01-Jan-69 00:00:00 GMT") == 3124224000


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "784111777",
        "Sun, 31 Feb 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 PST",
        "Sun, 06 nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 0000 08:49:37 GMT",
        "Sun, 06 Nov 1994 08:49:37 GMT" + " " * 100,
        "Sun, 0٦ Nov 1994 08:49:37 GMT",
    ],
)
def test_parse_http_date_anything_else_is_none(text: str) -> None:
    assert parse_http_date(text) is None


@given(text=st.text(max_size=60))
def test_parse_dates_arbitrary_text_never_raises(text: str) -> None:
    assert parse_http_date(text) is None or isinstance(parse_http_date(text), int)
    assert parse_iso8601_ms(text) is None or isinstance(parse_iso8601_ms(text), int)


def test_parse_iso8601_ms_zone_is_applied() -> None:
    assert parse_iso8601_ms("1994-11-06T10:49:37.5+02:00") == 784111777500
    assert parse_iso8601_ms("1994-11-06T08:49:37") == 784111777000
    assert parse_iso8601_ms("0001-01-01T00:00:00+14:00") is None
