"""TLS between the processes of a cluster, both sides with a certificate (mutual TLS). Optional.

The handshake (handshake.py) proves who is there at the start of a connection; with TLS, everything
that follows is sealed too: nobody on the way can read, change, repeat or add a message (SECURITY
S29). A certificate says that its owner belongs to the cluster: it is believed when the cluster's
own CA has signed it, whatever name is in it. Which node that is, the handshake inside says.
"""

from __future__ import annotations

import ssl
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from astra.errors import ConfigError

_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerTls:
    """PEM files: this process's certificate (with its chain) and key, and the CA of the cluster."""

    cert: Path
    key: Path
    ca: Path

    def client(self) -> ssl.SSLContext:
        """For who dials. Raises ConfigError."""
        return self._context(ssl.PROTOCOL_TLS_CLIENT)

    def server(self) -> ssl.SSLContext:
        """For who accepts: a peer without a certificate is refused. Raises ConfigError."""
        return self._context(ssl.PROTOCOL_TLS_SERVER)

    def _context(self, protocol: ssl._SSLMethod) -> ssl.SSLContext:
        self._check_private()
        context = ssl.SSLContext(protocol)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False  # addresses move between machines; the CA is ours alone
        context.verify_mode = ssl.CERT_REQUIRED
        try:
            context.load_cert_chain(self.cert, self.key)
            context.load_verify_locations(cafile=self.ca)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            raise ConfigError(
                f"cluster.tls_cert {self.cert}, cluster.tls_key {self.key} and cluster.tls_ca "
                f"{self.ca} cannot be used: {error}"
            ) from error
        return context

    def _check_private(self) -> None:
        try:
            mode = self.key.stat().st_mode
        except OSError as error:
            raise ConfigError(f"cannot read cluster.tls_key: {error}") from error
        if mode & _OTHERS:
            raise ConfigError(f"others may read cluster.tls_key: run chmod 600 {self.key}")
