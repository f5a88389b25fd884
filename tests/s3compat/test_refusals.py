"""What the running gateway must refuse, and how (SECURITY S1-S16, S25, S26, S34, S37-S42).

The table of operations is crossed with every way of not being authenticated: a route that
forgets to ask is found here, whoever adds it.
"""

import base64
import hashlib
import hmac
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import pytest
from mypy_boto3_s3 import S3Client

from gateway.s3api.operations import OPERATIONS, PREFLIGHT, Level, Operation
from tests.support.buckets import keys, new_bucket, put, read
from tests.support.clients import Target, boto3_client
from tests.support.cluster import Cluster
from tests.support.rawhttp import (
    UNSIGNED_TRAILER,
    Answer,
    Signed,
    connection,
    exchange,
    presign,
    sign,
)

WRONG_SECRET = "this-is-not-the-secret-key"
BODY = b"<Delete><Object><Key>precious</Key></Object></Delete>"
REFUSED = {400, 403}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A bucket with one object that nobody may touch."""

    target: Target
    s3: S3Client
    bucket: str


@pytest.fixture(scope="module")
def site(embedded_cluster: Cluster) -> Iterator[Site]:
    embedded_cluster.ensure_running()
    s3 = boto3_client(embedded_cluster.target)
    bucket = new_bucket(s3, "refuse")
    put(s3, bucket, "precious", b"gold")
    yield Site(target=embedded_cluster.target, s3=s3, bucket=bucket)
    s3.close()


def _assert_untouched(site: Site) -> None:
    assert keys(site.s3, site.bucket) == ["precious"]
    assert read(site.s3, site.bucket, "precious") == b"gold"
    assert site.s3.get_bucket_versioning(Bucket=site.bucket).get("Status") is None


# --- every route, every way of not being authenticated -----------------------------------------


def _path(operation: Operation, bucket: str) -> str:
    path = {Level.SERVICE: "/", Level.BUCKET: f"/{bucket}", Level.OBJECT: f"/{bucket}/precious"}
    query = "&".join(
        name if value is None else f"{name}={value}" for name, value in operation.query
    )
    return path[operation.level] + (f"?{query}" if query else "")


def _headers(operation: Operation, bucket: str) -> dict[str, str]:
    headers = {"Content-Length": str(len(BODY))} if operation.method in ("PUT", "POST") else {}
    if operation.header == "x-amz-copy-source":
        headers["x-amz-copy-source"] = f"/{bucket}/precious"
    return headers


Forged = tuple[Signed, list[tuple[str, str]]]


def _plain(site: Site, operation: Operation) -> Signed:
    path, headers = _path(operation, site.bucket), _headers(operation, site.bucket)
    return Signed(
        method=operation.method, target=path, headers={"Host": site.target.host, **headers}
    )


def _header_signed_with_another_secret(site: Site, operation: Operation) -> Forged:
    path, headers = _path(operation, site.bucket), _headers(operation, site.bucket)
    return sign(site.target, operation.method, path, headers, secret=WRONG_SECRET), []


def _query_signed_with_another_secret(site: Site, operation: Operation) -> Forged:
    path, headers = _path(operation, site.bucket), _headers(operation, site.bucket)
    signed = presign(site.target, operation.method, path, secret=WRONG_SECRET)
    return replace(signed, headers={**signed.headers, **headers}), []


def _streaming_unsigned_trailer(site: Site, operation: Operation) -> Forged:
    """MinIO CVE-2025-31489, CVE-2026-40344: a known access key and any signature."""
    path, headers = _path(operation, site.bucket), _headers(operation, site.bucket)
    headers |= {"x-amz-decoded-content-length": "5", "x-amz-trailer": "x-amz-checksum-crc32"}
    signed = sign(
        site.target,
        operation.method,
        path,
        headers,
        content_sha256=UNSIGNED_TRAILER,
        secret=WRONG_SECRET,
    )
    return signed, []


def _streaming_with_query_credentials(site: Site, operation: Operation) -> Forged:
    signed, _ = _query_signed_with_another_secret(site, operation)
    extra = {"x-amz-content-sha256": UNSIGNED_TRAILER, "x-amz-decoded-content-length": "5"}
    return replace(signed, headers={**signed.headers, **extra}), []


def _unknown_key(site: Site, operation: Operation) -> Forged:
    return _header_signed_with_another_secret(
        replace(site, target=replace(site.target, access_key="AKIDUNKNOWN")), operation
    )


def _header_and_query(site: Site, operation: Operation) -> Forged:
    """Both are right; there must be one."""
    path, headers = _path(operation, site.bucket), _headers(operation, site.bucket)
    url = presign(site.target, operation.method, path).target
    return sign(site.target, operation.method, url, headers), []


def _two_authorization_headers(site: Site, operation: Operation) -> Forged:
    path, headers = _path(operation, site.bucket), _headers(operation, site.bucket)
    signed = sign(site.target, operation.method, path, headers)
    return signed, [("Authorization", signed.headers["Authorization"])]


def _sigv2_header(site: Site, operation: Operation) -> Forged:
    signed = _plain(site, operation)
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime())
    text = f"{operation.method}\n\n\n{date}\n{signed.target}"
    digest = hmac.digest(site.target.secret_key.encode(), text.encode(), hashlib.sha1)
    value = f"AWS {site.target.access_key}:{base64.b64encode(digest).decode()}"
    return signed, [("Date", date), ("Authorization", value)]


def _sigv2_query(site: Site, operation: Operation) -> Forged:
    signed = _plain(site, operation)
    joint = "&" if "?" in signed.target else "?"
    given = f"AWSAccessKeyId={site.target.access_key}&Expires={int(time.time()) + 60}&Signature=eA"
    return replace(signed, target=f"{signed.target}{joint}{given}"), []


def _basic(site: Site, operation: Operation) -> Forged:
    both = f"{site.target.access_key}:{site.target.secret_key}".encode()
    value = f"Basic {base64.b64encode(both).decode()}"
    return _plain(site, operation), [("Authorization", value)]


def _bearer(site: Site, operation: Operation) -> Forged:
    return _plain(site, operation), [("Authorization", "Bearer eyJhbGciOiJub25lIn0.e30.")]


def _another_algorithm(site: Site, operation: Operation) -> Forged:
    path, headers = _path(operation, site.bucket), _headers(operation, site.bucket)
    signed = sign(site.target, operation.method, path, headers)
    changed = signed.headers["Authorization"].replace("AWS4-HMAC-SHA256", "none", 1)
    return signed.changed("Authorization", changed), []


def _anonymous(site: Site, operation: Operation) -> Forged:
    return _plain(site, operation), []


FORGERIES = [
    _header_signed_with_another_secret,
    _query_signed_with_another_secret,
    _streaming_unsigned_trailer,
    _streaming_with_query_credentials,
    _unknown_key,
    _header_and_query,
    _two_authorization_headers,
    _sigv2_header,
    _sigv2_query,
    _basic,
    _bearer,
    _another_algorithm,
    _anonymous,
]
# WriteGetObjectResponse has a host of its own.
NO_ROUTES = {PREFLIGHT.name, "WriteGetObjectResponse"}
ROUTES = [op for op in OPERATIONS if op.alias_of is None and op.name not in NO_ROUTES]


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__.strip("_"))
def test_no_route_answers_who_is_not_authenticated(
    site: Site, forge: Callable[[Site, Operation], Forged]
) -> None:
    wrong: list[str] = []
    for operation in ROUTES:
        signed, extra = forge(site, operation)
        body = BODY if operation.method in ("PUT", "POST") else b""
        answer = exchange(site.target, signed.encode(extra) + body, operation.method)
        # Nothing is done for the public that is not there at all.
        is_absent = forge is _anonymous and not operation.implemented and answer.status == 501
        if not (answer.status in REFUSED or is_absent) or b"gold" in answer.body:
            wrong.append(f"{operation.name}: {answer.status} {answer.code}")
    assert not wrong
    _assert_untouched(site)


# --- what was signed is what counts ------------------------------------------------------------


def _send(site: Site, signed: Signed, extra: list[tuple[str, str]] | None = None) -> Answer:
    return exchange(site.target, signed.encode(extra or []), signed.method)


@pytest.mark.parametrize(
    "header",
    ["x-amz-copy-source: /b/k", "x-amz-tagging: a=b", "x-amz-acl: public-read", "x-amz-meta-a: b"],
)
def test_unsigned_amz_header_is_refused(site: Site, header: str) -> None:
    name, _, value = header.partition(": ")
    path = f"/{site.bucket}/precious"
    for signed in (
        sign(site.target, "PUT", path, {"Content-Length": "0"}),
        presign(site.target, "PUT", path),
    ):
        answer = _send(site, signed, [(name, value)])
        assert (answer.status, answer.code) == (403, "AccessDenied")
    _assert_untouched(site)


@pytest.mark.parametrize(
    "more",
    [
        "&versionId=null",
        "&partNumber=1",
        "&response-content-type=text/html",
        "&X-Amz-Expires=604800",
        "&x-amz-expires=604800",
        "&X-Amz-SignedHeaders=host",
        "&X-Amz-Credential=other",
        "&x-id=GetObject",
    ],
)
def test_parameter_added_to_a_presigned_url_is_refused(site: Site, more: str) -> None:
    signed = presign(site.target, "GET", f"/{site.bucket}/precious")
    answer = _send(site, replace(signed, target=signed.target + more))
    assert answer.status in REFUSED
    assert b"gold" not in answer.body


def test_presigned_url_opens_one_method_and_one_key(site: Site) -> None:
    signed = presign(site.target, "GET", f"/{site.bucket}/precious")
    assert _send(site, signed).body == b"gold"
    for method in ("HEAD", "PUT", "DELETE"):
        assert _send(site, replace(signed, method=method)).status == 403
    for key in ("precious2", "x/../precious", "%70recious/", "Precious"):
        other = signed.target.replace("/precious?", f"/{key}?")
        assert _send(site, replace(signed, target=other)).status == 403
    _assert_untouched(site)


@pytest.mark.parametrize("seconds", [0, -1, 604_801])
def test_lifetime_out_of_range_is_refused(site: Site, seconds: int) -> None:
    signed = presign(site.target, "GET", f"/{site.bucket}/precious", expires_s=seconds)
    assert _send(site, signed).status in REFUSED


@pytest.mark.parametrize(
    ("query", "statuses"),
    [("foo", {501}), ("acl&policy", {400}), ("policy&list-type=2", {400}), ("Policy", {501})],
)
def test_unknown_or_doubled_subresource_is_never_a_listing(
    site: Site, query: str, statuses: set[int]
) -> None:
    answer = _send(site, sign(site.target, "GET", f"/{site.bucket}?{query}"))
    assert answer.status in statuses
    assert b"precious" not in answer.body


def test_conditions_tell_the_public_nothing(site: Site) -> None:
    """Present or not, matching or not: the public sees one answer."""
    etag = site.s3.head_object(Bucket=site.bucket, Key="precious")["ETag"]
    answers = set()
    for key in ("precious", "absent"):
        for extra in (
            [],
            [("If-Match", etag)],
            [("If-None-Match", etag)],
            [("Range", "bytes=0-1")],
        ):
            plain = Signed(
                method="GET",
                target=f"/{site.bucket}/{key}",
                headers={"Host": site.target.host},
            )
            answer = _send(site, plain, extra)
            answers.add((answer.status, answer.code))
    assert answers == {(403, "AccessDenied")}


# --- limits and lies ---------------------------------------------------------------------------


def test_heads_metadata_and_tags_are_bounded(site: Site) -> None:
    path = f"/{site.bucket}/big"
    length = {"Content-Length": "0"}
    cases = {
        "MetadataTooLarge": {"x-amz-meta-a": "v" * 2100},
        "InvalidTag": {"x-amz-tagging": "&".join(f"k{n}=v" for n in range(11))},
    }
    for code, headers in cases.items():
        answer = _send(site, sign(site.target, "PUT", path, {**length, **headers}))
        assert answer.status == 400, code
        assert answer.code in (code, "BadRequest"), answer
    huge = _send(site, sign(site.target, "PUT", path, {**length, "x-filler": "v" * 40_000}))
    assert huge.status in (0, 400, 431)
    _assert_untouched(site)


@pytest.mark.parametrize(
    "value", ["a%0d%0aSet-Cookie:%20x=y", "a%0aX-Evil:%201", "%00", "a%0d", "%E2%80%A8x"]
)
def test_response_override_injects_no_header(site: Site, value: str) -> None:
    path = f"/{site.bucket}/precious?response-content-disposition={value}"
    answer = _send(site, presign(site.target, "GET", path))
    assert answer.status in (200, 400)
    names = {name.lower() for name in answer.headers or {}}
    assert not names & {"set-cookie", "x-evil"}


@pytest.mark.parametrize(
    ("value", "status"),
    [
        ("bytes=" + ",".join("0-0" for _ in range(1000)), 200),
        ("bytes=-0", 416),
        ("bytes=9-1", 200),
        ("bytes=4-", 416),
        ("bytes=0-99999999999999999999", 206),
        ("bytes=99999999999999999999-", 416),
        ("lines=1-2", 200),
        ("bytes=a-b", 200),
    ],
)
def test_odd_ranges_are_one_range_or_all(site: Site, value: str, status: int) -> None:
    signed = sign(site.target, "GET", f"/{site.bucket}/precious", {"Range": value})
    answer = _send(site, signed)
    assert answer.status == status
    if status < 400:
        assert answer.body == b"gold"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ("list-type=2&max-keys=-1", 400),
        ("list-type=2&max-keys=x", 400),
        ("list-type=2&max-keys=99999999999999999999", 400),
        ("list-type=2&max-keys=0", 200),
        ("list-type=2&max-keys=1000000000", 200),
        ("list-type=2&continuation-token=forged", 400),
        ("list-type=2&continuation-token=", 200),
        ("list-type=2&prefix=%ff", 400),
        ("list-type=2&encoding-type=base64", 400),
        ("uploads&max-uploads=-1", 400),
        ("versions&version-id-marker=x", 400),
    ],
)
def test_odd_list_parameters_are_judged(site: Site, query: str, status: int) -> None:
    answer = _send(site, sign(site.target, "GET", f"/{site.bucket}?{query}"))
    assert answer.status == status, answer


@pytest.mark.parametrize("length", ["-1", "+5", "5,5", "0x5", "", "99999999999999999999", "5 5"])
def test_odd_content_length_is_refused(site: Site, length: str) -> None:
    signed = sign(site.target, "PUT", f"/{site.bucket}/odd")
    answer = exchange(site.target, signed.encode([("Content-Length", length)]) + b"12345")
    assert answer.status in (0, 400, 411)
    _assert_untouched(site)


def test_two_different_content_lengths_are_refused(site: Site) -> None:
    signed = sign(site.target, "PUT", f"/{site.bucket}/odd")
    data = signed.encode([("Content-Length", "5"), ("Content-Length", "3")]) + b"12345"
    assert exchange(site.target, data).status in (0, 400)
    _assert_untouched(site)


@pytest.mark.parametrize("number", ["0", "10001", "-1", "x", "1.5", ""])
def test_part_number_out_of_range_is_refused(site: Site, number: str) -> None:
    path = f"/{site.bucket}/mp?partNumber={number}&uploadId=x"
    answer = _send(site, sign(site.target, "PUT", path, {"Content-Length": "0"}))
    assert (answer.status, answer.code) == (400, "InvalidArgument")


def test_no_continue_is_sent_before_the_signature_is_checked(site: Site) -> None:
    head = {"Content-Length": "1000000", "Expect": "100-continue"}
    signed = sign(site.target, "PUT", f"/{site.bucket}/late", head, secret=WRONG_SECRET)
    with connection(site.target) as made:
        made.send(signed.encode())
        first = made.socket.recv(100)
    assert first.startswith(b"HTTP/1.1 403 ")


def test_continue_is_sent_when_the_signature_is_right(site: Site) -> None:
    bucket = new_bucket(site.s3, "expect")
    head = {"Content-Length": "5", "Expect": "100-continue"}
    with connection(site.target) as made:
        made.send(sign(site.target, "PUT", f"/{bucket}/late", head).encode())
        assert made.socket.recv(100).startswith(b"HTTP/1.1 100 ")
        made.send(b"later")
        assert made.answer().status == 200
    assert read(site.s3, bucket, "late") == b"later"


# --- two readings of one request ---------------------------------------------------------------


def _smuggled(site: Site) -> bytes:
    """A rightly signed delete that hides in the body of another request."""
    return sign(site.target, "DELETE", f"/{site.bucket}/precious").encode()


@pytest.mark.parametrize(
    "lines",
    [
        "Content-Length: {size}\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: {size}\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
        "Content-Length : {size}\r\n",
        "X: a\x00b\r\nContent-Length: {size}\r\n",
    ],
)
def test_no_request_hides_in_the_body_of_another(site: Site, lines: str) -> None:
    hidden = _smuggled(site)
    signed = sign(site.target, "PUT", f"/{site.bucket}/outer", secret=WRONG_SECRET)
    head = signed.encode()[:-2] + lines.format(size=len(hidden) + 5).encode() + b"\r\n"
    with connection(site.target) as made:
        made.send(head + b"0\r\n\r\n" + hidden)
        assert made.answer().status in (0, 400, 403, 411, 501)
        assert made.answer("DELETE").status in (0, 400)
    _assert_untouched(site)


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET http://other/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%00%ff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /?" + b"&".join(b"a%d=1" % n for n in range(3000)) + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /\xff\xfe HTTP/1.1\r\nHost: \xff\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: \xff\xfe\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
    ],
    ids=range(18),
)
def test_no_bytes_cause_an_error_of_ours(site: Site, data: bytes) -> None:
    answer = exchange(site.target, data, "GET")
    assert answer.status == 0 or 400 <= answer.status < 500 or answer.status == 501, answer
    _assert_untouched(site)
