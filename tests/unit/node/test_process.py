"""Whole nodes in this process, over real sockets and SQLite: the flows and the small failures.

Bigger faults (kill -9, power loss, partitions) are for tests/cluster and the simulator.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from astra.commands import (
    DeleteEntry,
    DeleteObjects,
    NewBlob,
    PutDone,
    Refusal,
    SetVersioning,
)
from astra.errors import (
    BadChunk,
    BlobNotFound,
    NotLeader,
    OutcomeUnknown,
    RefusalCode,
    Refused,
    StorageFull,
    Unavailable,
)
from astra.model import Versioning
from astra.net import Dialer
from astra.wire import (
    Accepted,
    BlobsHeld,
    BucketFound,
    BucketPage,
    CheckBlobs,
    Commit,
    Committed,
    Epochs,
    FetchSnapshot,
    GetBucket,
    ListBuckets,
    ListObjects,
    Locate,
    Located,
    Notice,
    ObjectPage,
    PeerQuery,
    PlaceBlobs,
    Placed,
    Placement,
    RepairBlob,
    TransferLeadership,
)
from node.metadata.sqlite import SqliteMetadataStore
from tests.support.nodes import NO_EPOCHS, SECRET, LocalNodes, inline_put, put_of
from tests.support.wait import wait_until_async

MIB = 1 << 20


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[LocalNodes]:
    async with LocalNodes(tmp_path) as nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        yield nodes


async def place(nodes: LocalNodes, size: int) -> Placement:
    placed = await nodes.ask(PlaceBlobs(bucket="bk", epochs=NO_EPOCHS, size=size), Placed)
    assert placed.quorum == 2
    return placed.placements[0]


def pattern(size: int) -> bytes:
    return (bytes(range(251)) * (size // 251 + 1))[:size]


async def put_blob(
    nodes: LocalNodes, key: bytes, data: bytes, holders: list[str] | None = None
) -> NewBlob:
    blob = await nodes.write_all(await place(nodes, len(data)), data, holders)
    assert isinstance(await nodes.commit(put_of("bk", key, blob)), PutDone)
    return blob


async def held(nodes: LocalNodes, name: str, blob_id: str) -> bool:
    client = nodes.dialer.control(nodes.addresses[name])
    answer = await client.call(CheckBlobs(blob_ids=(blob_id,)), timeout_s=5)
    assert isinstance(answer, BlobsHeld)
    return answer.blob_ids == (blob_id,)


async def holders_of(nodes: LocalNodes, key: bytes) -> set[str]:
    (place,) = (await nodes.locate("bk", key)).places
    return {ref.node_id for ref in place.holders}


def chunk_files(nodes: LocalNodes, name: str, blob_id: str) -> list[Path]:
    return [p for p in nodes.settings[name].data_dir.rglob(f"{blob_id}*") if p.is_file()]


# --- upload, download, query, delete ---------------------------------------------------------


async def test_commit_inline_object_is_located_with_its_bytes(nodes: LocalNodes) -> None:
    await nodes.put_inline("bk", b"key\xff", b"bytes")
    located = await nodes.locate("bk", b"key\xff")
    assert [data for _, data in located.inline] == [b"bytes"]
    assert located.version.size == 5


async def test_commit_same_request_id_twice_happens_once(nodes: LocalNodes) -> None:
    await nodes.commit(SetVersioning(bucket="bk", versioning=Versioning.ENABLED))
    request = Commit(request_id="r1", epochs=NO_EPOCHS, command=inline_put("bk", b"k", b"x"))
    first = await nodes.ask(request, Committed)
    second = await nodes.ask(request, Committed)
    assert isinstance(first.result, PutDone)
    assert second.result == first.result


async def test_commit_to_a_follower_names_the_leaders_address(nodes: LocalNodes) -> None:
    leader = await nodes.the_leader()
    follower = next(name for name in nodes.addresses if name != leader)
    client = nodes.dialer.control(nodes.addresses[follower])
    with pytest.raises(NotLeader) as caught:
        await client.call(GetBucket(bucket="bk"), timeout_s=5)
    assert caught.value.leader == nodes.addresses[leader]


async def test_place_and_write_blob_reads_back_from_every_holder(nodes: LocalNodes) -> None:
    data = pattern(2 * MIB + 12345)
    blob = await put_blob(nodes, b"big", data)
    assert set(blob.holders) == {"n1", "n2", "n3"}
    (found,) = (await nodes.locate("bk", b"big")).places
    assert found.size == len(data)
    for ref in found.holders:
        read = await nodes.read_blob(ref.node_id, found.blob_id, length=len(data))
        assert read == data
    part = await nodes.read_blob("n1", found.blob_id, offset=MIB - 5, length=MIB + 10)
    assert part == data[MIB - 5 : 2 * MIB + 5]


async def test_read_blob_beyond_its_end_is_refused(nodes: LocalNodes) -> None:
    blob = await put_blob(nodes, b"k", pattern(100_000))
    with pytest.raises(Refused):
        await nodes.read_blob("n1", blob.blob_id, offset=99_999, length=2)


@pytest.mark.parametrize("blob_id", ["../../etc/passwd", "", "G" * 32, "0" * 33])
async def test_read_blob_that_is_no_id_is_refused(nodes: LocalNodes, blob_id: str) -> None:
    with pytest.raises(Refused):
        await nodes.read_blob("n1", blob_id, length=1)


async def test_place_in_a_missing_bucket_is_refused(nodes: LocalNodes) -> None:
    with pytest.raises(Refused) as caught:
        await nodes.ask(PlaceBlobs(bucket="none", epochs=NO_EPOCHS, size=1), Placed)
    assert caught.value.code is RefusalCode.NO_SUCH_BUCKET


async def test_place_for_a_missing_upload_is_refused(nodes: LocalNodes) -> None:
    request = PlaceBlobs(bucket="bk", epochs=NO_EPOCHS, size=1, key=b"k", upload_id="none")
    with pytest.raises(Refused) as caught:
        await nodes.ask(request, Placed)
    assert caught.value.code is RefusalCode.NO_SUCH_UPLOAD


async def test_commit_blob_with_too_few_known_holders_is_not_committed(nodes: LocalNodes) -> None:
    place_ = await place(nodes, 10)
    blob = NewBlob(blob_id=place_.blob_id, size=10, holders=("n1", "elsewhere"))
    leader = await nodes.the_leader()
    commit = Commit(request_id="r", epochs=NO_EPOCHS, command=put_of("bk", b"k", blob))
    with pytest.raises(Unavailable):
        await nodes.dialer.control(nodes.addresses[leader]).call(commit, timeout_s=5)


async def test_epochs_of_an_older_state_are_refused(nodes: LocalNodes) -> None:
    found = await nodes.ask(GetBucket(bucket="bk"), BucketFound)
    assert found.bucket is not None
    epochs = Epochs(access=0, bucket=found.bucket.epoch)
    query = ListObjects(bucket="bk", epochs=epochs)
    await nodes.ask(query, ObjectPage)
    await nodes.commit(SetVersioning(bucket="bk", versioning=Versioning.ENABLED))
    with pytest.raises(Refused) as caught:
        await nodes.ask(query, ObjectPage)
    assert caught.value.code is RefusalCode.STALE_EPOCH
    result = await nodes.commit(inline_put("bk", b"k", b"x"), epochs)
    assert result == Refusal(code=RefusalCode.STALE_EPOCH, detail="bucket bk has changed")


async def test_list_and_head_after_each_write_show_it_at_once(nodes: LocalNodes) -> None:
    """With epochs, so that the answers come through the cache."""
    found = await nodes.ask(GetBucket(bucket="bk"), BucketFound)
    assert found.bucket is not None
    epochs = Epochs(access=0, bucket=found.bucket.epoch)
    listing = ListObjects(bucket="bk", epochs=epochs)
    head = Locate(bucket="bk", key=b"k", epochs=epochs)
    for size in range(1, 30):
        await nodes.put_inline("bk", b"k", b"x" * size)
        for _ in range(2):  # filled, then from the cache
            page = await nodes.ask(listing, ObjectPage)
            assert [found.version.size for found in page.objects] == [size]
            assert (await nodes.ask(head, Located)).version.size == size
    entry = DeleteEntry(key=b"k")
    await nodes.commit(DeleteObjects(bucket="bk", owner_id="owner", entries=(entry,)))
    assert (await nodes.ask(listing, ObjectPage)).objects == ()
    with pytest.raises(Refused):
        await nodes.ask(head, Located)


async def test_list_buckets_shows_the_owners(nodes: LocalNodes) -> None:
    page = await nodes.ask(ListBuckets(owner_id="owner", epochs=NO_EPOCHS), BucketPage)
    assert [bucket.name for bucket in page.buckets] == ["bk"]


async def test_delete_frees_the_chunk_files_on_every_node(nodes: LocalNodes) -> None:
    blob = await put_blob(nodes, b"k", pattern(MIB))
    assert all(chunk_files(nodes, name, blob.blob_id) for name in nodes.addresses)
    entry = DeleteEntry(key=b"k")
    await nodes.commit(DeleteObjects(bucket="bk", owner_id="owner", entries=(entry,)))
    await wait_until_async(
        lambda: not any(chunk_files(nodes, name, blob.blob_id) for name in nodes.addresses),
        10,
        "the chunk files are gone",
    )


# --- repair ----------------------------------------------------------------------------------


async def test_missing_third_copy_is_made_and_recorded(nodes: LocalNodes) -> None:
    data = pattern(MIB + 5)
    blob = await put_blob(nodes, b"k", data, ["n1", "n2"])
    assert blob.holders == tuple(sorted(blob.holders, key=blob.holders.index))

    async def has_three() -> bool:
        return await holders_of(nodes, b"k") == {"n1", "n2", "n3"}

    await wait_until_async(has_three, 10, "the third holder is recorded")
    assert await nodes.read_blob("n3", blob.blob_id, length=len(data)) == data


async def test_damaged_chunk_is_refused_reported_and_repaired(nodes: LocalNodes) -> None:
    data = pattern(3 * MIB)
    blob = await put_blob(nodes, b"k", data)
    (file,) = chunk_files(nodes, "n2", blob.blob_id)
    with file.open("r+b") as opened:
        opened.seek(MIB + 17)
        opened.write(b"\x00rot\x00")
    with pytest.raises(BadChunk):
        await nodes.read_blob("n2", blob.blob_id, length=len(data))

    async def is_good() -> bool:
        try:
            return await nodes.read_blob("n2", blob.blob_id, length=len(data)) == data
        except BadChunk:
            return False

    await wait_until_async(is_good, 10, "the copy is repaired")


async def test_lost_file_is_fetched_again(nodes: LocalNodes) -> None:
    data = pattern(MIB)
    blob = await put_blob(nodes, b"k", data)
    (file,) = chunk_files(nodes, "n3", blob.blob_id)
    file.unlink()
    with pytest.raises(BlobNotFound):
        await nodes.read_blob("n3", blob.blob_id, length=len(data))

    async def is_back() -> bool:
        return await held(nodes, "n3", blob.blob_id)

    await wait_until_async(is_back, 10, "the copy is fetched again")


async def test_repair_without_a_good_source_leaves_nothing(nodes: LocalNodes) -> None:
    blob_id = (await place(nodes, 10)).blob_id
    client = nodes.dialer.control(nodes.addresses["n1"])
    sources = (await place(nodes, 10)).holders
    with pytest.raises(Exception, match="no source"):
        await client.call(RepairBlob(blob_id=blob_id, size=10, sources=sources), timeout_s=10)
    assert not await held(nodes, "n1", blob_id)


# --- leaders come and go ---------------------------------------------------------------------


async def test_stopped_leader_hands_over_and_nothing_is_lost(nodes: LocalNodes) -> None:
    await nodes.put_inline("bk", b"before", b"1")
    leader = await nodes.the_leader()
    await nodes.stop(leader)
    await nodes.put_inline("bk", b"after", b"2")
    assert (await nodes.locate("bk", b"before")).inline[0][1] == b"1"
    await nodes.start(leader)
    await nodes.put_inline("bk", b"again", b"3")

    async def has_all() -> bool:
        statuses = [await nodes.status(name) for name in nodes.addresses]
        indexes = {status.applied_index for status in statuses if status is not None}
        return None not in statuses and len(indexes) == 1

    await wait_until_async(has_all, 10, "the restarted node has everything")


async def test_all_nodes_restarted_find_their_data(nodes: LocalNodes) -> None:
    data = pattern(MIB)
    blob = await put_blob(nodes, b"big", data)
    await nodes.put_inline("bk", b"small", b"1")
    await asyncio.gather(*(nodes.stop(name) for name in nodes.addresses))
    await nodes.start(*nodes.addresses)
    assert (await nodes.locate("bk", b"small")).inline[0][1] == b"1"
    assert await nodes.read_blob("n2", blob.blob_id, length=len(data)) == data


async def test_full_database_ends_the_node_as_fatal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It can promise nothing without its log; node/app.py makes exit status 70 of it."""
    stores: list[SqliteMetadataStore] = []

    async def open_and_note(path: Path) -> SqliteMetadataStore:
        stores.append(await open_store(path))
        return stores[0]

    open_store = SqliteMetadataStore.open
    monkeypatch.setattr(SqliteMetadataStore, "open", open_and_note)
    async with LocalNodes(tmp_path, voters=1) as nodes:
        await nodes.make_bucket("b")
        connection = stores[0]._writer.connection
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages}")
        writing = asyncio.create_task(put_many(nodes))
        task, _ = nodes._running.pop("n1")
        with pytest.raises(StorageFull, match="full"):
            await asyncio.wait_for(task, 20)
        writing.cancel()


async def put_many(nodes: LocalNodes) -> None:
    for number in range(100):
        await nodes.put_inline("b", f"k{number}".encode(), b"x" * 60_000)


async def test_transfer_leadership_moves_it(nodes: LocalNodes) -> None:
    leader = await nodes.the_leader()
    target = next(name for name in nodes.addresses if name != leader)
    await nodes.ask(TransferLeadership(to=target), Accepted)

    async def moved() -> bool:
        return await nodes.leader() == target

    await wait_until_async(moved, 10, "the target leads")
    await nodes.put_inline("bk", b"k", b"1")


async def test_peer_query_is_answered_by_a_follower_that_has_applied_enough(
    nodes: LocalNodes,
) -> None:
    await nodes.put_inline("bk", b"k", b"1")
    leader = await nodes.the_leader()
    status = await nodes.status(leader)
    assert status is not None
    follower = next(name for name in nodes.addresses if name != leader)
    query = ListObjects(bucket="bk", epochs=NO_EPOCHS)
    client = nodes.dialer.control(nodes.addresses[follower])
    answer = await client.call(
        PeerQuery(applied_index=status.applied_index, query=query), timeout_s=5
    )
    assert isinstance(answer, ObjectPage)
    assert [found.key for found in answer.objects] == [b"k"]


async def test_snapshot_is_for_nodes_only(nodes: LocalNodes) -> None:
    stream = await nodes.dialer.bulk(nodes.leader_address)  # we are a gateway
    await stream.send(FetchSnapshot())
    with pytest.raises(Exception, match=r".*"):
        await stream.receive(timeout_s=5)
    stream.abort()


async def test_subscriber_hears_of_changed_bucket_settings(nodes: LocalNodes) -> None:
    heard: list[Notice] = []
    connected = asyncio.Event()
    await nodes.put_inline("bk", b"k", b"1")  # so that leader_address is the leader
    nodes.dialer.control(nodes.leader_address).subscribe(heard.append, connected.set)
    dialer = Dialer(secret=SECRET, role="gateway", peer_id="listener")
    dialer.control(nodes.leader_address).subscribe(heard.append, connected.set)
    await connected.wait()
    await nodes.locate("bk", b"k")
    await nodes.commit(SetVersioning(bucket="bk", versioning=Versioning.ENABLED))
    await wait_until_async(lambda: heard, 10, "the notice came")
    assert heard[0].buckets == ("bk",)
    assert heard[0].entries == ()
    await dialer.close()


# --- learners --------------------------------------------------------------------------------


async def test_node_outside_of_the_group_sends_no_snapshot_and_goes_on(tmp_path: Path) -> None:
    """A learner here, as a voter that is just starting: nobody tells its log what is applied, and
    it waited for that for ever, at full speed (seed 2834 of the simulation)."""
    async with LocalNodes(tmp_path, voters=1, learners=1) as nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        learner = next(
            name for name in nodes.addresses if nodes.addresses[name] != nodes.leader_address
        )
        dialer = Dialer(secret=SECRET, role="node", peer_id="n9")
        try:
            stream = await dialer.bulk(nodes.addresses[learner])
            await stream.send(FetchSnapshot())
            with pytest.raises(Unavailable, match="cannot serve this now"):
                await stream.receive(timeout_s=10)
            stream.abort()
            await nodes.put_inline("bk", b"k", b"1")
            await nodes.all_know_each_other()
        finally:
            await dialer.close()


async def test_learner_follows_and_holds_blobs(tmp_path: Path) -> None:
    async with LocalNodes(tmp_path, voters=1, learners=1) as nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        for number in range(20):
            await nodes.put_inline("bk", b"k%d" % number, b"x" * number)
        data = pattern(MIB)
        await put_blob(nodes, b"big", data)

        async def is_level() -> bool:
            statuses = [await nodes.status(name) for name in ("n1", "n2")]
            indexes = {status.applied_index for status in statuses if status is not None}
            return None not in statuses and len(indexes) == 1

        await wait_until_async(is_level, 10, "the learner has applied everything")

        async def knows_its_leader() -> bool:
            status = await nodes.status("n2")
            return status is not None and (status.role, status.leader) == ("learner", "n1")

        await wait_until_async(knows_its_leader, 10, "the learner knows the leader")
        status = await nodes.status("n2")
        assert status is not None
        query = PeerQuery(
            applied_index=status.applied_index, query=ListObjects(bucket="bk", epochs=NO_EPOCHS)
        )
        page = await nodes.dialer.control(nodes.addresses["n2"]).call(query, timeout_s=5)
        assert isinstance(page, ObjectPage)
        assert len(page.objects) == 21


async def test_learner_that_was_away_fetches_what_it_missed(tmp_path: Path) -> None:
    async with LocalNodes(tmp_path, voters=1, learners=1) as nodes:
        await nodes.make_bucket("bk")
        await nodes.stop("n2")
        for number in range(50):
            await nodes.put_inline("bk", b"k%d" % number, b"x")
        await nodes.start("n2")

        async def is_level() -> bool:
            leader, learner = await nodes.status("n1"), await nodes.status("n2")
            assert leader is not None
            return learner is not None and learner.applied_index == leader.applied_index

        await wait_until_async(is_level, 10, "the learner has caught up")


async def test_commit_without_quorum_is_never_acknowledged(nodes: LocalNodes) -> None:
    leader = await nodes.the_leader()
    for name in list(nodes.addresses):
        if name != leader:
            await nodes.stop(name)
    request = Commit(request_id="r", epochs=NO_EPOCHS, command=inline_put("bk", b"k", b"1"))
    client = nodes.dialer.control(nodes.addresses[leader])
    with pytest.raises((OutcomeUnknown, NotLeader)):
        await client.call(request, timeout_s=15)
