"""Which function serves which operation. A test holds it against the operation table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from gateway.s3api.object_read import get_object, head_object
from gateway.s3api.object_write import put_object
from gateway.s3api.request import S3Request
from gateway.s3api.response import S3Response

Handler = Callable[[S3Request], Awaitable[S3Response]]

HANDLERS: Final[Mapping[str, Handler]] = {
    "GetObject": get_object,
    "HeadObject": head_object,
    "PutObject": put_object,
}
