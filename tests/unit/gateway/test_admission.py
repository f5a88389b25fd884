"""More than a gateway takes at once is told to come later, and is taken later (FAULTS row 70)."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

import gateway.http_server
from tests.support.clients import boto3_client
from tests.support.files import MIB
from tests.support.gateway import LocalGateway
from tests.support.nodes import LocalNodes
from tests.support.rawhttp import Answer, RawConnection, exchange, sign
from tests.support.wait import wait_until_async

SECONDS = 10.0
BODY = bytes(range(256)) * (4 * 1024)
PATH = "/bkt/k"


def make_bucket(gate: LocalGateway) -> None:
    s3 = boto3_client(gate.target)
    s3.create_bucket(Bucket="bkt")
    s3.close()


def head_of_put(gate: LocalGateway) -> bytes:
    return sign(gate.target, "PUT", PATH, {"Content-Length": str(len(BODY))}).encode()


async def put(gate: LocalGateway) -> Answer:
    return await asyncio.to_thread(exchange, gate.target, head_of_put(gate) + BODY)


async def test_upload_beyond_the_bound_is_told_to_slow_down_until_one_ends(tmp_path: Path) -> None:
    async with (
        LocalNodes(tmp_path) as nodes,
        LocalGateway(nodes, uploads_max=1) as gate,
        AsyncExitStack() as stack,
    ):
        await nodes.all_know_each_other()
        await asyncio.to_thread(make_bucket, gate)
        slow = await asyncio.to_thread(RawConnection, gate.target)
        stack.callback(slow.socket.close)
        await asyncio.to_thread(slow.send, head_of_put(gate) + BODY[: MIB // 2])
        uploader = gate.context.uploader
        await wait_until_async(lambda: uploader._running == 1, SECONDS, "one upload is under way")
        refused = await put(gate)
        assert (refused.status, refused.code) == (503, "SlowDown"), refused
        await asyncio.to_thread(slow.send, BODY[MIB // 2 :])
        assert (await asyncio.to_thread(slow.answer)).status == 200
        assert (await put(gate)).status == 200


async def test_connection_beyond_the_bound_is_told_to_come_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.http_server, "CONNECTIONS_MAX", 5)
    async with LocalNodes(tmp_path, voters=1) as nodes, LocalGateway(nodes) as gate:
        await asyncio.to_thread(make_bucket, gate)
        crowd = [await asyncio.to_thread(RawConnection, gate.target) for _ in range(5)]
        assert (await put(gate)).status == 503
        for connection in crowd:
            connection.socket.close()

        async def is_taken() -> bool:
            return (await put(gate)).status == 200

        await wait_until_async(is_taken, SECONDS, "there is room again")
