"""How a listing is asked for and how a page continues, without a cluster."""

import pytest

from astra.model import Checksum, ObjectVersion, encode_version_id
from astra.wire import ListedObject, ObjectPage
from gateway.s3api.errors import S3Error
from gateway.s3api.listing import (
    Wanted,
    next_token,
    object_entries,
    parse_version_marker,
    parse_wanted,
)
from gateway.s3api.listing_tokens import decode_objects_token


def test_parse_wanted_of_nothing_is_the_first_thousand() -> None:
    expected = Wanted(prefix="", delimiter=None, max_keys=1000, url_encoded=False)
    assert parse_wanted({}) == expected
    assert parse_wanted({"delimiter": "", "prefix": "", "max-keys": ""}) == expected


def test_parse_wanted_of_everything_is_kept() -> None:
    query = {"prefix": "p/", "delimiter": "/", "max-keys": "5", "encoding-type": "url"}
    assert parse_wanted(query) == Wanted(prefix="p/", delimiter="/", max_keys=5, url_encoded=True)


@pytest.mark.parametrize(
    "query",
    [
        {"max-keys": "blah"},
        {"max-keys": "-1"},
        {"max-keys": str(2**31)},
        {"encoding-type": "URL"},
        {"prefix": "x" * 1025},
        {"delimiter": "é" * 513},
    ],
)
def test_parse_wanted_of_nonsense_is_invalid_argument(query: dict[str, str]) -> None:
    with pytest.raises(S3Error) as refused:
        parse_wanted(query)
    assert refused.value.code == "InvalidArgument"


def test_next_token_of_the_last_page_is_none() -> None:
    assert next_token(ObjectPage(objects=(), prefixes=(b"p/",))) is None


@pytest.mark.parametrize(("resume", "is_prefix"), [(b"p/", True), (b"q", False)])
def test_next_token_says_where_to_resume(resume: bytes, is_prefix: bool) -> None:
    token = next_token(ObjectPage(objects=(), prefixes=(b"p/",), resume=resume))
    assert token is not None
    decoded = decode_objects_token(token)
    assert (decoded.after, decoded.skip_prefix) == (resume, is_prefix)


@pytest.mark.parametrize(
    ("checksum", "algorithm", "kind"),
    [
        (None, None, None),
        (Checksum(algorithm="CRC32", value="AAAAAA=="), "CRC32", "FULL_OBJECT"),
        (Checksum(algorithm="SHA1", value="x-2", composite=True), "SHA1", "COMPOSITE"),
    ],
)
def test_object_entries_show_the_version(
    checksum: Checksum | None, algorithm: str | None, kind: str | None
) -> None:
    version = ObjectVersion(
        version_id="null",
        order=1,
        modified_ms=5,
        owner_id="o",
        size=7,
        etag="e",
        storage_class="GLACIER",
        checksum=checksum,
    )
    (entry,) = object_entries([ListedObject(key="é".encode(), version=version)], None)
    assert (entry.key, entry.etag, entry.size, entry.modified_ms) == ("é", "e", 7, 5)
    assert (entry.storage_class, entry.owner) == ("GLACIER", None)
    assert (entry.checksum_algorithm, entry.checksum_type) == (algorithm, kind)


@pytest.mark.parametrize("query", [{}, {"version-id-marker": ""}, {"key-marker": "k"}])
def test_parse_version_marker_absent_is_none(query: dict[str, str]) -> None:
    assert parse_version_marker(query) is None


@pytest.mark.parametrize("marker", ["null", encode_version_id(9, b"")])
def test_parse_version_marker_within_a_key_is_kept(marker: str) -> None:
    query = {"key-marker": "k", "version-id-marker": marker}
    assert parse_version_marker(query) == marker


@pytest.mark.parametrize(
    "query",
    [
        {"version-id-marker": "null"},
        {"version-id-marker": "null", "key-marker": ""},
        {"version-id-marker": "no-id", "key-marker": "k"},
    ],
)
def test_parse_version_marker_of_nonsense_is_invalid_argument(query: dict[str, str]) -> None:
    with pytest.raises(S3Error) as refused:
        parse_version_marker(query)
    assert refused.value.code == "InvalidArgument"
