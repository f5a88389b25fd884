"""`astra node` as a process of its own, beside the nodes of LocalNodes in the test's process."""

from pathlib import Path

import msgspec

from astra.cli.devdir import render_toml
from node.settings import NodeSettings
from tests.chaos.server import Server


class LastLine(msgspec.Struct, frozen=True, kw_only=True):
    """What a node says before it ends by itself."""

    event: str
    what: str
    why: str
    todo: str


def node_process(settings: NodeSettings, directory: Path) -> Server:
    """The process with these settings, not started yet; its files are in `directory`."""
    name = settings.node_id
    secret, config = directory / f"{name}.secret", directory / f"{name}.toml"
    for path, text in (
        (secret, settings.cluster_secret.decode()),
        (config, render_toml(_tables(settings, secret))),
    ):
        path.touch(mode=0o600)
        path.write_text(text)
    return Server(name, ["node", "--config", str(config)], directory / f"{name}.log")


def _tables(settings: NodeSettings, secret: Path) -> dict[str, dict[str, str | int | float | bool]]:
    peers = ",".join(f"{name}={address}" for name, address in settings.peers.items())
    return {
        "cluster": {
            "id": settings.cluster_id,
            "secret_file": str(secret),
            "peers": peers,
            "voters": ",".join(settings.voters),
        },
        "node": {
            "id": settings.node_id,
            "listen": f"{settings.listen_host}:{settings.listen_port}",
            "election_ms": settings.raft.election_timeout_min_ms,
            "heartbeat_ms": settings.raft.heartbeat_ms,
            "metadata": settings.metadata,
            "metadata_scrub_period_s": settings.metadata_scrub_period_s,
        },
        "data": {"dir": str(settings.data_dir)},
    }


def last_lines(server: Server) -> list[LastLine]:
    """Of all its lives, in order. Fails on anything in the log that is no line of ours."""
    found = []
    for line in server.log.read_bytes().splitlines():
        assert line.startswith(b"{"), f"not a line of the log: {line[:200]!r}"
        if b'"what"' in line:
            found.append(msgspec.json.decode(line, type=LastLine))
    return found
