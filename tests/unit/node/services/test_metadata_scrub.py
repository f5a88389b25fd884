"""When a node verifies its own database, what it says, and when it ends (FAULTS row 36)."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import cast

import pytest

from astra.errors import DamagedLog
from astra.ports import MetadataStore
from node.clock import SystemClock
from node.metadata.memory import MemoryMetadataStore
from node.metadata.rows import DamagedTables
from node.metadata.sqlite import SqliteMetadataStore
from node.services import metadata_scrub
from node.services.metadata_scrub import MetadataScrub
from node.services.ports import Consensus
from node.services.throttle import TokenBucket
from tests.support.scrub import change_behind, fill_all
from tests.support.wait import wait_until_async

SECONDS = 20.0


class Standing:
    """How this node stands among the others."""

    def __init__(self) -> None:
        self.is_leader = False
        self.is_spared = True


@pytest.fixture(autouse=True)
def in_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata_scrub, "_SAY_S", 0.0)
    monkeypatch.setattr(metadata_scrub, "_LOOK_S", 0.01)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteMetadataStore]:
    store = await SqliteMetadataStore.open(tmp_path / "node.db")
    await fill_all(store, 20)
    yield store
    await store.close()


def scrub_of(
    store: MetadataStore,
    standing: Standing | None = None,
    *,
    node_id: str = "n1",
    mib_per_s: float = 1000.0,
    period_s: float = 0.05,
) -> MetadataScrub:
    clock, standing = SystemClock(), standing or Standing()
    return MetadataScrub(
        node_id=node_id,
        store=store,
        consensus=cast(Consensus, standing),
        can_be_spared=lambda: standing.is_spared,
        rate=TokenBucket(mib_per_s=mib_per_s, now_ms=clock.monotonic_ms, sleep=asyncio.sleep),
        clock=clock,
        period_s=period_s,
    )


async def end(running: asyncio.Task[None]) -> None:
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


async def test_healthy_database_is_verified_again_and_again(store: SqliteMetadataStore) -> None:
    scrub = scrub_of(store)
    assert scrub.summary() == "waiting for the first walk"
    running = asyncio.create_task(scrub.run())
    await wait_until_async(lambda: scrub._walks > 2, SECONDS, "some walks")
    assert scrub.problems() == []
    await end(running)
    assert "was well" in scrub.summary()


def test_first_walk_comes_soon_and_not_at_once_on_all_nodes() -> None:
    nodes = [scrub_of(MemoryMetadataStore(), node_id=f"n{n}", period_s=43_200) for n in range(9)]
    first = sorted(scrub._first_s() for scrub in nodes)
    assert 400 < first[0] < first[-1] < 900
    assert first[-1] - first[0] > 100


async def test_walk_is_paced(store: SqliteMetadataStore) -> None:
    async with asyncio.timeout(SECONDS):
        costs = 0
        async for cost in store.verify():
            costs += cost
        began = asyncio.get_running_loop().time()
        await scrub_of(store, mib_per_s=costs / 2**20).walk()
        assert asyncio.get_running_loop().time() - began > 0.5, "a second, but for the burst"


async def test_database_that_is_away_is_no_damage() -> None:
    store = MemoryMetadataStore()
    scrub = scrub_of(store)
    store.break_disk("it does not answer")
    running = asyncio.create_task(scrub.run())
    await wait_until_async(scrub.problems, SECONDS, "it says so")
    assert scrub.problems() == ["the metadata cannot be verified: it does not answer"]
    assert scrub.summary() == "interrupted: it does not answer"
    assert not running.done()
    store.break_disk(None)
    await wait_until_async(lambda: scrub._walks, SECONDS, "it goes on when the database is back")
    assert scrub.problems() == []
    await end(running)


async def test_walk_that_never_comes_to_its_end_is_a_problem(store: SqliteMetadataStore) -> None:
    scrub = scrub_of(store)
    scrub._verified_ms -= 25 * 3600 * 1000
    assert scrub.problems() == [
        "the metadata was not verified for 25 hours: raise node.scrub_mib_per_s"
    ]
    await scrub.walk()
    assert scrub.problems() == []


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("UPDATE blobs SET crc = crc + 1 WHERE blob_id = 'blobs-00007'", DamagedTables),
        ("UPDATE raft_entry SET crc = crc + 1 WHERE idx = 7", DamagedLog),
    ],
)
async def test_damage_ends_the_node(
    store: SqliteMetadataStore, statement: str, error: type[Exception]
) -> None:
    await change_behind(store, statement)
    async with asyncio.timeout(SECONDS):
        with pytest.raises(error):
            await scrub_of(store).run()


async def test_leader_hands_over_before_it_ends(store: SqliteMetadataStore) -> None:
    standing = Standing()
    standing.is_leader = True
    await change_behind(store, "UPDATE blobs SET crc = crc + 1")
    running = asyncio.create_task(scrub_of(store, standing).run())

    async def is_said() -> bool:
        return await store.check() is not None

    await wait_until_async(is_said, SECONDS, "status says so, and giveway.py sees it")
    assert not running.done()
    standing.is_leader = False
    with pytest.raises(DamagedTables):
        await running


async def test_leader_that_nobody_follows_ends_all_the_same(
    store: SqliteMetadataStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metadata_scrub, "_HAND_OVER_S", 0.1)
    standing = Standing()
    standing.is_leader = True
    await change_behind(store, "UPDATE blobs SET crc = crc + 1")
    async with asyncio.timeout(SECONDS):
        with pytest.raises(DamagedTables):
            await scrub_of(store, standing).run()


async def test_node_without_which_there_is_no_majority_stays_until_there_is_one(
    store: SqliteMetadataStore,
) -> None:
    """Two nodes with damage are repaired one after the other; the only voter stays for good."""
    standing = Standing()
    standing.is_spared = False
    scrub = scrub_of(store, standing)
    await change_behind(store, "UPDATE blobs SET crc = crc + 1")
    running = asyncio.create_task(scrub.run())
    await wait_until_async(scrub.problems, SECONDS, "it says so")
    assert "once the other voters are a majority without it" in scrub.problems()[0]
    assert "table blobs fails its checksum" in scrub.summary()
    assert not running.done()
    standing.is_spared = True
    with pytest.raises(DamagedTables):
        await running
