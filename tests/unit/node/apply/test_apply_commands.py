"""Single commands: what they refuse, and what they leave behind."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from astra.commands import (
    AbortUpload,
    AddHolder,
    CompleteUpload,
    Condition,
    CopyPart,
    CreateBucket,
    CreateUpload,
    DeleteAccessKey,
    DeleteBucket,
    DeletedMany,
    DeleteEntry,
    DeleteObjects,
    Done,
    ForgetGarbage,
    NamedPart,
    NewBlob,
    PutDone,
    PutObject,
    PutPart,
    PutUser,
    Refusal,
    Result,
    SetHolders,
    SetObjectTags,
    SetVersioning,
    UploadDone,
    VersionDone,
)
from astra.constants import BLOB_COMMIT_AGE_MS_MAX, BUCKETS_PER_OWNER_MAX, KEY_BYTES_MAX
from astra.errors import RefusalCode
from astra.model import (
    ACCESS_EPOCH,
    ACCESS_KEYS,
    ANONYMOUS_OWNER,
    BLOBS,
    COMPLETION_ORDER,
    COMPLETIONS,
    GARBAGE,
    MARKS,
    OBJECTS,
    PARTS,
    UPLOADS,
    USERS,
    AccessKey,
    Blob,
    Checksum,
    Doc,
    Extent,
    Garbage,
    Mark,
    User,
    Versioning,
)
from node.apply.multipart import slice_extents
from tests.support.metadata_entries import HEAD, OWNER, Tables, dump

DAY_MS = 24 * 3600 * 1000


def _code(result: Result) -> RefusalCode:
    assert isinstance(result, Refusal), result
    return result.code


async def _with_bucket(versioning: Versioning = Versioning.OFF) -> Tables:
    tables = Tables()
    assert await tables.do(CreateBucket(bucket="b", owner_id=OWNER)) == Done()
    if versioning is not Versioning.OFF:
        assert await tables.do(SetVersioning(bucket="b", versioning=versioning)) == Done()
    return tables


async def _docs(tables: Tables, table: str) -> list[Doc]:
    return [doc for _, doc in (await dump(tables.store))[table]]


# --- buckets ---------------------------------------------------------------------------------


async def test_create_bucket_again_says_whose_it_is() -> None:
    tables = await _with_bucket()
    again = await tables.do(CreateBucket(bucket="b", owner_id=OWNER))
    assert _code(again) is RefusalCode.BUCKET_OWNED
    other = await tables.do(CreateBucket(bucket="b", owner_id="other"))
    assert _code(other) is RefusalCode.BUCKET_EXISTS


async def test_create_bucket_above_the_limit_is_refused_until_one_is_deleted() -> None:
    tables = Tables()
    for number in range(BUCKETS_PER_OWNER_MAX):
        command = CreateBucket(bucket=f"b{number}", owner_id=OWNER)
        assert await tables.do(command, request_id="") == Done()
    more = CreateBucket(bucket="more", owner_id=OWNER)
    assert _code(await tables.do(more)) is RefusalCode.TOO_MANY_BUCKETS
    assert await tables.do(CreateBucket(bucket="more", owner_id="other")) == Done()
    assert await tables.do(DeleteBucket(bucket="b7")) == Done()
    assert await tables.do(CreateBucket(bucket="mine", owner_id=OWNER)) == Done()


async def test_delete_bucket_with_only_a_delete_marker_is_refused() -> None:
    tables = await _with_bucket(Versioning.ENABLED)
    await tables.do(DeleteObjects(bucket="b", owner_id=OWNER, entries=(DeleteEntry(key=b"k"),)))
    assert _code(await tables.do(DeleteBucket(bucket="b"))) is RefusalCode.BUCKET_NOT_EMPTY


async def test_delete_bucket_with_running_uploads_makes_their_parts_garbage() -> None:
    tables = await _with_bucket()
    upload_id = await _begin(tables)
    part = await _put_part(tables, upload_id, 1, 100)
    assert await tables.do(DeleteBucket(bucket="b")) == Done()
    rows = await dump(tables.store)
    assert [rows[name] for name in (UPLOADS.name, PARTS.name, BLOBS.name)] == [[], [], []]
    assert part.blob is not None
    assert [key for key, _ in rows[GARBAGE.name]] == [(part.blob.blob_id,)]


async def test_set_versioning_back_to_off_is_refused() -> None:
    tables = await _with_bucket(Versioning.SUSPENDED)
    result = await tables.do(SetVersioning(bucket="b", versioning=Versioning.OFF))
    assert _code(result) is RefusalCode.INVALID_ARGUMENT


# --- objects ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("age_ms", "is_refused"), [(0, False), (1, True)])
async def test_put_object_blob_placed_a_day_ago_is_expired(age_ms: int, is_refused: bool) -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    tables.now_ms += BLOB_COMMIT_AGE_MS_MAX + age_ms
    result = await tables.do(put)
    assert isinstance(result, Refusal) is is_refused
    if is_refused:
        assert _code(result) is RefusalCode.UPLOAD_EXPIRED


async def test_put_object_inline_is_never_expired_by_a_clock_that_jumped_ahead() -> None:
    """A leader's clock that was a day ahead for a moment must not stop all writes for a day: the
    ids of inline blobs come from the gateways' clocks, and there are no chunks to be swept."""
    tables = await _with_bucket()
    put = replace(tables.put("b", b"k"), size=4, blob=tables.inline(b"data"))
    tables.now_ms += 2 * BLOB_COMMIT_AGE_MS_MAX
    assert isinstance(await tables.do(put), PutDone)


async def test_put_object_of_a_blob_that_was_committed_long_ago_is_refused() -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    assert isinstance(await tables.do(put), PutDone)
    tables.now_ms += 60_000
    assert _code(await tables.do(put)) is RefusalCode.CONFLICT
    await tables.do(tables.put("b", b"k"))
    assert _code(await tables.do(put)) is RefusalCode.UPLOAD_EXPIRED


@pytest.mark.parametrize(
    ("blob", "size", "code"),
    [
        (None, 3, RefusalCode.INVALID_ARGUMENT),
        (NewBlob(blob_id="0" * 32, size=3, holders=("n",)), 4, RefusalCode.SIZE_MISMATCH),
        (NewBlob(blob_id="f" * 32, size=3), 3, RefusalCode.INVALID_ARGUMENT),
        (NewBlob(blob_id="F" * 32, size=3, holders=("n",)), 3, RefusalCode.INVALID_ARGUMENT),
        (NewBlob(blob_id="f" * 32, size=3, data=b"four"), 3, RefusalCode.INVALID_ARGUMENT),
        (NewBlob(blob_id="f" * 32, size=0, holders=("n",)), 0, RefusalCode.INVALID_ARGUMENT),
        (NewBlob(blob_id="f" * 32, size=-1, holders=("n",)), -1, RefusalCode.INVALID_ARGUMENT),
    ],
)
async def test_put_object_with_bytes_that_cannot_be_is_refused(
    blob: NewBlob | None, size: int, code: RefusalCode
) -> None:
    tables = await _with_bucket()
    put = PutObject(bucket="b", key=b"k", head=HEAD, etag="e", size=size, blob=blob)
    assert _code(await tables.do(put)) is code
    assert (await dump(tables.store))[OBJECTS.name] == []


@pytest.mark.parametrize("key", [b"", b"x" * (KEY_BYTES_MAX + 1)])
async def test_put_object_key_that_no_store_holds_is_refused(key: bytes) -> None:
    tables = await _with_bucket()
    assert _code(await tables.do(tables.put("b", key))) is RefusalCode.INVALID_ARGUMENT


async def test_put_object_if_match_on_a_delete_marker_is_no_such_key() -> None:
    tables = await _with_bucket(Versioning.ENABLED)
    await tables.do(tables.put("b", b"k", etag="e"))
    await tables.do(DeleteObjects(bucket="b", owner_id=OWNER, entries=(DeleteEntry(key=b"k"),)))
    put = replace(tables.put("b", b"k"), condition=Condition(if_match=("*",)))
    assert _code(await tables.do(put)) is RefusalCode.NO_SUCH_KEY
    put = replace(tables.put("b", b"k"), condition=Condition(if_none_match=("*",)))
    assert isinstance(await tables.do(put), PutDone)


@pytest.mark.parametrize(
    ("condition", "is_deleted"),
    [
        (Condition(if_match=("e",)), True),
        (Condition(if_match=("*",)), True),
        (Condition(if_match=("other",)), False),
        (Condition(if_match_size=3), True),
        (Condition(if_match_size=4), False),
        (Condition(if_match_modified_ms=1_700_000_000_999), True),
        (Condition(if_match_modified_ms=1_700_000_001_000), False),
    ],
)
async def test_delete_objects_condition_decides_each_entry(
    condition: Condition, is_deleted: bool
) -> None:
    tables = await _with_bucket()
    await tables.do(tables.put("b", b"k", etag="e", size=3))
    entries = (
        DeleteEntry(key=b"k", condition=condition),
        DeleteEntry(key=b"not-there", condition=condition),
    )
    result = await tables.do(DeleteObjects(bucket="b", owner_id=OWNER, entries=entries))
    assert isinstance(result, DeletedMany)
    refused = None if is_deleted else RefusalCode.PRECONDITION_FAILED
    assert [entry.refused for entry in result.entries] == [refused, None]
    assert ((await dump(tables.store))[OBJECTS.name] == []) is is_deleted


async def test_set_object_tags_of_versions_and_markers() -> None:
    tables = await _with_bucket(Versioning.ENABLED)
    first = await tables.do(tables.put("b", b"k"))
    assert isinstance(first, PutDone)
    await tables.do(tables.put("b", b"k"))
    tags = (("a", "b"),)

    async def tag(version_id: str | None, key: bytes = b"k") -> Result:
        command = SetObjectTags(bucket="b", key=key, version_id=version_id, tags=tags)
        return await tables.do(command)

    assert await tag(first.version_id) == VersionDone(version_id=first.version_id, versioned=True)
    assert isinstance(await tag(None), VersionDone)
    deleted = await tables.do(
        DeleteObjects(bucket="b", owner_id=OWNER, entries=(DeleteEntry(key=b"k"),))
    )
    assert isinstance(deleted, DeletedMany)
    assert _code(await tag(None)) is RefusalCode.NO_SUCH_KEY
    marker = deleted.entries[0].marker_version_id
    assert _code(await tag(marker)) is RefusalCode.IS_DELETE_MARKER
    assert _code(await tag("null")) is RefusalCode.NO_SUCH_VERSION
    assert _code(await tag(None, b"other")) is RefusalCode.NO_SUCH_KEY


# --- multipart -------------------------------------------------------------------------------


async def _begin(tables: Tables, key: bytes = b"k") -> str:
    result = await tables.do(CreateUpload(bucket="b", key=key, head=HEAD, initiator_id=OWNER))
    assert isinstance(result, UploadDone)
    return result.upload_id


async def _put_part(tables: Tables, upload_id: str, number: int, size: int) -> PutPart:
    command = PutPart(
        bucket="b",
        key=b"k",
        upload_id=upload_id,
        number=number,
        size=size,
        etag=f"e{number}",
        blob=tables.held(size),
        checksum=Checksum(algorithm="CRC32", value=f"c{number}"),
    )
    assert not isinstance(await tables.do(command), Refusal)
    return command


def _complete(upload_id: str, *numbers: int, size: int | None = None) -> CompleteUpload:
    return CompleteUpload(
        bucket="b",
        key=b"k",
        upload_id=upload_id,
        parts=tuple(NamedPart(number=number, etag=f"e{number}") for number in numbers),
        etag="whole-2",
        size=size,
    )


async def test_complete_upload_with_wrong_parts_is_refused_and_leaves_the_upload() -> None:
    tables = await _with_bucket()
    upload_id = await _begin(tables)
    for number in (1, 2):
        await _put_part(tables, upload_id, number, 6 * 1024 * 1024)
    await _put_part(tables, upload_id, 3, 5)
    before = (await dump(tables.store))[PARTS.name]
    wrong = Checksum(algorithm="CRC32", value="other")
    cases = [
        (_complete(upload_id, 2, 1), RefusalCode.INVALID_PART_ORDER),
        (_complete(upload_id, 1, 1), RefusalCode.INVALID_PART_ORDER),
        (_complete(upload_id, 1, 9), RefusalCode.INVALID_PART),
        (_complete(upload_id), RefusalCode.INVALID_ARGUMENT),
        (_complete(upload_id, 1, size=7), RefusalCode.SIZE_MISMATCH),
        (
            replace(_complete(upload_id), parts=(NamedPart(number=1, etag="e2"),)),
            RefusalCode.INVALID_PART,
        ),
        (
            replace(_complete(upload_id), parts=(NamedPart(number=1, etag="e1", checksum=wrong),)),
            RefusalCode.INVALID_PART,
        ),
        (
            replace(_complete(upload_id, 1), condition=Condition(if_match=("x",))),
            RefusalCode.NO_SUCH_KEY,
        ),
        (_complete("0" * 32, 1), RefusalCode.NO_SUCH_UPLOAD),
        (replace(_complete(upload_id, 1), key=b"other"), RefusalCode.NO_SUCH_UPLOAD),
    ]
    for command, code in cases:
        assert _code(await tables.do(command)) is code
    await _put_part(tables, upload_id, 1, 5)
    small = await tables.do(_complete(upload_id, 1, 2))
    assert _code(small) is RefusalCode.PART_TOO_SMALL
    assert len(before) == len((await dump(tables.store))[PARTS.name]) == 3


async def test_complete_upload_frees_unused_and_replaced_parts_only() -> None:
    tables = await _with_bucket()
    upload_id = await _begin(tables)
    replaced = await _put_part(tables, upload_id, 1, 7)
    kept = await _put_part(tables, upload_id, 1, 9)
    unused = await _put_part(tables, upload_id, 2, 5)
    done = await tables.do(_complete(upload_id, 1, size=9))
    assert isinstance(done, PutDone)
    assert (done.size, done.etag) == (9, "whole-2")
    rows = await dump(tables.store)
    blobs = [command.blob.blob_id for command in (replaced, kept, unused) if command.blob]
    assert [key for key, _ in rows[BLOBS.name]] == [(blobs[1],)]
    assert {key for key, _ in rows[GARBAGE.name]} == {(blobs[0],), (blobs[2],)}
    assert rows[PARTS.name] == rows[UPLOADS.name] == []
    late = PutPart(bucket="b", key=b"k", upload_id=upload_id, number=1, size=0, etag="e")
    assert _code(await tables.do(late)) is RefusalCode.NO_SUCH_UPLOAD
    abort = AbortUpload(bucket="b", key=b"k", upload_id=upload_id)
    assert _code(await tables.do(abort)) is RefusalCode.NO_SUCH_UPLOAD


async def test_complete_upload_first_answer_is_kept_for_a_day() -> None:
    tables = await _with_bucket()
    upload_id = await _begin(tables)
    await _put_part(tables, upload_id, 1, 7)
    done = await tables.do(_complete(upload_id, 1))
    tables.now_ms += DAY_MS
    await _begin(tables, b"other")
    assert await tables.do(_complete(upload_id, 1)) == done
    tables.now_ms += 1
    await _begin(tables, b"other")
    assert _code(await tables.do(_complete(upload_id, 1))) is RefusalCode.NO_SUCH_UPLOAD
    rows = await dump(tables.store)
    assert rows[COMPLETIONS.name] == rows[COMPLETION_ORDER.name] == []


async def test_complete_upload_of_an_older_bucket_of_that_name_is_unknown() -> None:
    tables = await _with_bucket()
    upload_id = await _begin(tables)
    await _put_part(tables, upload_id, 1, 7)
    assert isinstance(await tables.do(_complete(upload_id, 1)), PutDone)
    await tables.do(DeleteObjects(bucket="b", owner_id=OWNER, entries=(DeleteEntry(key=b"k"),)))
    tables.now_ms += 1
    await tables.do(DeleteBucket(bucket="b"))
    await tables.do(CreateBucket(bucket="b", owner_id="other"))
    assert _code(await tables.do(_complete(upload_id, 1))) is RefusalCode.NO_SUCH_UPLOAD


async def test_copy_part_outside_of_the_source_is_refused() -> None:
    tables = await _with_bucket()
    source = await tables.do(tables.put("b", b"source", size=10))
    assert isinstance(source, PutDone)
    upload_id = await _begin(tables)
    for offset, length, is_refused in [(0, 10, False), (9, 2, True), (-1, 2, True), (0, -1, True)]:
        command = CopyPart(
            bucket="b", key=b"k", upload_id=upload_id, number=1, source_bucket="b",
            source_key=b"source", source_order=source.order, offset=offset, length=length,
            etag="e",
        )  # fmt: skip
        assert isinstance(await tables.do(command), Refusal) is is_refused


def test_slice_extents_takes_exactly_the_range() -> None:
    data = {"a": bytes(range(10)), "b": bytes(range(50, 60))}
    extents = (
        Extent(blob_id="a", offset=2, length=5),
        Extent(blob_id="b", offset=0, length=3),
        Extent(blob_id="a", offset=0, length=2),
    )

    def read(some: tuple[Extent, ...]) -> bytes:
        return b"".join(data[e.blob_id][e.offset : e.offset + e.length] for e in some)

    whole = read(extents)
    for offset in range(len(whole) + 1):
        for length in range(len(whole) - offset + 1):
            sliced = slice_extents(extents, offset, length)
            assert read(sliced) == whole[offset : offset + length]
            assert all(extent.length > 0 for extent in sliced)


# --- users -----------------------------------------------------------------------------------


def _user(name: str = "U", user_id: str = "u") -> User:
    return User(user_id=user_id, display_name=name)


def _key(access_key: str = "AK", secret: str = "s", user_id: str = "u") -> AccessKey:
    return AccessKey(access_key=access_key, user_id=user_id, secret=secret)


async def test_put_user_cannot_be_who_owns_what_nobody_signed_for() -> None:
    user = User(user_id=ANONYMOUS_OWNER, display_name="x")
    assert _code(await Tables().do(PutUser(user=user))) is RefusalCode.INVALID_ARGUMENT


async def test_put_user_existing_one_changes_only_with_replace() -> None:
    tables = Tables()
    assert await tables.do(PutUser(user=_user(), keys=(_key(),))) == Done()
    assert await tables.do(PutUser(user=_user(), keys=(_key(),))) == Done()
    assert _code(await tables.do(PutUser(user=_user("V")))) is RefusalCode.USER_EXISTS
    taken = PutUser(user=_user(), keys=(_key(secret="other"),))
    assert _code(await tables.do(taken)) is RefusalCode.ACCESS_KEY_EXISTS
    changed = PutUser(user=_user("V"), keys=(_key(secret="other"),), replace=True)
    assert await tables.do(changed) == Done()
    stolen = PutUser(user=_user(user_id="w"), keys=(_key(user_id="w"),), replace=True)
    assert _code(await tables.do(stolen)) is RefusalCode.ACCESS_KEY_EXISTS
    (user,), (key,) = await _docs(tables, USERS.name), await _docs(tables, ACCESS_KEYS.name)
    assert isinstance(user, User)
    assert isinstance(key, AccessKey)
    assert (user.display_name, key.secret) == ("V", "other")


async def test_delete_access_key_moves_the_access_epoch() -> None:
    tables = Tables()
    await tables.do(PutUser(user=_user(), keys=(_key(),)))
    assert await tables.do(DeleteAccessKey(access_key="AK")) == Done()
    marks = dict((await dump(tables.store))[MARKS.name])
    assert marks[(ACCESS_EPOCH,)] == Mark(value=2)
    again = await tables.do(DeleteAccessKey(access_key="AK"))
    assert _code(again) is RefusalCode.NO_SUCH_ACCESS_KEY


# --- blobs -----------------------------------------------------------------------------------


async def test_holders_change_only_as_expected_and_third_copy_is_added_once() -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    await tables.do(put)
    assert put.blob is not None
    blob_id = put.blob.blob_id
    for _ in range(2):
        assert await tables.do(AddHolder(blob_id=blob_id, node_id="n3")) == Done()
    stale = SetHolders(blob_id=blob_id, expected=("n1", "n2"), holders=("n4",))
    assert _code(await tables.do(stale)) is RefusalCode.CONFLICT
    good = SetHolders(blob_id=blob_id, expected=("n3", "n1", "n2"), holders=("n4", "n1"))
    assert await tables.do(good) == Done()
    nobody = SetHolders(blob_id=blob_id, expected=("n4", "n1"), holders=())
    assert _code(await tables.do(nobody)) is RefusalCode.INVALID_ARGUMENT
    (blob,) = await _docs(tables, BLOBS.name)
    assert isinstance(blob, Blob)
    assert blob.holders == ("n4", "n1")


async def test_garbage_goes_when_every_holder_has_deleted_also_late_ones() -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    await tables.do(put)
    await tables.do(DeleteObjects(bucket="b", owner_id=OWNER, entries=(DeleteEntry(key=b"k"),)))
    assert put.blob is not None
    blob_id = put.blob.blob_id
    assert await tables.do(AddHolder(blob_id=blob_id, node_id="n3")) == Done()
    (garbage,) = await _docs(tables, GARBAGE.name)
    assert isinstance(garbage, Garbage)
    assert garbage.holders == ("n1", "n2", "n3")
    for node_id in ("n2", "other", "n3", "n1", "n1"):
        assert await _docs(tables, GARBAGE.name) or node_id == "n1"
        forget = ForgetGarbage(node_id=node_id, blob_ids=(blob_id, "no-blob-id", "f" * 32))
        assert await tables.do(forget) == Done()
    assert await _docs(tables, GARBAGE.name) == []
    assert await _docs(tables, BLOBS.name) == []
