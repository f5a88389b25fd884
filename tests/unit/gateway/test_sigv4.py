"""SigV4 against AWS's published vectors, botocore's signers, and every refusal of SECURITY.md."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.request_errors import AuthError, RequestError
from gateway.request_head import RequestHead
from gateway.sigv4 import (
    Anonymous,
    HeaderAuth,
    PayloadKind,
    PresignedAuth,
    Verified,
    anonymous_payload,
    derive_signing_key,
    parse_auth,
    verify,
)
from gateway.sigv4_claim import parse_timestamp
from tests.support.s3_signing import (
    ACCESS_KEY,
    EMPTY_SHA256,
    HOST,
    SECRET,
    request_head,
    sign_header,
    sign_query,
    with_header,
)

AWS_HOST = "examplebucket.s3.amazonaws.com"
AWS_DATE = "20130524T000000Z"
AWS_SCOPE = f"{ACCESS_KEY}/20130524/us-east-1/s3/aws4_request"


def signed_at(auth: HeaderAuth | PresignedAuth) -> float:
    at = parse_timestamp(auth.timestamp)
    assert at is not None
    return at


def accept(head: RequestHead, secret: str = SECRET, age_s: float = 0) -> Verified:
    """Verifies `head` as if `age_s` had gone by since it was signed."""
    auth = parse_auth(head)
    assert not isinstance(auth, Anonymous)
    return verify(head, auth, secret, signed_at(auth) + age_s)


def refuse(head: RequestHead, secret: str = SECRET, age_s: float = 0) -> RequestError:
    with pytest.raises(RequestError) as caught:
        accept(head, secret, age_s)
    return caught.value


def aws_head(
    method: str, target: str, headers: Sequence[tuple[str, str]], signed: str, signature: str
) -> RequestHead:
    authorization = (
        f"AWS4-HMAC-SHA256 Credential={AWS_SCOPE},SignedHeaders={signed},Signature={signature}"
    )
    lines = [*headers, ("x-amz-date", AWS_DATE), ("Authorization", authorization)]
    return request_head(method, target, lines, AWS_HOST)


EMPTY = ("x-amz-content-sha256", EMPTY_SHA256)
AWS_VECTORS = {
    "get_object": aws_head(
        "GET",
        "/test.txt",
        [("Range", "bytes=0-9"), EMPTY],
        "host;range;x-amz-content-sha256;x-amz-date",
        "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
    ),
    "put_object": aws_head(
        "PUT",
        "/test$file.text",
        [
            ("Date", "Fri, 24 May 2013 00:00:00 GMT"),
            (
                "x-amz-content-sha256",
                "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
            ),
            ("x-amz-storage-class", "REDUCED_REDUNDANCY"),
        ],
        "date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
        "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
    ),
    "get_lifecycle": aws_head(
        "GET",
        "/?lifecycle",
        [EMPTY],
        "host;x-amz-content-sha256;x-amz-date",
        "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
    ),
    "list_objects": aws_head(
        "GET",
        "/?max-keys=2&prefix=J",
        [EMPTY],
        "host;x-amz-content-sha256;x-amz-date",
        "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
    ),
}
AWS_PRESIGNED = request_head(
    "GET",
    "/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256"
    f"&X-Amz-Credential={AWS_SCOPE.replace('/', '%2F')}&X-Amz-Date={AWS_DATE}"
    "&X-Amz-Expires=86400&X-Amz-SignedHeaders=host"
    "&X-Amz-Signature=aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
    [],
    AWS_HOST,
)


@pytest.mark.parametrize("name", AWS_VECTORS)
def test_verify_aws_header_example_accepts(name: str) -> None:
    verified = accept(AWS_VECTORS[name])
    assert verified.access_key == ACCESS_KEY
    assert verified.payload.kind is PayloadKind.SINGLE
    assert verified.scope == "20130524/us-east-1/s3/aws4_request"


def test_verify_aws_presigned_example_accepts() -> None:
    assert accept(AWS_PRESIGNED).payload.kind is PayloadKind.UNSIGNED


# --- botocore as the oracle -------------------------------------------------------------------

ALPHABET = "abzAZ09-_.~!*'()$&+,/:;=?@#%\"<>[]\\^`{|} äöé漢😀"
SPECIAL_PATHS = ("/b/../x", "/b/./x", "/b//x", "//", "/b/%2Fx", "/b/%252e", "/b/a+b", "/b/%2e%2E")
HEADER_NAMES = ("x-amz-meta-a", "x-amz-meta-B", "x-amz-acl", "content-type", "cache-control")


def random_text(rng: random.Random, length_max: int) -> str:
    return "".join(rng.choice(ALPHABET) for _ in range(rng.randint(0, length_max)))


def random_target(rng: random.Random) -> str:
    if rng.random() < 0.15:
        path = rng.choice(SPECIAL_PATHS)
    else:
        text = random_text(rng, 20)
        key = unicodedata.normalize("NFD", text) if rng.random() < 0.5 else text
        path = "/bucket/" + quote(key, safe=rng.choice(("/~", "/~!*'()$&+,:;=@")))
    names = ("prefix", "uploads", "a", "A", "versionId", "ä", "x y")
    pairs = [
        f"{quote(rng.choice(names), safe='-_.~')}={quote(random_text(rng, 8), safe='-_.~')}"
        for _ in range(rng.randint(0, 4))
    ]
    return f"{path}?{'&'.join(pairs)}" if pairs else path


def random_headers(rng: random.Random) -> list[tuple[str, str]]:
    values = ("a", "  two   spaces ", "tab\tseparated", "a,b", "", '"quoted  run"', "x" * 200)
    return [(rng.choice(HEADER_NAMES), rng.choice(values)) for _ in range(rng.randint(0, 4))]


def random_signed(rng: random.Random) -> RequestHead:
    method = rng.choice(("GET", "PUT", "HEAD", "DELETE", "POST"))
    region = rng.choice(("us-east-1", "", "eu-central-1", "garage"))
    token = rng.choice((None, None, "session/token+="))
    target, headers = random_target(rng), random_headers(rng)
    if rng.random() < 0.5:
        return sign_query(method, target, headers, region=region, token=token)
    body = rng.randbytes(rng.randint(0, 32))
    return sign_header(method, target, headers, body, region=region, token=token)


def _add_query(head: RequestHead) -> RequestHead:
    return replace(head, query=head.query + b"&versionId=x")


def _change_signature(head: RequestHead) -> RequestHead:
    auth = parse_auth(head)
    assert not isinstance(auth, Anonymous)
    bad = ("0" if auth.signature[0] != "0" else "1") + auth.signature[1:]
    lines = tuple(
        (name, value.replace(auth.signature.encode(), bad.encode())) for name, value in head.headers
    )
    query = head.query.replace(auth.signature.encode(), bad.encode())
    return replace(head, headers=lines, query=query)


MUTATIONS: tuple[Callable[[RequestHead], RequestHead], ...] = (
    lambda head: replace(head, method="PATCH"),
    lambda head: replace(head, raw_path=head.raw_path + b"x"),
    lambda head: replace(head, raw_path=head.raw_path.replace(b"/", b"//", 1)),
    lambda head: with_header(head, "host", "other:9000"),
    lambda head: with_header(head, "x-amz-copy-source", "/secret/key"),
    lambda head: with_header(head, "x-amz-tagging", "a=b"),
    _add_query,
    _change_signature,
)


def test_verify_random_requests_agrees_with_botocore() -> None:
    rng = random.Random(20261122)
    for number in range(2000):
        head = random_signed(rng)
        verified = accept(head)
        assert verified.access_key == ACCESS_KEY, number


def test_verify_random_requests_changed_in_one_place_refuses() -> None:
    rng = random.Random(4)
    for number in range(2400):
        head = MUTATIONS[number % len(MUTATIONS)](random_signed(rng))
        error = refuse(head)
        assert error.code in ("SignatureDoesNotMatch", "AccessDenied"), (number, head)


def test_verify_wrong_secret_refuses() -> None:
    for head in (sign_header("GET", "/b/k"), sign_query("GET", "/b/k")):
        assert refuse(head, secret=SECRET + "x").code == "SignatureDoesNotMatch"


@pytest.mark.parametrize("region", ["", "us-east-1", "any-where-9"])
def test_verify_any_region_accepts_and_binds_it(region: str) -> None:
    head = sign_header("GET", "/b/k", region=region)
    assert accept(head).scope.split("/")[1] == region
    value = head.header("authorization") or ""
    moved = value.replace(f"/{region}/s3/", "/other/s3/")
    assert refuse(with_header(head, "authorization", moved)).code == "SignatureDoesNotMatch"


def test_verify_unsigned_foreign_headers_accepts() -> None:
    head = sign_header("GET", "/b/k")
    for name in ("x-forwarded-for", "user-agent", "content-type", "x-amzn-trace-id"):
        head = with_header(head, name, "added on the way")
    assert accept(head).access_key == ACCESS_KEY


def test_verify_non_canonical_escapes_accepts_both_readings() -> None:
    # The signer may sign the canonical form and send another spelling of the same key.
    head = sign_header("GET", "/b/a%20b%7Ec")
    assert head.raw_path == b"/b/a%20b%7Ec"
    accept(head)
    canonical = sign_header("GET", "/b/a%20b~c")
    accept(replace(canonical, raw_path=b"/b/a%20b%7ec"))


@pytest.mark.parametrize("other", [b"/b/a%252Fc", b"/b/a//c", b"/b/./a/c", b"/b/a/c/", b"/b/A/c"])
def test_verify_other_key_of_similar_spelling_refuses(other: bytes) -> None:
    head = sign_header("GET", "/b/a/c")
    assert refuse(replace(head, raw_path=other)).code == "SignatureDoesNotMatch"


def test_query_plus_is_a_space_for_signing_and_reading() -> None:
    head = sign_header("GET", "/b?prefix=a%20b")
    spelled = replace(head, query=b"prefix=a+b")
    accept(spelled)
    assert spelled.query_items() == (("prefix", "a b"),)
    assert refuse(replace(head, query=b"prefix=a%2Bb")).code == "SignatureDoesNotMatch"


# --- payload declarations ----------------------------------------------------------------------


@pytest.mark.parametrize("kind", [k for k in PayloadKind if k is not PayloadKind.SINGLE])
def test_verify_payload_kind_bad_signature_refuses(kind: PayloadKind) -> None:
    """S1, S2: no payload kind opens a way round the signature, in header or query."""
    value = kind.value
    signed = sign_query("PUT", "/b/k", [("x-amz-content-sha256", value)])
    assert accept(signed).payload.kind is kind
    assert refuse(_change_signature(signed)).code == "SignatureDoesNotMatch"
    # botocore signs UNSIGNED-PAYLOAD in a query, whatever the parameter says.
    in_query = sign_query("PUT", f"/b/k?X-Amz-Content-Sha256={value}")
    if kind is PayloadKind.UNSIGNED:
        assert accept(in_query).payload.kind is kind
        in_query = _change_signature(in_query)
    assert refuse(in_query).code == "SignatureDoesNotMatch"
    header = with_header(sign_header("PUT", "/b/k"), "x-amz-content-sha256", value)
    assert refuse(header).code == "SignatureDoesNotMatch"


def test_verify_payload_in_query_and_header_differ_refuses() -> None:
    head = sign_query(
        "PUT",
        "/b/k?X-Amz-Content-Sha256=UNSIGNED-PAYLOAD",
        [("x-amz-content-sha256", EMPTY_SHA256)],
    )
    assert refuse(head).code == "InvalidArgument"


def test_verify_content_sha256_missing_refuses() -> None:
    assert refuse(with_header(sign_header("GET", "/b"), "x-amz-content-sha256", None)).code == (
        "InvalidRequest"
    )


@pytest.mark.parametrize(
    "value",
    ["", "abc", EMPTY_SHA256.upper(), EMPTY_SHA256 + "0", "unsigned-payload", "STREAMING-",
     "STREAMING-AWS4-ECDSA-P256-SHA256-PAYLOAD", f"{EMPTY_SHA256},{EMPTY_SHA256}"],
)  # fmt: skip
def test_verify_content_sha256_garbled_refuses(value: str) -> None:
    head = with_header(sign_header("GET", "/b"), "x-amz-content-sha256", value)
    assert refuse(head).code == "InvalidArgument"


def test_anonymous_payload_signed_chunks_refuses() -> None:
    signed = request_head(
        "PUT", "/b/k", [("x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD")]
    )
    with pytest.raises(AuthError) as caught:
        anonymous_payload(signed)
    assert caught.value.code == "AccessDenied"
    assert anonymous_payload(request_head("GET", "/b/k")).kind is PayloadKind.UNSIGNED
    trailer = request_head(
        "PUT", "/b/k", [("x-amz-content-sha256", "STREAMING-UNSIGNED-PAYLOAD-TRAILER")]
    )
    assert anonymous_payload(trailer).kind is PayloadKind.STREAMING_UNSIGNED_TRAILER


# --- S5: what must be signed -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["x-amz-copy-source", "x-amz-tagging", "x-amz-acl", "x-amz-content-sha256",
             "x-amz-meta-x", "x-amz-security-token", "x-amz-decoded-content-length"],
)  # fmt: skip
def test_verify_unsigned_amz_header_refuses(name: str) -> None:
    presigned = with_header(sign_query("PUT", "/b/k"), name, "x")
    error = refuse(presigned)
    assert (error.code, error.extra["HeadersNotSigned"]) == ("AccessDenied", name)
    if name != "x-amz-content-sha256":
        assert refuse(with_header(sign_header("PUT", "/b/k"), name, "x")).code == "AccessDenied"


def test_verify_host_not_signed_refuses() -> None:
    head = sign_header("GET", "/b/k")
    value = (head.header("authorization") or "").replace("host;", "")
    error = refuse(with_header(head, "authorization", value))
    assert (error.code, error.extra["HeadersNotSigned"]) == ("AccessDenied", "host")


def test_verify_repeated_signed_header_second_value_refuses() -> None:
    head = sign_header("GET", "/b/k", [("x-amz-meta-a", "1")])
    doubled = replace(head, headers=(*head.headers, (b"x-amz-meta-a", b"2")))
    assert refuse(doubled).code == "SignatureDoesNotMatch"


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


@pytest.mark.parametrize("names", ["", "host;host", ";".join(f"h{n}" for n in range(200))])
def test_parse_auth_bad_signed_headers_refuses(names: str) -> None:
    value = f"AWS4-HMAC-SHA256 Credential={AWS_SCOPE}, SignedHeaders={names}, Signature=0"
    head = request_head("GET", "/b", [("authorization", value), ("x-amz-date", AWS_DATE)])
    assert refuse(head).code == "AuthorizationHeaderMalformed"


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
    for again in (this, this.lower(), this.replace(b"-", b"%2D", 2)):
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


# --- what is told, and what is not -------------------------------------------------------------


def test_mismatch_shows_what_was_signed_but_no_secret() -> None:
    head = sign_header(
        "PUT",
        "/b/k",
        [("x-amz-server-side-encryption-customer-key", "c3NlYy1rZXk="), ("x-amz-meta-a", "1")],
        token="the-session-token",
    )
    right = accept(head)
    error = refuse(replace(head, method="POST"))
    assert error.code == "SignatureDoesNotMatch"
    assert list(error.extra) == [
        "AWSAccessKeyId", "StringToSign", "SignatureProvided", "StringToSignBytes",
        "CanonicalRequest", "CanonicalRequestBytes",
    ]  # fmt: skip
    assert error.extra["CanonicalRequest"].startswith("POST\n/b/k\n\n")
    assert (
        bytes.fromhex(error.extra["CanonicalRequestBytes"]).decode()
        == (error.extra["CanonicalRequest"])
    )
    told = f"{error} {error.extra} {right!r} {parse_auth(head)!r}"
    for secret in ("c3NlYy1rZXk=", "the-session-token", SECRET, right.signing_key.hex()):
        assert secret not in told
    shown = f"{right!r} {parse_auth(head)!r}"
    assert right.seed_signature not in shown


def test_mismatch_control_characters_are_replaced() -> None:
    head = sign_header("GET", "/b/k")
    bad = replace(head, headers=(*head.headers[:-1], (b"host", b"\x01\x00\xffevil")))
    error = refuse(with_header(bad, "authorization", head.header("authorization")))
    assert "\x00" not in error.extra["CanonicalRequest"]
    assert "\ufffd" in error.extra["CanonicalRequest"]


@pytest.mark.parametrize("signature", ["", "0", "ÿ" * 64, "F" * 64, "0" * 65, "\U0001f600"])
def test_verify_signature_of_any_shape_refuses(signature: str) -> None:
    old = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
    head = AWS_VECTORS["get_object"]
    value = (head.header("authorization") or "").replace(old, signature)
    assert refuse(with_header(head, "authorization", value)).code == "SignatureDoesNotMatch"


def test_verify_carries_session_token_of_header_and_query() -> None:
    for sign in (sign_header, sign_query):
        assert accept(sign("GET", "/b", token="tok")).security_token == "tok"


def test_derive_signing_key_is_aws_example() -> None:
    key = derive_signing_key("wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "20150830", "us-east-1")
    assert len(key) == 32
    assert derive_signing_key.cache_info().maxsize is not None


# --- fuzz: nothing but the declared errors ------------------------------------------------------

raw_bytes = st.binary(max_size=60)
header_names = st.sampled_from(
    [b"authorization", b"x-amz-date", b"date", b"x-amz-content-sha256", b"host", b"x-amz-meta-a"]
)
claims = st.sampled_from(
    [b"AWS4-HMAC-SHA256 Credential=" + AWS_SCOPE.encode() + b",SignedHeaders=host,Signature=",
     AWS_DATE.encode(), b"UNSIGNED-PAYLOAD", b"AWS ", b""],
)  # fmt: skip
query_parts = st.one_of(
    raw_bytes, st.sampled_from(AWS_PRESIGNED.query.split(b"&")), st.just(b"%"), st.just(b"X-Amz-")
)


@settings(max_examples=400, deadline=None)
@given(
    method=st.text(max_size=8),
    path=raw_bytes,
    query=st.lists(query_parts, max_size=9).map(b"&".join),
    headers=st.lists(
        st.tuples(header_names, st.tuples(claims, raw_bytes).map(b"".join)), max_size=6
    ),
)
def test_fuzzed_head_is_refused_in_order_or_anonymous(
    method: str, path: bytes, query: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    head = RequestHead(method, path, query, tuple(headers))
    now = parse_timestamp(AWS_DATE)
    assert now is not None
    try:
        auth = parse_auth(head)
        if not isinstance(auth, Anonymous):
            verify(head, auth, SECRET, now)
            pytest.fail("a random signature was accepted")
        head.query_items()
        assert isinstance(head.path, str)
    except RequestError as error:
        assert error.code
        assert error.message


def test_accepted_head_host_with_port_is_bound() -> None:
    assert refuse(with_header(sign_header("GET", "/b"), "host", HOST.split(":")[0])).code == (
        "SignatureDoesNotMatch"
    )
