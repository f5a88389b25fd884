"""Who holds a blob: only as expected, and never who still has a copy to delete."""

from __future__ import annotations

from astra.commands import (
    AddHolder,
    CreateBucket,
    Done,
    DropCopies,
    ForgetGarbage,
    Refusal,
    Result,
    SetHolders,
)
from astra.errors import RefusalCode
from astra.model import BLOBS, DROPPED, Blob, Doc
from tests.support.metadata_entries import OWNER, Tables, dump


def _code(result: Result) -> RefusalCode:
    assert isinstance(result, Refusal), result
    return result.code


async def _with_bucket() -> Tables:
    tables = Tables()
    assert await tables.do(CreateBucket(bucket="b", owner_id=OWNER)) == Done()
    return tables


async def _docs(tables: Tables, table: str) -> list[Doc]:
    return [doc for _, doc in (await dump(tables.store))[table]]


async def test_dropped_copy_keeps_its_node_from_holding_until_it_is_deleted() -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    await tables.do(put)
    assert put.blob is not None
    blob_id = put.blob.blob_id
    moved = SetHolders(blob_id=blob_id, expected=("n1", "n2"), holders=("n1", "n3"))
    assert await tables.do(moved) == Done()
    assert len(await _docs(tables, DROPPED.name)) == 1
    back = SetHolders(blob_id=blob_id, expected=("n1", "n3"), holders=("n1", "n2"))
    assert _code(await tables.do(back)) is RefusalCode.CONFLICT
    assert await tables.do(AddHolder(blob_id=blob_id, node_id="n2")) == Done()
    assert await _holders(tables) == ("n1", "n3")
    await tables.do(ForgetGarbage(node_id="n2", blob_ids=(blob_id,)))
    assert await _docs(tables, DROPPED.name) == []
    assert await tables.do(back) == Done()
    assert await _holders(tables) == ("n1", "n2")


async def test_set_holders_after_any_change_between_is_refused() -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    await tables.do(put)
    assert put.blob is not None
    blob_id = put.blob.blob_id
    late = SetHolders(
        blob_id=blob_id, expected=("n1", "n2"), holders=("n1", "n2", "n3"), expected_index=0
    )
    stray = DropCopies(node_id="n3", blob_ids=(blob_id, "f" * 32, "no-blob-id", blob_id))
    assert await tables.do(stray) == Done()
    await tables.do(ForgetGarbage(node_id="n3", blob_ids=(blob_id,)))
    assert _code(await tables.do(late)) is RefusalCode.CONFLICT
    assert await _holders(tables) == ("n1", "n2")


async def test_drop_copies_of_a_holder_changes_nothing() -> None:
    tables = await _with_bucket()
    put = tables.put("b", b"k")
    await tables.do(put)
    assert put.blob is not None
    before = await _docs(tables, BLOBS.name)
    assert await tables.do(DropCopies(node_id="n1", blob_ids=(put.blob.blob_id,))) == Done()
    assert await _docs(tables, BLOBS.name) == before
    assert await _docs(tables, DROPPED.name) == []


async def _holders(tables: Tables) -> tuple[str, ...]:
    (blob,) = await _docs(tables, BLOBS.name)
    assert isinstance(blob, Blob)
    return blob.holders
