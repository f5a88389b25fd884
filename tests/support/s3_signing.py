"""Signed requests and chunked bodies for tests: botocore signs, our code must agree.

`sign_header` and `sign_query` drive botocore's own signers. `sign_chunks` follows the text of the
Amazon S3 API reference (botocore has no chunk signer); AWS's published vectors check it.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import replace
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.request_errors import RequestError
from gateway.request_head import RequestHead
from gateway.sigv4 import Anonymous, HeaderAuth, PresignedAuth, Verified, parse_auth, verify
from gateway.sigv4_claim import parse_timestamp

ACCESS_KEY = "AKIAIOSFODNN7EXAMPLE"
SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
EMPTY_SHA256 = hashlib.sha256(b"").hexdigest()
HOST = "127.0.0.1:9000"

Headers = Sequence[tuple[str, str]]


def request_head(
    method: str, target: str, headers: Headers = (), host: str | None = HOST
) -> RequestHead:
    """A head as a server would read it; `target` is `path[?query]`, percent-encoded."""
    path, _, query = target.partition("?")
    lines = [(name.lower().encode(), value.encode()) for name, value in headers]
    if host is not None:
        lines.insert(0, (b"host", host.encode()))
    return RequestHead(method, path.encode(), query.encode(), tuple(lines))


def sign_header(
    method: str,
    target: str,
    headers: Headers = (),
    body: bytes = b"",
    region: str = "us-east-1",
    token: str | None = None,
) -> RequestHead:
    """A request with an Authorization header made by botocore, now."""
    request = _aws_request(method, target, headers, body)
    S3SigV4Auth(Credentials(ACCESS_KEY, SECRET, token), "s3", region).add_auth(request)
    return _head_of(request)


def sign_query(
    method: str,
    target: str,
    headers: Headers = (),
    expires_s: int = 3600,
    region: str = "us-east-1",
    token: str | None = None,
) -> RequestHead:
    """A presigned request made by botocore, now."""
    request = _aws_request(method, target, headers, b"")
    credentials = Credentials(ACCESS_KEY, SECRET, token)
    S3SigV4QueryAuth(credentials, "s3", region, expires=expires_s).add_auth(request)
    return _head_of(request)


def with_header(head: RequestHead, name: str, value: str | None) -> RequestHead:
    """The same head with one header replaced, added, or (None) removed."""
    key = name.lower().encode()
    kept = [line for line in head.headers if line[0] != key]
    if value is not None:
        kept.append((key, value.encode()))
    return replace(head, headers=tuple(kept))


def sign_chunks(
    pieces: Sequence[bytes],
    verified: Verified,
    trailers: Sequence[tuple[str, str]] | None = None,
    style: str = "sdk",
) -> bytes:
    """An aws-chunked body signed for `verified`; `trailers` not None makes it a -TRAILER body.

    `style` "minio-go" ends a trailer by LF and puts an empty line before its signature.
    """
    scope = f"{verified.timestamp}\n{verified.scope}\n"
    previous = verified.seed_signature
    body = bytearray()
    for piece in (*pieces, b""):
        previous = _sign(
            verified,
            f"AWS4-HMAC-SHA256-PAYLOAD\n{scope}{previous}\n{EMPTY_SHA256}\n"
            f"{hashlib.sha256(piece).hexdigest()}",
        )
        body += f"{len(piece):x};chunk-signature={previous}\r\n".encode()
        if piece:
            body += piece + b"\r\n"
    if trailers is not None:
        text = "".join(f"{name}:{value}\n" for name, value in trailers)
        digest = hashlib.sha256(text.encode()).hexdigest()
        last = _sign(verified, f"AWS4-HMAC-SHA256-TRAILER\n{scope}{previous}\n{digest}")
        body += (f"{text}\r\n" if style == "minio-go" else text.replace("\n", "\r\n")).encode()
        body += f"x-amz-trailer-signature:{last}\r\n".encode()
    return bytes(body + b"\r\n")


def _sign(verified: Verified, text: str) -> str:
    return hmac.new(verified.signing_key, text.encode(), hashlib.sha256).hexdigest()


def _aws_request(method: str, target: str, headers: Headers, body: bytes) -> AWSRequest:
    request = AWSRequest(method=method, url=f"http://{HOST}{target}", data=body)
    for name, value in headers:
        request.headers.add_header(name, value)
    return request


def _head_of(request: AWSRequest) -> RequestHead:
    url = urlsplit(str(request.url))
    target = f"{url.path}?{url.query}" if url.query else url.path
    headers = [(name, str(value)) for name, value in request.headers.items()]
    return request_head(str(request.method), target, headers)


# --- verification as a caller does it, and AWS's published examples ---------------------------

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
