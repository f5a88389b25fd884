"""How many pieces of other objects one object may consist of."""

from __future__ import annotations

from astra.commands import (
    CompleteUpload,
    CopyPart,
    CreateBucket,
    CreateUpload,
    NamedPart,
    PutDone,
    PutPart,
    Refusal,
    Result,
    UploadDone,
)
from astra.constants import FRAME_HEADER_BYTES_MAX, PART_SIZE_MIN, SURPLUS_EXTENTS_MAX
from astra.errors import RefusalCode
from astra.frame import encode_frame
from astra.model import UPLOADS, Upload
from astra.wire import Epochs, Locate
from node.lookup import locate
from tests.support.metadata_entries import HEAD, OWNER, Tables, dump

WHOLE = Locate(bucket="b", key=b"k", epochs=Epochs(), with_data=True)


async def _begin(tables: Tables) -> str:
    result = await tables.do(CreateUpload(bucket="b", key=b"k", head=HEAD, initiator_id=OWNER))
    assert isinstance(result, UploadDone)
    return result.upload_id


async def _put_part(tables: Tables, upload_id: str, number: int, size: int) -> None:
    command = PutPart(
        bucket="b", key=b"k", upload_id=upload_id, number=number, size=size, etag=f"e{number}",
        blob=tables.held(size),
    )  # fmt: skip
    assert not isinstance(await tables.do(command), Refusal)


def _copy(upload_id: str, number: int, source: PutDone, offset: int, length: int) -> CopyPart:
    return CopyPart(
        bucket="b", key=b"k", upload_id=upload_id, number=number, source_bucket="b",
        source_key=b"k", source_order=source.order, offset=offset, length=length,
        etag=f"e{number}",
    )  # fmt: skip


async def _complete(tables: Tables, upload_id: str) -> Result:
    """Of the parts 1 and 2."""
    parts = tuple(NamedPart(number=number, etag=f"e{number}") for number in (1, 2))
    return await tables.do(
        CompleteUpload(bucket="b", key=b"k", upload_id=upload_id, parts=parts, etag="whole-2")
    )


async def _with_two_parts() -> tuple[Tables, PutDone]:
    """A store in which "k" is a part of the least size and one byte."""
    tables = Tables()
    await tables.do(CreateBucket(bucket="b", owner_id=OWNER))
    upload_id = await _begin(tables)
    await _put_part(tables, upload_id, 1, PART_SIZE_MIN)
    await _put_part(tables, upload_id, 2, 1)
    done = await _complete(tables, upload_id)
    assert isinstance(done, PutDone)
    return tables, done


async def _append_tail(tables: Tables, source: PutDone, tail: int) -> Result:
    """ "k" anew: all of it, and behind that its last `tail` bytes again."""
    upload_id = await _begin(tables)
    for number, offset in enumerate((0, source.size - tail), start=1):
        result = await tables.do(
            _copy(upload_id, number, source, offset, length=source.size - offset)
        )
        if isinstance(result, Refusal):
            return result
    return await _complete(tables, upload_id)


async def test_copies_of_copies_do_not_double_the_extents_for_ever() -> None:
    """Each round costs three small requests; the 30th would fill the memory of every node."""
    tables, newest = await _with_two_parts()
    tail = 1
    result: Result = newest
    while isinstance(result, PutDone):
        assert tail <= 2 * SURPLUS_EXTENTS_MAX
        location = await tables.ask(locate, WHOLE)
        assert len(encode_frame(1, location.located)) < FRAME_HEADER_BYTES_MAX // 8
        result = await _append_tail(tables, result, tail)
        tail *= 2
    assert isinstance(result, Refusal)
    assert result.code is RefusalCode.TOO_MANY_PIECES


async def test_a_part_that_is_replaced_gives_its_extents_back() -> None:
    tables, source = await _with_two_parts()
    upload_id = await _begin(tables)

    async def surplus() -> int:
        ((_, upload),) = (await dump(tables.store))[UPLOADS.name]
        assert isinstance(upload, Upload)
        return upload.surplus_extents

    for number, expected in ((1, 1), (1, 1), (2, 2)):
        await tables.do(_copy(upload_id, number, source, 0, source.size))
        assert await surplus() == expected
    await _put_part(tables, upload_id, 1, 5)
    assert await surplus() == 1
