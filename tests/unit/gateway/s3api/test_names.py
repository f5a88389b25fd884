"""Names: what S3 allows, what the SDKs decode, and bounds on everything."""

from urllib.parse import quote, unquote, unquote_plus, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3api import names
from gateway.s3api.errors import S3Error
from gateway.s3api.names import CopySource

TEXT = st.text(st.characters(codec="utf-8"), max_size=100)


def _code(error: pytest.ExceptionInfo[S3Error]) -> str:
    return error.value.code


@pytest.mark.parametrize(
    "name",
    ["abc", "a" * 63, "0bc", "a-b", "a.b.c", "aaa.111", "1.2.3", "1.2.3.4.5", "docs-2024", "a--b"],
)
def test_is_new_bucket_name_allowed_by_s3_is_true(name: str) -> None:
    assert names.is_new_bucket_name(name)
    names.check_new_bucket_name(name)


@pytest.mark.parametrize(
    "name",
    [
        *("", "a", "ab", "a" * 64, "Abc", "a_b", "-abc", "abc-", ".abc", "abc.", "a..b"),
        *("a.-b", "a-.b", "a b", "abc\n", "\nabc", "äbc", "a/b", "..."),
    ],
)
def test_is_bucket_name_impossible_is_false(name: str) -> None:
    assert not names.is_bucket_name(name)
    with pytest.raises(S3Error) as caught:
        names.check_bucket_name(name)
    assert (_code(caught), caught.value.extra) == ("InvalidBucketName", {"BucketName": name})


@pytest.mark.parametrize(
    "name",
    [
        *("192.168.5.4", "999.1.1.1", "xn--abc", "sthree-abc", "amzn-s3-demo-x"),
        *("abc-s3alias", "abc--ol-s3", "abc.mrap", "abc--x-s3", "abc--table-s3"),
    ],
)
def test_is_new_bucket_name_reserved_is_false_though_possible(name: str) -> None:
    assert not names.is_new_bucket_name(name)
    with pytest.raises(S3Error, match="InvalidBucketName"):
        names.check_new_bucket_name(name)


def test_check_key_counts_utf8_bytes() -> None:
    assert names.check_key("€" * 341) == "€".encode() * 341
    with pytest.raises(S3Error) as caught:
        names.check_key("€" * 342)
    assert caught.value.extra == {"Size": "1026", "MaxSizeAllowed": "1024"}
    with pytest.raises(S3Error, match="InvalidArgument"):
        names.check_key("")
    with pytest.raises(S3Error, match="InvalidURI"):
        names.check_key("\udc80")


@given(raw=st.binary(max_size=100))
def test_percent_decode_quoted_bytes_come_back(raw: bytes) -> None:
    assert names.percent_decode(quote(raw, safe="").encode()) == raw


@given(raw=st.binary(max_size=60))
def test_percent_decode_agrees_with_urllib_or_refuses(raw: bytes) -> None:
    try:
        assert names.percent_decode(raw) == unquote_to_bytes(raw)
    except S3Error as error:
        assert error.code == "InvalidURI"
        assert b"%" in raw


@given(text=TEXT)
def test_url_encode_is_decoded_by_the_sdk_and_is_plain_ascii(text: str) -> None:
    encoded = names.url_encode(text)
    assert unquote_plus(encoded) == text
    assert encoded.isascii()
    assert unquote(encoded) == text
    assert not set(encoded) & set('<>&" \n\r\t\0~+')


def test_url_encode_writes_as_the_public_suite_expects() -> None:
    assert names.url_encode("a b/c+d~e*f(é)%") == "a%20b/c%2Bd%7Ee*f%28%C3%A9%29%25"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("b-1/k", ("b-1", "k", None)),
        ("/b-1/k", ("b-1", "k", None)),
        ("/b-1/a/b//c", ("b-1", "a/b//c", None)),
        ("b-1%2Fk", ("b-1", "k", None)),
        ("%2Fb-1%2Fk", ("b-1", "k", None)),
        ("b-1/a%20b+c", ("b-1", "a b+c", None)),
        ("b-1/%2525", ("b-1", "%25", None)),
        ("b-1/../x", ("b-1", "../x", None)),
        ("b-1//", ("b-1", "/", None)),
        ("b-1/k?versionId=v%2F1", ("b-1", "k", "v/1")),
        ("b-1/k?x?versionId=1", ("b-1", "k?x", "1")),
        ("b-1/k?x=1", ("b-1", "k?x=1", None)),
        ("b-1/k%3FversionId=1", ("b-1", "k?versionId=1", None)),
        ("b-1/%C3%A9", ("b-1", "é", None)),
    ],
)
def test_parse_copy_source_valid_is_decoded_once(
    value: str, expected: tuple[str, str, str | None]
) -> None:
    bucket, key, version_id = expected
    assert names.parse_copy_source(value) == CopySource(
        bucket=bucket, key=key, key_bytes=key.encode(), version_id=version_id
    )


@pytest.mark.parametrize(
    "value",
    [
        *("", "/", "b-1", "b-1/", "/b-1/", "//k", "B_1/k", "b-1/%zz", "b-1/%ff", "b-1/k%"),
        *("b-1/k?versionId=", "b-1/k?versionId=%ff", "arn:aws:s3:::b-1/k", "b-1/€"),
    ],
)
def test_parse_copy_source_malformed_is_invalid_argument(value: str) -> None:
    with pytest.raises(S3Error) as caught:
        names.parse_copy_source(value)
    assert _code(caught) == "InvalidArgument"
    assert caught.value.extra["ArgumentName"] == "x-amz-copy-source"


def test_parse_copy_source_key_too_long_is_refused() -> None:
    with pytest.raises(S3Error, match="KeyTooLongError"):
        names.parse_copy_source("b-1/" + "k" * 1025)


@given(key=TEXT.filter(bool), version=st.none() | st.text("abc-_./", min_size=1))
def test_parse_copy_source_quoted_by_an_sdk_comes_back(key: str, version: str | None) -> None:
    suffix = "" if version is None else f"?versionId={version}"
    source = names.parse_copy_source(f"b-1/{quote(key)}{suffix}")
    assert (source.key, source.version_id) == (key, version)


@pytest.mark.parametrize(
    ("sent", "bare"),
    [('"x"', "x"), ("x", "x"), ('W/"x"', "x"), (' "x" ', "x"), ('"', '"'), ("", "")],
)
def test_unquote_etag_takes_every_form(sent: str, bare: str) -> None:
    assert names.unquote_etag(sent) == bare


def test_quote_etag_twice_is_quoted_once() -> None:
    assert names.quote_etag(names.quote_etag("x-3")) == '"x-3"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [("", 1000), ("0", 0), ("1", 1), ("1000", 1000), ("1001", 1000), ("2147483647", 1000)],
)
def test_parse_max_keys_in_range_is_capped(text: str, expected: int) -> None:
    assert names.parse_max_keys({"max-keys": text}) == expected


@pytest.mark.parametrize(
    "text", ["-1", "blah", "1.5", "1e3", " 1", "0x10", "٣", "2147483648", "9" * 5000, "1_000"]
)
def test_parse_max_keys_nonsense_is_invalid_argument(text: str) -> None:
    with pytest.raises(S3Error) as caught:
        names.parse_max_keys({"max-keys": text})
    assert caught.value.extra == {"ArgumentName": "max-keys", "ArgumentValue": text}
    assert _code(caught) == "InvalidArgument"


def test_parse_counts_absent_have_their_defaults() -> None:
    assert names.parse_max_keys({}) == names.parse_max_parts({}) == 1000
    assert names.parse_max_uploads({}) == names.parse_max_buckets({}) == 1000
    assert names.parse_part_number_marker({}) == 0
    assert names.parse_part_number_marker({"part-number-marker": "7"}) == 7
    with pytest.raises(S3Error, match="InvalidArgument"):
        names.parse_max_buckets({"max-buckets": "0"})


@pytest.mark.parametrize("text", ["0", "10001", "-1", "", "x", "1.0", "9" * 5000])
def test_parse_part_number_out_of_range_is_invalid_argument(text: str) -> None:
    with pytest.raises(S3Error, match="InvalidArgument"):
        names.parse_part_number(text)


def test_parse_part_number_limits_are_valid() -> None:
    assert (names.parse_part_number("1"), names.parse_part_number("10000")) == (1, 10000)


def test_parse_version_id_empty_is_invalid_argument() -> None:
    assert names.parse_version_id({}) is None
    assert names.parse_version_id({"versionId": "null"}) == "null"
    with pytest.raises(S3Error, match="InvalidArgument"):
        names.parse_version_id({"versionId": ""})


def test_parse_encoding_type_knows_url_only() -> None:
    assert names.parse_encoding_type("url")
    assert not names.parse_encoding_type(None)
    assert not names.parse_encoding_type("")
    with pytest.raises(S3Error, match="InvalidArgument"):
        names.parse_encoding_type("base64")


def test_check_list_text_longer_than_a_key_is_invalid_argument() -> None:
    assert names.check_list_text("delimiter", "/" * 1024) == "/" * 1024
    with pytest.raises(S3Error, match="InvalidArgument"):
        names.check_list_text("delimiter", "é" * 513)
