"""The node's look for its own files, and the comparison of disks with metadata."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
from awscrt.checksums import crc32c

from astra.census import Books, Disk, Finding, compare
from astra.constants import BLOB_ORPHAN_AGE_MS_MIN
from astra.errors import Unavailable
from astra.model import BLOBS, Blob, Garbage
from astra.ports import MetadataTxn
from astra.wire import Accepted, Message, ReportBadBlobs
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.memory import MemoryChunkStore, MemoryDisk
from node.clock import SystemClock
from node.metadata.memory import MemoryMetadataStore
from node.notebook import MemoryNotebook
from node.services import census
from node.services.census import SelfCensus
from node.services.scrub import NOTE, Progress, ScrubService
from tests.support.wait import wait_until_async

NOW_MS = 2_000_000_000_000


def blob_id(number: int, placed_ms: int = NOW_MS) -> str:
    return f"{placed_ms:012x}{number:020x}"


@dataclass
class LeaderEnd:
    """What the leader was told; `away` times it is not there."""

    reported: list[str] = field(default_factory=list)
    away: int = 0
    is_busy: bool = False  # never answers

    def tell(self, message: Message) -> None:
        raise AssertionError("nothing is told here")

    async def ask(self, message: Message, *, timeout_s: float) -> Message:
        if self.away:
            self.away -= 1
            raise Unavailable("no leader")
        if self.is_busy:
            await asyncio.Event().wait()
        assert isinstance(message, ReportBadBlobs)
        assert message.node_id == "n1"
        self.reported += message.blob_ids
        return Accepted()


@pytest.fixture
async def chunks() -> AsyncIterator[AsyncChunkStore]:
    store = AsyncChunkStore(MemoryChunkStore(MemoryDisk(random.Random(1))))
    yield store
    await store.close()


async def store_blob(chunks: AsyncChunkStore, name: str) -> None:
    writer = await chunks.create(name)
    await writer.append(b"data", crc32c(b"data"))
    await writer.finish()


async def no_barrier() -> int:
    return 0


async def test_self_census_reports_each_missing_copy_over_pages_and_failures(
    chunks: AsyncChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(census, "PAGE", 7)
    monkeypatch.setattr(census, "_RETRY_S", 0.001)
    tables, leader = MemoryMetadataStore(), LeaderEnd(away=3)
    names = [blob_id(number) for number in range(40)]

    async def write(txn: MetadataTxn) -> None:
        for number, name in enumerate(names):
            holders = ("n2", "n3") if number % 5 == 0 else ("n1", "n2", "n3")
            await txn.put(BLOBS, (name,), Blob(size=4, references=1, holders=holders))
        inline = Blob(size=4, references=1, holders=(), is_inline=True)
        await txn.put(BLOBS, (blob_id(99),), inline)

    await tables.write(write)
    for number, name in enumerate(names):
        if number % 3:
            await store_blob(chunks, name)
    found = SelfCensus(node_id="n1", store=tables, chunks=chunks, leader=leader, barrier=no_barrier)
    missing = [n for number, n in enumerate(names) if number % 5 and number % 3 == 0]
    assert await found.walk() == len(missing)
    assert leader.reported == missing


async def test_self_census_says_what_is_missing_before_it_is_told(
    chunks: AsyncChunkStore,
) -> None:
    """To tell the leader of a whole lost disk takes as long as to copy it, and who takes away the
    next disk meanwhile goes by status."""
    tables, leader = MemoryMetadataStore(), LeaderEnd(is_busy=True)

    async def write(txn: MetadataTxn) -> None:
        for number in range(3):
            await txn.put(BLOBS, (blob_id(number),), Blob(size=4, references=1, holders=("n1",)))

    await tables.write(write)
    found = SelfCensus(node_id="n1", store=tables, chunks=chunks, leader=leader, barrier=no_barrier)
    assert not found.has_looked
    walk = asyncio.create_task(found.run(interval_s=3600))
    await wait_until_async(lambda: found.missing == 3, 5, "the missing ones are counted")
    assert not found.has_looked, "so the one problem follows on the other"
    walk.cancel()


async def test_self_census_copy_that_is_back_or_elsewhere_is_missing_no_more(
    chunks: AsyncChunkStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was repaired within seconds is not called missing until the next hour's walk."""
    monkeypatch.setattr(census, "_LOOK_AGAIN_S", 0.01)
    monkeypatch.setattr(census, "_REMEMBERED_MAX", 3)
    tables = MemoryMetadataStore()
    names = [blob_id(number) for number in range(5)]

    async def write(txn: MetadataTxn) -> None:
        for name in names:
            await txn.put(BLOBS, (name,), Blob(size=4, references=1, holders=("n1", "n2")))

    async def move(txn: MetadataTxn) -> None:
        await txn.put(BLOBS, (names[0],), Blob(size=4, references=1, holders=("n2", "n3")))
        await txn.delete(BLOBS, (names[1],))

    def shows(count: int) -> Callable[[], Awaitable[bool]]:
        async def is_so() -> bool:
            return found.missing == count

        return is_so

    await tables.write(write)
    found = SelfCensus(
        node_id="n1", store=tables, chunks=chunks, leader=LeaderEnd(), barrier=no_barrier
    )
    running = asyncio.create_task(found.run(3600.0))
    await wait_until_async(shows(5), 5, "all are missing")
    await tables.write(move)
    await wait_until_async(shows(3), 5, "two are no longer to be here")
    for name in names[2:]:
        await store_blob(chunks, name)
    await wait_until_async(shows(0), 5, "all are here, those too that were not remembered")
    running.cancel()


def make_scrub(
    chunks: AsyncChunkStore, notebook: MemoryNotebook, leader: LeaderEnd
) -> ScrubService:
    return ScrubService(
        node_id="n1",
        chunks=chunks,
        leader=leader,
        notebook=notebook,
        clock=SystemClock(),
        mib_per_s=1000.0,
    )


async def test_scrub_reports_what_is_damaged_and_notes_that_it_finished() -> None:
    disk = MemoryDisk(random.Random(1))
    store = MemoryChunkStore(disk)
    chunks = AsyncChunkStore(store)
    for number in range(5):
        await store_blob(chunks, blob_id(number))
    disk.blobs[blob_id(3)][0] ^= 1
    notebook, leader = MemoryNotebook(), LeaderEnd()
    scrub = make_scrub(chunks, notebook, leader)
    await scrub.walk()
    assert leader.reported == [blob_id(3)]
    assert not scrub.progress.is_walking
    assert scrub.progress.found == 1
    assert scrub.problems() == []
    again = make_scrub(chunks, notebook, leader)
    await again._load()
    assert again.progress == scrub.progress
    await chunks.close()


async def test_scrub_that_is_late_says_so(chunks: AsyncChunkStore) -> None:
    notebook = MemoryNotebook()
    scrub = make_scrub(chunks, notebook, LeaderEnd())
    week_ago = SystemClock().wall_ms() - 8 * 24 * 3600 * 1000
    scrub.progress = Progress(is_walking=True, started_ms=week_ago, before_ms=week_ago)
    assert "node.scrub_mib_per_s" in scrub.problems()[0]
    await notebook.write(NOTE, b"{not a note")
    await scrub._load()
    assert scrub.problems()


@pytest.mark.parametrize(
    "note",
    [
        b'{"is_walking": true, "cursor": "../../etc/passwd"}',
        b'{"is_walking": true, "cursor": ""}',
        b'{"is_walking": true, "started_ms": ' + b"9" * 18 + b"}",
        b'{"is_walking": true, "started_ms": -1}',
        b"[" * 4000,
        b"",
    ],
)
async def test_scrub_with_a_damaged_note_starts_over(note: bytes) -> None:
    """Notes are not synced: a power loss may leave anything. It must not stop the scrub for good,
    nor may it hide that one is late."""
    chunks = AsyncChunkStore(MemoryChunkStore(MemoryDisk(random.Random(1))))
    await store_blob(chunks, blob_id(1))
    notebook = MemoryNotebook()
    await notebook.write(NOTE, note)
    scrub = make_scrub(chunks, notebook, LeaderEnd())
    await scrub._load()
    assert scrub.progress == Progress()
    await scrub.walk()
    assert scrub.progress.checked == 1
    await chunks.close()


# --- the comparison --------------------------------------------------------------------------


def blob(*holders: str) -> Blob:
    return Blob(size=4, references=1, holders=holders)


def disk_of(*ids: str, damaged: tuple[str, ...] = ()) -> Disk:
    return Disk(blob_ids=frozenset(ids), damaged=frozenset(damaged))


OLD = NOW_MS - BLOB_ORPHAN_AGE_MS_MIN
A, B, C, D = (blob_id(number) for number in range(4))
ORPHAN, YOUNG = blob_id(9, OLD), blob_id(9, OLD + 1)


def compare_one(books: Books, **disks: Disk) -> set[tuple[str, str, str]]:
    report = compare(books, disks, now_ms=NOW_MS)
    return {(each.what, each.blob_id, each.node_id) for each in report.findings}


def books(
    blobs: dict[str, Blob],
    garbage: dict[str, Garbage] | None = None,
    dropped: dict[str, frozenset[str]] | None = None,
) -> Books:
    return Books(blobs=blobs, garbage=garbage or {}, dropped=dropped or {})


def test_compare_equal_sides_is_clean() -> None:
    disks = {name: disk_of(A, YOUNG) for name in ("n1", "n2", "n3")}
    report = compare(books({A: blob("n1", "n2", "n3")}), disks, now_ms=NOW_MS)
    assert report.is_clean
    assert (report.blobs, report.copies, report.young) == (1, 6, 3)


def test_compare_missing_damaged_under_and_lost() -> None:
    every = ("n1", "n2", "n3")
    found = compare_one(
        books({A: blob(*every), B: blob(*every)}),
        n1=disk_of(B, damaged=(B,)), n2=disk_of(A, B, damaged=(B,)), n3=disk_of(A),
    )  # fmt: skip
    assert found == {
        ("missing", A, "n1"), ("under", A, ""),
        ("damaged", B, "n1"), ("damaged", B, "n2"), ("missing", B, "n3"), ("lost", B, ""),
    }  # fmt: skip


def test_compare_strays_orphans_and_what_waits_for_its_deletion() -> None:
    every = ("n1", "n2", "n3")
    held = disk_of(A)
    found = compare_one(
        books(
            {A: blob(*every)},
            {B: Garbage(holders=("n4",), since_ms=0)},
            {"n4": frozenset({C})},
        ),
        n1=held, n2=held, n3=held, n4=disk_of(A, B, C, ORPHAN, YOUNG),
    )  # fmt: skip
    assert found == {("stray", A, "n4"), ("orphan", ORPHAN, "n4")}


def test_compare_too_many_holders_and_a_node_that_does_not_answer() -> None:
    held = disk_of(A, D)
    report = compare(
        books({A: blob("n1", "n2", "n3", "n4"), D: blob("n1", "n2", "n5")}),
        {"n1": held, "n2": held, "n3": disk_of(A), "n4": disk_of(A)},
        now_ms=NOW_MS,
        unreachable=[("n5", "no answer")],
    )
    assert report.findings == (Finding(what="over", blob_id=A),)
    assert not report.is_clean
