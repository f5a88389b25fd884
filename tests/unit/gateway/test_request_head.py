"""The one decoding of a request: what routing, signing and storage all read (S14, S15, S48)."""

from __future__ import annotations

import pytest

from gateway.request_errors import RequestError
from gateway.request_head import RequestHead
from tests.support.s3_signing import request_head, sign_header, sign_query


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        ("/b/a+b", "/b/a+b"), ("/b/%252e", "/b/%2e"), ("/b/%2Fx", "/b//x"), ("/b/./x", "/b/./x"),
        ("/b/../x", "/b/../x"), ("/b//x", "/b//x"), ("/b/%c3%A4", "/b/ä"),
        ("/b/a%CC%88", "/b/a\u0308"),
        ("/b/%00", "/b/\x00"), ("/b/%3FversionId=1", "/b/?versionId=1"),
    ],
)  # fmt: skip
def test_path_is_decoded_once_and_not_normalised(raw: str, path: str) -> None:
    assert request_head("GET", raw).path == path


@pytest.mark.parametrize("raw", [b"/%", b"/%4", b"/%zz", b"/%u00e4", b"/% 1", b"/a%2", b"/%-1"])
def test_damaged_escape_refuses(raw: bytes) -> None:
    for head in (RequestHead("GET", raw, b"", ()), RequestHead("GET", b"/", raw, ())):
        with pytest.raises(RequestError) as caught:
            assert head.path == "/"
            head.query_items()
        assert caught.value.code == "InvalidURI"


@pytest.mark.parametrize("raw", [b"/%ff", b"/%c3", b"/\xff", b"/%ed%a0%80", b"/%c0%ae"])
def test_text_that_is_not_utf8_refuses(raw: bytes) -> None:
    for head in (RequestHead("GET", raw, b"", ()), RequestHead("GET", b"/", raw, ())):
        with pytest.raises(RequestError) as caught:
            assert head.path == "/"
            head.query_items()
        assert caught.value.code == "InvalidURI"


def test_query_items_keep_order_repeats_and_empty_values() -> None:
    head = request_head("GET", "/b?acl&b=1&a=x=y&b=%26%3D&&c=&%C3%A4=+")
    assert head.query_items() == (
        ("acl", ""), ("b", "1"), ("a", "x=y"), ("b", "&="), ("c", ""), ("ä", " "),
    )  # fmt: skip


def test_header_repeated_reads_as_it_was_signed() -> None:
    head = request_head("GET", "/b", [("X-A", " 1 "), ("x-a", "2"), ("x-b", "")])
    assert head.header("x-a") == "1 ,2"
    assert head.header_values("x-a") == ("1", "2")
    assert head.header("x-b") == ""
    assert head.header("x-c") is None
    assert head.header_values("x-c") == ()


def test_repr_shows_no_signature() -> None:
    for head in (sign_header("GET", "/b/k", token="tok"), sign_query("GET", "/b/k", token="tok")):
        shown = repr(head)
        assert "/b/k" in shown
        for secret in ("Signature", "Credential", "tok"):
            assert secret not in shown


def test_equal_bytes_are_equal_heads_whatever_was_read() -> None:
    one, two = request_head("GET", "/b?a=1"), request_head("GET", "/b?a=1")
    one.query_items()
    assert one == two
    assert hash(one) == hash(two)
    assert one != request_head("GET", "/b?a=2")
