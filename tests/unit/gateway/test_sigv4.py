"""SigV4 against AWS's published vectors, botocore's signers, and every refusal of SECURITY.md."""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from urllib.parse import quote

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.request_errors import AuthError, RequestError
from gateway.request_head import RequestHead
from gateway.sigv4 import (
    Anonymous,
    PayloadKind,
    anonymous_payload,
    derive_signing_key,
    parse_auth,
    verify,
)
from gateway.sigv4_claim import parse_timestamp
from tests.support.s3_signing import (
    ACCESS_KEY,
    AWS_DATE,
    AWS_PRESIGNED,
    AWS_SCOPE,
    AWS_VECTORS,
    EMPTY_SHA256,
    HOST,
    SECRET,
    accept,
    refuse,
    request_head,
    sign_header,
    sign_query,
    with_header,
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


def test_verify_query_sent_in_another_spelling_than_signed_accepts() -> None:
    head = sign_header("GET", "/b?a=%2F&b=%20~&c=")
    for spelled in (b"c=&b=%20~&a=/", b"b=+%7e&a=%2f&c", b"&a=%2F&&b=%20~&c="):
        respelled = replace(head, query=spelled)
        accept(respelled)
        assert sorted(respelled.query_items()) == [("a", "/"), ("b", " ~"), ("c", "")]


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
