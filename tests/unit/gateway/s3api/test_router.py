"""Routing: names out of the request line, and refusals instead of guesses."""

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.s3api.errors import S3Error
from gateway.s3api.router import QUERY_PARAMETERS_MAX, Resolved, parse_query, resolve

DOMAINS = ("s3.test", "localhost", "eu.s3.test")
Query = list[tuple[str, str]]


def _resolve(
    method: str, path: str, query: str = "", *, host: str = "127.0.0.1:9000", headers: str = ""
) -> Resolved:
    items = parse_query(query.encode())
    return resolve(method, host, path.encode(), items, set(headers.split()), DOMAINS)


def _refusal(method: str, path: str, query: str = "", headers: str = "") -> S3Error:
    with pytest.raises(S3Error) as caught:
        _resolve(method, path, query, headers=headers)
    return caught.value


@pytest.mark.parametrize(
    ("method", "path", "query", "headers", "name"),
    [
        ("GET", "/", "", "", "ListBuckets"),
        ("GET", "/", "max-buckets=5&prefix=a", "", "ListBuckets"),
        ("GET", "/abc", "", "", "ListObjects"),
        ("GET", "/abc/", "prefix=x&max-keys=3", "", "ListObjects"),
        ("GET", "/abc", "list-type=2&start-after=x", "", "ListObjectsV2"),
        ("GET", "/abc", "location", "", "GetBucketLocation"),
        ("GET", "/abc", "location=", "", "GetBucketLocation"),
        ("GET", "/abc", "acl", "", "GetBucketAcl"),
        ("GET", "/abc", "analytics&id=1", "", "GetBucketAnalyticsConfiguration"),
        ("GET", "/abc", "analytics", "", "ListBucketAnalyticsConfigurations"),
        ("POST", "/abc", "delete", "", "DeleteObjects"),
        ("POST", "/abc/", "", "content-type", "PostObject"),
        ("PUT", "/abc/k", "", "", "PutObject"),
        ("PUT", "/abc/k", "", "x-amz-copy-source", "CopyObject"),
        ("PUT", "/abc/k", "partNumber=1&uploadId=u", "", "UploadPart"),
        ("PUT", "/abc/k", "uploadId=u&partNumber=1", "x-amz-copy-source", "UploadPartCopy"),
        ("GET", "/abc/k", "uploadId=u", "", "ListParts"),
        ("GET", "/abc/k", "versionId=v&partNumber=2", "", "GetObject"),
        ("GET", "/abc/k", "x-id=GetObject&X-Amz-Signature=0", "", "GetObject"),
        ("GET", "/abc/k", "AWSAccessKeyId=a&Signature=b&Expires=1", "", "GetObject"),
        ("GET", "/abc/k", "v=20240101", "", "GetObject"),
        ("OPTIONS", "/abc/k", "acl&policy&foo", "", "PreflightRequest"),
        ("OPTIONS", "/abc", "", "", "PreflightRequest"),
        ("POST", "/WriteGetObjectResponse", "", "x-amz-request-route", "WriteGetObjectResponse"),
    ],
)
def test_resolve_known_request_finds_operation(
    method: str, path: str, query: str, headers: str, name: str
) -> None:
    assert _resolve(method, path, query, headers=headers).operation.name == name


@pytest.mark.parametrize(
    ("method", "path", "query", "code"),
    [
        ("GET", "/abc", "foo", "NotImplemented"),
        ("GET", "/abc", "foo=bar", "NotImplemented"),
        ("GET", "/abc/k", "foo", "NotImplemented"),
        ("GET", "/abc/k", "foo=", "NotImplemented"),
        ("DELETE", "/abc/k", "foo=bar", "NotImplemented"),
        ("DELETE", "/abc", "foo", "NotImplemented"),
        ("PUT", "/abc/k", "append", "NotImplemented"),
        ("POST", "/abc", "foo", "NotImplemented"),
        ("POST", "/abc/k", "foo", "NotImplemented"),
        ("PUT", "/abc/k", "x-amz-copy-source=a/b", "NotImplemented"),
        ("PUT", "/abc/k", "X-Amz-Copy-Source=a/b", "NotImplemented"),
        ("PUT", "/abc/k", "X-Amz-Object-Lock-Mode=COMPLIANCE", "NotImplemented"),
        ("GET", "/abc", "acl&policy", "InvalidArgument"),
        ("GET", "/abc", "acl&list-type=2", "InvalidArgument"),
        ("GET", "/abc/k", "acl&tagging", "InvalidArgument"),
        ("DELETE", "/abc/k", "uploadId=u&tagging", "InvalidArgument"),
        ("GET", "/abc/k", "policy", "InvalidArgument"),
        ("DELETE", "/abc/k", "lifecycle", "InvalidArgument"),
        ("GET", "/abc", "torrent", "InvalidArgument"),
        ("GET", "/", "policy", "InvalidArgument"),
        ("GET", "/abc", "list-type=3", "InvalidArgument"),
        ("PUT", "/abc/k", "uploadId=u", "InvalidArgument"),
        ("PUT", "/abc/k", "partNumber=1", "InvalidArgument"),
        ("PUT", "/abc/k", "versionId=1", "InvalidArgument"),
        ("GET", "/abc/k", "versionId=1&versionId=2", "InvalidArgument"),
        ("PUT", "/abc", "analytics", "InvalidArgument"),
        ("POST", "/abc/k", "", "MethodNotAllowed"),
        ("POST", "/", "", "MethodNotAllowed"),
        ("OPTIONS", "/", "", "MethodNotAllowed"),
        ("PATCH", "/abc", "", "MethodNotAllowed"),
        ("DELETE", "/abc", "versioning", "MethodNotAllowed"),
        ("get", "/abc/k", "", "MethodNotAllowed"),
        ("GET", "*", "", "InvalidURI"),
        ("GET", "/abc/%zz", "", "InvalidURI"),
        ("GET", "/abc/%4", "", "InvalidURI"),
        ("GET", "/abc/%ff", "", "InvalidURI"),
        ("GET", "/abc/%c0%af", "", "InvalidURI"),
        ("GET", "//k", "", "InvalidBucketName"),
        ("GET", "/ab/k", "", "InvalidBucketName"),
        ("GET", "/../k", "", "InvalidBucketName"),
        ("GET", "/a%2Fb/k", "", "InvalidBucketName"),
        ("GET", "/Abc/k", "", "InvalidBucketName"),
        ("PUT", "/192.168.1.1", "", "InvalidBucketName"),
        ("PUT", "/xn--abc", "", "InvalidBucketName"),
    ],
)
def test_resolve_unknown_request_is_refused(method: str, path: str, query: str, code: str) -> None:
    assert _refusal(method, path, query).code == code


def test_resolve_two_subresources_names_both() -> None:
    assert _refusal("GET", "/abc", "acl&policy").message == (
        "Conflicting query string parameters: acl, policy"
    )


def test_resolve_wrong_method_answers_allow_header() -> None:
    error = _refusal("DELETE", "/abc", "versioning")
    assert (error.status, error.headers) == (405, {"allow": "GET, PUT"})
    assert error.extra == {"Method": "DELETE", "ResourceType": "VERSIONING"}


def test_resolve_every_bare_word_on_every_method_never_becomes_a_plain_operation() -> None:
    for method in ("GET", "HEAD", "PUT", "POST", "DELETE"):
        for path in ("/", "/abc", "/abc/k"):
            assert _refusal(method, path, "nosuchthing").code in (
                "NotImplemented",
                "MethodNotAllowed",
            )


@pytest.mark.parametrize(
    "header",
    [
        "x-amz-write-offset-bytes",
        "x-amz-object-lock-mode",
        "x-amz-server-side-encryption",
        "x-amz-server-side-encryption-customer-key",
    ],
)
def test_resolve_write_with_header_we_cannot_honour_is_not_implemented(header: str) -> None:
    error = _refusal("PUT", "/abc/k", headers=header)
    assert (error.status, error.extra) == (501, {"Header": header})
    assert _resolve("GET", "/abc/k", headers=header).operation.name == "GetObject"


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/abc/..", ".."),
        ("/abc/../x", "../x"),
        ("/abc//", "/"),
        ("/abc//x//y/", "/x//y/"),
        ("/abc/.", "."),
        ("/abc/a%2Fb", "a/b"),
        ("/abc/a+b%2B", "a+b+"),
        ("/abc/%2525", "%25"),
        ("/abc/%00%01%7F", "\0\x01\x7f"),
        ("/abc/a%20b?", "a b?"),
        ("/abc/\\..\\x", "\\..\\x"),
        ("/abc/%F0%9F%98%80", "😀"),
        ("/abc/😀", "😀"),
        ("/abc/.minio.sys/x", ".minio.sys/x"),
    ],
)
def test_resolve_key_is_opaque(path: str, key: str) -> None:
    resolved = _resolve("GET", path)
    assert (resolved.bucket, resolved.key, resolved.key_bytes) == ("abc", key, key.encode())


@given(key=st.text(min_size=1, max_size=200).filter(lambda key: _encodable(key)))
def test_resolve_percent_encoded_key_comes_back(key: str) -> None:
    assert _resolve("GET", "/abc/" + quote(key, safe="")).key == key
    assert _resolve("GET", "/abc/" + quote(key)).key == key


def _encodable(text: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in text)


@given(path=st.binary(max_size=300), query=st.binary(max_size=300))
def test_resolve_arbitrary_bytes_resolves_or_refuses(path: bytes, query: bytes) -> None:
    try:
        resolved = resolve("GET", "h", b"/" + path, parse_query(query), set())
    except S3Error as error:
        assert error.status in (400, 405, 501)
    else:
        assert (resolved.key is None) == (resolved.key_bytes is None)


def test_resolve_key_length_is_counted_in_bytes() -> None:
    assert _resolve("GET", "/abc/" + "é" * 512).key_bytes == "é".encode() * 512
    error = _refusal("GET", "/abc/" + "é" * 512 + "x")
    assert (error.code, error.extra) == (
        "KeyTooLongError",
        {"Size": "1025", "MaxSizeAllowed": "1024"},
    )


@pytest.mark.parametrize(
    ("host", "path", "bucket", "key"),
    [
        ("abc.s3.test", "/k", "abc", "k"),
        ("abc.s3.test:9000", "/", "abc", None),
        ("ABC.S3.Test.", "/k/", "abc", "k/"),
        ("my.dotted.bucket.s3.test", "//k", "my.dotted.bucket", "/k"),
        ("abc.localhost", "/abc/k", "abc", "abc/k"),
        ("abc.eu.s3.test", "/k", "abc", "k"),
        ("eu.s3.test", "/abc/k", "abc", "k"),
        ("s3.test", "/abc/k", "abc", "k"),
        ("elsewhere.test", "/abc/k", "abc", "k"),
        ("nots3.test", "/abc/k", "abc", "k"),
        ("127.0.0.1", "/abc/k", "abc", "k"),
        ("[::1]:9000", "/abc/k", "abc", "k"),
        ("", "/abc/k", "abc", "k"),
    ],
)
def test_resolve_host_decides_the_style(host: str, path: str, bucket: str, key: str | None) -> None:
    method = "GET"
    resolved = _resolve(method, path, host=host)
    assert (resolved.bucket, resolved.key) == (bucket, key)


def test_resolve_virtual_host_with_impossible_bucket_is_refused() -> None:
    with pytest.raises(S3Error, match="InvalidBucketName"):
        _resolve("GET", "/k", host="a_b.s3.test")
    with pytest.raises(S3Error, match="InvalidBucketName"):
        _resolve("GET", "/k", host=".s3.test")


def test_resolve_existing_bucket_with_reserved_name_is_only_refused_on_create() -> None:
    assert _resolve("GET", "/xn--abc").bucket == "xn--abc"


def test_parse_query_decodes_once_and_keeps_bare_names() -> None:
    assert parse_query(b"acl&prefix=a+b%2B%2525&x=&=y&&q=1=2") == [
        ("acl", ""),
        ("prefix", "a b+%25"),
        ("x", ""),
        ("", "y"),
        ("q", "1=2"),
    ]


@pytest.mark.parametrize("raw", [b"a=%", b"a=%g0", b"prefix=%ff", b"%ff=1"])
def test_parse_query_malformed_is_invalid_uri(raw: bytes) -> None:
    with pytest.raises(S3Error, match="InvalidURI"):
        parse_query(raw)


def test_parse_query_too_many_parameters_is_refused() -> None:
    assert len(parse_query(b"&".join([b"a=1"] * QUERY_PARAMETERS_MAX))) == QUERY_PARAMETERS_MAX
    with pytest.raises(S3Error, match="InvalidURI"):
        parse_query(b"&".join([b"a=1"] * (QUERY_PARAMETERS_MAX + 1)))
