"""Peers that speak mutual TLS: everything works inside, and nobody else comes in."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from awscrt.checksums import crc32c

from astra import frame_server
from astra.cli.settings import peer_tls as tls_of
from astra.config import load
from astra.constants import CHUNK_SIZE
from astra.errors import ConfigError, Unavailable
from astra.net import BulkStream, Dialer, FrameServer, Peer, Routes
from astra.tls import PeerTls
from astra.wire import Accepted, BlobEnd, BlobPiece, BlobWrite, GetStatus, Message
from tests.support.nodes import LocalNodes
from tests.support.tls import peer_tls
from tests.support.wait import wait_until_async

SECRET = b"s" * 32
MARK = b"nobody on the way reads this"


@asynccontextmanager
async def serving(tls: PeerTls | None) -> AsyncIterator[FrameServer]:
    async def answer(peer: Peer, message: Message) -> Message:
        return Accepted()

    async def echo(peer: Peer, message: Message, stream: BulkStream) -> None:
        while True:
            message, payload = await stream.receive(timeout_s=5)
            await stream.send(message, bytes(payload))
            if isinstance(message, BlobEnd):
                return

    routes = Routes()
    routes.unary[GetStatus] = answer
    routes.streaming[BlobWrite] = echo
    server = FrameServer(secret=SECRET, node_id="n1", routes=routes, tls=tls)
    await server.start("127.0.0.1", 0)
    try:
        yield server
    finally:
        await server.close()


async def ask(port: int, tls: PeerTls | None) -> Message:
    dialer = Dialer(secret=SECRET, role="gateway", peer_id="g1", tls=tls)
    try:
        return await dialer.control(f"127.0.0.1:{port}").call(GetStatus(), timeout_s=5)
    finally:
        await dialer.close()


class Tap:
    """Passes everything on, and keeps what it saw."""

    def __init__(self, port: int) -> None:
        self._target = port
        self.seen = bytearray()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return int(self._server.sockets[0].getsockname()[1])

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._tasks += [
            asyncio.create_task(self._pass(reader, back)),
            asyncio.create_task(self._pass(there, writer)),
        ]

    async def _pass(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(65536):
                self.seen += data
                target.write(data)
                await target.drain()
        except ConnectionError:
            pass
        target.close()

    async def close(self) -> None:
        self._server.close()
        await asyncio.gather(*self._tasks)


@pytest.mark.parametrize("is_sealed", [True, False])
async def test_calls_and_chunks_pass_and_who_listens_on_the_way_reads_nothing(
    tmp_path: Path, is_sealed: bool
) -> None:
    tls = peer_tls(tmp_path) if is_sealed else None
    chunk = (MARK * (CHUNK_SIZE // len(MARK) + 1))[:CHUNK_SIZE]
    async with serving(tls) as server:
        tap = Tap(server.port)
        address = f"127.0.0.1:{await tap.start()}"
        dialer = Dialer(secret=SECRET, role="gateway", peer_id="g1", tls=tls)
        answers = await asyncio.gather(
            *(dialer.control(address).call(GetStatus(), timeout_s=5) for _ in range(20))
        )
        assert answers == [Accepted()] * 20
        stream = await dialer.bulk(address)
        await stream.send(BlobWrite(blob_id="0" * 32))
        for _ in range(5):
            await stream.send(BlobPiece(), chunk, crc32c(chunk))
            assert bytes((await stream.receive(timeout_s=5))[1]) == chunk
        await stream.send(BlobEnd(size=0))
        await stream.receive(timeout_s=5)
        await stream.release()
        await dialer.close()
    await tap.close()
    assert len(tap.seen) > 10 * CHUNK_SIZE
    assert (MARK in tap.seen) is not is_sealed


async def test_who_has_no_certificate_of_the_cluster_is_refused(tmp_path: Path) -> None:
    """Although it knows the secret."""
    stranger = peer_tls(tmp_path, "stranger")
    async with serving(peer_tls(tmp_path)) as server:
        for tls in (stranger, None):
            with pytest.raises(Unavailable):
                await ask(server.port, tls)
        assert await ask(server.port, peer_tls(tmp_path)) == Accepted()


async def test_node_without_a_certificate_of_the_cluster_is_not_believed(tmp_path: Path) -> None:
    for tls in (peer_tls(tmp_path, "stranger"), None):
        async with serving(tls) as server:
            with pytest.raises(Unavailable):
                await ask(server.port, peer_tls(tmp_path))


async def test_connection_that_never_begins_tls_is_ended_and_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frame_server, "_HANDSHAKE_TIMEOUT_S", 0.2)
    async with serving(peer_tls(tmp_path)) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        async with asyncio.timeout(5):
            assert await reader.read() == b""
        await wait_until_async(lambda: not server._accepted, 5, "it is forgotten")
        writer.close()


async def test_whole_cluster_with_tls_works_and_one_without_stays_outside(tmp_path: Path) -> None:
    tls = peer_tls(tmp_path)
    nodes = LocalNodes(tmp_path)
    for name in nodes.settings:
        nodes.change(name, peer_tls=tls)
    plain, nodes.dialer = (
        nodes.dialer,
        Dialer(secret=nodes.settings["n1"].cluster_secret, role="gateway", peer_id="test", tls=tls),
    )
    async with nodes:
        await nodes.make_bucket("bk")
        await nodes.put_inline("bk", b"k", b"1")
        with pytest.raises(Unavailable):
            await plain.control(nodes.addresses["n1"]).call(GetStatus(), timeout_s=2)
        await plain.close()


# --- settings --------------------------------------------------------------------------------


def environment(tls: PeerTls) -> dict[str, str]:
    return {
        "ASTRA_CLUSTER_TLS_CERT": str(tls.cert),
        "ASTRA_CLUSTER_TLS_KEY": str(tls.key),
        "ASTRA_CLUSTER_TLS_CA": str(tls.ca),
    }


def test_settings_name_all_files_or_none(tmp_path: Path) -> None:
    tls = peer_tls(tmp_path)
    assert tls_of(load(environ=environment(tls))) == tls
    assert tls_of(load(environ={})) is None
    for name in environment(tls):
        some = {each: value for each, value in environment(tls).items() if each != name}
        with pytest.raises(ConfigError, match=name.removeprefix("ASTRA_CLUSTER_").lower()):
            tls_of(load(environ=some))


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    tls = peer_tls(tmp_path)
    tls.key.chmod(0o640)
    with pytest.raises(ConfigError, match="chmod 600"):
        tls.client()


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    mine, other = peer_tls(tmp_path), peer_tls(tmp_path, "stranger")
    for tls in (
        PeerTls(cert=mine.cert, key=other.key, ca=mine.ca),
        PeerTls(cert=mine.cert, key=mine.key, ca=mine.key),
        PeerTls(cert=tmp_path / "none", key=mine.key, ca=mine.ca),
    ):
        with pytest.raises(ConfigError, match="cannot be used"):
            tls.server()
    with pytest.raises(ConfigError, match="cannot read"):
        PeerTls(cert=mine.cert, key=tmp_path / "none", ca=mine.ca).client()
