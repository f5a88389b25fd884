"""The read gate: what may be answered when the lease comes and goes around the read."""

import pytest

from astra.errors import NotLeader, RefusalCode, Refused
from astra.model import BUCKETS, Bucket
from astra.ports import MetadataTxn, MetadataView
from node.metadata.memory import MemoryMetadataStore
from node.services.reads import Reads


class HandConsensus:
    """A consensus whose lease the test moves. Barriers are counted and do what a test says."""

    def __init__(self) -> None:
        self.is_leader = True
        self.leader: str | None = "n1"
        self.term = 1
        self.applied_index = 0
        self.commit_index = 0
        self.lease = True
        self.barriers = 0

    async def propose(self, data: bytes, timeout_s: float = 10.0) -> object:
        raise NotLeader(None)

    async def read_barrier(self, timeout_s: float = 5.0) -> int:
        self.barriers += 1
        return self.applied_index

    def lease_valid_now(self) -> bool:
        return self.lease


@pytest.fixture
def consensus() -> HandConsensus:
    return HandConsensus()


@pytest.fixture
def store() -> MemoryMetadataStore:
    return MemoryMetadataStore()


async def put_bucket(store: MemoryMetadataStore, epoch: int) -> None:
    async def write(txn: MetadataTxn) -> None:
        bucket = Bucket(name="b", owner_id="o", created_ms=0, epoch=epoch)
        await txn.put(BUCKETS, (b"b",), bucket)

    await store.write(write)


async def epoch_of(view: MetadataView) -> int:
    bucket = await view.get(BUCKETS, (b"b",))
    return 0 if bucket is None else bucket.epoch


async def test_first_read_of_a_term_takes_a_barrier_then_the_lease_is_enough(
    consensus: HandConsensus, store: MemoryMetadataStore
) -> None:
    reads = Reads(consensus, store)
    for _ in range(3):
        assert await reads.read(epoch_of) == 0
    assert consensus.barriers == 1
    consensus.term = 2
    await reads.read(epoch_of)
    assert consensus.barriers == 2


async def test_lease_lost_while_reading_reads_again_behind_a_barrier(
    consensus: HandConsensus, store: MemoryMetadataStore
) -> None:
    reads = Reads(consensus, store)
    await reads.read(epoch_of)

    async def paused(view: MetadataView) -> int:
        consensus.lease = False  # as after a long pause of the process
        return await epoch_of(view)

    await put_bucket(store, 5)
    assert await reads.read(paused) == 5
    assert consensus.barriers == 2


async def test_refusal_read_without_a_lease_is_not_believed(
    consensus: HandConsensus, store: MemoryMetadataStore
) -> None:
    reads = Reads(consensus, store)
    await reads.read(epoch_of)
    tries = 0

    async def refuse_first(view: MetadataView) -> int:
        nonlocal tries
        tries += 1
        if tries == 1:
            consensus.lease = False
            raise Refused(RefusalCode.NO_SUCH_BUCKET)
        return tries

    assert await reads.read(refuse_first) == 2


async def test_refusal_under_the_lease_is_the_answer(
    consensus: HandConsensus, store: MemoryMetadataStore
) -> None:
    reads = Reads(consensus, store)
    await reads.read(epoch_of)

    async def refuse(view: MetadataView) -> int:
        raise Refused(RefusalCode.NO_SUCH_BUCKET)

    with pytest.raises(Refused):
        await reads.read(refuse)
    assert consensus.barriers == 1


async def test_follower_names_the_leader(
    consensus: HandConsensus, store: MemoryMetadataStore
) -> None:
    consensus.is_leader, consensus.leader = False, "n2"
    with pytest.raises(NotLeader) as caught:
        await Reads(consensus, store).read(epoch_of)
    assert caught.value.leader == "n2"


async def test_node_deposed_behind_its_barrier_shows_nothing_of_the_next_leader(
    consensus: HandConsensus, store: MemoryMetadataStore
) -> None:
    """It may have applied more by then than the new leader, which reads under its lease
    (seed 2853 of the simulation)."""
    reads = Reads(consensus, store)
    consensus.lease = False

    async def deposed(view: MetadataView) -> int:
        consensus.is_leader, consensus.leader, consensus.term = False, "n2", 2
        return await epoch_of(view)

    with pytest.raises(NotLeader) as caught:
        await reads.read(deposed)
    assert caught.value.leader == "n2"


async def test_refusal_read_by_a_deposed_node_is_not_believed(
    consensus: HandConsensus, store: MemoryMetadataStore
) -> None:
    reads = Reads(consensus, store)
    consensus.lease = False

    async def deposed_and_leading_again(view: MetadataView) -> int:
        consensus.term = 3
        raise Refused(RefusalCode.NO_SUCH_BUCKET)

    with pytest.raises(NotLeader):
        await reads.read(deposed_and_leading_again)


async def test_after_a_peer_answered_the_lease_waits_until_as_much_is_applied(
    consensus: HandConsensus, store: MemoryMetadataStore
) -> None:
    reads = Reads(consensus, store)
    await reads.read(epoch_of)
    consensus.commit_index = 7  # a peer may have applied and shown it
    await reads.shown_by_a_peer(1)
    assert not reads.lease_holds()
    consensus.applied_index = 7
    assert reads.lease_holds()


async def test_answer_of_a_peer_is_refused_when_another_may_lead(
    consensus: HandConsensus, store: MemoryMetadataStore
) -> None:
    reads = Reads(consensus, store)
    consensus.lease = False
    await reads.shown_by_a_peer(1)  # confirmed by a round
    assert consensus.barriers == 1
    consensus.term = 2
    with pytest.raises(NotLeader):
        await reads.shown_by_a_peer(1)
