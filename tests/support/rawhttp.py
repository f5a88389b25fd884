"""Requests byte by byte over a socket, signed by botocore: clients that lie, stall or leave.

`sign` gives a head that is right; the caller then sends what it likes.
"""

import http.client
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from botocore.auth import S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.sigv4 import Payload, PayloadKind, Verified, derive_signing_key
from tests.support.clients import REGION, Target

UNSIGNED = "UNSIGNED-PAYLOAD"
SIGNED_CHUNKS = PayloadKind.STREAMING_SIGNED.value
UNSIGNED_TRAILER = PayloadKind.STREAMING_UNSIGNED_TRAILER.value
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ANSWER_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A signed request head: its target (path and query) and all its headers."""

    method: str
    target: str
    headers: Mapping[str, str]

    def encode(self, extra: Iterable[tuple[str, str]] = ()) -> bytes:
        """The head as it goes over the wire; `extra` lines are not signed."""
        lines = [f"{self.method} {self.target} HTTP/1.1"]
        lines += [f"{name}: {value}" for name, value in (*self.headers.items(), *extra)]
        return ("\r\n".join(lines) + "\r\n\r\n").encode()

    def changed(self, name: str, value: str) -> "Signed":
        """The same head with one header replaced after it was signed."""
        return Signed(method=self.method, target=self.target, headers={**self.headers, name: value})


class _Signer(S3SigV4Auth):
    """botocore's signer with the x-amz-content-sha256 that the test wants."""

    content_sha256 = UNSIGNED

    def payload(self, request: AWSRequest) -> str:
        return self.content_sha256


def sign(
    target: Target,
    method: str,
    path: str,
    headers: Mapping[str, str] | None = None,
    *,
    content_sha256: str = UNSIGNED,
    secret: str | None = None,
) -> Signed:
    """A head with an Authorization header; `path` is percent-encoded and may have a query."""
    request = AWSRequest(method=method, url=f"{target.endpoint}{path}")
    request.headers["Host"] = target.host
    for name, value in (headers or {}).items():
        request.headers[name] = value
    signer = _Signer(Credentials(target.access_key, secret or target.secret_key), "s3", REGION)
    signer.content_sha256 = content_sha256
    signer.add_auth(request)
    signed = {name: str(value) for name, value in request.headers.items()}
    return Signed(method=method, target=path, headers=signed)


def presign(
    target: Target, method: str, path: str, *, secret: str | None = None, expires_s: int = 60
) -> Signed:
    """A head whose signature is in the query."""
    request = AWSRequest(method=method, url=f"{target.endpoint}{path}")
    credentials = Credentials(target.access_key, secret or target.secret_key)
    S3SigV4QueryAuth(credentials, "s3", REGION, expires=expires_s).add_auth(request)
    url = urlsplit(str(request.url))
    return Signed(method=method, target=f"{url.path}?{url.query}", headers={"Host": target.host})


def chunk_signer(target: Target, head: Signed) -> Verified:
    """What `tests.support.s3_signing.sign_chunks` needs to go on from this head."""
    authorization = head.headers["Authorization"]
    scope = authorization.partition("Credential=")[2].partition(",")[0].partition("/")[2]
    date, region = scope.split("/")[:2]
    return Verified(
        access_key=target.access_key,
        payload=Payload(kind=PayloadKind.STREAMING_SIGNED),
        seed_signature=authorization.rpartition("Signature=")[2],
        signing_key=derive_signing_key(target.secret_key, date, region),
        scope=scope,
        timestamp=head.headers["X-Amz-Date"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One HTTP answer; status 0 when the connection was closed without one."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] | None = None

    @property
    def code(self) -> str:
        """The S3 error code of the body, or ''."""
        return self.body.partition(b"<Code>")[2].partition(b"</Code>")[0].decode()


class RawConnection:
    """One connection to the gateway."""

    def __init__(self, target: Target) -> None:
        host, _, port = target.host.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=ANSWER_SECONDS)

    def send(self, data: bytes) -> None:
        """Sends, as far as the other side takes it: it may have answered and closed already."""
        try:
            self.socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            pass

    def answer(self, method: str = "PUT", timeout: float = ANSWER_SECONDS) -> Answer:
        """Reads one answer; TimeoutError when there is none in time."""
        self.socket.settimeout(timeout)
        response = http.client.HTTPResponse(self.socket, method=method)
        try:
            response.begin()
            body = response.read()
        except (ConnectionError, http.client.RemoteDisconnected, http.client.BadStatusLine):
            return Answer(status=0)
        return Answer(status=response.status, body=body, headers=dict(response.getheaders()))

    def reset(self) -> None:
        """Closes at once, with a reset instead of a farewell."""
        linger = b"\x01\x00\x00\x00\x00\x00\x00\x00"
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.socket.close()


@contextmanager
def connection(target: Target) -> Iterator[RawConnection]:
    """A connection that is closed at the end."""
    made = RawConnection(target)
    try:
        yield made
    finally:
        made.socket.close()


def exchange(target: Target, data: bytes, method: str = "PUT") -> Answer:
    """Sends `data` on a connection of its own and reads one answer."""
    with connection(target) as made:
        made.send(data)
        return made.answer(method)
