"""Reading a claim of identity: one credential, in time and in scope (S3, S6, S16)."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import quote

import pytest

from gateway.sigv4 import Anonymous, parse_auth
from tests.support.s3_signing import (
    ACCESS_KEY,
    AWS_DATE,
    AWS_PRESIGNED,
    AWS_SCOPE,
    AWS_VECTORS,
    EMPTY_SHA256,
    accept,
    refuse,
    request_head,
    sign_header,
    sign_query,
    with_header,
)

# --- S3: one credential only -------------------------------------------------------------------


def test_parse_auth_nothing_offered_is_anonymous() -> None:
    assert parse_auth(request_head("GET", "/b?X-Amz-Date=x&X-Amz-Expires=1")) == Anonymous()


@pytest.mark.parametrize(
    "query", ["X-Amz-Signature=0", "x-amz-algorithm=AWS4-HMAC-SHA256", "X-Amz-Credential=a",
              "Signature=x", "AWSAccessKeyId=a&Signature=x"],
)  # fmt: skip
def test_parse_auth_header_and_query_refuses(query: str) -> None:
    head = replace(sign_header("GET", "/b"), query=query.encode())
    assert refuse(head).code == "InvalidArgument"


def test_parse_auth_two_authorization_headers_refuses() -> None:
    head = sign_header("GET", "/b")
    second = next(line for line in head.headers if line[0] == b"authorization")
    assert refuse(replace(head, headers=(*head.headers, second))).code == "InvalidArgument"


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ("", "AccessDenied"),
        ("AWS AKID:c2ln", "InvalidRequest"),
        ("AWS HAHAHA", "InvalidArgument"),
        ("AWS4-ECDSA-P256-SHA256 Credential=a", "InvalidRequest"),
        ("AWS4-HMAC-SHA1 Credential=a", "InvalidRequest"),
        ("AWS3-HTTPS a", "InvalidRequest"),
        ("none", "InvalidArgument"),
        ("Bearer eyJhbGciOiJub25lIn0.e30.", "InvalidArgument"),
        ("Basic Zm9v", "InvalidArgument"),
        ("AWS4 HAHAHA", "InvalidArgument"),
        ("aws4-hmac-sha256 Credential=a", "InvalidArgument"),
        ("AWS4-HMAC-SHA256", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=HAHAHA", "AuthorizationHeaderMalformed"),
        ("AWS4-HMAC-SHA256 Credential=a,Credential=b,Signature=c", "AuthorizationHeaderMalformed"),
        (
            f"AWS4-HMAC-SHA256 Credential={AWS_SCOPE},SignedHeaders=host,Signature=0,Signature=0",
            "AuthorizationHeaderMalformed",
        ),
        ("AWS4-HMAC-SHA256 ,,,,,,,", "AuthorizationHeaderMalformed"),
    ],
)
def test_parse_auth_refused_scheme_tells_why(value: str, code: str) -> None:
    head = request_head("GET", "/b", [("authorization", value), ("x-amz-date", AWS_DATE)])
    assert refuse(head).code == code


def test_parse_auth_sigv2_query_refuses() -> None:
    head = request_head("GET", "/b/k?AWSAccessKeyId=a&Expires=1&Signature=c%3D")
    assert refuse(head).code == "InvalidRequest"


@pytest.mark.parametrize(
    "credential",
    ["AK", "AK/20130524/r/s3", "/20130524/r/s3/aws4_request", "AK/20130523/r/s3/aws4_request",
     "AK/2013-5-24/r/s3/aws4_request", "AK/20130524/r/ec2/aws4_request",
     "AK/20130524/r/s3/aws3_request", "A" * 129 + "/20130524/r/s3/aws4_request",
     "AK/20130524/" + "r" * 65 + "/s3/aws4_request", "A K/20130524/r/s3/aws4_request"],
)  # fmt: skip
def test_parse_auth_bad_scope_refuses(credential: str) -> None:
    """S16: wrong service, date, terminal or shape."""
    value = (
        f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature={EMPTY_SHA256}"
    )
    head = request_head("GET", "/b", [("authorization", value), ("x-amz-date", AWS_DATE)])
    assert refuse(head).code == "AuthorizationHeaderMalformed"
    query = AWS_PRESIGNED.query.replace(
        AWS_SCOPE.replace("/", "%2F").encode(), quote(credential, safe="").encode()
    )
    presigned = replace(AWS_PRESIGNED, query=query)
    assert refuse(presigned).code == "AuthorizationQueryParametersError"


@pytest.mark.parametrize(
    "names",
    ["", "host;host", "Host", "host;x y", "host\x01", ";".join(f"h{n}" for n in range(200))],
)
def test_parse_auth_bad_signed_headers_refuses(names: str) -> None:
    value = f"AWS4-HMAC-SHA256 Credential={AWS_SCOPE}, SignedHeaders={names}, Signature=0"
    head = request_head("GET", "/b", [("authorization", value), ("x-amz-date", AWS_DATE)])
    assert refuse(head).code == "AuthorizationHeaderMalformed"


@pytest.mark.parametrize("names", ["host%0Ax", "host%0A", "host%3BHOST", "", "host%20", "%C3%A4"])
def test_parse_auth_presigned_bad_signed_headers_refuses(names: str) -> None:
    query = AWS_PRESIGNED.query.replace(b"SignedHeaders=host", b"SignedHeaders=" + names.encode())
    error = refuse(replace(AWS_PRESIGNED, query=query))
    assert error.code == "AuthorizationQueryParametersError"


# --- time --------------------------------------------------------------------------------------


@pytest.mark.parametrize("age_s", [900, -900, 0, 899.9])
def test_verify_clock_skew_within_15_minutes_accepts(age_s: float) -> None:
    assert accept(AWS_VECTORS["get_object"], age_s=age_s)


@pytest.mark.parametrize("age_s", [901, -901, 900.5, 1e9])
def test_verify_clock_skew_beyond_15_minutes_refuses(age_s: float) -> None:
    error = refuse(AWS_VECTORS["get_object"], age_s=age_s)
    assert error.code == "RequestTimeTooSkewed"
    assert error.extra["MaxAllowedSkewMilliseconds"] == "900000"


@pytest.mark.parametrize(
    "value", ["", "Bad Date", "20130524", "20130524T000000", "20131324T000000Z",
              "20130524T250000Z", "00000524T000000Z", "\uff120130524T000000Z",
              "20130524T000000Z,x"],
)  # fmt: skip
def test_parse_auth_bad_amz_date_refuses(value: str) -> None:
    head = with_header(AWS_VECTORS["get_object"], "x-amz-date", value)
    assert refuse(head).code == "AccessDenied"


@pytest.mark.parametrize("date", [None, "", "Bad Date", "24 May", "Fri, 24 May 99999 00:00:00 GMT"])
def test_parse_auth_no_usable_date_refuses(date: str | None) -> None:
    head = with_header(AWS_VECTORS["get_object"], "x-amz-date", None)
    assert refuse(with_header(head, "date", date)).code == "AccessDenied"


def test_verify_date_header_instead_of_amz_date_accepts() -> None:
    # botocore signs by Date when the request has one.
    head = sign_header("GET", "/b/k", [("Date", "is replaced")])
    assert head.header("x-amz-date") is None
    assert accept(head).access_key == ACCESS_KEY


# --- presigned ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("age_s", "is_valid"), [(59, True), (60, True), (61, False), (-900, True)])
def test_verify_presigned_lifetime_is_exact(age_s: int, is_valid: bool) -> None:
    head = sign_query("GET", "/b/k", expires_s=60)
    if is_valid:
        accept(head, age_s=age_s)
        return
    error = refuse(head, age_s=age_s)
    assert (error.code, error.message) == ("AccessDenied", "Request has expired")
    assert error.extra["X-Amz-Expires"] == "60"


def test_verify_presigned_signed_in_the_future_refuses() -> None:
    assert refuse(sign_query("GET", "/b/k"), age_s=-901).message == "Request is not yet valid"


@pytest.mark.parametrize(
    ("expires", "code"),
    [("0", "AccessDenied"), ("-1", "AccessDenied"), ("604801", "AccessDenied"),
     ("", "AuthorizationQueryParametersError"), ("x", "AuthorizationQueryParametersError"),
     ("1.5", "AuthorizationQueryParametersError"), ("%2B5", "AuthorizationQueryParametersError"),
     ("9" * 400, "AuthorizationQueryParametersError")],
)  # fmt: skip
def test_parse_auth_presigned_expires_out_of_range_refuses(expires: str, code: str) -> None:
    query = AWS_PRESIGNED.query.replace(b"Expires=86400", f"Expires={expires}".encode())
    assert refuse(replace(AWS_PRESIGNED, query=query)).code == code


@pytest.mark.parametrize(
    "name", ["Algorithm", "Credential", "Date", "Expires", "SignedHeaders", "Signature"]
)
def test_parse_auth_presigned_parameter_missing_or_doubled_refuses(name: str) -> None:
    parts = AWS_PRESIGNED.query.split(b"&")
    this = next(part for part in parts if part.startswith(f"X-Amz-{name}=".encode()))
    without = replace(AWS_PRESIGNED, query=b"&".join(part for part in parts if part != this))
    assert refuse(without).code == "AuthorizationQueryParametersError"
    mixed = this.replace(b"X-Amz", b"x-AMZ")
    for again in (this, this.lower(), mixed, this.replace(b"-", b"%2D", 2)):
        doubled = replace(AWS_PRESIGNED, query=b"&".join([*parts, again]))
        assert refuse(doubled).code == "AuthorizationQueryParametersError"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"AWS4-HMAC-SHA256", b"none"), (b"AWS4-HMAC-SHA256", b"AWS4-ECDSA-P256-SHA256"),
     (b"20130524T000000Z", b"yesterday")],
)  # fmt: skip
def test_parse_auth_presigned_bad_value_refuses(old: bytes, new: bytes) -> None:
    head = replace(AWS_PRESIGNED, query=AWS_PRESIGNED.query.replace(old, new))
    assert refuse(head).code == "AuthorizationQueryParametersError"


@pytest.mark.parametrize("extra", ["versionId=1", "partNumber=1", "response-content-type=a", "acl"])
def test_verify_presigned_added_parameter_refuses(extra: str) -> None:
    head = sign_query("GET", "/b/k")
    for query in (f"{extra}&".encode() + head.query, head.query + f"&{extra}".encode()):
        assert refuse(replace(head, query=query)).code == "SignatureDoesNotMatch"


def test_verify_presigned_for_get_used_for_another_method_refuses() -> None:
    head = sign_query("GET", "/b/k")
    for method in ("HEAD", "PUT", "DELETE", "get"):
        assert refuse(replace(head, method=method)).code == "SignatureDoesNotMatch"
