"""ACLs in the tables: where they are kept, what carries them on, what never does."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from astra.commands import (
    CompleteUpload,
    CopyObject,
    CreateBucket,
    CreateUpload,
    DeleteEntry,
    DeleteObjects,
    Done,
    JudgedAcl,
    NamedPart,
    PutDone,
    PutObject,
    PutPart,
    Refusal,
    Result,
    SetBucketAcl,
    SetObjectAcl,
    SetVersioning,
    UploadDone,
    VersionDone,
)
from astra.constants import ACL_GRANTS_MAX
from astra.errors import RefusalCode
from astra.model import ALL_USERS, BUCKETS, Grant, ObjectVersion, Versioning
from astra.wire import Epochs, ListObjects, Locate
from node import listing, lookup
from tests.support.metadata_entries import HEAD, OWNER, Tables, dump

PUBLIC: Final = (Grant(grantee=ALL_USERS, permission="READ"),)
TOO_LONG: Final = PUBLIC * (ACL_GRANTS_MAX + 1)


async def with_bucket(versioning: Versioning = Versioning.OFF) -> Tables:
    tables = Tables()
    await tables.do(CreateBucket(bucket="b", owner_id=OWNER))
    if versioning is not Versioning.OFF:
        await tables.do(SetVersioning(bucket="b", versioning=versioning))
    return tables


async def version_of(tables: Tables, key: bytes, version_id: str | None = None) -> ObjectVersion:
    query = Locate(bucket="b", key=key, version_id=version_id, epochs=Epochs())
    return (await tables.ask(lookup.locate, query)).located.version


def public(put: PutObject) -> PutObject:
    return replace(put, head=replace(HEAD, acl=PUBLIC))


def code(result: Result) -> RefusalCode:
    assert isinstance(result, Refusal)
    return result.code


async def test_set_bucket_acl_moves_the_epoch_and_an_old_decision_is_refused() -> None:
    tables = await with_bucket()
    change = SetBucketAcl(bucket="b", acl=PUBLIC)
    assert await tables.do(change, bucket_epoch=1) == Done()
    (row,) = (await dump(tables.store))[BUCKETS.name]
    assert row[1] == replace(row[1], acl=PUBLIC, epoch=2)
    assert code(await tables.do(change, bucket_epoch=1)) is RefusalCode.STALE_EPOCH


async def test_set_bucket_acl_to_what_it_is_makes_no_decision_old() -> None:
    tables = await with_bucket()
    change = SetBucketAcl(bucket="b", acl=PUBLIC)
    await tables.do(change)
    assert await tables.do(change, bucket_epoch=2) == Done()
    assert await tables.do(change, bucket_epoch=2) == Done()


async def test_create_bucket_keeps_the_acl_it_came_with() -> None:
    tables = Tables()
    await tables.do(CreateBucket(bucket="b", owner_id=OWNER, acl=()))
    (row,) = (await dump(tables.store))[BUCKETS.name]
    assert row[1] == replace(row[1], acl=())


async def test_set_object_acl_changes_one_version_and_nothing_else_of_it() -> None:
    tables = await with_bucket(Versioning.ENABLED)
    first = await tables.do(tables.put("b", b"k"))
    assert isinstance(first, PutDone)
    before = await version_of(tables, b"k")
    await tables.do(tables.put("b", b"k"))
    tables.now_ms += 5000
    done = await tables.do(
        SetObjectAcl(bucket="b", key=b"k", version_id=first.version_id, acl=PUBLIC)
    )
    assert done == VersionDone(version_id=first.version_id, versioned=True)
    assert await version_of(tables, b"k", first.version_id) == replace(before, acl=PUBLIC)
    assert (await version_of(tables, b"k")).acl is None


async def test_set_object_acl_judged_on_another_version_or_acl_is_refused() -> None:
    tables = await with_bucket()
    await tables.do(public(tables.put("b", b"k")))
    order = (await version_of(tables, b"k")).order

    async def change(judged: JudgedAcl) -> Result:
        command = SetObjectAcl(bucket="b", key=b"k", version_id=None, acl=None, judged=judged)
        return await tables.do(command)

    assert code(await change(JudgedAcl(order=order, acl=None))) is RefusalCode.CONFLICT
    assert code(await change(JudgedAcl(order=order - 1, acl=PUBLIC))) is RefusalCode.CONFLICT
    assert (await version_of(tables, b"k")).acl == PUBLIC
    assert isinstance(await change(JudgedAcl(order=order, acl=PUBLIC)), VersionDone)
    assert (await version_of(tables, b"k")).acl is None


async def test_put_over_a_public_object_is_private_again() -> None:
    tables = await with_bucket()
    await tables.do(public(tables.put("b", b"k")))
    assert (await version_of(tables, b"k")).acl == PUBLIC
    await tables.do(tables.put("b", b"k"))
    assert (await version_of(tables, b"k")).acl is None


async def test_copy_never_takes_the_acl_of_its_source() -> None:
    tables = await with_bucket()
    await tables.do(public(tables.put("b", b"k")))
    source = await version_of(tables, b"k")
    copy = CopyObject(
        bucket="b",
        key=b"copy",
        source_bucket="b",
        source_key=b"k",
        source_order=source.order,
        owner_id=OWNER,
    )
    await tables.do(copy)
    assert (await version_of(tables, b"copy")).acl is None
    await tables.do(replace(copy, key=b"public", acl=PUBLIC))
    assert (await version_of(tables, b"public")).acl == PUBLIC


async def test_upload_gives_its_acl_to_the_object_that_it_becomes() -> None:
    tables = await with_bucket()
    head = replace(HEAD, acl=PUBLIC)
    begun = await tables.do(CreateUpload(bucket="b", key=b"k", head=head, initiator_id=OWNER))
    assert isinstance(begun, UploadDone)
    await tables.do(
        PutPart(bucket="b", key=b"k", upload_id=begun.upload_id, number=1, size=0, etag="e")
    )
    parts = (NamedPart(number=1, etag="e"),)
    completed = await tables.do(
        CompleteUpload(bucket="b", key=b"k", upload_id=begun.upload_id, parts=parts, etag="e-1")
    )
    assert isinstance(completed, PutDone)
    assert (await version_of(tables, b"k")).acl == PUBLIC


async def test_acl_longer_than_allowed_is_refused_everywhere() -> None:
    tables = await with_bucket()
    put = tables.put("b", b"k")
    await tables.do(put)
    long_head = replace(HEAD, acl=TOO_LONG)
    for command in (
        CreateBucket(bucket="c", owner_id=OWNER, acl=TOO_LONG),
        SetBucketAcl(bucket="b", acl=TOO_LONG),
        SetObjectAcl(bucket="b", key=b"k", version_id=None, acl=TOO_LONG),
        replace(tables.put("b", b"k"), head=long_head),
        CreateUpload(bucket="b", key=b"k", head=long_head, initiator_id=OWNER),
    ):
        assert code(await tables.do(command)) is RefusalCode.INVALID_ARGUMENT


async def test_set_object_acl_of_what_is_deleted_or_missing_is_refused() -> None:
    tables = await with_bucket(Versioning.ENABLED)
    await tables.do(tables.put("b", b"k"))
    await tables.do(DeleteObjects(bucket="b", owner_id=OWNER, entries=(DeleteEntry(key=b"k"),)))
    for key in (b"k", b"never"):
        command = SetObjectAcl(bucket="b", key=key, version_id=None, acl=PUBLIC)
        assert code(await tables.do(command)) is RefusalCode.NO_SUCH_KEY


async def test_listing_leaves_acls_out() -> None:
    tables = await with_bucket()
    await tables.do(public(tables.put("b", b"k")))
    page = await tables.ask(listing.list_objects, ListObjects(bucket="b", epochs=Epochs()))
    assert [listed.version.acl for listed in page.objects] == [None]
