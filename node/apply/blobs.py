"""Blobs: counted references, and what becomes of the bytes that nothing refers to any more.

Rules of this file: `Blob.references` is the number of extents, of versions and of parts, that
name the blob, exactly; it never goes below zero and a row with zero is never left behind. In
the very command that takes the last reference away the blob becomes garbage (or, inline, is
gone), so that nothing can leak between two commands. Only here are BLOBS, INLINE and GARBAGE
written.

Protection against committing a blob twice: within REQUEST_WINDOW log indexes the request id
does it. A blob placed longer ago than `_FRESH_MS` may have outlived its request id, and is
looked up: a blob that is in use or garbage already is never committed a second time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from msgspec.structs import replace

from astra.commands import AddHolder, Done, ForgetGarbage, NewBlob, SetHolders
from astra.constants import BLOB_COMMIT_AGE_MS_MAX, INLINE_BYTES_MAX
from astra.errors import RefusalCode, invariant
from astra.model import BLOBS, GARBAGE, INLINE, Blob, Extent, Garbage, Inline
from node.apply.state import Turn, refuse_unless

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
    # Past this age the sweep may already be collecting the chunks as orphans.
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
    """Refused CONFLICT when somebody else changed the holders. The copies of a blob that is
    garbage by now become garbage as well."""
    refuse_unless(bool(command.holders), RefusalCode.INVALID_ARGUMENT, "somebody must hold it")
    blob = await turn.batch.get(BLOBS, (command.blob_id,))
    if blob is None:
        await _discard_also(turn, command.blob_id, command.holders)
        return Done()
    refuse_unless(not blob.is_inline, RefusalCode.INVALID_ARGUMENT, "an inline blob")
    is_expected = set(blob.holders) == set(command.expected)
    refuse_unless(is_expected, RefusalCode.CONFLICT, "the holders have changed")
    holders = tuple(dict.fromkeys(command.holders))
    await turn.batch.put(BLOBS, (command.blob_id,), replace(blob, holders=holders))
    return Done()


async def add_holder(turn: Turn, command: AddHolder) -> Done:
    """Idempotent. A copy of a blob that is garbage by now becomes garbage as well."""
    blob = await turn.batch.get(BLOBS, (command.blob_id,))
    if blob is None:
        await _discard_also(turn, command.blob_id, (command.node_id,))
    elif not blob.is_inline and command.node_id not in blob.holders:
        holders = (*blob.holders, command.node_id)
        await turn.batch.put(BLOBS, (command.blob_id,), replace(blob, holders=holders))
    return Done()


async def forget_garbage(turn: Turn, command: ForgetGarbage) -> Done:
    """Idempotent. The row goes with the last holder."""
    rows = await turn.batch.get_many(
        GARBAGE, [(blob_id,) for blob_id in command.blob_ids if is_blob_id(blob_id)]
    )
    for row, garbage in rows.items():
        if garbage is None or command.node_id not in garbage.holders:
            continue
        left = tuple(holder for holder in garbage.holders if holder != command.node_id)
        if left:
            await turn.batch.put(GARBAGE, row, replace(garbage, holders=left))
        else:
            await turn.batch.delete(GARBAGE, row)
    return Done()
