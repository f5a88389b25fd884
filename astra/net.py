"""Peers talking frames over TCP: the dialling side and the accepting side.

Two kinds of use of a connection, told apart by the request's type: *control* (many small
requests at once, matched by stream number; stream 0 is one way) and *bulk* (one exchange at a
time owns the connection, so TCP itself is the flow control). Every wait has a deadline and
every queue a bound (DESIGN section 7).
"""

from __future__ import annotations

from astra.dialer import ControlClient, Dialer, split_address
from astra.frame_server import FrameServer, Routes
from astra.handshake import Peer
from astra.stream import BulkStream

__all__ = [
    "BulkStream",
    "ControlClient",
    "Dialer",
    "FrameServer",
    "Peer",
    "Routes",
    "split_address",
]
