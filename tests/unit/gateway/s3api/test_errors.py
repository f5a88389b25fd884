"""The error table and its rendering: complete against the SDK, safe with any text."""

import re
from pathlib import Path

import botocore.session
import pytest
from botocore.model import StructureShape
from botocore.parsers import create_parser
from hypothesis import given
from hypothesis import strategies as st

from gateway.request_errors import AuthError, RequestError
from gateway.s3api.errors import (
    ERRORS,
    S3Error,
    header_not_implemented,
    operation_not_implemented,
    render,
)

STATUSES = {301, 304, 307, 400, 403, 404, 405, 409, 411, 412, 415, 416, 500, 501, 503, 507}
GATEWAY = Path(__file__).parents[4] / "gateway"


def _rendered(error: RequestError, method: str = "GET", resource: str = "/b/k") -> bytes:
    return render(error, method=method, resource=resource, request_id="R1", host_id="H1").body


def test_table_every_status_and_message_is_sane() -> None:
    for code, (status, message) in ERRORS.items():
        assert re.fullmatch(r"[A-Z][A-Za-z0-9.]+", code)
        assert status in {
            301,
            304,
            307,
            400,
            403,
            404,
            405,
            409,
            411,
            412,
            415,
            416,
            500,
            501,
            503,
            507,
        }
        assert message
        assert len(message) < 300


def test_table_has_every_error_of_the_sdk_model_with_its_status() -> None:
    model = botocore.session.Session().get_service_model("s3")
    modelled = {
        shape.name: int(shape.metadata["error"]["httpStatusCode"]) for shape in model.error_shapes
    }
    assert len(modelled) >= 20
    assert {code: ERRORS[code][0] for code in modelled if code in ERRORS} == modelled


def test_table_statuses_that_clients_act_on_are_those_of_s3() -> None:
    expected = {
        "NoSuchKey": 404, "NoSuchBucket": 404, "NoSuchUpload": 404, "AccessDenied": 403,
        "SignatureDoesNotMatch": 403, "BucketNotEmpty": 409, "BucketAlreadyExists": 409,
        "PreconditionFailed": 412, "InvalidRange": 416, "MissingContentLength": 411,
        "SlowDown": 503, "ServiceUnavailable": 503, "InternalError": 500, "NotImplemented": 501,
        "RequestTimeout": 400, "BadDigest": 400, "EntityTooSmall": 400, "NotModified": 304,
        "ConditionalRequestConflict": 409, "MethodNotAllowed": 405, "ExpiredToken": 400,
    }  # fmt: skip
    assert {code: ERRORS[code][0] for code in expected} == expected


def test_table_has_every_code_that_gateway_code_names() -> None:
    raised = re.compile(r'(?:S3Error|AuthError|ChunkError|ChecksumError|RequestError)\(\s*"(\w+)"')
    codes = {
        code for path in GATEWAY.rglob("*.py") for code in raised.findall(path.read_text("utf-8"))
    }
    assert len(codes) > 10
    assert codes - set(ERRORS) == set()


def test_s3_error_unknown_code_is_a_programming_error() -> None:
    with pytest.raises(ValueError, match="NoSuchThing"):
        S3Error("NoSuchThing")


def test_s3_error_without_message_has_the_one_of_the_table() -> None:
    error = S3Error("NoSuchKey", Key="k")
    assert (error.status, error.message) == (404, "The specified key does not exist.")
    assert S3Error("NoSuchKey", "gone").message == "gone"
    assert isinstance(error, RequestError)


def test_render_is_the_document_of_s3() -> None:
    error = S3Error("NoSuchKey", headers={"x-amz-delete-marker": "true"}, Key="a&b")
    rendered = render(error, method="GET", resource="/b/a&b", request_id="R1", host_id="H1")
    assert rendered.status == 404
    assert rendered.headers == {"x-amz-delete-marker": "true", "content-type": "application/xml"}
    assert rendered.body == (
        b'<?xml version="1.0" encoding="UTF-8"?>\n'
        b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message>"
        b"<Key>a&amp;b</Key><Resource>/b/a&amp;b</Resource>"
        b"<RequestId>R1</RequestId><HostId>H1</HostId></Error>"
    )


@pytest.mark.parametrize(
    ("code", "method", "empty"),
    [
        ("NoSuchKey", "HEAD", True),
        ("NotModified", "GET", True),
        ("NotModified", "HEAD", True),
        ("NoSuchKey", "GET", False),
        ("NoSuchKey", "DELETE", False),
        ("PreconditionFailed", "GET", False),
    ],
)
def test_render_body_is_empty_for_head_and_304(code: str, method: str, empty: bool) -> None:
    rendered = render(
        S3Error(code, headers={"etag": '"x"'}),
        method=method, resource="/", request_id="r", host_id="h",
    )  # fmt: skip
    assert (rendered.body == b"") is empty
    assert ("content-type" in rendered.headers) is not empty
    assert rendered.headers["etag"] == '"x"'


def test_render_error_of_another_layer_uses_the_table() -> None:
    rendered = render(
        AuthError("SignatureDoesNotMatch", "no", {"AWSAccessKeyId": "A"}),
        method="PUT", resource="/", request_id="r", host_id="h",
    )  # fmt: skip
    assert rendered.status == 403
    assert b"<AWSAccessKeyId>A</AWSAccessKeyId>" in rendered.body


def test_render_code_without_a_row_is_500_and_says_nothing() -> None:
    error = RequestError("Nonsense", "secret detail", {"Detail": "secret"})
    rendered = render(error, method="GET", resource="/", request_id="r", host_id="h")
    assert rendered.status == 500
    assert b"InternalError" in rendered.body
    assert b"secret" not in rendered.body


def test_render_header_value_with_line_breaks_cannot_make_a_header() -> None:
    error = S3Error("PermanentRedirect", headers={"location": "/x\r\nset-cookie: a\x00"})
    rendered = render(error, method="GET", resource="/", request_id="r", host_id="h")
    assert rendered.headers["location"] == "/x  set-cookie: a "


def test_not_implemented_names_what_is_missing() -> None:
    assert operation_not_implemented("GetBucketAcl").message == "GetBucketAcl is not implemented."
    assert operation_not_implemented("GetBucketAcl").status == 501
    assert header_not_implemented("x-amz-y").extra == {"Header": "x-amz-y"}


@given(text=st.text(max_size=80))
def test_render_any_text_parses_with_the_sdk(text: str) -> None:
    body = _rendered(S3Error("NoSuchKey", text, Key=text), resource=text)
    shape = StructureShape("Output", {"type": "structure", "members": {}})
    response = {"status_code": 404, "headers": {}, "body": body}
    parsed = create_parser("rest-xml").parse(response, shape)
    error = parsed["Error"]
    assert error["Code"] == "NoSuchKey"
    plain = all(char.isprintable() for char in text)
    if plain and text:
        assert error["Message"] == text
        assert error["Key"] == text
    assert body.endswith(b"<RequestId>R1</RequestId><HostId>H1</HostId></Error>")
