"""Conditions and ranges: may this read, copy, write or delete go on, and on which bytes?

Purpose: If-Match and its family, x-amz-copy-source-if-*, conditional writes, Range, partNumber.
Rules: pure; headers come in with lower-case names; every parser is linear in the header.
Invariants: a date that cannot be parsed is as good as absent (RFC 9110); an entity tag list
never is. Range gives one range or the whole object, never several (SECURITY S39).
Conditional writes are only parsed here: `apply` decides them, so that races have one winner.
Source: RFC 9110 sections 13.1, 13.2.2, 14.2; AWS GetObject, CopyObject, "Conditional requests".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from gateway.s3api.dates import format_http_date, parse_http_date
from gateway.s3api.errors import S3Error, header_not_implemented
from gateway.s3api.names import quote_etag, unquote_etag

_COPY_PREFIX: Final = "x-amz-copy-source-"
_RANGE: Final = re.compile(r"bytes=([0-9]*)-([0-9]*)", re.ASCII | re.IGNORECASE)
_COPY_RANGE: Final = re.compile(r"bytes=([0-9]{1,19})-([0-9]{1,19})", re.ASCII)
_SIZE: Final = re.compile(r"[0-9]{1,19}", re.ASCII)
# Above every object size: longer numbers are not converted (int() of digits is quadratic).
_POSITION_DIGITS_MAX: Final = 19
_POSITION_MAX: Final = 10**_POSITION_DIGITS_MAX


# --- reads -----------------------------------------------------------------------------------


class Verdict(Enum):
    PROCEED = "proceed"
    NOT_MODIFIED = "not modified"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadConditions:
    """Entity tags are bare (no quotes, no W/), `*` stands for any; times in seconds."""

    if_match: tuple[str, ...] | None = None
    if_none_match: tuple[str, ...] | None = None
    if_modified_since: int | None = None
    if_unmodified_since: int | None = None


_UNCONDITIONAL: Final = ReadConditions()


def _parse_etags(value: str | None) -> tuple[str, ...] | None:
    """The bare tags of a list; an unquoted one counts, because many S3 clients send it so.

    No ETag of ours holds a comma, so splitting there cannot make two tags equal one of them.
    """
    if value is None:
        return None
    tags = (tag.strip() for tag in value.split(","))
    return tuple(unquote_etag(tag) for tag in tags if tag)


def _parse_date(value: str | None) -> int | None:
    return None if value is None else parse_http_date(value)


def _parse_conditions(headers: Mapping[str, str], prefix: str) -> ReadConditions:
    conditions = ReadConditions(
        if_match=_parse_etags(headers.get(f"{prefix}if-match")),
        if_none_match=_parse_etags(headers.get(f"{prefix}if-none-match")),
        if_modified_since=_parse_date(headers.get(f"{prefix}if-modified-since")),
        if_unmodified_since=_parse_date(headers.get(f"{prefix}if-unmodified-since")),
    )
    return _UNCONDITIONAL if conditions == _UNCONDITIONAL else conditions


def parse_read_conditions(headers: Mapping[str, str]) -> ReadConditions:
    return _parse_conditions(headers, "")


def parse_copy_conditions(headers: Mapping[str, str]) -> ReadConditions:
    """The x-amz-copy-source-if-* headers, judged against the source."""
    return _parse_conditions(headers, _COPY_PREFIX)


def _names(tags: tuple[str, ...], etag: str) -> bool:
    return "*" in tags or etag in tags


def _verdict(
    conditions: ReadConditions, *, etag: str, modified_seconds: int
) -> tuple[Verdict, str]:
    """Verdict and the header that decided it, in the order of RFC 9110 section 13.2.2."""
    if conditions.if_match is not None:
        if not _names(conditions.if_match, etag):
            return Verdict.FAILED, "If-Match"
    elif (
        conditions.if_unmodified_since is not None
        and modified_seconds > conditions.if_unmodified_since
    ):
        return Verdict.FAILED, "If-Unmodified-Since"
    if conditions.if_none_match is not None:
        if _names(conditions.if_none_match, etag):
            return Verdict.NOT_MODIFIED, "If-None-Match"
    elif (
        conditions.if_modified_since is not None
        and modified_seconds <= conditions.if_modified_since
    ):
        return Verdict.NOT_MODIFIED, "If-Modified-Since"
    return Verdict.PROCEED, ""


def evaluate(conditions: ReadConditions, *, etag: str, modified_ms: int) -> Verdict:
    """What a GET or HEAD of this version does. `etag` with or without quotes."""
    if conditions is _UNCONDITIONAL:
        return Verdict.PROCEED
    return _verdict(conditions, etag=unquote_etag(etag), modified_seconds=modified_ms // 1000)[0]


def check_read(conditions: ReadConditions, *, etag: str, modified_ms: int) -> None:
    """Raises NotModified (304, with ETag and Last-Modified) or PreconditionFailed (412)."""
    if conditions is _UNCONDITIONAL:
        return
    verdict, header = _verdict(
        conditions, etag=unquote_etag(etag), modified_seconds=modified_ms // 1000
    )
    if verdict is Verdict.NOT_MODIFIED:
        validators = {"etag": quote_etag(etag), "last-modified": format_http_date(modified_ms)}
        raise S3Error("NotModified", headers=validators)
    if verdict is Verdict.FAILED:
        raise S3Error("PreconditionFailed", Condition=header)


def check_copy_source(conditions: ReadConditions, *, etag: str, modified_ms: int) -> None:
    """Raises PreconditionFailed (412): a copy knows no 304."""
    if conditions is _UNCONDITIONAL:
        return
    verdict, header = _verdict(
        conditions, etag=unquote_etag(etag), modified_seconds=modified_ms // 1000
    )
    if verdict is not Verdict.PROCEED:
        raise S3Error("PreconditionFailed", Condition=f"{_COPY_PREFIX}{header}")


# --- conditional writes ----------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteCondition:
    """What must hold in the moment of the commit. `if_match` is a bare ETag, or `*` for any;
    `if_none_match` a bare ETag that the key must not have."""

    if_match: str | None = None
    if_none_match: str | None = None
    must_not_exist: bool = False

    @property
    def is_empty(self) -> bool:
        return self.if_match is None and self.if_none_match is None and not self.must_not_exist


def parse_write_condition(headers: Mapping[str, str]) -> WriteCondition:
    """Of PutObject, CopyObject and CompleteMultipartUpload; what S3 does not know there is 501.

    An ETag in If-None-Match is more than AWS knows (501): the public S3 test suite asks for it.
    """
    for name in ("if-modified-since", "if-unmodified-since"):
        if name in headers:
            raise header_not_implemented(name.title())
    if_match = headers.get("if-match")
    if_none_match = headers.get("if-none-match")
    if if_match is not None and if_none_match is not None:
        message = "Multiple conditional request headers present in the request"
        raise S3Error("NotImplemented", message, Header="If-Match,If-None-Match")
    if if_none_match is not None:
        if if_none_match.strip() == "*":
            return WriteCondition(must_not_exist=True)
        return WriteCondition(if_none_match=_single_etag(if_none_match, "If-None-Match"))
    return WriteCondition(if_match=_single_etag(if_match))


def _single_etag(value: str | None, header: str = "If-Match") -> str | None:
    tags = _parse_etags(value)
    if tags is None:
        return None
    if len(tags) != 1:
        raise header_not_implemented(header)
    return tags[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteCondition:
    """What the deleted version must be like. Times in seconds, as the header has no fraction."""

    if_match: str | None = None
    modified_seconds: int | None = None
    size: int | None = None

    @property
    def is_empty(self) -> bool:
        return self.if_match is None and self.modified_seconds is None and self.size is None


def parse_delete_condition(headers: Mapping[str, str]) -> DeleteCondition:
    """Of DeleteObject; a malformed one is refused, because ignoring it would delete."""
    size = headers.get("x-amz-if-match-size")
    if size is not None and not _SIZE.fullmatch(size):
        raise _bad_header("x-amz-if-match-size", size)
    modified = headers.get("x-amz-if-match-last-modified-time")
    seconds = _parse_date(modified)
    if modified is not None and seconds is None:
        raise _bad_header("x-amz-if-match-last-modified-time", modified)
    return DeleteCondition(
        if_match=_single_etag(headers.get("if-match")),
        modified_seconds=seconds,
        size=None if size is None else int(size),
    )


def _bad_header(name: str, value: str) -> S3Error:
    message = f"The value of the {name} header is not valid"
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value)


# --- ranges ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """Bytes first..last of an object, both included; never empty."""

    first: int
    last: int

    @property
    def length(self) -> int:
        return self.last - self.first + 1

    def content_range(self, size: int) -> str:
        return f"bytes {self.first}-{self.last}/{size}"


def _position(digits: str) -> int:
    """The number, or one above every size when it has more digits than any."""
    significant = digits.lstrip("0")
    if len(significant) > _POSITION_DIGITS_MAX:
        return _POSITION_MAX
    return int(significant or "0")


def _unsatisfiable(header: str, size: int) -> S3Error:
    return S3Error(
        "InvalidRange",
        headers={"content-range": f"bytes */{size}"},
        RangeRequested=header,
        ActualObjectSize=str(size),
    )


def parse_range(header: str | None, *, size: int) -> ByteRange | None:
    """The one range asked for, or None for the whole object (absent, malformed, several ranges).

    Raises InvalidRange (416) when the range begins behind the end, or is a suffix of nothing.
    """
    match = None if header is None else _RANGE.fullmatch(header.strip())
    if header is None or match is None or match[1] == match[2] == "":
        return None
    if match[1] == "":
        suffix = min(_position(match[2]), size)
        if suffix == 0:
            raise _unsatisfiable(header, size)
        return ByteRange(first=size - suffix, last=size - 1)
    first = _position(match[1])
    last = _position(match[2]) if match[2] else _POSITION_MAX
    if last < first:
        return None
    if first >= size:
        raise _unsatisfiable(header, size)
    return ByteRange(first=first, last=min(last, size - 1))


def parse_copy_source_range(header: str | None, *, size: int) -> ByteRange | None:
    """The x-amz-copy-source-range of UploadPartCopy: exact, within the source; None when absent."""
    if header is None:
        return None
    match = _COPY_RANGE.fullmatch(header)
    if match is None or int(match[1]) > int(match[2]):
        raise S3Error(
            "InvalidArgument",
            "The x-amz-copy-source-range value must be of the form bytes=first-last where first "
            "and last are the zero-based offsets of the first and last bytes to copy",
            ArgumentName="x-amz-copy-source-range",
            ArgumentValue=header,
        )
    first, last = int(match[1]), int(match[2])
    if last >= size:
        raise S3Error(
            "InvalidRange",
            f"Range specified is not valid for source object of size: {size}",
            RangeRequested=header,
            ActualObjectSize=str(size),
        )
    return ByteRange(first=first, last=last)


@dataclass(frozen=True, slots=True, kw_only=True)
class PartSpan:
    """One part of an object as bytes; `length` 0 (a part of an empty object) has no range."""

    offset: int
    length: int
    parts_count: int

    @property
    def byte_range(self) -> ByteRange | None:
        if self.length == 0:
            return None
        return ByteRange(first=self.offset, last=self.offset + self.length - 1)


def select_part(part_sizes: Sequence[int], part_number: int) -> PartSpan:
    """The bytes of part `part_number` (from 1). An object that was put whole is one part.

    A part that is not there is InvalidPart 400: the public S3 test suite asks for that.
    """
    if not 1 <= part_number <= len(part_sizes):
        raise S3Error("InvalidPart", PartNumber=str(part_number))
    offset = sum(part_sizes[: part_number - 1])
    length = part_sizes[part_number - 1]
    return PartSpan(offset=offset, length=length, parts_count=len(part_sizes))


def check_range_or_part(*, range_header: str | None, part_number: str | None) -> None:
    """Both at once have no meaning."""
    if range_header is not None and part_number is not None:
        message = "Cannot specify both Range header and partNumber query parameter"
        raise S3Error("InvalidRequest", message)
