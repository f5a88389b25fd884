"""The largest object that there may be (FAULTS row 69): 10,000 parts, 5 TiB; no bytes needed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

from msgspec.structs import replace

from astra.commands import (
    CompleteUpload,
    CreateBucket,
    CreateUpload,
    DeleteEntry,
    DeleteObjects,
    NamedPart,
    PutDone,
    PutPart,
    Refusal,
    Result,
    UploadDone,
)
from astra.constants import (
    GIB,
    MIB,
    OBJECT_SIZE_MAX,
    PART_NUMBER_MAX,
    PART_SIZE_MIN,
    PROPOSAL_BYTES_MAX,
)
from astra.errors import RefusalCode
from astra.frame import encode_frame
from astra.model import BLOBS, GARBAGE, Checksum
from astra.wire import BlobPlace, Entry, Epochs, HolderRef, Locate
from node.lookup import Location, locate
from node.metadata.sqlite import SqliteMetadataStore
from tests.support.metadata_entries import HEAD, OWNER, Tables, apply_to, dump

NODES = tuple(f"node-{'x' * 50}-{number}" for number in range(3))
ADDRESS = f"{'a' * 60}.{'b' * 60}.{'c' * 60}.{'d' * 60}:65535"  # as long as a name may be
PAGE = 500


def checksum_of(number: int) -> Checksum:
    digest = hashlib.sha256(str(number).encode()).digest()
    return Checksum(algorithm="SHA256", value=base64.b64encode(digest).decode())


def etag_of(number: int) -> str:
    return hashlib.md5(str(number).encode(), usedforsecurity=False).hexdigest()


class Upload:
    """An upload of `count` parts of `size` bytes each, in a bucket of its own."""

    def __init__(self, tables: Tables, upload_id: str, count: int, size: int) -> None:
        self.tables = tables
        self.upload_id = upload_id
        self.count = count
        self.size = size

    @classmethod
    async def begin(cls, count: int, size: int) -> Upload:
        tables = Tables()
        await tables.do(CreateBucket(bucket="b", owner_id=OWNER))
        begun = await tables.do(CreateUpload(bucket="b", key=b"k", head=HEAD, initiator_id=OWNER))
        assert isinstance(begun, UploadDone)
        upload = cls(tables, begun.upload_id, count, size)
        for first in range(1, count + 1, PAGE):
            entries = [upload._part(number) for number in range(first, first + PAGE)]
            await apply_to(tables.store, entries)
        return upload

    def _part(self, number: int) -> Entry:
        blob = self.tables.held(self.size, *NODES)
        command = PutPart(
            bucket="b", key=b"k", upload_id=self.upload_id, number=number, size=self.size,
            etag=etag_of(number), blob=blob, checksum=checksum_of(number),
        )  # fmt: skip
        return self.tables.entry(command)

    async def complete(self, count: int) -> tuple[Entry, Result]:
        """Of the first `count` parts."""
        parts = tuple(
            NamedPart(number=number, etag=etag_of(number), checksum=checksum_of(number))
            for number in range(1, count + 1)
        )
        entry = self.tables.entry(
            CompleteUpload(
                bucket="b", key=b"k", upload_id=self.upload_id, parts=parts, etag=f"e-{count}"
            )
        )
        (result,) = await apply_to(self.tables.store, [entry])
        return entry, result


async def test_ten_thousand_parts_become_one_object_that_fits_into_every_message(
    tmp_path: Path,
) -> None:
    upload = await Upload.begin(PART_NUMBER_MAX, PART_SIZE_MIN)
    tables = upload.tables
    entry, done = await upload.complete(PART_NUMBER_MAX)
    assert isinstance(done, PutDone)
    assert done.size == PART_NUMBER_MAX * PART_SIZE_MIN
    assert len(entry.data) < PROPOSAL_BYTES_MAX
    wanted = Locate(bucket="b", key=b"k", epochs=Epochs(), with_data=True)
    location = await tables.ask(locate, wanted)
    assert [part.number for part in location.located.parts] == [*range(1, PART_NUMBER_MAX + 1)]
    assert len(location.blobs) == PART_NUMBER_MAX
    print(f"proposal {len(entry.data)} bytes, located {len(frame_of(location))} bytes")
    await same_in_a_snapshot(tables, tmp_path)
    entries = (DeleteEntry(key=b"k"),)
    await tables.do(DeleteObjects(bucket="b", owner_id=OWNER, entries=entries))
    rows = await dump(tables.store)
    assert len(rows[GARBAGE.name]) == PART_NUMBER_MAX
    assert not rows[BLOBS.name]


def frame_of(location: Location) -> bytes:
    """As the leader sends it. Raises when it does not fit."""
    refs = tuple(HolderRef(node_id=node_id, address=ADDRESS) for node_id in NODES)
    places = tuple(
        BlobPlace(blob_id=blob.blob_id, size=blob.size, holders=refs) for blob in location.blobs
    )
    return encode_frame(1, replace(location.located, places=places))


async def same_in_a_snapshot(tables: Tables, directory: Path) -> None:
    """A follower that gets all of it as a snapshot has the same rows."""

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in tables.store.export():
            assert len(piece) <= MIB
            yield piece

    copy = await SqliteMetadataStore.open(directory / "copy.sqlite")
    try:
        await copy.replace(pieces())
        assert await dump(copy) == await dump(tables.store)
    finally:
        await copy.close()


async def test_five_tib_are_allowed_and_not_a_part_more() -> None:
    upload = await Upload.begin(2 * PAGE + PAGE, 5 * GIB)
    at_most = OBJECT_SIZE_MAX // (5 * GIB)
    _, refused = await upload.complete(at_most + 1)
    assert isinstance(refused, Refusal)
    assert refused.code is RefusalCode.INVALID_ARGUMENT
    _, done = await upload.complete(at_most)
    assert isinstance(done, PutDone)
    assert done.size == OBJECT_SIZE_MAX
