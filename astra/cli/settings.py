"""From the configuration to the settings of a process. The only place that knows both."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path
from typing import TYPE_CHECKING

from astra.config import Config, Value, load, parse_listen, parse_peers
from astra.constants import VOTERS_MAX
from astra.errors import ConfigError
from astra.tls import PeerTls

if TYPE_CHECKING:  # imported where they are used: each command starts with its own half only
    from gateway.settings import GatewaySettings
    from node.settings import NodeSettings


def find_config(config: Path | None, data: Path | None = None, **flags: Value | None) -> Config:
    """The configuration of a command: --config, or astra.toml in --data, or ASTRA_CONFIG."""
    path = config
    if path is None and data is not None:
        path = data / "astra.toml"
        if not path.exists():
            raise ConfigError(f"{data} is not the data directory of a cluster (no astra.toml)")
    if path is None and os.environ.get("ASTRA_CONFIG"):
        path = Path(os.environ["ASTRA_CONFIG"])
    named = {name.replace("__", "."): value for name, value in flags.items()}
    return load(flags=named, environ=os.environ, file=path)


def cluster_secret(config: Config) -> bytes:
    return config.required("cluster.secret").encode()


def peer_tls(config: Config) -> PeerTls | None:
    """Raises ConfigError when only some of the files are named."""
    names = ("cluster.tls_cert", "cluster.tls_key", "cluster.tls_ca")
    given = [config.text(name) for name in names]
    if not any(given):
        return None
    missing = [name for name, value in zip(names, given, strict=True) if not value]
    if missing:
        raise ConfigError(f"TLS between peers needs {', '.join(missing)} as well")
    cert, key, ca = map(Path, given)
    return PeerTls(cert=cert, key=key, ca=ca)


def node_settings(config: Config) -> NodeSettings:
    from node.raft.config import RaftConfig
    from node.settings import NodeSettings

    peers = parse_peers(config.required("cluster.peers"))
    node_id = config.required("node.id")
    if node_id not in peers:
        raise ConfigError(f"node.id {node_id} is not in cluster.peers ({', '.join(peers)})")
    host, port = parse_listen("node.listen", config.text("node.listen") or peers[node_id])
    voters = [name for name in config.text("cluster.voters").split(",") if name]
    election_ms = config.number("node.election_ms")
    return NodeSettings(
        node_id=node_id,
        cluster_id=config.required("cluster.id"),
        data_dir=Path(config.required("data.dir")),
        cluster_secret=cluster_secret(config),
        peer_tls=peer_tls(config),
        listen_host=host,
        listen_port=port,
        advertised_address=peers[node_id],
        peers=peers,
        voters=tuple(voters or list(peers)[:VOTERS_MAX]),
        voters_max=VOTERS_MAX,
        zone=config.text("node.zone"),
        metadata=config.text("node.metadata"),
        redis_url=config.text("redis.url") or None,
        amqp_url=config.text("amqp.url") or None,
        inline_bytes=config.number("node.inline_bytes"),
        garbage_grace_s=config.real("node.garbage_grace_s"),
        repair_grace_s=config.real("node.repair_grace_s"),
        repair_mib_per_s=config.real("node.repair_mib_per_s"),
        scrub_mib_per_s=config.real("node.scrub_mib_per_s"),
        metadata_scrub_period_s=config.real("node.metadata_scrub_period_s"),
        raft=RaftConfig(
            election_timeout_min_ms=election_ms,
            election_timeout_max_ms=2 * election_ms,
            heartbeat_ms=config.number("node.heartbeat_ms"),
        ),
        log_level=config.text("log.level"),
    )


def node_addresses(config: Config) -> tuple[str, ...]:
    given = [address for address in config.text("gateway.nodes").split(",") if address]
    return tuple(given) or tuple(parse_peers(config.required("cluster.peers")).values())


def gateway_settings(config: Config) -> GatewaySettings:
    from gateway.settings import GatewaySettings

    host, port = parse_listen("gateway.listen", config.text("gateway.listen"))
    name = config.text("gateway.id") or platform.node() or "gateway"
    data_dir = config.text("data.dir")
    return GatewaySettings(
        gateway_id=re.sub(r"[^A-Za-z0-9._-]", "-", name)[:48],
        nodes=node_addresses(config),
        cluster_secret=cluster_secret(config),
        peer_tls=peer_tls(config),
        cluster_id=config.text("cluster.id"),
        listen_host=host,
        listen_port=port,
        workers=config.number("gateway.workers"),
        data_dir=Path(data_dir) if data_dir else None,
        region=config.text("gateway.region"),
        domains=tuple(d.lower() for d in config.text("gateway.domains").split(",") if d),
        amqp_url=config.text("amqp.url") or None,
        inline_bytes=config.number("node.inline_bytes"),
        access_log=config.flag("gateway.access_log"),
        log_level=config.text("log.level"),
    )
