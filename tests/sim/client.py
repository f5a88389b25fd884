"""A gateway process, and a client at it: S3 operations through the product's own handlers.

Left out is what has nothing to do with the cluster: HTTP parsing and signatures. A request is made
as dispatch makes it after authentication, and judged as a client does: 2xx done, 4xx refused and
nothing happened, 5xx or silence unknown.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

from astra.errors import AstraError
from gateway.app import build_context
from gateway.body import Body
from gateway.context import GatewayContext
from gateway.request_errors import RequestError
from gateway.request_head import RequestHead
from gateway.s3api.errors import S3Error
from gateway.s3api.handlers import HANDLERS
from gateway.s3api.refusals import s3_error_of
from gateway.s3api.request import S3Request
from gateway.s3api.router import resolve
from gateway.session import Session
from gateway.settings import GatewaySettings
from gateway.sigv4 import Payload
from gateway.sigv4_claim import PayloadKind
from tests.sim.node import SECRET

ACCESS_KEY: Final = "SIMACCESSKEY00000001"
_ENTRY: Final = re.compile(r"<Key>([^<]*)</Key>.*?<ETag>(?:&quot;|\")?([0-9a-f-]+)", re.DOTALL)
_TOKEN: Final = re.compile(r"<NextContinuationToken>([^<]*)<")
_UPLOAD: Final = re.compile(r"<UploadId>([^<]*)<")
_ETAG: Final = re.compile(r"<ETag>(?:&quot;|\")?([0-9a-f-]+)")


class Unknown(Exception):
    """5xx: nobody knows what happened."""


class Denied(Exception):
    """4xx: nothing happened."""

    def __init__(self, code: str, detail: str = "") -> None:
        super().__init__(f"{code} ({detail})")
        self.code = code


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    headers: Mapping[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        return self.headers["etag"].strip('"')


def gateway_settings(name: str, nodes: tuple[str, ...], *, patience_s: float) -> GatewaySettings:
    return GatewaySettings(
        gateway_id=name,
        nodes=nodes,
        cluster_secret=SECRET,
        inline_bytes=200,
        request_timeout_s=5.0,
        attempt_timeout_s=patience_s,
        holder_timeout_s=3.0,
        holder_stall_s=0.7,
        workers=1,
    )


class Client:
    """Asks one gateway. Raises Denied, Unknown."""

    def __init__(self, settings: GatewaySettings, bucket: str) -> None:
        self.context: GatewayContext = build_context(settings)
        self.bucket = bucket
        for address in settings.nodes:
            self.context.cluster.dialer.control(address).subscribe(
                self.context.access.on_notice, self.context.access.forget_all
            )

    async def ask(
        self,
        method: str,
        key: str = "",
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        pause: asyncio.Event | None = None,
    ) -> Answer:
        """`pause`: of the client, in its reading, after the first bytes of the answer."""
        try:
            return await self._ask(method, key, query or {}, headers or {}, body, pause)
        except RequestError as error:
            refused: RequestError = error
            detail = str(error)
        except AstraError as error:
            refused = s3_error_of(error)
            detail = str(error)
        if isinstance(refused, S3Error) and refused.status >= 500:
            raise Unknown(refused.code)
        raise Denied(refused.code, detail)

    async def _ask(
        self,
        method: str,
        key: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: bytes,
        pause: asyncio.Event | None,
    ) -> Answer:
        head = _head(method, f"/{self.bucket}/{key}" if key else f"/{self.bucket}", query,
                     {**headers, "content-length": str(len(body))})  # fmt: skip
        resolved = resolve(method, "", head.raw_path, head.query_items(), tuple(headers))
        access = self.context.access
        grantee = await access.grantee(ACCESS_KEY)
        if grantee is None:
            raise Unknown("the user is not there yet")
        session = Session(self.context.cluster, access, grantee, resolved.operation.action)
        if resolved.operation.name == "CreateBucket":
            await session.allow_service()
        else:
            await session.allow(self.bucket)
        request = S3Request(
            head=head,
            resolved=resolved,
            headers=dict(headers),
            request_id="sim",
            body=_body(head, body),
            session=session,
            context=self.context,
        )
        response = await HANDLERS[resolved.operation.name](request)
        content = response.body
        if response.stream is not None:
            pieces: list[bytes] = []
            async for piece in response.stream:
                pieces.append(bytes(piece))
                if pause is not None:
                    await pause.wait()
            content = b"".join(pieces)
        return Answer(headers=dict(response.headers), body=content)

    # --- what clients do -----------------------------------------------------------------------

    async def put(self, key: str, body: bytes, headers: Mapping[str, str]) -> Answer:
        return await self.ask("PUT", key, headers=headers, body=body)

    async def list_all(self, page_size: int) -> dict[str, str]:
        """All keys and their ETags, page by page."""
        found: dict[str, str] = {}
        token: str | None = None
        while True:
            query = {"list-type": "2", "max-keys": str(page_size)}
            if token is not None:
                query["continuation-token"] = token
            page = (await self.ask("GET", query=query)).body.decode()
            entries = _ENTRY.findall(page)
            if any(key in found for key, _ in entries):
                raise AssertionError(f"LIST names a key twice: {entries} after {found}")
            found.update(entries)
            match = _TOKEN.search(page)
            if match is None:
                return found
            token = match.group(1)

    async def copy(self, source: str, key: str) -> str:
        """The ETag of what was copied."""
        headers = {"x-amz-copy-source": f"/{self.bucket}/{source}"}
        answer = await self.ask("PUT", key, headers=headers)
        return _first(_ETAG, answer.body)

    async def start_upload(self, key: str) -> str:
        return _first(_UPLOAD, (await self.ask("POST", key, query={"uploads": ""})).body)

    async def put_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        query = {"partNumber": str(number), "uploadId": upload_id}
        return (await self.ask("PUT", key, query=query, body=body)).etag

    async def complete(self, key: str, upload_id: str, etags: list[str]) -> str:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>"
            for number, etag in enumerate(etags, start=1)
        )
        document = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        answer = await self.ask("POST", key, query={"uploadId": upload_id}, body=document)
        return _first(_ETAG, answer.body)

    async def delete_many(self, keys: list[str]) -> None:
        names = "".join(f"<Object><Key>{key}</Key></Object>" for key in keys)
        document = f"<Delete>{names}</Delete>".encode()
        md5 = hashlib.md5(document).digest()
        import base64

        headers = {"content-md5": base64.b64encode(md5).decode()}
        await self.ask("POST", query={"delete": ""}, headers=headers, body=document)


def _first(pattern: re.Pattern[str], body: bytes) -> str:
    match = pattern.search(body.decode())
    if match is None:
        raise AssertionError(f"no {pattern.pattern} in {body!r}")
    return match.group(1)


def _head(
    method: str, path: str, query: Mapping[str, str], headers: Mapping[str, str]
) -> RequestHead:
    text = "&".join(f"{quote(name)}={quote(value, safe='')}" for name, value in query.items())
    return RequestHead(
        method=method,
        raw_path=quote(path).encode(),
        query=text.encode(),
        headers=tuple((name.encode(), value.encode()) for name, value in headers.items()),
    )


def _body(head: RequestHead, body: bytes) -> Body:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return Body(
        receive,
        head,
        Payload(kind=PayloadKind.UNSIGNED),
        None,
        stall_s=30.0,
        length_max=1 << 30,
    )
