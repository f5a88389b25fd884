"""Nodes join, drain and leave a running cluster under load (issue 3.3; FAULTS section 3.4).

What must hold each time: no acknowledged write is lost, writes go on, and the cluster ends with the
members and voters that were asked for. A removed node says that it was removed.
"""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from astra.cli.cluster import node_statuses
from astra.config import load as load_config
from astra.wire import NodeStatus
from tests.support.cluster import Cluster
from tests.support.load import Load
from tests.support.ports import free_port
from tests.support.services import ROOT
from tests.support.wait import wait_until, wait_until_async

pytestmark = pytest.mark.cluster

GAP_SECONDS_MAX = 10.0  # that writes go on, not how fast: two busy cores are slow
JOIN_SECONDS = 90.0
DRAIN_SECONDS = 120.0
WRITES_AFTER = 40


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of `astra node list`."""

    id: str
    address: str
    state: str
    part: str
    live: bool
    zone: str = ""


class Site:
    """A cluster of `astra dev`, and the nodes that join it later."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.data = cluster.data
        self._processes: list[subprocess.Popen[bytes]] = []

    def astra(self, *arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "astra.cli.main", *arguments, "--data", str(self.data)],
            capture_output=True,
            text=True,
            timeout=timeout,
            cwd=ROOT,
            check=False,
        )

    def ok(self, *arguments: str, timeout: float = 60.0) -> str:
        done = self.astra(*arguments, timeout=timeout)
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def members(self) -> dict[str, Row]:
        rows = msgspec.json.decode(self.ok("node", "list", "-o", "json"), type=list[Row])
        return {row.id: row for row in rows}

    def parts(self) -> dict[str, str]:
        return {row.id: row.part for row in self.members().values()}

    def leader(self) -> str:
        return next(name for name, part in self.parts().items() if part == "leader")

    def start(self, node_id: str, zone: str = "") -> str:
        """A new node process; it knows the others only by one seed."""
        address = f"127.0.0.1:{free_port()}"
        seed, seed_at = next(iter((row.id, row.address) for row in self.members().values()))
        settings = {
            "ASTRA_CLUSTER_ID": (self.data / "cluster-id").read_text(),
            "ASTRA_CLUSTER_SECRET_FILE": str(self.data / "cluster-secret"),
            "ASTRA_CLUSTER_PEERS": f"{seed}={seed_at},{node_id}={address}",
            "ASTRA_NODE_ID": node_id,
            "ASTRA_NODE_ZONE": zone,
            "ASTRA_DATA_DIR": str(self.data / "nodes" / node_id),
        }
        with (self.data / "logs" / f"node {node_id}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [sys.executable, "-P", "-m", "astra.cli.main", "node"],
                    stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT, env=settings,
                )
            )  # fmt: skip
        return address

    def grow(self, node_id: str) -> None:
        """Returns when the new node votes."""
        address = self.start(node_id, zone="cellar")
        self.ok("node", "add", "--id", node_id, "--address", address, "--zone", "cellar")
        wait_until(lambda: self.parts().get(node_id) == "voter", JOIN_SECONDS, f"{node_id} votes")

    def drain(self, node_id: str) -> list[dict[str, object]]:
        lines = self.ok("node", "drain", node_id, "-o", "json", timeout=DRAIN_SECONDS).splitlines()
        return [json.loads(line) for line in lines]

    def close(self) -> None:
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(15)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    cluster = Cluster.start(
        backend="embedded", directory=tmp_path_factory.mktemp("members"), workers=1
    )
    site = Site(cluster)
    try:
        yield site
    except BaseException:
        print(cluster.logs())
        raise
    finally:
        site.close()
        cluster.close()


@pytest.fixture
def load(site: Site) -> Load:
    return Load(site.cluster.target, writers=3, pause_s=0.01)


def _check(load: Load, site: Site, what: str, since: float) -> None:
    gap = load.longest_gap(since)
    print(f"\n{what}: longest gap {gap:.2f} s; {load.summary()}")
    assert load.verify(site.cluster.target) > 0
    assert gap <= GAP_SECONDS_MAX


def test_seeds_are_recorded_as_members(site: Site) -> None:
    wait_until(lambda: len(site.members()) == 3, JOIN_SECONDS, "the leader records its seeds")
    assert sorted(site.parts().values()) == ["leader", "voter", "voter"]


def test_node_joins_under_load_and_votes(site: Site, load: Load) -> None:
    with load.running():
        since = time.monotonic()
        site.grow("n4")
        load.wait_for_acks(WRITES_AFTER)
    _check(load, site, "n4 joined", since)
    assert not load.failures, load.summary()
    row = site.members()["n4"]
    assert (row.zone, row.state, row.live) == ("cellar", "active", True)


def test_active_node_or_stranger_is_not_removed(site: Site) -> None:
    refused = site.astra("node", "remove", "n4")
    assert refused.returncode == 1
    assert "drain it first" in refused.stderr
    assert "no member" in site.astra("node", "drain", "n77").stderr
    assert "n4" in site.members()


def test_drain_can_be_undone(site: Site) -> None:
    site.ok("node", "drain", "n4", "--no-wait")
    assert site.members()["n4"].state == "draining"
    site.ok("node", "drain", "n4", "--undo")
    assert site.members()["n4"].state == "active"


async def test_follower_is_drained_and_removed_under_load(site: Site, load: Load) -> None:
    follower = next(name for name, part in site.parts().items() if part == "voter" and name != "n4")
    address = site.members()[follower].address
    with load.running():
        load.wait_for_acks(WRITES_AFTER)
        since = time.monotonic()
        progress = site.drain(follower)
        assert progress[-1] == {"id": follower, "state": "drained", "blobs": 0}
        assert "n4" in site.members()
        site.ok("node", "remove", follower)
        load.wait_for_acks(WRITES_AFTER)
    _check(load, site, f"{follower} drained and removed", since)
    assert sorted(site.parts().values()) == ["leader", "voter", "voter"]
    await _says_that_it_was_removed(site.data, follower, address)


async def test_leader_is_drained_and_removed_under_load(site: Site, load: Load) -> None:
    site.grow("n5")
    leader = site.leader()
    address = site.members()[leader].address
    with load.running():
        load.wait_for_acks(WRITES_AFTER)
        since = time.monotonic()
        site.drain(leader)
        wait_until(lambda: site.leader() != leader, JOIN_SECONDS, "a draining leader hands over")
        site.ok("node", "remove", leader)
        load.wait_for_acks(WRITES_AFTER)
    _check(load, site, f"leader {leader} drained and removed", since)
    assert leader not in site.members()
    await _says_that_it_was_removed(site.data, leader, address)


async def _says_that_it_was_removed(data: Path, node_id: str, address: str) -> None:
    config = load_config(environ={}, file=data / "astra.toml")

    async def says_so() -> bool:
        status = (await node_statuses(config, {node_id: address}))[node_id]
        return isinstance(status, NodeStatus) and any(
            "removed from the cluster" in problem for problem in status.problems
        )

    await wait_until_async(says_so, JOIN_SECONDS, f"{node_id} says that it was removed")
