"""What a request says of the object that it stores: rights and codings."""

from __future__ import annotations

import pytest

from gateway.request_head import RequestHead
from gateway.s3api.errors import S3Error
from gateway.s3api.object_head import parse_object_head, refuse_grants

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


@pytest.mark.parametrize("acl", ["private", "bucket-owner-full-control", "bucket-owner-read"])
def test_canned_acl_that_gives_no_rights_is_accepted(acl: str) -> None:
    refuse_grants({"x-amz-acl": acl})


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"x-amz-acl": "public-read"}, 501),
        ({"x-amz-acl": "authenticated-read"}, 501),
        ({"x-amz-acl": "public-ready"}, 400),
        ({"x-amz-acl": ""}, 400),
        ({"x-amz-grant-read": "id=somebody"}, 501),
    ],
)
def test_acl_that_gives_rights_or_does_not_exist_is_refused(
    headers: dict[str, str], status: int
) -> None:
    with pytest.raises(S3Error) as caught:
        refuse_grants(headers)
    assert caught.value.status == status
