"""A hundred thousand keys on SQLite, page by page while others write (FAULTS row 68).

Every key that is there all the time is seen exactly once and in order, a page needs the memory of a
page, and a delimiter does not look at what is below it.
"""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterable, Sequence
from pathlib import Path

from astra.constants import MIB
from astra.model import BUCKETS, OBJECTS, Bucket
from astra.ports import MetadataTxn
from astra.wire import Epochs, ListObjects, ObjectPage
from node.listing import list_objects
from node.metadata.sqlite import SqliteMetadataStore
from tests.support.metadata import version

KEYS = 100_000
PAGE = 1000
PAGE_BYTES_MAX = 2 * MIB
NAMES = ("plain", "ümlaut", "名前", "\U0001f600", "a b", "%2F", "\x7f", "\uffff")


def stable_key(number: int) -> bytes:
    """Deep, and in all kinds of UTF-8; unique by its number."""
    name = NAMES[number % len(NAMES)]
    return f"{number % 10}/{number // 10 % 50}/{name}/{number:06}".encode()


async def test_hundred_thousand_keys_are_listed_page_by_page(tmp_path: Path) -> None:
    store = await SqliteMetadataStore.open(tmp_path / "metadata.sqlite")
    try:
        await fill(store)
        await check_pages_while_others_write(store)
        await check_memory_of_a_page(store)
        await check_delimiter_at_each_level(store)
    finally:
        await store.close()


async def fill(store: SqliteMetadataStore) -> None:
    async def make_bucket(txn: MetadataTxn) -> None:
        await txn.put(BUCKETS, (b"b",), Bucket(name="b", owner_id="o", created_ms=0, epoch=1))

    await store.write(make_bucket)
    for first in range(0, KEYS, 10_000):
        await put(store, [stable_key(number) for number in range(first, first + 10_000)])


async def put(store: SqliteMetadataStore, keys: Iterable[bytes]) -> None:
    async def body(txn: MetadataTxn) -> None:
        for key in keys:
            await txn.put(OBJECTS, (b"b", key), version(1))

    await store.write(body)


async def delete(store: SqliteMetadataStore, keys: Iterable[bytes]) -> None:
    async def body(txn: MetadataTxn) -> None:
        for key in keys:
            await txn.delete(OBJECTS, (b"b", key))

    await store.write(body)


async def page_of(store: SqliteMetadataStore, query: ListObjects) -> ObjectPage:
    return await store.read(lambda view: list_objects(view, query), long=True)


def query(*, after: bytes = b"", prefix: bytes = b"", delimiter: bytes = b"") -> ListObjects:
    return ListObjects(
        bucket="b", epochs=Epochs(), prefix=prefix, delimiter=delimiter, after=after, limit=PAGE
    )


async def check_pages_while_others_write(store: SqliteMetadataStore) -> None:
    """Each stable key once, and in order."""
    chance = random.Random("huge listing")
    seen: list[bytes] = []
    passing: list[bytes] = []
    after, pages = b"", 0
    while True:
        page = await page_of(store, query(after=after))
        seen += [found.key for found in page.objects]
        pages += 1
        if not page.resume:
            break
        after = page.resume
        await delete(store, passing)
        passing = [stable_key(chance.randrange(KEYS)) + b"+" for _ in range(50)]
        passing += [after + b"\x00", after[:-1]]  # right beside the place where the walk is
        await put(store, passing)
    await delete(store, passing)
    assert seen == sorted(set(seen))
    stable = {stable_key(number) for number in range(KEYS)}
    assert [key for key in seen if key in stable] == sorted(stable)
    assert pages >= KEYS // PAGE


async def check_memory_of_a_page(store: SqliteMetadataStore) -> None:
    await page_of(store, query())
    peaks = []
    for after in (b"", stable_key(KEYS // 2), stable_key(KEYS - 100)):
        tracemalloc.start()
        await page_of(store, query(after=after))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    print(f"peaks {peaks} bytes")
    assert max(peaks) < PAGE_BYTES_MAX


async def check_delimiter_at_each_level(store: SqliteMetadataStore) -> None:
    assert await names_below(store, b"") == [b"%d/" % number for number in range(10)]
    assert len(await names_below(store, b"3/")) == 50
    below = await names_below(store, b"3/7/")
    assert below == sorted({stable_key(n).rsplit(b"/", 1)[0] + b"/" for n in numbers_below(3, 7)})
    assert below


def numbers_below(first: int, second: int) -> Sequence[int]:
    return [n for n in range(KEYS) if n % 10 == first and n // 10 % 50 == second]


async def names_below(store: SqliteMetadataStore, prefix: bytes) -> list[bytes]:
    page = await page_of(store, query(prefix=prefix, delimiter=b"/"))
    assert not page.resume
    assert not page.objects
    return list(page.prefixes)
