"""First results of request ids, so that a retried command answers what it answered before.

Rules of this file: a result is kept for at least REQUEST_WINDOW log indexes. Old ones are
forgotten at every `_FORGET_EVERY`-th index, whatever is there, so that all nodes forget the
same ones however they batch.

Refusals are kept too: a client that was told 4xx must be able to rely on nothing having
happened, although a doubled message may bring the same command again when it would succeed.
Only STALE_EPOCH is not kept: it says "decide again and ask again with this id".
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from astra.commands import (
    AnyCommand,
    DeletedMany,
    DeleteObjects,
    Refusal,
    Result,
    decode_result,
    encode_result,
)
from astra.constants import REQUEST_WINDOW
from astra.errors import RefusalCode
from astra.model import REQUEST_ORDER, REQUESTS, Mark, Remembered
from node.apply.state import Batch

_FORGET_EVERY: Final = 64
_FORGET_ROWS_MAX: Final = 4 * _FORGET_EVERY  # one row per index: it cannot fall behind


async def recall(batch: Batch, request_id: str, command: AnyCommand) -> Result | None:
    kept = await batch.get(REQUESTS, (request_id,))
    return None if kept is None else _expand(decode_result(kept.result), command)


async def remember(batch: Batch, index: int, request_id: str, result: Result) -> None:
    kept = Remembered(index=index, result=encode_result(_compact(result)))
    await batch.put(REQUESTS, (request_id,), kept)
    await batch.put(REQUEST_ORDER, (index, request_id), Mark(value=index))


async def forget_old(batch: Batch, index: int) -> None:
    if index % _FORGET_EVERY or index <= REQUEST_WINDOW:
        return
    end = (index - REQUEST_WINDOW,)
    for row, _ in await batch.scan(REQUEST_ORDER, (0,), end, _FORGET_ROWS_MAX):
        await batch.delete(REQUEST_ORDER, row)
        await batch.delete(REQUESTS, row[1:])


def _compact(result: Result) -> Result:
    """A thousand deleted keys would be a megabyte; the retried command names them anyway."""
    if not isinstance(result, DeletedMany):
        return result
    return DeletedMany(entries=tuple(replace(e, key=b"", version_id=None) for e in result.entries))


def _expand(result: Result, command: AnyCommand) -> Result:
    if not isinstance(result, DeletedMany):
        return result
    if not isinstance(command, DeleteObjects) or len(command.entries) != len(result.entries):
        return Refusal(code=RefusalCode.INVALID_ARGUMENT, detail="another command had this id")
    pairs = zip(result.entries, command.entries, strict=True)
    return DeletedMany(
        entries=tuple(replace(e, key=of.key, version_id=of.version_id) for e, of in pairs)
    )
