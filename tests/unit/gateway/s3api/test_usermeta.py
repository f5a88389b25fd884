"""User metadata: the same bytes back, bounded, no header injection."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3api.errors import S3Error
from gateway.s3api.usermeta import metadata_headers, parse_user_metadata

VALUE = st.binary(max_size=100).filter(
    lambda value: value == value.strip(b" \t") and not set(value) & {*range(9), *range(10, 32), 127}
)


def test_parse_user_metadata_takes_only_its_headers_in_lower_case() -> None:
    headers = [(b"X-Amz-Meta-Color", b" red "), (b"x-amz-acl", b"private"), (b"host", b"h")]
    assert parse_user_metadata(headers) == {"color": "red"}


def test_parse_user_metadata_equal_names_are_joined() -> None:
    headers = [(b"x-amz-meta-a", b"1"), (b"X-AMZ-META-A", b"2")]
    assert parse_user_metadata(headers) == {"a": "1,2"}


@given(value=VALUE)
def test_metadata_any_bytes_come_back_as_they_were(value: bytes) -> None:
    headers = [(b"x-amz-meta-name", value)]
    assert metadata_headers(parse_user_metadata(headers)) == headers


@pytest.mark.parametrize(
    "value", ["é".encode(), "é".encode("latin-1"), b"=?UTF-8?B?w6k=?=", "😀".encode()]
)
def test_metadata_of_each_encoding_comes_back_as_it_was(value: bytes) -> None:
    headers = [(b"x-amz-meta-name", value)]
    assert metadata_headers(parse_user_metadata(headers)) == headers


@pytest.mark.parametrize(
    "header",
    [
        (b"x-amz-meta-", b"v"),
        (b"x-amz-meta-a b", b"v"),
        (b"x-amz-meta-a\xff", b"v"),
        (b"x-amz-meta-a", b"v\r\nset-cookie: x"),
        (b"x-amz-meta-a", b"v\0"),
        (b"x-amz-meta-a", b"v\x7f"),
    ],
)
def test_parse_user_metadata_that_no_header_carries_is_refused(
    header: tuple[bytes, bytes],
) -> None:
    with pytest.raises(S3Error, match="InvalidArgument"):
        parse_user_metadata([header])


def test_parse_user_metadata_is_bounded_by_2_kib_of_names_and_values() -> None:
    assert parse_user_metadata([(b"x-amz-meta-ab", b"v" * 2046)])
    with pytest.raises(S3Error) as caught:
        parse_user_metadata([(b"x-amz-meta-ab", b"v" * 2047)])
    assert caught.value.code == "MetadataTooLarge"
    assert caught.value.extra == {"Size": "2049", "MaxSizeAllowed": "2048"}
