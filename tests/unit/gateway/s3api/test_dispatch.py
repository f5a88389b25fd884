"""Writing an answer, without a server: what the ASGI messages say."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from typing import Any, cast

import pytest

from astra.errors import Unavailable
from gateway.context import GatewayContext
from gateway.s3api.dispatch import BrokenAnswer, _Exchange
from gateway.s3api.response import S3Response

PIECE = b"p" * 1000
PIECES = 10_000

Message = MutableMapping[str, Any]


class _Client:
    """Takes `takes` messages, then has gone: what is sent further is swallowed, as uvicorn does."""

    def __init__(self, takes: int) -> None:
        self._left = takes
        self._gone = asyncio.Event()
        self._has_asked = False
        self.taken: list[Message] = []

    async def send(self, message: Message) -> None:
        await asyncio.sleep(0)
        if self._left:
            self._left -= 1
            self.taken.append(message)
        else:
            self._gone.set()

    async def receive(self) -> Message:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}


class _Pieces:
    def __init__(self, count: int) -> None:
        self.given = 0
        self.is_closed = False
        self._count = count

    async def stream(self) -> AsyncIterator[bytes]:
        try:
            while self.given < self._count:
                self.given += 1
                yield PIECE
            raise Unavailable("no holder")
        finally:
            self.is_closed = True


def _write(client: _Client, pieces: _Pieces) -> None:
    scope = {
        "scheme": "http", "method": "GET", "raw_path": b"/b/k", "query_string": b"", "headers": [],
    }  # fmt: skip
    context = cast(GatewayContext, None)  # not used for writing
    exchange = _Exchange(context, scope, client.receive, client.send)
    response = S3Response(stream=pieces.stream(), length=PIECES * len(PIECE))
    asyncio.run(exchange._write(response))


def test_nothing_is_read_for_a_client_that_has_gone() -> None:
    client, pieces = _Client(takes=3), _Pieces(PIECES)
    _write(client, pieces)
    assert len(client.taken) == 3
    assert pieces.given < 10
    assert pieces.is_closed


def test_a_client_that_stays_gets_everything() -> None:
    client, pieces = _Client(takes=PIECES + 1), _Pieces(PIECES)
    _write(client, pieces)
    assert sum(len(message.get("body", b"")) for message in client.taken) == PIECES * len(PIECE)
    assert client.taken[-1]["more_body"] is False
    assert pieces.is_closed


def test_an_answer_that_ends_too_early_breaks_the_connection() -> None:
    client, pieces = _Client(takes=PIECES), _Pieces(5)
    with pytest.raises(BrokenAnswer):
        _write(client, pieces)
    assert client.taken[-1]["more_body"] is True
