"""What a handler gets: one authenticated, resolved request, and the means to answer it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from astra.model import ANONYMOUS_OWNER
from gateway.body import Body
from gateway.context import GatewayContext
from gateway.request_head import RequestHead
from gateway.s3api.operations import Operation
from gateway.s3api.router import Resolved
from gateway.session import Session


@dataclass(slots=True, kw_only=True)
class S3Request:
    """`headers` has lower-case names, each once (repeats joined by a comma)."""

    head: RequestHead
    resolved: Resolved
    headers: Mapping[str, str]
    request_id: str
    body: Body
    session: Session
    context: GatewayContext
    scheme: str = "http"
    host: str = field(default="")

    @property
    def operation(self) -> Operation:
        return self.resolved.operation

    @property
    def query(self) -> Mapping[str, str]:
        return self.resolved.query

    @property
    def bucket(self) -> str:
        """The bucket's name; only for operations on buckets and objects."""
        if self.resolved.bucket is None:
            raise ValueError("this operation has no bucket")
        return self.resolved.bucket

    @property
    def key(self) -> bytes:
        """The key's bytes; only for operations on objects."""
        if self.resolved.key_bytes is None:
            raise ValueError("this operation has no key")
        return self.resolved.key_bytes

    @property
    def user_id(self) -> str:
        """Who owns what this request makes."""
        return self.session.user_id or ANONYMOUS_OWNER
