"""Who asks for a large object and leaves, or reads no further, costs no more (FAULTS row 11).

A gateway and its nodes in this process.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import gateway.http_server
from gateway.blob_read import STRIPE_BYTES, BlobReader
from tests.support.clients import boto3_client
from tests.support.files import MIB
from tests.support.gateway import LocalGateway
from tests.support.nodes import LocalNodes
from tests.support.rawhttp import RawConnection, sign
from tests.support.wait import wait_until_async

SECONDS = 15.0
OBJECT = 64 * MIB


@pytest.fixture
async def gate(tmp_path: Path) -> AsyncIterator[LocalGateway]:
    async with LocalNodes(tmp_path) as nodes:
        await nodes.all_know_each_other()
        async with LocalGateway(nodes) as gate:
            await asyncio.to_thread(store, gate)
            yield gate


def store(gate: LocalGateway) -> None:
    s3 = boto3_client(gate.target)
    s3.create_bucket(Bucket="bkt")
    s3.put_object(Bucket="bkt", Key="large", Body=bytes(OBJECT))
    s3.close()


class Fetches:
    """What the gateway fetches from holders."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.running = 0
        self.size = 0
        read_from = BlobReader._read_from

        async def watched(reader: BlobReader, *what: Any) -> AsyncGenerator[memoryview, None]:
            self.running += 1
            try:
                async for piece in read_from(reader, *what):
                    self.size += len(piece)
                    yield piece
            finally:
                self.running -= 1

        monkeypatch.setattr(BlobReader, "_read_from", watched)


def begin_to_read(gate: LocalGateway) -> RawConnection:
    """Has the head and a little of the body."""
    connection = RawConnection(gate.target)
    connection.send(sign(gate.target, "GET", "/bkt/large").encode())
    assert connection.socket.recv(1000).startswith(b"HTTP/1.1 200")
    return connection


async def test_who_leaves_in_the_middle_of_a_download_ends_it(
    gate: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetches = Fetches(monkeypatch)
    connection = await asyncio.to_thread(begin_to_read, gate)
    connection.reset()

    async def is_over() -> bool:
        return not fetches.running and not gate._server.server_state.tasks

    await wait_until_async(is_over, SECONDS, "nothing is fetched any more")
    print(f"fetched {fetches.size // MIB} MiB")
    assert fetches.size <= 4 * STRIPE_BYTES


async def test_who_reads_no_further_is_cut_off(
    gate: LocalGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway.http_server, "SEND_STALL_SECONDS_MAX", 1.0)
    fetches = Fetches(monkeypatch)
    connection = await asyncio.to_thread(begin_to_read, gate)

    async def is_over() -> bool:
        return not fetches.running and not gate._server.server_state.tasks

    await wait_until_async(is_over, SECONDS, "the download is given up")
    assert not gate._server.server_state.connections
    connection.socket.close()
