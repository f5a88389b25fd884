"""What a request says of the object that it stores: codings, metadata."""

from __future__ import annotations

import pytest

from gateway.request_head import RequestHead
from gateway.s3api.errors import S3Error
from gateway.s3api.object_head import parse_object_head

HEAD = RequestHead(method="PUT", raw_path=b"/bucket/key", query=b"", headers=())


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("gzip", "gzip"),
        ("deflate, gzip", "deflate, gzip"),
        ("deflate,gzip", "deflate,gzip"),
        ("aws-chunked, gzip", "gzip"),
        ("gzip,aws-chunked", "gzip"),
        ("deflate,gzip,aws-chunked", "deflate, gzip"),
        ("aws-chunked", None),
        ("aws-chunked, aws-chunked", None),
    ],
)
def test_content_encoding_stored_is_as_sent_without_the_transfer(
    sent: str, kept: str | None
) -> None:
    found = parse_object_head(HEAD, {"content-encoding": sent}, owner_id="u")
    assert dict(found.headers).get("content-encoding") == kept


def test_metadata_that_a_presigner_moved_into_the_query_is_kept() -> None:
    """The SDK for JavaScript does; S3 takes it, and so was metadata lost. A header wins."""
    head = RequestHead(
        method="PUT", raw_path=b"/b/k", query=b"", headers=((b"x-amz-meta-both", b"header"),)
    )
    headers = {"x-amz-meta-both": "header", "x-amz-meta-color": "bl\u00fce"}  # as dispatch has it
    found = dict(parse_object_head(head, headers, owner_id="u").user_metadata)
    assert found == {"both": "header", "color": "bl\u00fce".encode().decode("latin-1")}


def test_metadata_in_the_query_breaks_no_header_line() -> None:
    with pytest.raises(S3Error):
        parse_object_head(HEAD, {"x-amz-meta-a": "x\r\nset-cookie: y"}, owner_id="u")
