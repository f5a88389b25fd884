"""Free loopback ports for servers under test."""

import random
import socket
from pathlib import Path

FIRST_PORT = 10240
LAST_RESORT = 60999


def free_ports(count: int) -> list[int]:
    """Different loopback TCP ports that nobody listens on, outside the ephemeral range.

    Outside, because a server that is killed and started again must find its port free, and a
    port of the ephemeral range could by then be the near end of another connection.
    """
    try:
        text = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text()
        low = int(text.split()[0])
    except OSError:
        low = 32768
    candidates = range(FIRST_PORT, low) if low > FIRST_PORT + 1000 else range(low, LAST_RESORT)
    found: list[int] = []
    for port in random.sample(candidates, len(candidates)):
        if len(found) == count:
            return found
        if _is_free(port):
            found.append(port)
    raise AssertionError("no free loopback ports")


def free_port() -> int:
    """One free loopback TCP port."""
    return free_ports(1)[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
