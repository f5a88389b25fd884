"""Request ids, epochs, time, and what may not be skipped."""

from __future__ import annotations

import msgspec
import pytest

from astra.commands import (
    PROPOSAL_FORMAT,
    Condition,
    CreateBucket,
    DeleteBucket,
    DeletedMany,
    DeleteEntry,
    DeleteObjects,
    Done,
    PutDone,
    PutUser,
    Refusal,
    Result,
    SetBucketTags,
    SetVersioning,
)
from astra.constants import REQUEST_WINDOW
from astra.errors import InvariantBroken, RefusalCode, UnknownFormat
from astra.model import (
    APPLIED_INDEX,
    APPLIED_TERM,
    CLOCK_MS,
    MARKS,
    REQUEST_ORDER,
    REQUESTS,
    Mark,
    User,
    Versioning,
)
from astra.ports import MetadataTxn
from astra.wire import Entry, EntryKind
from tests.support.metadata_entries import OWNER, START_MS, Tables, apply_to, dump

USER = User(user_id="u", display_name="U")


def _code(result: Result) -> RefusalCode:
    assert isinstance(result, Refusal), result
    return result.code


async def _with_bucket() -> Tables:
    tables = Tables()
    assert await tables.do(CreateBucket(bucket="b", owner_id=OWNER)) == Done()
    return tables


async def _mark(tables: Tables, name: str) -> int:
    return dict(await _marks(tables))[name]


async def _marks(tables: Tables) -> list[tuple[str, int]]:
    rows = (await dump(tables.store))[MARKS.name]
    return [(str(key[0]), doc.value) for key, doc in rows if isinstance(doc, Mark)]


async def test_request_id_again_answers_the_first_result_and_changes_nothing() -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    first = await tables.do(put, request_id="same")
    assert isinstance(first, PutDone)
    before = await dump(tables.store)
    assert await tables.do(put, request_id="same", bucket_epoch=999) == first
    after = await dump(tables.store)
    assert before.pop(MARKS.name) != after.pop(MARKS.name)
    assert before == after


async def test_request_id_of_many_deletes_again_answers_keys_and_markers() -> None:
    tables = await _with_bucket()
    await tables.do(SetVersioning(bucket="b", versioning=Versioning.ENABLED))
    entries = (DeleteEntry(key=b"x"), DeleteEntry(key=b"y", version_id="null"))
    command = DeleteObjects(bucket="b", owner_id=OWNER, entries=entries)
    first = await tables.do(command, request_id="same")
    assert isinstance(first, DeletedMany)
    assert [entry.key for entry in first.entries] == [b"x", b"y"]
    assert await tables.do(command, request_id="same") == first


async def test_request_id_refused_for_good_stays_refused() -> None:
    tables = await _with_bucket()
    bucket = CreateBucket(bucket="b", owner_id="other")
    assert _code(await tables.do(bucket, request_id="same")) is RefusalCode.BUCKET_EXISTS
    assert await tables.do(DeleteBucket(bucket="b")) == Done()
    assert _code(await tables.do(bucket, request_id="same")) is RefusalCode.BUCKET_EXISTS


async def test_request_id_refused_for_stale_epoch_is_decided_again() -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    stale = await tables.do(put, request_id="same", bucket_epoch=99)
    assert _code(stale) is RefusalCode.STALE_EPOCH
    assert isinstance(await tables.do(put, request_id="same", bucket_epoch=1), PutDone)


async def test_request_ids_older_than_the_window_are_forgotten() -> None:
    tables = await _with_bucket()
    await tables.do(tables.put("b", b"k"), request_id="old")

    async def jump(txn: MetadataTxn) -> None:
        await txn.put(MARKS, (APPLIED_INDEX,), Mark(value=REQUEST_WINDOW + 61))

    await tables.store.write(jump)
    for index in range(REQUEST_WINDOW + 62, REQUEST_WINDOW + 65 + 64):
        await apply_to(tables.store, [Entry(index, 1, EntryKind.NOOP, b"")])
    rows = await dump(tables.store)
    assert rows[REQUESTS.name] == []
    assert rows[REQUEST_ORDER.name] == []


async def test_access_epoch_changed_since_is_stale() -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    assert isinstance(await tables.do(put, access_epoch=0), PutDone)
    assert await tables.do(PutUser(user=USER)) == Done()
    epoch = len(tables.log)
    assert _code(await tables.do(put, access_epoch=0)) is RefusalCode.STALE_EPOCH
    assert isinstance(await tables.do(tables.put("b", b"k"), access_epoch=epoch), PutDone)


async def test_bucket_epoch_changed_since_is_stale_and_gone_is_no_such_bucket() -> None:
    tables = await _with_bucket()
    assert await tables.do(SetBucketTags(bucket="b", tags=(("k", "v"),)), bucket_epoch=1) == Done()
    stale = await tables.do(tables.put("b", b"k"), bucket_epoch=1)
    assert _code(stale) is RefusalCode.STALE_EPOCH
    assert await tables.do(DeleteBucket(bucket="b"), bucket_epoch=2) == Done()
    gone = await tables.do(tables.put("b", b"k"), bucket_epoch=2)
    assert _code(gone) is RefusalCode.NO_SUCH_BUCKET
    await tables.do(CreateBucket(bucket="b", owner_id="other"), bucket_epoch=2)
    stale = await tables.do(tables.put("b", b"k"), bucket_epoch=2)
    assert _code(stale) is RefusalCode.STALE_EPOCH


async def test_time_of_a_leader_behind_does_not_go_back() -> None:
    tables = await _with_bucket()
    tables.now_ms = START_MS + 5000
    first = await tables.do(tables.put("b", b"k"))
    tables.now_ms = START_MS
    second = await tables.do(tables.put("b", b"k"))
    assert isinstance(first, PutDone)
    assert isinstance(second, PutDone)
    assert second.modified_ms == first.modified_ms == START_MS + 5000
    assert await _mark(tables, CLOCK_MS) == START_MS + 5000


async def test_noop_and_config_entries_move_the_applied_index_only() -> None:
    tables = await _with_bucket()
    entries = [Entry(2, 4, EntryKind.NOOP, b""), Entry(3, 5, EntryKind.CONFIG, b"anything")]
    assert await apply_to(tables.store, entries) == [Done(), Done()]
    assert (await _mark(tables, APPLIED_INDEX), await _mark(tables, APPLIED_TERM)) == (3, 5)


@pytest.mark.parametrize("index", [1, 3])
async def test_entry_that_does_not_follow_the_applied_index_stops_the_node(index: int) -> None:
    tables = await _with_bucket()
    with pytest.raises(InvariantBroken):
        await apply_to(tables.store, [Entry(index, 1, EntryKind.NOOP, b"")])


@pytest.mark.parametrize(
    "data",
    [
        b"\x02anything",
        b"",
        PROPOSAL_FORMAT + msgspec.msgpack.encode(["id", 1, b"salt", ["paint-bucket", "b"]]),
    ],
)
async def test_entry_of_a_newer_version_is_never_skipped(data: bytes) -> None:
    tables = await _with_bucket()
    before = await dump(tables.store)
    good = Entry(2, 1, EntryKind.NOOP, b"")
    with pytest.raises(UnknownFormat):
        await apply_to(tables.store, [good, Entry(3, 1, EntryKind.COMMAND, data)])
    assert await dump(tables.store) == before


async def test_refused_put_gives_its_chunks_up_but_stale_epoch_keeps_them() -> None:
    tables = await _with_bucket()
    put = msgspec.structs.replace(tables.put("b", b"k"), condition=Condition(if_match=("nothing",)))
    await tables.do(put, bucket_epoch=77)
    assert (await dump(tables.store))["garbage"] == []
    assert _code(await tables.do(put)) is RefusalCode.NO_SUCH_KEY
    assert put.blob is not None
    assert [key for key, _ in (await dump(tables.store))["garbage"]] == [(put.blob.blob_id,)]
