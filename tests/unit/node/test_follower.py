"""A learner far behind takes a snapshot; pushed entries in any order end in the same tables."""

import random
from pathlib import Path

import pytest

from astra.commands import AnyCommand, CreateBucket, Proposal, encode_proposal
from astra.errors import DamagedLog, WireError
from astra.model import BUCKETS, GARBAGE, MARKS, OBJECTS, Doc, Key, Table
from astra.net import Dialer, FrameServer, Peer, Routes
from astra.ports import MetadataStore, MetadataView
from astra.wire import (
    Entry,
    EntryBatch,
    EntryKind,
    FetchEntries,
    ListObjects,
    Message,
    ObjectPage,
    PeerQuery,
)
from node.applier import Applier
from node.clock import SystemClock
from node.follower import LogFollower, check_consecutive
from node.membership import ClusterMap
from node.metadata.memory import MemoryMetadataStore
from node.raft.config import RaftConfig
from node.services.witness import Witness
from node.snapshots import SnapshotInstaller
from tests.support.nodes import NO_EPOCHS, SECRET, LocalNodes, inline_put
from tests.support.wait import wait_until_async


def make_follower(
    applier: Applier, store: MetadataStore, leader: str = "127.0.0.1:2"
) -> tuple[LogFollower, Dialer]:
    """A learner, by default one whose leader is never reached."""
    dialer = Dialer(secret=SECRET, role="node", peer_id="learner")
    cluster = ClusterMap(
        node_id="learner",
        address="127.0.0.1:1",
        peers={"n1": leader},
        clock=SystemClock(),
        silence_ms=1000,
    )
    installer = SnapshotInstaller(store=store, applier=applier, dialer=dialer, cluster=cluster)
    follower = LogFollower(
        voters=["n1"], applier=applier, dialer=dialer, cluster=cluster, snapshots=installer
    )
    return follower, dialer


def make_entries(count: int) -> list[Entry]:
    """A bucket, then objects that overwrite each other."""
    commands: list[AnyCommand] = [CreateBucket(bucket="bk", owner_id="o")]
    commands += [inline_put("bk", b"k%d" % (number % 7), b"x") for number in range(1, count)]
    return [
        Entry(
            index=index,
            term=1,
            kind=EntryKind.COMMAND,
            data=encode_proposal(
                Proposal(
                    request_id=f"r{index}",
                    time_ms=SystemClock().wall_ms(),
                    salt=b"12345678",
                    command=command,
                )
            ),
        )
        for index, command in enumerate(commands, start=1)
    ]


@pytest.mark.parametrize(("commit", "is_level"), [(3, True), (2, False)])
async def test_follower_that_is_ahead_of_the_cluster_stops(commit: int, is_level: bool) -> None:
    """The voters were put back to an older state: what follows there is another history."""

    async def entries(_: Peer, __: Message) -> Message:
        return EntryBatch(entries=(), commit=commit)

    routes = Routes()
    routes.unary[FetchEntries] = entries
    server = FrameServer(secret=SECRET, node_id="n1", routes=routes, on_fatal=lambda _: None)
    await server.start("127.0.0.1", 0)
    store = MemoryMetadataStore()
    applier = Applier(store, Witness())
    await applier.apply(make_entries(3))
    follower, dialer = make_follower(applier, store, leader=f"127.0.0.1:{server.port}")
    if is_level:
        assert await follower.read_barrier() == 3
    else:
        with pytest.raises(DamagedLog, match="put back to an older state"):
            await follower.read_barrier()
    await dialer.close()
    await server.close()


async def tables_of(store: MetadataStore) -> list[list[tuple[Key, Doc]]]:
    async def read(view: MetadataView) -> list[list[tuple[Key, Doc]]]:
        tables: tuple[Table[Doc], ...] = (BUCKETS, OBJECTS, GARBAGE, MARKS)
        return [list(await view.scan(table, (), None, 10_000)) for table in tables]

    return await store.read(read)


async def test_pushed_entries_shuffled_doubled_and_lost_end_the_same() -> None:
    rng = random.Random(7)
    entries = make_entries(60)
    direct = MemoryMetadataStore()
    await Applier(direct, Witness()).apply(entries)

    store = MemoryMetadataStore()
    applier = Applier(store, Witness())
    follower, dialer = make_follower(applier, store)
    batches = [tuple(entries[start : start + 5]) for start in range(0, 60, 3)]
    while applier.applied_index < 60:
        rng.shuffle(batches)
        for batch in rng.sample(batches, 12):
            await follower.take(batch)
    assert await tables_of(store) == await tables_of(direct)
    await dialer.close()


def test_check_consecutive_gap_or_falling_term_is_refused() -> None:
    first = Entry(index=1, term=2, kind=EntryKind.NOOP, data=b"")
    for second in (
        Entry(index=3, term=2, kind=EntryKind.NOOP, data=b""),
        Entry(index=2, term=1, kind=EntryKind.NOOP, data=b""),
    ):
        with pytest.raises(WireError):
            check_consecutive([first, second])


async def test_learner_behind_the_compacted_log_takes_a_snapshot(tmp_path: Path) -> None:
    nodes = LocalNodes(tmp_path, voters=1, learners=1)
    quick = RaftConfig(
        election_timeout_min_ms=300,
        election_timeout_max_ms=600,
        heartbeat_ms=50,
        entries_retained=0,
    )
    nodes.change("n1", raft=quick, compact_interval_s=0.1)
    async with nodes:
        await nodes.make_bucket("bk")
        await nodes.stop("n2")
        for number in range(40):
            await nodes.put_inline("bk", b"k%d" % number, b"x")

        async def is_compacted() -> bool:
            client = nodes.dialer.control(nodes.addresses["n1"])
            batch = await client.call(FetchEntries(after=0), timeout_s=5)
            assert isinstance(batch, EntryBatch)
            return not batch.entries and batch.commit > 40

        await wait_until_async(is_compacted, 10, "the log is compacted")
        await nodes.start("n2")

        async def is_level() -> bool:
            leader, learner = await nodes.status("n1"), await nodes.status("n2")
            return bool(leader and learner and learner.applied_index == leader.applied_index)

        await wait_until_async(is_level, 10, "the learner has caught up")
        query = ListObjects(bucket="bk", epochs=NO_EPOCHS)
        client = nodes.dialer.control(nodes.addresses["n2"])
        page = await client.call(PeerQuery(applied_index=1, query=query), timeout_s=5)
        assert isinstance(page, ObjectPage)
        assert len(page.objects) == 40
