"""Certificates for tests, good for a hundred years: of a member of a cluster, and of a stranger.

Their keys are public: nothing but a test may ever believe them. Made by `openssl`, each with a CA
of its own whose key is gone.
"""

import shutil
from pathlib import Path

from astra.tls import PeerTls

_HERE = Path(__file__).parent


def peer_tls(directory: Path, owner: str = "member", *, believes: str = "member") -> PeerTls:
    """The files of `owner` in `directory`, private as they must be, with the CA it believes."""
    key = directory / f"{owner}.key"
    shutil.copyfile(_HERE / key.name, key)
    key.chmod(0o600)
    return PeerTls(cert=_HERE / f"{owner}.pem", key=key, ca=_HERE / f"{believes}-ca.pem")
