"""All settings of one node process, checked at construction.

Who fills them (flags, environment, TOML) is astra/config.py's business; units are in the names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from astra.constants import INLINE_BYTES_DEFAULT, INLINE_BYTES_MAX, MIB, VOTERS_MAX
from astra.errors import ConfigError
from astra.handshake import check_secret
from astra.tls import PeerTls
from node.raft.config import RaftConfig

_NODE_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings:
    """`peers` maps node ids to host:port and may name this node too; `voters` is the bootstrap
    membership of a cluster without a log, later only the log decides. `peers` are seeds: once
    the cluster runs, its members are metadata."""

    node_id: str
    cluster_id: str
    data_dir: Path
    cluster_secret: bytes = field(repr=False)
    peer_tls: PeerTls | None = None
    listen_host: str = "127.0.0.1"
    listen_port: int = 9010
    advertised_address: str = ""  # empty: as in `peers`, or listen_host:port
    peers: dict[str, str] = field(default_factory=dict)
    voters: tuple[str, ...] = ()
    voters_max: int = 0  # the leader makes voters of other nodes up to this number
    zone: str = ""

    metadata: str = field(default="sqlite", repr=False)  # or a postgres:// DSN (has a password)
    redis_url: str | None = field(default=None, repr=False)
    amqp_url: str | None = field(default=None, repr=False)
    cache_bytes_max: int = 32 * MIB  # of the in-process cache, when there is no Redis

    inline_bytes: int = INLINE_BYTES_DEFAULT
    disk_threads: int = 4
    blob_streams_max: int = 256  # blob reads and writes at once; more are refused

    raft: RaftConfig = field(default_factory=RaftConfig)
    compact_interval_s: float = 30.0
    report_interval_s: float = 1.0
    peer_silence_s: float = 3.0  # a node that is silent for longer counts as down

    garbage_grace_s: float = 60.0  # running downloads may finish
    garbage_interval_s: float = 5.0
    repair_delay_s: float = 5.0  # a slow third copy gets this long before it is repaired
    repair_parallel_max: int = 4
    repair_grace_s: float = 300.0  # a node that is silent for longer is replaced as a holder
    repair_mib_per_s: float = 64.0  # for each node that copies, together
    repair_scan_interval_s: float = 60.0  # between two walks over all blobs
    rebalance_interval_s: float = 30.0
    census_interval_s: float = 3600.0  # between two looks for the files that should be here
    scrub_mib_per_s: float = 16.0
    scrub_period_s: float = 6 * 24 * 3600.0  # so that each chunk is verified every 7 days
    metadata_scrub_period_s: float = 12 * 3600.0  # so that each row is verified every 24 hours
    sweep_interval_s: float = 3600.0
    free_bytes_min: int = 256 * MIB  # below, no new blobs are placed here
    stop_timeout_s: float = 10.0
    log_level: str = "info"

    def __post_init__(self) -> None:
        check_secret(self.cluster_secret)
        _require(bool(_NODE_ID.match(self.node_id)), f"node id {self.node_id!r} is not a name")
        _require(bool(_NODE_ID.match(self.cluster_id)), "cluster id is not a name")
        _require(bool(self.voters), "voters is empty: name the nodes that vote")
        _require(len(self.voters) <= VOTERS_MAX, f"at most {VOTERS_MAX} nodes may vote")
        _require(self.voters_max <= VOTERS_MAX, f"at most {VOTERS_MAX} nodes may vote")
        for voter in self.voters:
            known = voter == self.node_id or voter in self.peers
            _require(known, f"voter {voter!r} has no address: add it to peers")
        _require(
            0 <= self.inline_bytes <= INLINE_BYTES_MAX,
            f"inline_bytes must be between 0 and {INLINE_BYTES_MAX}",
        )
        _require(self.repair_mib_per_s > 0, "repair_mib_per_s must be above 0")
        _require(self.scrub_mib_per_s > 0, "scrub_mib_per_s must be above 0")
        _require(self.metadata_scrub_period_s > 0, "metadata_scrub_period_s must be above 0")
        _require(self.garbage_grace_s >= 0, "garbage_grace_s must not be below 0")
        _require(self.repair_grace_s > 0, "repair_grace_s must be above 0")
        _require(self.report_interval_s < self.peer_silence_s, "reports must beat peer_silence_s")

    @property
    def is_voter(self) -> bool:
        return self.node_id in self.voters

    def own_address(self) -> str:
        """Where the others reach this node."""
        return (
            self.advertised_address
            or self.peers.get(self.node_id)
            or f"{self.listen_host}:{self.listen_port}"
        )

    def other_peers(self) -> dict[str, str]:
        """The peers without this node."""
        return {name: at for name, at in self.peers.items() if name != self.node_id}


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
