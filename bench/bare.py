"""The baselines: as little as an ASGI server can do for the same answer.

`small` is a bare Starlette application that answers 4 KiB. `stream` is bare uvicorn without a
framework that sends a file of the page cache in pieces. Run by `python -m uvicorn`.
"""

from __future__ import annotations

import os
from typing import Final

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

FILE_VARIABLE: Final = "BENCH_FILE"
_BODY: Final = bytes(4096)
_PIECE: Final = 256 * 1024  # the fastest of 64 KiB, 256 KiB and 1 MiB


async def _answer(_: Request) -> Response:
    return Response(_BODY, media_type="application/octet-stream")


small = Starlette(routes=[Route("/", _answer)])


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Sends the file named by BENCH_FILE, whatever was asked for."""
    if scope["type"] != "http":
        return
    fd = os.open(os.environ[FILE_VARIABLE], os.O_RDONLY)
    try:
        size = os.fstat(fd).st_size
        length = (b"content-length", str(size).encode())
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        left = size
        while left:
            piece = os.read(fd, _PIECE)
            left -= len(piece)
            await send({"type": "http.response.body", "body": piece, "more_body": left > 0})
    finally:
        os.close(fd)
