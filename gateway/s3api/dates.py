"""Times as S3 writes and reads them: HTTP dates in headers, ISO 8601 in documents.

Rules: pure arithmetic on integers; no clock. Milliseconds since the epoch inside, `_ms`.
Invariants: parsing what was formatted gives the same second (HTTP) or millisecond (ISO); a date
that cannot be read is None, never a guess; work is bounded by the length checks.
Source: RFC 9110 section 5.6.7 (IMF-fixdate and the two obsolete forms), AWS examples.
"""

import re
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Final

_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = (
    *("Jan", "Feb", "Mar", "Apr", "May", "Jun"),
    *("Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
)
_EPOCH_ORDINAL: Final = date(1970, 1, 1).toordinal()
_DAY_SECONDS: Final = 86_400
_MINUTES: Final = tuple(f"T{hour:02}:{minute:02}:" for hour in range(24) for minute in range(60))
_DATE_LENGTH_MAX: Final = 40

_TIME: Final = r"(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d)"
_MONTH: Final = rf"(?P<month>{'|'.join(_MONTHS)})"
_ZONE: Final = r"(?:GMT|UTC|[+-]0000)"
_FORMS: Final = tuple(
    re.compile(form, re.ASCII)
    for form in (
        rf"[A-Z][a-z]{{2}}, (?P<day>\d{{1,2}}) {_MONTH} (?P<year>\d{{4}}) {_TIME} {_ZONE}",
        rf"[A-Z][a-z]{{5,8}}, (?P<day>\d\d)-{_MONTH}-(?P<year>\d\d) {_TIME} {_ZONE}",
        rf"[A-Z][a-z]{{2}} {_MONTH} (?P<day>[ \d]\d) {_TIME} (?P<year>\d{{4}})",
    )
)


def _split_seconds(seconds: int) -> tuple[date, int, int, int]:
    days, rest = divmod(seconds, _DAY_SECONDS)
    minutes, second = divmod(rest, 60)
    return date.fromordinal(_EPOCH_ORDINAL + days), minutes // 60, minutes % 60, second


def format_http_date(time_ms: int) -> str:
    """IMF-fixdate, such as `Sun, 06 Nov 1994 08:49:37 GMT`; the fraction is dropped."""
    day, hour, minute, second = _split_seconds(time_ms // 1000)
    return (
        f"{_DAYS[day.weekday()]}, {day.day:02} {_MONTHS[day.month - 1]} {day.year:04} "
        f"{hour:02}:{minute:02}:{second:02} GMT"
    )


@lru_cache(maxsize=1024)
def _iso_day(days: int) -> str:
    return date.fromordinal(_EPOCH_ORDINAL + days).isoformat()


def format_iso8601(time_ms: int) -> str:
    """Such as `2009-10-12T17:50:30.000Z`, milliseconds always there.

    Called a thousand times per listing, hence the cached days and the table of minutes.
    """
    minutes, millis = divmod(time_ms, 60_000)
    days, minute = divmod(minutes, 1440)
    second, millis = divmod(millis, 1000)
    return f"{_iso_day(days)}{_MINUTES[minute]}{second:02}.{millis:03}Z"


def _full_year(digits: str) -> int:
    """Two digits mean 1970..2069: the pure zone has no clock to apply the 50-year rule with."""
    year = int(digits)
    if len(digits) == 4:
        return year
    return year + (1900 if year >= 70 else 2000)


def parse_http_date(text: str) -> int | None:
    """Seconds since the epoch, or None for what is not one of the three forms of RFC 9110."""
    if len(text) > _DATE_LENGTH_MAX:
        return None
    stripped = text.strip()
    match = next((found for form in _FORMS if (found := form.fullmatch(stripped))), None)
    if match is None:
        return None
    try:
        moment = datetime(
            _full_year(match["year"]),
            _MONTHS.index(match["month"]) + 1,
            int(match["day"]),
            int(match["hour"]),
            int(match["minute"]),
            min(int(match["second"]), 59),  # a leap second counts as the one before
            tzinfo=UTC,
        )
    except ValueError:
        return None
    return _to_seconds(moment)


def _to_seconds(moment: datetime) -> int:
    days = moment.toordinal() - _EPOCH_ORDINAL
    return days * _DAY_SECONDS + moment.hour * 3600 + moment.minute * 60 + moment.second


def parse_iso8601_ms(text: str) -> int | None:
    """Milliseconds since the epoch; a time without a zone is UTC. None when it is no such date."""
    if len(text) > _DATE_LENGTH_MAX:
        return None
    try:
        moment = datetime.fromisoformat(text.strip())
        moment = moment.replace(tzinfo=moment.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return _to_seconds(moment) * 1000 + moment.microsecond // 1000
