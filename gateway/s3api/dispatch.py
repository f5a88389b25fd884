"""The one path of every request: resolve, authenticate, authorise, handle, write.

A refusal before the handler reads nothing of the body: the server sends no 100-continue, and a
connection with an unread body is closed after the answer.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Final

import structlog

from astra.errors import AstraError
from gateway.access import ANONYMOUS, Grantee
from gateway.body import Body, ClientGone, content_length
from gateway.context import GatewayContext
from gateway.policy import check_expected_owner
from gateway.request_errors import RequestError
from gateway.request_head import RequestHead
from gateway.s3api.encryption_headers import check_encryption_headers
from gateway.s3api.errors import S3Error, operation_not_implemented, render
from gateway.s3api.handlers import HANDLERS
from gateway.s3api.operations import PREFLIGHT
from gateway.s3api.refusals import s3_error_of
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response
from gateway.s3api.router import Resolved, resolve
from gateway.session import Session
from gateway.sigv4 import (
    Anonymous,
    HeaderAuth,
    Payload,
    PresignedAuth,
    Verified,
    anonymous_payload,
    parse_auth,
    verify,
)

log = structlog.get_logger(__name__)

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_NO_SUCH_SECRET: Final = secrets.token_hex(20)  # unknown keys take as long as wrong secrets
_HOST_ID: Final = secrets.token_hex(16)
_OBJECT_LOCK: Final = "x-amz-bucket-object-lock-enabled"
_SERVER: Final = (b"server", b"AstraStorage")
_SIGNING_PARAMETERS: Final = frozenset(
    {
        "X-Amz-Algorithm", "X-Amz-Credential", "X-Amz-Date", "X-Amz-Expires",
        "X-Amz-SignedHeaders", "X-Amz-Signature", "X-Amz-Security-Token", "X-Amz-Content-Sha256",
    }
)  # fmt: skip


class BrokenAnswer(Exception):
    """The answer ended before its declared length: the connection must break, so that the
    client never takes it for a whole one."""


class S3App:
    """The ASGI application of one gateway."""

    def __init__(self, context: GatewayContext) -> None:
        self._context = context

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = time.monotonic()
        exchange = _Exchange(self._context, scope, receive, send)
        try:
            await exchange.run()
        except BrokenAnswer as error:  # returning without the rest breaks the connection
            log.warning("answer broken off", request_id=exchange.request_id, reason=str(error))
        if self._context.settings.access_log:
            exchange.log(time.monotonic() - started)


class _Exchange:
    """One request and its answer."""

    def __init__(self, context: GatewayContext, scope: Scope, receive: Receive, send: Send) -> None:
        self._context = context
        self._receive = receive
        self._send = send
        self._scheme: str = scope["scheme"]
        self.head = RequestHead(
            method=scope["method"],
            raw_path=scope["raw_path"],
            query=scope["query_string"],
            headers=tuple(scope["headers"]),
        )
        self.request_id = secrets.token_hex(8).upper()
        self._body: Body | None = None
        self.status = 0
        self._operation = "-"
        self._is_presigned = False

    async def run(self) -> None:
        try:
            response = await self._answer()
        except ClientGone:
            return
        except asyncio.CancelledError:
            raise
        except Exception as error:
            response = self._refusal(error)
        await self._write(response)

    async def _answer(self) -> S3Response:
        """Resolve, authenticate, authorise, handle."""
        head = self.head
        headers = {
            name.decode("latin-1"): b",".join(values).decode("latin-1").strip(" \t")
            for name, values in head.header_map.items()
        }
        check_encryption_headers(head.method, headers)
        resolved = resolve(
            head.method,
            head.header("host") or "",
            head.raw_path,
            head.query_items(),
            _asking_headers(headers),
            self._context.settings.domains,
        )
        self._operation = resolved.operation.name
        if resolved.operation is PREFLIGHT and "origin" not in headers:
            message = "Insufficient information. Origin request header needed."
            raise S3Error("BadRequest", message)
        grantee, payload, verified = await self._authenticate()
        if self._is_presigned:
            headers = _with_lifted_headers(headers, resolved.query)
        operation = resolved.operation
        if not operation.implemented:
            raise operation_not_implemented(operation.name)
        action = operation.action
        if operation.version_action is not None and "versionId" in resolved.query:
            action = operation.version_action
        session = Session(self._context.cluster, self._context.access, grantee, action)
        await _authorise(session, resolved, headers)
        self._body = Body(
            self._receive,
            head,
            payload,
            verified,
            stall_s=self._context.settings.body_stall_s,
            length_max=self._context.settings.put_bytes_max,
        )
        request = S3Request(
            head=head,
            resolved=resolved,
            headers=headers,
            request_id=self.request_id,
            body=self._body,
            session=session,
            context=self._context,
            scheme=self._scheme,
            host=head.header("host") or "",
        )
        return await HANDLERS[resolved.operation.name](request)

    async def _authenticate(self) -> tuple[Grantee, Payload, Verified | None]:
        auth = parse_auth(self.head)
        self._is_presigned = isinstance(auth, PresignedAuth)
        if isinstance(auth, Anonymous):
            return (
                Grantee(user=ANONYMOUS, key=None, epoch=None), anonymous_payload(self.head), None
            )  # fmt: skip
        grantee = await self._context.access.grantee(auth.access_key)
        if grantee is None or grantee.key is None:
            self._waste_time_on(auth)
            raise S3Error("InvalidAccessKeyId", AWSAccessKeyId=auth.access_key[:128])
        verified = verify(self.head, auth, grantee.key.secret, time.time())
        return grantee, verified.payload, verified

    def _waste_time_on(self, auth: HeaderAuth | PresignedAuth) -> None:
        """Verifies against no secret, so that unknown keys answer no faster (SECURITY S13)."""
        try:
            verify(self.head, auth, _NO_SUCH_SECRET, time.time())
        except RequestError:
            return

    def _refusal(self, error: Exception) -> S3Response:
        """An error as an answer. What is not ours is a bug: logged, and told as InternalError."""
        match error:
            case RequestError():
                refused: RequestError = error
            case AstraError():
                refused = s3_error_of(error)
                if refused.code in {"InternalError", "ServiceUnavailable"}:
                    log.warning("request failed", operation=self._operation, reason=str(error))
            case _:
                log.error("request failed: a bug", operation=self._operation, exc_info=error)
                refused = S3Error("InternalError")
        rendered = render(
            refused,
            method=self.head.method,
            resource=self.head.raw_path.decode("latin-1"),
            request_id=self.request_id,
            host_id=_HOST_ID,
        )
        return S3Response(
            status=rendered.status, headers=list(rendered.headers.items()), body=rendered.body
        )

    # --- writing ---

    async def _write(self, response: S3Response) -> None:
        self.status = response.status
        first: bytes | memoryview | None = None
        if response.stream is not None and self.head.method != "HEAD" and response.length:
            try:
                first = await anext(response.stream)
            except (AstraError, StopAsyncIteration) as error:
                failure = error if isinstance(error, AstraError) else AstraError("empty stream")
                response = self._refusal(failure)
                self.status = response.status
        await self._send(
            {
                "type": "http.response.start",
                "status": response.status,
                "headers": self._headers(response),
            }
        )
        if first is None:
            body = b"" if self.head.method == "HEAD" else response.body
            await self._send({"type": "http.response.body", "body": body})
            return
        await self._write_stream(response, first)

    async def _write_stream(self, response: S3Response, piece: bytes | memoryview) -> None:
        """Ends when everything is written, or the client has gone: the server swallows what is
        sent to nobody, and reading on would cost the nodes the whole object."""
        left = response.length
        stream = response.stream
        gone = asyncio.ensure_future(self._until_gone())
        try:
            while not gone.done():
                left -= len(piece)
                await self._send(
                    {"type": "http.response.body", "body": piece, "more_body": left > 0}
                )
                if left <= 0 or stream is None:
                    return
                piece = await anext(stream)
        except (AstraError, StopAsyncIteration) as error:
            raise BrokenAnswer(f"{left} bytes of the answer are missing") from error
        finally:
            gone.cancel()
            close = getattr(stream, "aclose", None)
            if close is not None:
                await close()

    async def _until_gone(self) -> None:
        """Returns when the connection is lost, or the answer is complete."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def _headers(self, response: S3Response) -> list[tuple[bytes, bytes]]:
        headers = [
            (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
        ]
        if response.status not in (204, 304) and not any(
            n == b"content-length" for n, _ in headers
        ):
            length = response.length if response.stream is not None else len(response.body)
            headers.append((b"content-length", str(length).encode()))
        headers.append((b"x-amz-request-id", self.request_id.encode()))
        headers.append((b"x-amz-id-2", _HOST_ID.encode()))
        headers.append(_SERVER)
        if self._has_unread_body():
            headers.append((b"connection", b"close"))
        return headers

    def _has_unread_body(self) -> bool:
        if self._body is not None and self._body.is_complete:
            return False
        try:
            length = content_length(self.head)
        except RequestError:
            return True
        return bool(length) or self.head.header("transfer-encoding") is not None

    def log(self, seconds: float) -> None:
        log.info(
            "request",
            operation=self._operation,
            status=self.status,
            request_id=self.request_id,
            ms=round(seconds * 1000, 1),
        )


async def _authorise(session: Session, resolved: Resolved, headers: Mapping[str, str]) -> None:
    """Before the first body byte, as far as the bucket decides; that of CreateBucket need not
    exist. Raises AccessDenied, NoSuchBucket; also when the bucket is not that of the owner whom
    the client expects."""
    if resolved.bucket is None or resolved.operation.name == "CreateBucket":
        await session.allow_service()
        return
    bucket = await session.allow(resolved.bucket, deferred=True)
    check_expected_owner(bucket, headers.get("x-amz-expected-bucket-owner"))


def _asking_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Without a refusal of object lock, which asks for nothing: rclone sends one for every new
    bucket."""
    if headers.get(_OBJECT_LOCK, "").lower() != "false":
        return headers
    return {name: value for name, value in headers.items() if name != _OBJECT_LOCK}


def _with_lifted_headers(headers: dict[str, str], query: Mapping[str, str]) -> dict[str, str]:
    """Presigners may move x-amz-* headers into the (signed) query: they mean the same there."""
    lifted = {
        name.lower(): value
        for name, value in query.items()
        if name.lower().startswith("x-amz-") and name not in _SIGNING_PARAMETERS
    }
    return {**lifted, **headers}
