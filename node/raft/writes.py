"""Joins log writes that wait for the same disk: one transaction for many (group commit).

Rules: pure.
"""

from __future__ import annotations

from collections.abc import Sequence

from astra.errors import invariant
from astra.wire import Entry
from node.raft.types import LogWrite


def merge_writes(writes: Sequence[LogWrite]) -> LogWrite:
    """One write with the effect of all, in their order; its `seq` is the last one's."""
    invariant(bool(writes), "nothing to merge")
    if len(writes) == 1:
        return writes[0]
    hard_state = None
    truncate_from: int | None = None
    entries: list[Entry] = []
    for write in writes:
        hard_state = write.hard_state or hard_state
        cut = write.truncate_from
        if cut is not None:
            first = entries[0].index if entries else None
            if first is not None and cut > first:
                del entries[cut - first :]
            else:
                entries.clear()
                truncate_from = cut if truncate_from is None else min(cut, truncate_from)
        entries.extend(write.entries)
    return LogWrite(
        seq=writes[-1].seq,
        hard_state=hard_state,
        truncate_from=truncate_from,
        entries=tuple(entries),
    )
