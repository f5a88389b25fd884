"""How two peers prove to each other that they know the cluster secret. Pure: values only.

    dialler                      accepting side
    Hello(nonce a)        --->
                          <---   Challenge(nonce b, HMAC(secret, "server" a b ids))
    Proof(HMAC(secret, "client" a b ids))  --->
                          <---   Welcome

Both nonces are fresh, so a recorded proof is worth nothing later (SECURITY S29). Nothing else
is read from a peer before its proof. The secret has no default and is at least 32 bytes.

It proves who is there at the start of a connection, no more: without TLS (tls.py) frames are not
sealed, so whoever can change packets between two nodes can still speak in a proved one's name.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import Final, NamedTuple

from astra.errors import ConfigError, HandshakeFailed
from astra.frame import WIRE_VERSION
from astra.wire import Challenge, Hello, Proof

SECRET_BYTES_MIN: Final = 32
NONCE_BYTES: Final = 32
_PEER_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")
_ROLES: Final = frozenset({"node", "gateway"})


class Peer(NamedTuple):
    """Who is on the other side, proved by the handshake."""

    role: str
    peer_id: str


def check_secret(secret: bytes) -> None:
    """Raises ConfigError when the secret is too short to be one."""
    if len(secret) < SECRET_BYTES_MIN:
        raise ConfigError(
            f"the cluster secret has {len(secret)} bytes; give one of at least {SECRET_BYTES_MIN}"
        )


def prove(secret: bytes, side: str, hello: Hello, server_id: str, server_nonce: bytes) -> bytes:
    """The proof of one side ("server" or "client") over both nonces and both names."""
    fields = (
        side.encode(), hello.role.encode(), hello.peer_id.encode(), server_id.encode(),
        hello.nonce, server_nonce,
    )  # fmt: skip
    message = b"".join(len(field).to_bytes(2, "big") + field for field in fields)
    return hmac.new(secret, b"astra-handshake-1" + message, hashlib.sha256).digest()


def check_hello(hello: Hello) -> None:
    """Raises HandshakeFailed for a hello that cannot be one of ours."""
    if hello.wire_version != WIRE_VERSION:
        raise HandshakeFailed(f"peer speaks wire version {hello.wire_version}")
    if hello.role not in _ROLES or not _PEER_ID.match(hello.peer_id):
        raise HandshakeFailed("peer has no valid name")
    if len(hello.nonce) != NONCE_BYTES:
        raise HandshakeFailed("peer's nonce has the wrong length")


def check_challenge(secret: bytes, hello: Hello, challenge: Challenge) -> None:
    """The dialler's check. Raises HandshakeFailed when the peer does not know the secret."""
    if len(challenge.nonce) != NONCE_BYTES or challenge.nonce == hello.nonce:
        raise HandshakeFailed("peer's nonce is not fresh")
    expected = prove(secret, "server", hello, challenge.peer_id, challenge.nonce)
    if not hmac.compare_digest(expected, challenge.proof):
        raise HandshakeFailed("peer does not know the cluster secret")


def check_proof(secret: bytes, hello: Hello, challenge: Challenge, proof: Proof) -> None:
    """The accepting side's check. Raises HandshakeFailed."""
    expected = prove(secret, "client", hello, challenge.peer_id, challenge.nonce)
    if not hmac.compare_digest(expected, proof.proof):
        raise HandshakeFailed("peer does not know the cluster secret")
