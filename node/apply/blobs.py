"""Blobs: counted references, and what becomes of the bytes that nothing refers to any more.

Rules of this file: `Blob.references` is the number of extents, of versions and of parts, that
name the blob, exactly; it never goes below zero and a row with zero is never left behind. In
the very command that takes the last reference away the blob becomes garbage (or, inline, is
gone), so that nothing can leak between two commands. Only here are BLOBS, INLINE, GARBAGE and
DROPPED written.

A copy that is dropped from a living blob gets a row in DROPPED. Only the node itself takes the
row away, after it has deleted its copy; until then it cannot become a holder again. So no copy
that counts can be the one that is being deleted.

Protection against committing a blob twice: within REQUEST_WINDOW log indexes the request id
does it. A blob placed longer ago than `_FRESH_MS` may have outlived its request id, and is
looked up: a blob that is in use or garbage already is never committed a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from astra.commands import AddHolder, Done, DropCopies, ForgetGarbage, NewBlob, SetHolders
from astra.constants import BLOB_COMMIT_AGE_MS_MAX, INLINE_BYTES_MAX
from astra.errors import RefusalCode, invariant
from astra.model import (
    BLOBS,
    DROPPED,
    GARBAGE,
    INLINE,
    Blob,
    Dropped,
    Extent,
    Garbage,
    Inline,
    Key,
)
from node.apply.state import Turn, is_text, refuse_unless

_BLOB_ID_LENGTH: Final = 32  # 12 hex digits of milliseconds, 20 of randomness
_TIME_DIGITS: Final = 12
_HEX: Final = frozenset("0123456789abcdef")
_FRESH_MS: Final = 10_000


def is_blob_id(blob_id: str) -> bool:
    return len(blob_id) == _BLOB_ID_LENGTH and _HEX.issuperset(blob_id)


def placed_at_ms(blob_id: str) -> int:
    return int(blob_id[:_TIME_DIGITS], 16)


async def check_new(turn: Turn, blob: NewBlob | None, size: int) -> None:
    """Refused INVALID_ARGUMENT, SIZE_MISMATCH or UPLOAD_EXPIRED when `add` must not happen."""
    refuse_unless(size >= 0, RefusalCode.INVALID_ARGUMENT, "negative size")
    if size == 0:
        is_empty = blob is None or (blob.size == 0 and not blob.holders)
        refuse_unless(is_empty, RefusalCode.INVALID_ARGUMENT, "no bytes need no holders")
        return
    refuse_unless(blob is not None, RefusalCode.INVALID_ARGUMENT, "bytes without a blob")
    if blob is None:
        return
    refuse_unless(is_blob_id(blob.blob_id), RefusalCode.INVALID_ARGUMENT, "not a blob id")
    refuse_unless(blob.size == size, RefusalCode.SIZE_MISMATCH, "blob and object differ in size")
    if blob.data is not None:
        is_inline = len(blob.data) == size <= INLINE_BYTES_MAX and not blob.holders
        refuse_unless(is_inline, RefusalCode.INVALID_ARGUMENT, "not an inline blob")
    else:
        refuse_unless(bool(blob.holders), RefusalCode.INVALID_ARGUMENT, "nobody holds the blob")
    await _check_age(turn, blob)


async def _check_age(turn: Turn, blob: NewBlob) -> None:
    age_ms = turn.now_ms - placed_at_ms(blob.blob_id)
    if age_ms <= _FRESH_MS:
        return
    if blob.data is None:
        # Past this age the sweep may already be collecting the chunks as orphans. Inline bytes have
        # none, and their id is of a gateway's clock, which the cluster's may be far ahead of.
        refuse_unless(age_ms <= BLOB_COMMIT_AGE_MS_MAX, RefusalCode.UPLOAD_EXPIRED, blob.blob_id)
    row = (blob.blob_id,)
    in_use = await turn.batch.get(BLOBS, row) is not None
    refuse_unless(not in_use, RefusalCode.CONFLICT, "the blob is in use already")
    is_garbage = await turn.batch.get(GARBAGE, row) is not None
    refuse_unless(not is_garbage, RefusalCode.UPLOAD_EXPIRED, "the blob was given up")


async def add(turn: Turn, new: NewBlob | None, size: int) -> tuple[Extent, ...]:
    """The extents of a new blob, which now has one reference. Checked by `check_new`."""
    if new is None or size == 0:
        return ()
    blob = Blob(
        size=size,
        references=1,
        holders=tuple(dict.fromkeys(new.holders)),
        is_inline=new.data is not None,
        created_ms=turn.now_ms,
    )
    await turn.batch.put(BLOBS, (new.blob_id,), blob)
    if new.data is not None:
        await turn.batch.put(INLINE, (new.blob_id,), Inline(data=new.data))
    return (Extent(blob_id=new.blob_id, offset=0, length=size),)


async def give_up(turn: Turn, new: NewBlob | None) -> None:
    """The command of a new blob is refused for good: its chunks are garbage at once, instead
    of orphans for a day."""
    if new is None or new.data is not None or not new.holders or not is_blob_id(new.blob_id):
        return
    row = (new.blob_id,)
    if await turn.batch.get(BLOBS, row) is None and await turn.batch.get(GARBAGE, row) is None:
        await _discard(turn, new.blob_id, new.holders, new.size)


async def share(turn: Turn, extents: Iterable[Extent]) -> None:
    """One more reference for each extent."""
    for blob_id, blob, count in await _counted(turn, extents):
        more = replace(blob, references=blob.references + count)
        await turn.batch.put(BLOBS, (blob_id,), more)


async def release(turn: Turn, extents: Iterable[Extent]) -> None:
    """One reference less for each extent; the last one makes garbage."""
    for blob_id, blob, count in await _counted(turn, extents):
        left = blob.references - count
        invariant(left >= 0, f"blob {blob_id} would have {left} references")
        if left > 0:
            await turn.batch.put(BLOBS, (blob_id,), replace(blob, references=left))
            continue
        await turn.batch.delete(BLOBS, (blob_id,))
        if blob.is_inline:
            await turn.batch.delete(INLINE, (blob_id,))
        else:
            await _discard(turn, blob_id, blob.holders, blob.size)


async def _counted(turn: Turn, extents: Iterable[Extent]) -> Sequence[tuple[str, Blob, int]]:
    """Each blob once, with how many of the extents name it."""
    counts = Counter(extent.blob_id for extent in extents)
    rows = await turn.batch.get_many(BLOBS, [(blob_id,) for blob_id in counts])
    counted: list[tuple[str, Blob, int]] = []
    for blob_id, count in counts.items():
        blob = rows[(blob_id,)]
        invariant(blob is not None, f"blob {blob_id} is referred to but unknown")
        if blob is not None:
            counted.append((blob_id, blob, count))
    return counted


async def _discard(turn: Turn, blob_id: str, holders: tuple[str, ...], size: int) -> None:
    garbage = Garbage(holders=tuple(dict.fromkeys(holders)), since_ms=turn.now_ms, size=size)
    await turn.batch.put(GARBAGE, (blob_id,), garbage)


async def _discard_also(turn: Turn, blob_id: str, node_ids: Iterable[str]) -> None:
    """A copy was made of what has become garbage meanwhile: it has to go too."""
    garbage = await turn.batch.get(GARBAGE, (blob_id,))
    if garbage is not None:
        await _discard(turn, blob_id, (*garbage.holders, *node_ids), garbage.size)


# --- the cluster's own housekeeping ----------------------------------------------------------


async def set_holders(turn: Turn, command: SetHolders) -> Done:
    """Refused CONFLICT when somebody else changed the holders, or a new one still has to delete
    an older copy. The copies of a blob that is garbage by now become garbage as well."""
    refuse_unless(bool(command.holders), RefusalCode.INVALID_ARGUMENT, "somebody must hold it")
    _check_names(command.holders)
    blob = await turn.batch.get(BLOBS, (command.blob_id,))
    if blob is None:
        await _discard_also(turn, command.blob_id, command.holders)
        return Done()
    refuse_unless(not blob.is_inline, RefusalCode.INVALID_ARGUMENT, "an inline blob")
    is_expected = set(blob.holders) == set(command.expected)
    if command.expected_index is not None:
        is_expected = is_expected and blob.placed_index == command.expected_index
    refuse_unless(is_expected, RefusalCode.CONFLICT, "the holders have changed")
    holders = tuple(dict.fromkeys(command.holders))
    new = [holder for holder in holders if holder not in blob.holders]
    is_free = not await _is_dropped(turn, command.blob_id, new)
    refuse_unless(is_free, RefusalCode.CONFLICT, "a new holder has an older copy to delete")
    for holder in blob.holders:
        if holder not in holders:
            await _drop(turn, command.blob_id, holder)
    await _place(turn, command.blob_id, blob, holders)
    return Done()


async def add_holder(turn: Turn, command: AddHolder) -> Done:
    """Idempotent. A copy of a blob that is garbage by now becomes garbage as well; a copy that
    its node has to delete stays one."""
    _check_names((command.node_id,))
    blob_id, node_id = command.blob_id, command.node_id
    blob = await turn.batch.get(BLOBS, (blob_id,))
    if blob is None:
        await _discard_also(turn, blob_id, (node_id,))
        return Done()
    is_new = not blob.is_inline and node_id not in blob.holders
    if is_new and not await _is_dropped(turn, blob_id, [node_id]):
        await _place(turn, blob_id, blob, (*blob.holders, node_id))
    return Done()


async def drop_copies(turn: Turn, command: DropCopies) -> Done:
    """Idempotent. Counts as a change of the holders, so that whoever is about to make this node
    one of them, on the strength of that copy, has to look again."""
    node_id = command.node_id
    _check_names((node_id,))
    for blob_id in filter(is_blob_id, dict.fromkeys(command.blob_ids)):
        blob = await turn.batch.get(BLOBS, (blob_id,))
        if blob is None or blob.is_inline or node_id in blob.holders:
            continue
        if not await _is_dropped(turn, blob_id, [node_id]):
            await _drop(turn, blob_id, node_id)
            await _place(turn, blob_id, blob, blob.holders)
    return Done()


async def forget_garbage(turn: Turn, command: ForgetGarbage) -> Done:
    """Idempotent. A row of garbage goes with the last holder."""
    _check_names((command.node_id,))
    rows = [(blob_id,) for blob_id in command.blob_ids if is_blob_id(blob_id)]
    for row, garbage in (await turn.batch.get_many(GARBAGE, rows)).items():
        if garbage is None or command.node_id not in garbage.holders:
            continue
        left = tuple(holder for holder in garbage.holders if holder != command.node_id)
        if left:
            await turn.batch.put(GARBAGE, row, replace(garbage, holders=left))
        else:
            await turn.batch.delete(GARBAGE, row)
    copies: list[Key] = [(command.node_id, *row) for row in rows]
    for copy, dropped in (await turn.batch.get_many(DROPPED, copies)).items():
        if dropped is not None:
            await turn.batch.delete(DROPPED, copy)
    return Done()


async def _place(turn: Turn, blob_id: str, blob: Blob, holders: tuple[str, ...]) -> None:
    placed = replace(blob, holders=holders, placed_index=turn.index)
    await turn.batch.put(BLOBS, (blob_id,), placed)


async def _drop(turn: Turn, blob_id: str, node_id: str) -> None:
    await turn.batch.put(DROPPED, (node_id, blob_id), Dropped(since_ms=turn.now_ms))


async def _is_dropped(turn: Turn, blob_id: str, node_ids: Sequence[str]) -> bool:
    """Whether one of these nodes still has to delete a copy."""
    rows = await turn.batch.get_many(DROPPED, [(node_id, blob_id) for node_id in node_ids])
    return any(row is not None for row in rows.values())


def _check_names(node_ids: Iterable[str]) -> None:
    are_names = all(is_text(node_id) for node_id in node_ids)
    refuse_unless(are_names, RefusalCode.INVALID_ARGUMENT, "not a node id")
