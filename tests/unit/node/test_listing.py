"""Listings against the obvious, slow way of listing; and what they cost."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence

import pytest
from msgspec.structs import replace

from astra import wire
from astra.commands import (
    CreateBucket,
    CreateUpload,
    DeleteEntry,
    DeleteObjects,
    ObjectHead,
    PutPart,
    SetVersioning,
    UploadDone,
)
from astra.errors import RefusalCode, Refused
from astra.frame import encode_frame
from astra.model import (
    BUCKETS,
    OBJECTS,
    Bucket,
    D,
    Grant,
    Key,
    ObjectVersion,
    Table,
    Versioning,
)
from astra.ports import MetadataTxn, MetadataView
from node.listing import (
    common_prefix,
    list_buckets,
    list_objects,
    list_parts,
    list_uploads,
    list_versions,
    prefix_end,
)
from tests.support.metadata_entries import HEAD, OWNER, Tables

BUCKET = "bucket"
NO_EPOCHS = wire.Epochs()
ALPHABET = [b"a", b"b", b"/", b"//", b"\xff", "é".encode(), b" ", b"c/"]


def _query(
    prefix: bytes = b"", delimiter: bytes = b"", after: bytes = b"", limit: int = 1000
) -> wire.ListObjects:
    return wire.ListObjects(
        bucket=BUCKET,
        epochs=NO_EPOCHS,
        prefix=prefix,
        delimiter=delimiter,
        after=after,
        limit=limit,
    )


def _items(keys: Sequence[bytes], query: wire.ListObjects) -> list[bytes]:
    """What is to be listed after `query.after`, on one page without end."""
    items: list[bytes] = []
    skipped = common_prefix(query.after, query.prefix, query.delimiter)
    for key in sorted(keys):
        if not key.startswith(query.prefix) or key <= query.after:
            continue
        below = common_prefix(key, query.prefix, query.delimiter)
        if below is not None and below == skipped:
            continue
        item = key if below is None else below
        if item not in items:
            items.append(item)
    return items


async def _put_rows(tables: Tables, rows: dict[bytes, bool]) -> None:
    """Objects (False) and delete markers (True), past apply: only listing is tested."""

    async def body(txn: MetadataTxn) -> None:
        bucket = Bucket(name=BUCKET, owner_id=OWNER, created_ms=1, epoch=1)
        await txn.put(BUCKETS, (BUCKET.encode(),), bucket)
        for order, (key, is_marker) in enumerate(rows.items(), start=1):
            version = ObjectVersion(
                version_id="null",
                order=order,
                modified_ms=1,
                owner_id=OWNER,
                etag=key.hex(),
                is_marker=is_marker,
            )
            await txn.put(OBJECTS, (BUCKET.encode(), key), version)
            await txn.put(OBJECTS, (b"bucket\x00", key), version)  # a neighbour
            await txn.put(OBJECTS, (b"bucke", key), version)

    await tables.store.write(body)


class _Counting:
    """A view that counts."""

    def __init__(self, view: MetadataView) -> None:
        self._view = view
        self.scans = 0
        self.rows = 0

    async def get(self, table: Table[D], key: Key) -> D | None:
        return await self._view.get(table, key)

    async def scan(
        self, table: Table[D], start: Key, end: Key | None, limit: int
    ) -> Sequence[tuple[Key, D]]:
        rows = await self._view.scan(table, start, end, limit)
        self.scans += 1
        self.rows += len(rows)
        return rows


async def _cost(tables: Tables, query: wire.ListObjects) -> tuple[wire.ObjectPage, int, int]:
    async def body(view: MetadataView) -> tuple[wire.ObjectPage, int, int]:
        counting = _Counting(view)
        page = await list_objects(counting, query)
        return page, counting.scans, counting.rows

    return await tables.store.read(body)


@pytest.mark.parametrize("seed", range(30))
async def test_list_objects_random_keys_agrees_with_the_slow_way(seed: int) -> None:
    chance = random.Random(seed)
    rows = {
        b"".join(chance.choices(ALPHABET, k=chance.randrange(1, 6))): chance.random() < 0.3
        for _ in range(chance.choice([0, 5, 60, 400]))
    }
    tables = Tables()
    await _put_rows(tables, rows)
    live = [key for key, is_marker in rows.items() if not is_marker]
    for _ in range(40):
        query = _query(
            prefix=b"".join(chance.choices(ALPHABET, k=chance.randrange(3))),
            delimiter=chance.choice([b"", b"/", b"//", b"\xff", b"a"]),
            after=b"".join(chance.choices(ALPHABET, k=chance.randrange(4))),
            limit=chance.choice([1, 2, 7, 1000]),
        )
        expected = _items(live, query)
        page = await tables.ask(list_objects, query)
        listed = sorted([row.key for row in page.objects] + list(page.prefixes))
        assert listed == expected[: query.limit]
        assert bool(page.resume) is (len(expected) > query.limit)
        if page.resume:
            rest = _query(query.prefix, query.delimiter, page.resume)
            again = await tables.ask(list_objects, rest)
            assert (
                sorted([row.key for row in again.objects] + list(again.prefixes))
                == (expected[query.limit :])
            )


async def test_list_objects_limit_zero_lists_nothing_and_ends() -> None:
    tables = Tables()
    await _put_rows(tables, {b"a": False})
    page = await tables.ask(list_objects, _query(limit=0))
    assert page == wire.ObjectPage(objects=(), prefixes=())


async def test_list_objects_thousand_plain_keys_take_one_scan() -> None:
    tables = Tables()
    await _put_rows(tables, {b"key-%05d" % number: False for number in range(3000)})
    page, scans, rows = await _cost(tables, _query(after=b"key-00999"))
    assert [page.objects[0].key, page.resume] == [b"key-01000", b"key-01999"]
    assert scans == 1
    assert rows <= 1100


async def test_list_objects_plain_keys_with_delimiter_take_few_scans() -> None:
    tables = Tables()
    await _put_rows(tables, {b"key-%05d" % number: False for number in range(3000)})
    page, scans, _ = await _cost(tables, _query(delimiter=b"/"))
    assert len(page.objects) == 1000
    assert scans <= 5


async def test_list_objects_full_prefixes_cost_does_not_grow_with_the_keys_below() -> None:
    tables = Tables()
    await _put_rows(
        tables, {b"dir-%03d/%05d" % (d, k): False for d in range(10) for k in range(800)}
    )
    page, scans, rows = await _cost(tables, _query(delimiter=b"/"))
    assert page.prefixes == tuple(b"dir-%03d/" % d for d in range(10))
    assert page.resume == b""
    assert scans <= 11
    assert rows <= 64 + 16 + 9 * 4


async def test_list_objects_small_prefixes_share_scans() -> None:
    tables = Tables()
    await _put_rows(tables, {b"dir-%04d/%d" % (d, k): False for d in range(1000) for k in range(2)})
    page, scans, _ = await _cost(tables, _query(delimiter=b"/"))
    assert len(page.prefixes) == 1000
    assert page.resume == b""
    assert scans <= 10


async def test_list_objects_many_markers_end_the_page_early_with_a_resume() -> None:
    tables = Tables()
    rows = {b"gone-%06d" % number: True for number in range(30_000)}
    await _put_rows(tables, rows | {b"here": False})
    page, _, read = await _cost(tables, _query())
    assert page.objects == ()
    assert page.resume
    assert read < 25_000
    page, _, _ = await _cost(tables, _query(after=page.resume))
    assert [row.key for row in page.objects] == [b"here"]
    assert page.resume == b""


async def test_list_objects_prefix_of_markers_before_one_object_is_found() -> None:
    tables = Tables()
    rows = {b"dir/%06d" % number: True for number in range(30_000)}
    await _put_rows(tables, rows | {b"dir/z": False})
    page, _, _ = await _cost(tables, _query(delimiter=b"/"))
    assert page.prefixes == (b"dir/",)
    assert page.resume == b""


async def test_list_objects_prefix_of_markers_only_is_not_listed() -> None:
    tables = Tables()
    await _put_rows(tables, {b"a/1": True, b"a/2": True, b"b": False})
    page = await tables.ask(list_objects, _query(delimiter=b"/"))
    assert (page.prefixes, [row.key for row in page.objects]) == ((), [b"b"])


async def _refusal(question: Callable[[], Awaitable[object]]) -> RefusalCode:
    with pytest.raises(Refused) as caught:
        await question()
    return caught.value.code


async def test_list_objects_old_bucket_epoch_or_no_bucket_is_refused() -> None:
    tables = Tables()
    query = wire.ListObjects(bucket=BUCKET, epochs=wire.Epochs(bucket=7))
    assert await _refusal(lambda: tables.ask(list_objects, query)) is RefusalCode.NO_SUCH_BUCKET
    await _put_rows(tables, {})
    assert await _refusal(lambda: tables.ask(list_objects, query)) is RefusalCode.STALE_EPOCH
    query = wire.ListObjects(bucket=BUCKET, epochs=wire.Epochs(access=7))
    assert await _refusal(lambda: tables.ask(list_objects, query)) is RefusalCode.STALE_EPOCH


def test_prefix_end_of_high_bytes_is_the_next_shorter_one() -> None:
    assert prefix_end(b"a\xff\xff") == b"b"
    assert prefix_end(b"\xff") is None
    assert prefix_end(b"") is None


# --- versions --------------------------------------------------------------------------------


async def _versioned(keys: Sequence[bytes], count: int) -> Tables:
    tables = Tables()
    await tables.do(CreateBucket(bucket=BUCKET, owner_id=OWNER))
    await tables.do(SetVersioning(bucket=BUCKET, versioning=Versioning.ENABLED))
    for number in range(count):
        for key in keys:
            await tables.do(tables.put(BUCKET, key, etag=f"{number}"))
    return tables


@pytest.mark.parametrize("limit", [1, 2, 5, 1000])
async def test_list_versions_delimiter_and_pages_show_each_item_once(limit: int) -> None:
    keys = [b"a", b"dir/1", b"dir/2", b"e", b"f/1"]
    tables = await _versioned(keys, 3)
    await tables.do(DeleteObjects(bucket=BUCKET, owner_id=OWNER, entries=(DeleteEntry(key=b"e"),)))
    found: list[tuple[bytes, str]] = []
    prefixes: list[bytes] = []
    after: tuple[bytes, str | None] = (b"", None)
    for _ in range(20):
        query = wire.ListVersions(
            bucket=BUCKET,
            epochs=NO_EPOCHS,
            delimiter=b"/",
            limit=limit,
            after_key=after[0],
            after_version=after[1],
        )
        page = await tables.ask(list_versions, query)
        found += [(row.key, row.version.etag) for row in page.versions]
        prefixes += page.prefixes
        after = (page.resume_key, page.resume_version)
        if not after[0]:
            break
        assert len(page.versions) + len(page.prefixes) == limit
    assert prefixes == [b"dir/", b"f/"]
    assert found == [
        (b"a", "2"), (b"a", "1"), (b"a", "0"), (b"e", ""), (b"e", "2"), (b"e", "1"), (b"e", "0"),
    ]  # fmt: skip


async def test_list_versions_after_null_version_goes_on_behind_it() -> None:
    tables = Tables()
    await tables.do(CreateBucket(bucket=BUCKET, owner_id=OWNER))
    await tables.do(tables.put(BUCKET, b"k", etag="null-one"))
    await tables.do(SetVersioning(bucket=BUCKET, versioning=Versioning.ENABLED))
    await tables.do(tables.put(BUCKET, b"k", etag="newer"))
    await tables.do(tables.put(BUCKET, b"l", etag="other"))
    query = wire.ListVersions(bucket=BUCKET, epochs=NO_EPOCHS, after_key=b"k", after_version="null")
    page = await tables.ask(list_versions, query)
    assert [row.version.etag for row in page.versions] == ["other"]


async def test_list_versions_marker_deleted_between_pages_loses_nothing() -> None:
    tables = await _versioned([b"k"], 4)
    query = wire.ListVersions(bucket=BUCKET, epochs=NO_EPOCHS, limit=2)
    page = await tables.ask(list_versions, query)
    gone = tuple(DeleteEntry(key=b"k", version_id=row.version.version_id) for row in page.versions)
    await tables.do(DeleteObjects(bucket=BUCKET, owner_id=OWNER, entries=gone))
    query = wire.ListVersions(
        bucket=BUCKET,
        epochs=NO_EPOCHS,
        limit=2,
        after_key=page.resume_key,
        after_version=page.resume_version,
    )
    page = await tables.ask(list_versions, query)
    assert [(row.version.etag, row.is_latest) for row in page.versions] == [
        ("1", True),
        ("0", False),
    ]
    assert page.resume_key == b""


# --- uploads, parts, buckets -----------------------------------------------------------------


async def test_list_uploads_pages_show_each_running_upload_once() -> None:
    tables = Tables()
    await tables.do(CreateBucket(bucket=BUCKET, owner_id=OWNER))
    expected: list[tuple[bytes, str]] = []
    for key in (b"a", b"a", b"a", b"b/1", b"b/2", b"c"):
        result = await tables.do(
            CreateUpload(bucket=BUCKET, key=key, head=HEAD, initiator_id=OWNER)
        )
        assert isinstance(result, UploadDone)
        expected.append((key, result.upload_id))
    found: list[tuple[bytes, str]] = []
    prefixes: list[bytes] = []
    query = wire.ListUploads(bucket=BUCKET, epochs=NO_EPOCHS, delimiter=b"/", limit=2)
    for _ in range(5):
        page = await tables.ask(list_uploads, query)
        found += [(row.key, row.upload.upload_id) for row in page.uploads]
        prefixes += page.prefixes
        if not page.resume_key:
            break
        query = wire.ListUploads(
            bucket=BUCKET,
            epochs=NO_EPOCHS,
            delimiter=b"/",
            limit=2,
            after_key=page.resume_key,
            after_upload=page.resume_upload,
        )
    assert found == [*expected[:3], expected[5]]
    assert prefixes == [b"b/"]
    assert page.resume_key == b""


async def test_list_parts_pages_end_exactly() -> None:
    tables = Tables()
    await tables.do(CreateBucket(bucket=BUCKET, owner_id=OWNER))
    result = await tables.do(CreateUpload(bucket=BUCKET, key=b"k", head=HEAD, initiator_id=OWNER))
    assert isinstance(result, UploadDone)
    for number in (9, 2, 5, 10_000):
        await tables.do(
            PutPart(bucket=BUCKET, key=b"k", upload_id=result.upload_id, number=number, size=1,
                    etag=f"{number}", blob=tables.held(1))
        )  # fmt: skip

    async def page(after: int, limit: int) -> tuple[list[int], int]:
        query = wire.ListParts(
            bucket=BUCKET,
            key=b"k",
            upload_id=result.upload_id,
            epochs=NO_EPOCHS,
            after=after,
            limit=limit,
        )
        answer = await tables.ask(list_parts, query)
        assert answer.upload.upload_id == result.upload_id
        return [part.number for part in answer.parts], answer.resume

    assert await page(0, 0) == ([], 0)
    assert await page(0, 2) == ([2, 5], 5)
    assert await page(5, 2) == ([9, 10_000], 0)
    assert await page(10_000, 2) == ([], 0)


async def test_list_buckets_only_own_in_order_with_exact_end() -> None:
    tables = Tables()
    for name, owner in [("bb", "o"), ("aa", "o"), ("ab", "other"), ("ba", "o"), ("c", "o")]:
        await tables.do(CreateBucket(bucket=name, owner_id=owner))

    async def page(prefix: str, after: str, limit: int) -> tuple[list[str], str]:
        query = wire.ListBuckets(
            owner_id="o", epochs=NO_EPOCHS, prefix=prefix, after=after, limit=limit
        )
        answer = await tables.ask(list_buckets, query)
        return [bucket.name for bucket in answer.buckets], answer.resume

    assert await page("", "", 100) == (["aa", "ba", "bb", "c"], "")
    assert await page("", "", 2) == (["aa", "ba"], "ba")
    assert await page("", "ba", 2) == (["bb", "c"], "")
    assert await page("b", "", 2) == (["ba", "bb"], "")


# --- what a page may weigh -------------------------------------------------------------------

LONG_KEY_BYTES = 1000
PAGE_BYTES_MAX = 2 * 1024 * 1024  # far below a frame


def _heavy_head() -> ObjectHead:
    """About the longest that the head of a request can ask for."""
    return replace(
        HEAD,
        headers=tuple((f"header-{n}", "h" * 3000) for n in range(4)),
        user_metadata=(("m", "v" * 2000),),
        tags=tuple((f"{n}" + "k" * 100, "v" * 250) for n in range(10)),
        acl=tuple(Grant(grantee="user:" + "u" * 100, permission="READ") for _ in range(100)),
    )


async def test_a_page_of_the_longest_documents_fits_into_a_frame() -> None:
    """Once a thousand objects with long headers made a bucket that could not be listed."""
    tables = Tables()
    count = 1000
    await tables.do(CreateBucket(bucket=BUCKET, owner_id=OWNER))
    for number in range(count):
        key = f"{number:04}".encode().ljust(LONG_KEY_BYTES, b"k")
        await tables.do(replace(tables.put(BUCKET, key), head=_heavy_head()))
        await tables.do(
            CreateUpload(bucket=BUCKET, key=key, head=_heavy_head(), initiator_id=OWNER)
        )
    pages: list[wire.Message] = [
        await tables.ask(list_objects, _query()),
        await tables.ask(list_versions, wire.ListVersions(bucket=BUCKET, epochs=NO_EPOCHS)),
        await tables.ask(list_uploads, wire.ListUploads(bucket=BUCKET, epochs=NO_EPOCHS)),
    ]
    for page in pages:
        assert count * LONG_KEY_BYTES < len(encode_frame(1, page)) < PAGE_BYTES_MAX


async def test_a_page_of_buckets_with_many_tags_and_grants_fits_into_a_frame() -> None:
    tables = Tables()
    tags = tuple((f"{n}" + "k" * 120, "v" * 250) for n in range(50))
    for number in range(1000):
        command = CreateBucket(
            bucket=f"bucket-{number:04}", owner_id=OWNER, tags=tags, acl=_heavy_head().acl
        )
        await tables.do(command)
    page = await tables.ask(list_buckets, wire.ListBuckets(owner_id=OWNER, epochs=NO_EPOCHS))
    assert len(page.buckets) == 1000
    assert len(encode_frame(1, page)) < PAGE_BYTES_MAX
