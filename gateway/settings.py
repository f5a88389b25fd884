"""All settings of one gateway process. Who fills them is astra/config.py's business."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from astra.constants import INLINE_BYTES_DEFAULT, INLINE_BYTES_MAX, PUT_SIZE_MAX
from astra.errors import ConfigError
from astra.handshake import check_secret
from astra.tls import PeerTls


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewaySettings:
    """`nodes` are the addresses (host:port) of nodes of the cluster; some are enough."""

    gateway_id: str
    nodes: tuple[str, ...]
    cluster_secret: bytes = field(repr=False)
    peer_tls: PeerTls | None = None
    listen_host: str = "127.0.0.1"
    listen_port: int = 9000
    workers: int = 2
    data_dir: Path | None = None  # for logs and pid files of the workers
    region: str = "us-east-1"
    domains: tuple[str, ...] = ()  # bucket.DOMAIN addresses a bucket (virtual-host style)
    amqp_url: str | None = field(default=None, repr=False)
    cluster_id: str = ""

    inline_bytes: int = INLINE_BYTES_DEFAULT
    put_bytes_max: int = PUT_SIZE_MAX
    request_timeout_s: float = 15.0  # one question to the leader, failover included
    attempt_timeout_s: float = 2.0  # one try of it
    holder_timeout_s: float = 10.0  # a holder that takes no bytes for so long is dropped
    holder_stall_s: float = 1.5  # a holder that gives no bytes for so long is passed over
    third_copy_wait_s: float = 0.1  # after the write quorum, before the answer leaves
    body_stall_s: float = 30.0  # a client that sends nothing for so long is cut off
    access_cache_s: float = 60.0  # staleness is caught by epochs; this bounds memory of the gone
    access_cache_max: int = 10_000
    uploads_max: int = 256  # uploads of chunks at once; more are told SlowDown
    stop_timeout_s: float = 8.0
    log_level: str = "info"
    access_log: bool = False

    def __post_init__(self) -> None:
        check_secret(self.cluster_secret)
        if not self.nodes:
            raise ConfigError("the gateway knows no node: give the address of at least one")
        if not 0 <= self.inline_bytes <= INLINE_BYTES_MAX:
            raise ConfigError(f"inline_bytes must be between 0 and {INLINE_BYTES_MAX}")
        if self.workers < 1:
            raise ConfigError("a gateway needs at least 1 worker")
