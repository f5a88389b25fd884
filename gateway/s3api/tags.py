"""Tag sets: limits, and the x-amz-tagging header.

Rules: pure; the same limits whether the tags came in a header or in a document.
Source: AWS "Categorizing your storage using tags", PutObject (x-amz-tagging).
"""

from collections.abc import Iterable
from typing import Final
from urllib.parse import unquote_plus

from astra.constants import BUCKET_TAGS_MAX, OBJECT_TAGS_MAX
from gateway.s3api.errors import S3Error

TAG_KEY_LENGTH_MAX: Final = 128
TAG_VALUE_LENGTH_MAX: Final = 256
_PUNCTUATION: Final = frozenset(" _.:/=+-@")
_HEADER_LENGTH_MAX: Final = 16 * 1024

Tags = tuple[tuple[str, str], ...]


def _is_allowed(text: str) -> bool:
    return all(char.isalnum() or char in _PUNCTUATION or char.isspace() for char in text)


def _check_tag(key: str, value: str) -> None:
    if not 1 <= len(key) <= TAG_KEY_LENGTH_MAX or not _is_allowed(key):
        raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=key)
    if len(value) > TAG_VALUE_LENGTH_MAX or not _is_allowed(value):
        raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=key)
    if key.lower().startswith("aws:"):
        raise S3Error("InvalidTag", "System tags cannot be added/updated by requester", TagKey=key)


def _check_tags(pairs: Iterable[tuple[str, str]], *, limit: int, noun: str) -> Tags:
    tags = tuple(pairs)
    if len(tags) > limit:
        raise S3Error("InvalidTag", f"{noun} tags cannot be greater than {limit}")
    seen = set[str]()
    for key, value in tags:
        _check_tag(key, value)
        if key in seen:
            message = "Cannot provide multiple Tags with the same key"
            raise S3Error("InvalidTag", message, TagKey=key)
        seen.add(key)
    return tags


def check_object_tags(pairs: Iterable[tuple[str, str]]) -> Tags:
    """At most 10, keys unique, characters and lengths as S3 allows; otherwise InvalidTag."""
    return _check_tags(pairs, limit=OBJECT_TAGS_MAX, noun="Object")


def check_bucket_tags(pairs: Iterable[tuple[str, str]]) -> Tags:
    """At most 50, otherwise as check_object_tags."""
    return _check_tags(pairs, limit=BUCKET_TAGS_MAX, noun="Bucket")


def parse_tagging_header(value: str) -> Tags:
    """The tags of x-amz-tagging, a URL query string, checked as the tags of an object."""
    malformed = S3Error(
        "InvalidArgument",
        "The header 'x-amz-tagging' shall be encoded as UTF-8 then URLEncoded URL query "
        "parameters without tag name duplicates.",
        ArgumentName="x-amz-tagging",
        ArgumentValue=value[:256],
    )
    pieces = [piece for piece in value.split("&") if piece]
    if len(value) > _HEADER_LENGTH_MAX or len(pieces) > 2 * OBJECT_TAGS_MAX:
        raise malformed
    try:
        split = [piece.partition("=") for piece in pieces]
        pairs = [
            (unquote_plus(key, errors="strict"), unquote_plus(text, errors="strict"))
            for key, _, text in split
        ]
    except UnicodeDecodeError as error:
        raise malformed from error
    if len({key for key, _ in pairs}) != len(pairs):
        raise malformed
    return check_object_tags(sorted(pairs))  # a set: shown in the order of its keys
