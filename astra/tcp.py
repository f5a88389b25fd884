"""How long TCP believes in a peer that vanished without a word.

A machine that loses its power, or a link that goes dark, sends no farewell. Without these options
the kernel goes on for a quarter of an hour, and tries again up to two minutes after the peer is
back: far too long for a follower that waits for its leader (FAULTS row 21).
"""

from __future__ import annotations

import asyncio
import socket
from typing import Final

_PROBES: Final = 3


def break_after_silence(transport: asyncio.BaseTransport, seconds: float) -> None:
    """The connection breaks when the peer's system has acknowledged nothing, or has taken nothing
    of what waits for it, for about `seconds`; also when nothing is under way. A peer that is only
    slow to answer keeps its connection: its system acknowledges."""
    endpoint = transport.get_extra_info("socket")
    if endpoint is None:
        return  # no TCP: a simulated network
    interval_s = max(1, int(seconds / (_PROBES + 1)))
    endpoint.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
        ("TCP_KEEPIDLE", interval_s),
        ("TCP_KEEPINTVL", interval_s),
        ("TCP_KEEPCNT", _PROBES),
        ("TCP_USER_TIMEOUT", int(seconds * 1000)),  # counts for the probes too, where it exists
    ):
        option = getattr(socket, name, None)  # not every system has all of them
        if option is not None:
            endpoint.setsockopt(socket.IPPROTO_TCP, option, value)
