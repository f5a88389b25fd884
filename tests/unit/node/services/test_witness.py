"""The witness and the query cache: no interleaving of fills and writes makes a stale answer."""

from collections.abc import Sequence

import pytest

from astra.commands import DeleteEntry, DeleteObjects
from astra.model import ObjectVersion, Versioning
from astra.wire import Epochs, ListObjects, Locate, Located, ObjectPage
from node.apply.touched import Touched
from node.cache.memory import MemoryCache
from node.services.querycache import Query, QueryCache, is_cacheable, join_key
from node.services.witness import Witness

EPOCHS = Epochs(access=3, bucket=2)
HEAD = Locate(bucket="b", key=b"k", epochs=EPOCHS)
LIST = ListObjects(bucket="b", epochs=EPOCHS)
TERM = 5


def version(order: int) -> Located:
    return Located(
        version=ObjectVersion(version_id="null", order=order, modified_ms=0, owner_id="o"),
        versioning=Versioning.OFF,
    )


def touch_key(bucket: str, key: bytes) -> Touched:
    return Touched(keys=((bucket, key),), listings=(bucket,))


def make(slots: int = 1 << 16) -> tuple[QueryCache, Witness, MemoryCache]:
    witness, memory = Witness(slots), MemoryCache(1 << 20)
    return QueryCache(memory, witness, "c"), witness, memory


def test_last_change_untouched_is_zero() -> None:
    assert Witness().last_change_of_key("b", b"k") == 0


def test_touch_key_is_seen_by_its_head_and_its_list_only() -> None:
    witness = Witness()
    witness.touch(touch_key("b", b"k"), 9)
    assert witness.last_change_of_key("b", b"k") == 9
    assert witness.last_change_of_bucket("b") == 9
    assert witness.last_change_of_key("b", b"other") == 0
    assert witness.last_change_of_bucket("other") == 0


@pytest.mark.parametrize("change", [Touched(buckets=("b",)), Touched(access=True)])
def test_touch_settings_or_access_is_seen_by_every_key(change: Touched) -> None:
    witness = Witness()
    witness.touch(change, 4)
    assert witness.last_change_of_key("b", b"any") == 4
    assert witness.last_change_of_bucket("b") == 4


def test_touch_out_of_order_never_goes_back() -> None:
    witness = Witness()
    witness.touch(touch_key("b", b"k"), 9)
    witness.touch(touch_key("b", b"k"), 8)
    assert witness.last_change_of_key("b", b"k") == 9


def test_one_slot_for_everything_still_never_misses_a_change() -> None:
    witness = Witness(slots=1)
    witness.touch(touch_key("x", b"y"), 7)
    assert witness.last_change_of_key("b", b"k") == 7  # a miss more, never a stale answer


async def test_find_filled_answer_is_returned() -> None:
    cache, _, _ = make()
    await cache.fill(HEAD, TERM, index=10, answer=version(1))
    assert await cache.find(HEAD, TERM) == version(1)


async def test_find_after_a_write_is_a_miss() -> None:
    cache, witness, _ = make()
    await cache.fill(HEAD, TERM, index=10, answer=version(1))
    witness.touch(touch_key("b", b"k"), 11)
    assert await cache.find(HEAD, TERM) is None


async def test_fill_that_raced_with_a_write_is_a_miss() -> None:
    cache, witness, _ = make()
    index = 10  # the reader takes its index, reads the old state ...
    witness.touch(touch_key("b", b"k"), 11)  # ... a write is applied ...
    await cache.fill(HEAD, TERM, index=index, answer=version(1))  # ... and then it fills
    assert await cache.find(HEAD, TERM) is None


async def test_write_between_lookup_and_judgement_is_a_miss() -> None:
    """A slow cache: the change happens while its answer is on the way."""
    witness = Witness()

    class SlowCache(MemoryCache):
        async def get(self, key: bytes) -> bytes | None:
            raw = await super().get(key)
            witness.touch(touch_key("b", b"k"), 11)
            return raw

    cache = QueryCache(SlowCache(1 << 20), witness, "c")
    await cache.fill(HEAD, TERM, index=10, answer=version(1))
    assert await cache.find(HEAD, TERM) is None


async def test_entry_of_an_older_leader_is_never_found() -> None:
    memory = MemoryCache(1 << 20)
    old, new = QueryCache(memory, Witness(), "c"), QueryCache(memory, Witness(), "c")
    await old.fill(HEAD, TERM, index=10**9, answer=version(1))  # late write of the old leader
    assert await new.find(HEAD, TERM + 1) is None


async def test_entry_of_another_cluster_is_never_found() -> None:
    memory = MemoryCache(1 << 20)
    mine, other = QueryCache(memory, Witness(), "c"), QueryCache(memory, Witness(), "d")
    await other.fill(HEAD, TERM, index=10, answer=version(1))
    assert await mine.find(HEAD, TERM) is None


@pytest.mark.parametrize("epochs", [Epochs(access=4, bucket=2), Epochs(access=3, bucket=1)])
async def test_find_decided_on_another_access_state_is_a_miss(epochs: Epochs) -> None:
    cache, _, _ = make()
    await cache.fill(HEAD, TERM, index=10, answer=version(1))
    query = Locate(bucket="b", key=b"k", epochs=epochs)
    assert await cache.find(query, TERM) is None


async def test_find_damaged_entry_is_a_miss() -> None:
    cache, _, memory = make()
    await cache.fill(HEAD, TERM, index=10, answer=version(1))
    (key,) = list(memory._entries)
    await memory.put(key, b"\xc1 not msgpack")
    assert await cache.find(HEAD, TERM) is None


async def test_find_entry_with_any_flipped_bit_is_a_miss() -> None:
    """What a broken or lying cache gives is never an answer."""
    cache, _, memory = make()
    await cache.fill(HEAD, TERM, index=10, answer=version(1))
    ((key, entry),) = list(memory._entries.items())
    for bit in range(len(entry) * 8):
        flipped = bytearray(entry)
        flipped[bit // 8] ^= 1 << bit % 8
        await memory.put(key, bytes(flipped))
        assert await cache.find(HEAD, TERM) is None
    await memory.put(key, entry)
    assert await cache.find(HEAD, TERM) == version(1)


async def test_find_entry_of_another_key_is_a_miss() -> None:
    cache, _, memory = make()
    other = Locate(bucket="b", key=b"other", epochs=EPOCHS)
    await cache.fill(HEAD, TERM, index=10, answer=version(1))
    await cache.fill(other, TERM, index=10, answer=version(2))
    (key, entry), (other_key, other_entry) = list(memory._entries.items())
    await memory.put(key, other_entry)
    await memory.put(other_key, entry)
    assert await cache.find(HEAD, TERM) is None
    assert await cache.find(other, TERM) is None


async def test_find_entry_that_another_process_made_is_a_miss() -> None:
    """Who may write to Redis could know every key, and the format of every entry."""
    memory = MemoryCache(1 << 20)
    mine, other = QueryCache(memory, Witness(), "c"), QueryCache(memory, Witness(), "c")
    await other.fill(HEAD, TERM, index=10**9, answer=version(1))
    assert await mine.find(HEAD, TERM) is None


async def test_list_after_a_write_of_any_key_is_a_miss() -> None:
    cache, witness, _ = make()
    page = ObjectPage(objects=(), prefixes=(b"p/",))
    await cache.fill(LIST, TERM, index=10, answer=page)
    assert await cache.find(LIST, TERM) == page
    witness.touch(touch_key("b", b"any"), 11)
    assert await cache.find(LIST, TERM) is None


async def test_list_with_another_question_is_another_entry() -> None:
    cache, _, _ = make()
    await cache.fill(LIST, TERM, index=10, answer=ObjectPage(objects=(), prefixes=()))
    for other in (
        ListObjects(bucket="b", epochs=EPOCHS, prefix=b"p"),
        ListObjects(bucket="b", epochs=EPOCHS, after=b"p"),
        ListObjects(bucket="b", epochs=EPOCHS, limit=7),
    ):
        assert await cache.find(other, TERM) is None


async def test_invalidate_delete_frees_the_heads_of_its_keys() -> None:
    cache, _, memory = make()
    for key in (b"a", b"b", b"c"):
        query = Locate(bucket="b", key=key, epochs=EPOCHS)
        await cache.fill(query, TERM, index=10, answer=version(1))
    entries = (DeleteEntry(key=b"a"), DeleteEntry(key=b"c"))
    await cache.invalidate(DeleteObjects(bucket="b", owner_id="o", entries=entries))
    assert len(memory._entries) == 1


@pytest.mark.parametrize(
    "query",
    [
        Locate(bucket="b", key=b"k", epochs=EPOCHS, with_data=True),
        Locate(bucket="b", key=b"k", epochs=EPOCHS, with_parts=True),
        Locate(bucket="b", key=b"k", epochs=EPOCHS, version_id="null"),
        Locate(bucket="b", key=b"k", epochs=Epochs()),
        Locate(bucket="b", key=b"k", epochs=Epochs(access=1)),
    ],
)
def test_is_cacheable_refuses_what_it_could_not_judge(query: Query) -> None:
    assert not is_cacheable(query)


@pytest.mark.parametrize(
    ("left", "right"),
    [([b"a", b"bc"], [b"ab", b"c"]), ([b"a", b""], [b"a"]), ([b"1:a"], [b"1", b"a"])],
)
def test_join_key_different_parts_are_different_keys(
    left: Sequence[bytes], right: Sequence[bytes]
) -> None:
    assert join_key(*left) != join_key(*right)
