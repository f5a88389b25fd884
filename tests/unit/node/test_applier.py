"""How far a node had come, as its tables say."""

import pytest

from astra.errors import DamagedLog
from astra.model import APPLIED_INDEX, APPLIED_TERM, MARKS, Mark
from astra.ports import MetadataTxn
from node.applier import Applier
from node.metadata.memory import MemoryMetadataStore
from node.services.witness import Witness


async def loaded(marks: dict[str, int]) -> tuple[int, int]:
    store = MemoryMetadataStore()

    async def put(txn: MetadataTxn) -> None:
        for name, value in marks.items():
            await txn.put(MARKS, (name,), Mark(value=value))

    await store.write(put)
    applier = Applier(store, Witness())
    assert await applier.load() == applier.applied_index
    return applier.applied_index, applier.applied_term


async def test_load_gives_index_and_term() -> None:
    assert await loaded({}) == (0, 0)
    assert await loaded({APPLIED_INDEX: 7, APPLIED_TERM: 3}) == (7, 3)


async def test_mark_whose_name_has_a_flipped_bit_is_not_taken_for_none() -> None:
    flipped = chr(ord(APPLIED_INDEX[0]) ^ 1) + APPLIED_INDEX[1:]
    with pytest.raises(DamagedLog, match="how far"):
        await loaded({flipped: 7, APPLIED_TERM: 3})
    with pytest.raises(DamagedLog, match="how far"):
        await loaded({"buckets:owner": 1})
