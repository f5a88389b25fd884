"""A node that joins gets its share of the blobs in the background, and nobody is hurt by it.

Real nodes, files and a gateway in this process. Only the sizes of the disks are made up: all nodes
share one real disk, and rebalancing goes by how full each is.
"""

import asyncio
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from mypy_boto3_s3 import S3Client

from astra.model import NodeState
from astra.wire import Accepted, AddMember, ListMembers, MemberList
from node.chunkstore.disk import Disk
from node.chunkstore.ports import Space
from node.raft.config import RaftConfig
from node.services.copies import STOP_BELOW
from tests.support.clients import boto3_client
from tests.support.files import MIB
from tests.support.gateway import LocalGateway
from tests.support.nodes import LocalNodes
from tests.support.wait import wait_until_async

DISK_BYTES = 64 * MIB
OBJECTS = 24
JOIN_SECONDS = 30.0
MOVE_SECONDS = 90.0
OLD = ("n1", "n2", "n3")
# Four nodes share one event loop with all else: a busy machine must not look like a dead leader.
PATIENT = RaftConfig(election_timeout_min_ms=1000, election_timeout_max_ms=2000, heartbeat_ms=100)
LOOK_S = 0.5


def body_of(number: int) -> bytes:
    return random.Random(f"rebalancing {number}").randbytes(MIB)


BODIES = {f"k{number}": body_of(number) for number in range(OBJECTS)}


@pytest.fixture
def small_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every chunk directory is on a disk of DISK_BYTES with nothing else on it."""

    def space(self: Disk, fd: int) -> Space:
        return Space(total=DISK_BYTES, free=DISK_BYTES - used_below(Path(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(Disk, "space", space)


def used_below(directory: Path) -> int:
    used = 0
    for path, _, names in os.walk(f"{directory}/"):
        for name in names:
            try:
                used += os.stat(os.path.join(path, name)).st_size
            except FileNotFoundError:
                continue  # deleted or renamed meanwhile
    return used


@pytest.fixture
async def nodes(tmp_path: Path, small_disks: None) -> AsyncIterator[LocalNodes]:
    """Three that run, and n4, of which they know nothing yet."""
    nodes = LocalNodes(tmp_path, learners=1)
    known = {name: nodes.addresses[name] for name in OLD}
    for name in nodes.settings:
        nodes.change(
            name, repair_scan_interval_s=0.5, rebalance_interval_s=0.3, garbage_grace_s=1.0,
            report_interval_s=0.5, peer_silence_s=5.0, raft=PATIENT,
            peers=known if name in OLD else nodes.addresses,
        )  # fmt: skip
    try:
        await nodes.start(*OLD)
        await wait_until_async(nodes.leader, JOIN_SECONDS, "a leader is elected")
        await nodes.all_know_each_other()
        yield nodes
    finally:
        await nodes.__aexit__(None, None, None)


class Readers:
    """Read everything again and again, as clients do: a 503 of a busy machine is tried again."""

    def __init__(self, gate: LocalGateway) -> None:
        self._s3 = boto3_client(gate.target)
        self._is_over = False
        self.reads = 0
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        while not self._is_over:
            for key, body in BODIES.items():
                assert await asyncio.to_thread(read, self._s3, key) == body
                self.reads += 1
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        """Raises what went wrong with a read."""
        self._is_over = True
        await self.task
        self._s3.close()


def read(s3: S3Client, key: str) -> bytes:
    return s3.get_object(Bucket="bkt", Key=key)["Body"].read()


def store_all(gate: LocalGateway) -> None:
    s3 = boto3_client(gate.target)
    s3.create_bucket(Bucket="bkt")
    for key, body in BODIES.items():
        s3.put_object(Bucket="bkt", Key=key, Body=body)
    s3.close()


def files(nodes: LocalNodes, name: str) -> set[str]:
    """The blobs of which this node has a file, whole or not."""
    chunks = nodes.settings[name].data_dir / "chunks"
    return {path.name for path in chunks.rglob("*") if path.is_file() and len(path.name) == 32}


async def holders(nodes: LocalNodes) -> dict[str, tuple[str, set[str]]]:
    """By key: the blob, and who holds it by the metadata."""
    found = {}
    for key in BODIES:
        (place,) = (await nodes.locate("bkt", key.encode())).places
        found[key] = (place.blob_id, {ref.node_id for ref in place.holders})
    return found


async def all_have_three(nodes: LocalNodes) -> bool:
    """The third copy may be recorded after the answer to its PUT."""
    return all(len(held) == 3 for _, held in (await holders(nodes)).values())


def spread(nodes: LocalNodes) -> float:
    """How much fuller the fullest disk is than the emptiest, as a part of a disk."""
    counts = [len(files(nodes, name)) for name in nodes.settings]
    return (max(counts) - min(counts)) * MIB / DISK_BYTES


async def test_new_node_gets_its_share_while_everything_stays_readable(nodes: LocalNodes) -> None:
    async with LocalGateway(nodes) as gate:
        await asyncio.to_thread(store_all, gate)
        await wait_until_async(
            lambda: all_have_three(nodes), JOIN_SECONDS, "each blob has three copies"
        )
        readers = Readers(gate)
        await nodes.start("n4")
        await nodes.ask(AddMember(node_id="n4", address=nodes.addresses["n4"]), Accepted)

        async def is_balanced() -> bool:
            if readers.task.done():
                await readers.stop()
            # Each side may end within STOP_BELOW of the average, and a blob is what moves.
            return spread(nodes) <= 2 * STOP_BELOW + 2 * MIB / DISK_BYTES

        await wait_until_async(
            is_balanced, MOVE_SECONDS, "the disks are about equally full", poll=LOOK_S
        )

        async def is_exact() -> bool:
            """Three files of each blob, where the metadata says."""
            there = {name: files(nodes, name) for name in nodes.settings}
            return all(
                len(held) == 3 and held == {name for name in there if blob in there[name]}
                for blob, held in (await holders(nodes)).values()
            )

        await wait_until_async(
            is_exact, MOVE_SECONDS, "three copies of each, and no more", poll=LOOK_S
        )
        await readers.stop()
        print(f"{len(files(nodes, 'n4'))} blobs on n4, {readers.reads} reads meanwhile")
        assert readers.reads > 0
        await check_every_copy(nodes)
    found = await nodes.ask(ListMembers(), MemberList)
    assert {member.node.node_id for member in found.members} == {*OLD, "n4"}
    assert all(member.node.state is NodeState.ACTIVE for member in found.members)


async def check_every_copy(nodes: LocalNodes) -> None:
    for key, (blob_id, held) in (await holders(nodes)).items():
        for name in held:
            copy = await nodes.read_blob(name, blob_id, length=len(BODIES[key]))
            assert copy == BODIES[key], f"{key} on {name}"
