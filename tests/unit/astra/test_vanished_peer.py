"""A peer that vanishes without a word is noticed, and found again when it is back (FAULTS 21)."""

import asyncio
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from astra.net import Dialer, FrameServer, Routes
from tests.support.dark_link import CONTROL_SILENCE_S, SECRET, SILENCE_S, Seen

ROOT = Path(__file__).resolve().parents[3]
SLACK_S = 4.0  # a busy machine; without the options it would be minutes


def in_a_network_of_its_own(*argv: str) -> bytes:
    """Skips where a process may not have one."""
    unshare = shutil.which("unshare")
    if unshare is None or subprocess.run([unshare, "-rn", "true"], check=False).returncode != 0:
        pytest.skip("no right to a network of one's own")
    done = subprocess.run([unshare, "-rn", *argv], capture_output=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def test_vanished_peer_breaks_the_connection_on_both_sides_and_is_found_when_it_is_back() -> None:
    out = in_a_network_of_its_own(sys.executable, "-m", "tests.support.dark_link")
    seen = msgspec.json.decode(out, type=Seen)
    print(seen)
    assert seen.error == "OutcomeUnknown"
    assert seen.call_failed < CONTROL_SILENCE_S + SLACK_S
    assert seen.idle_forgotten < SILENCE_S + SLACK_S
    assert seen.server_forgot < SILENCE_S + SLACK_S
    assert seen.answered_again < SLACK_S


async def test_every_connection_of_nodes_and_gateways_is_watched() -> None:
    server = FrameServer(secret=SECRET, node_id="n1", routes=Routes())
    await server.start("127.0.0.1", 0)
    dialer = Dialer(secret=SECRET, role="gateway", peer_id="g1")
    try:
        address = f"127.0.0.1:{server.port}"
        stream = await dialer.bulk(address)
        control = await dialer.control(address)._connected()
        (one, other) = server._accepted
        ends = [stream._connection, one.connection, other.connection, control]
        assert [patience_ms(end._transport) for end in ends] == [30_000, 30_000, 30_000, 5_000]
    finally:
        await dialer.close()
        await server.close()


def patience_ms(transport: asyncio.Transport | None) -> int:
    assert transport is not None
    endpoint = transport.get_extra_info("socket")
    assert endpoint.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    idle_s = endpoint.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
    patience: int = endpoint.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    assert idle_s * 1000 < patience
    return patience
