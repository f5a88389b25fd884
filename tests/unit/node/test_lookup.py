"""Which version a request means, and what is said of it."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from astra import wire
from astra.commands import (
    CompleteUpload,
    CreateBucket,
    CreateUpload,
    DeleteEntry,
    DeleteObjects,
    NamedPart,
    PutDone,
    PutObject,
    PutPart,
    SetVersioning,
    UploadDone,
)
from astra.errors import RefusalCode, Refused
from astra.model import BLOBS, Blob, D, Key, Table, Versioning
from astra.ports import MetadataTxn, MetadataView
from node.lookup import HeldBlob, get_many, locate
from tests.support.metadata_entries import HEAD, OWNER, Tables


def _locate(key: bytes, version_id: str | None = None, *, with_data: bool = True) -> wire.Locate:
    return wire.Locate(
        bucket="b", key=key, epochs=wire.Epochs(), version_id=version_id, with_data=with_data
    )


class _Counting:
    def __init__(self, view: MetadataView) -> None:
        self._view = view
        self.calls = 0

    async def get(self, table: Table[D], key: Key) -> D | None:
        self.calls += 1
        return await self._view.get(table, key)

    async def scan(
        self, table: Table[D], start: Key, end: Key | None, limit: int
    ) -> Sequence[tuple[Key, D]]:
        self.calls += 1
        return await self._view.scan(table, start, end, limit)


async def _get_many(present: set[str], wanted: list[str]) -> tuple[dict[Key, Blob | None], int]:
    tables = Tables()

    async def fill(txn: MetadataTxn) -> None:
        for blob_id in present:
            await txn.put(BLOBS, (blob_id,), Blob(size=1, references=1, holders=("n",)))

    async def read(view: MetadataView) -> tuple[dict[Key, Blob | None], int]:
        counting = _Counting(view)
        found = await get_many(counting, BLOBS, [(blob_id,) for blob_id in wanted])
        return found, counting.calls

    await tables.store.write(fill)
    return await tables.store.read(read)


@pytest.mark.parametrize("seed", range(20))
async def test_get_many_answers_as_single_gets_do(seed: int) -> None:
    chance = random.Random(seed)
    ids = [f"{number:05d}" for number in range(chance.choice([5, 300, 5000]))]
    present = set(chance.sample(ids, len(ids) // 2))
    wanted = chance.choices(ids, k=chance.choice([0, 1, 2, 3, 40, 600]))
    found, _ = await _get_many(present, wanted)
    assert {key[0] for key in found} == set(wanted)
    assert all((doc is not None) is (key[0] in present) for key, doc in found.items())


async def test_get_many_neighbours_take_few_calls() -> None:
    ids = [f"{number:05d}" for number in range(3000)]
    _, calls = await _get_many(set(ids), ids[500:2500])
    assert calls <= 3


async def _versioned() -> tuple[Tables, list[PutDone]]:
    tables = Tables()
    await tables.do(CreateBucket(bucket="b", owner_id=OWNER))
    puts = [await tables.do(tables.put("b", b"k", etag="first"))]
    await tables.do(SetVersioning(bucket="b", versioning=Versioning.ENABLED))
    puts.append(await tables.do(tables.put("b", b"k", etag="second")))
    return tables, [put for put in puts if isinstance(put, PutDone)]


async def test_locate_versions_by_id_and_null() -> None:
    tables, puts = await _versioned()
    for version_id, etag, is_latest in [
        (None, "second", True),
        ("null", "first", False),
        (puts[1].version_id, "second", True),
    ]:
        located = (await tables.ask(locate, _locate(b"k", version_id))).located
        assert (located.version.etag, located.is_latest) == (etag, is_latest)
        assert located.versioning is Versioning.ENABLED


async def test_locate_delete_marker_is_an_answer() -> None:
    tables, _ = await _versioned()
    await tables.do(DeleteObjects(bucket="b", owner_id=OWNER, entries=(DeleteEntry(key=b"k"),)))
    location = await tables.ask(locate, _locate(b"k"))
    assert location.located.version.is_marker
    assert location.blobs == ()


@pytest.mark.parametrize(
    ("key", "version_id", "code"),
    [
        (b"other", None, RefusalCode.NO_SUCH_KEY),
        (b"other", "null", RefusalCode.NO_SUCH_VERSION),
        (b"k", "f" * 32, RefusalCode.NO_SUCH_VERSION),
        (b"k", "not a version", RefusalCode.NO_SUCH_VERSION),
    ],
)
async def test_locate_what_is_not_there_is_refused(
    key: bytes, version_id: str | None, code: RefusalCode
) -> None:
    tables, _ = await _versioned()
    with pytest.raises(Refused) as caught:
        await tables.ask(locate, _locate(key, version_id))
    assert caught.value.code is code


async def test_locate_inline_bytes_come_along_only_when_asked_for() -> None:
    tables, _ = await _versioned()
    blob = tables.inline(b"abc")
    put = PutObject(bucket="b", key=b"small", head=HEAD, etag="e", size=3, blob=blob)
    await tables.do(put)
    location = await tables.ask(locate, _locate(b"small"))
    assert location.located.inline == ((blob.blob_id, b"abc"),)
    assert location.blobs == ()
    location = await tables.ask(locate, _locate(b"small", with_data=False))
    assert location.located.inline == ()


async def test_locate_object_of_parts_has_the_manifest_and_holders_in_order() -> None:
    tables, _ = await _versioned()
    begun = await tables.do(CreateUpload(bucket="b", key=b"m", head=HEAD, initiator_id=OWNER))
    assert isinstance(begun, UploadDone)
    blobs = []
    for number, size in [(2, 7), (1, 5 * 1024 * 1024)]:
        blob = tables.held(size, f"n{number}")
        blobs.append(HeldBlob(blob_id=blob.blob_id, size=size, holders=(f"n{number}",)))
        await tables.do(
            PutPart(bucket="b", key=b"m", upload_id=begun.upload_id, number=number, size=size,
                    etag=f"{number}", blob=blob)
        )  # fmt: skip
    parts = (NamedPart(number=1, etag="1"), NamedPart(number=2, etag="2"))
    await tables.do(
        CompleteUpload(bucket="b", key=b"m", upload_id=begun.upload_id, parts=parts, etag="e-2")
    )
    location = await tables.ask(locate, _locate(b"m"))
    assert [part.number for part in location.located.parts] == [1, 2]
    assert location.blobs == (blobs[1], blobs[0])
