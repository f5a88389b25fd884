"""What a request says of the object that it stores: codings."""

from __future__ import annotations

import pytest

from gateway.request_head import RequestHead
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
