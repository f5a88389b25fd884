"""The seam between Raft and the node's own database, and the entry checksum.

Implementations: memory.py (tests, simulator), node/metadata/sqlite.py and postgres.py (the same
database as the metadata). All pass one conformance suite.

Rules of every implementation:
- one method call = one durable transaction: when it returns, a power loss cannot undo it; when it
  raises or the process dies, either all of it happened or nothing;
- the driver calls `append` and `install` one at a time and in order; `read_entries` and `compact`
  may run beside them;
- each entry is stored with `entry_checksum` and verified on every read. The database cuts its own
  torn tail; a wrong checksum, a gap, or a term that decreases raises DamagedLog: never skip, never
  truncate (FAULTS row 32);
- a failed fsync or commit raises FsyncFailed (a Fatal); the driver then stops the process.

Suggested tables: raft_entry(idx primary key, term, kind, data, crc), raft_meta(one row: term,
voted_for, commit, mark_index, mark_term, mark_membership, install_index|null, ..., crc over the
whole row). Entries at or below the mark do not exist.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

import msgspec
from awscrt.checksums import crc32c

from astra.errors import DamagedLog
from astra.wire import Entry, Membership
from node.raft.types import HardState, RaftState, SnapshotMark

_PREFIX = struct.Struct(">QQB")


def entry_checksum(entry: Entry) -> int:
    """CRC32C over index, term, kind and data, so that a row copied to a wrong index is noticed."""
    return fields_checksum(entry.index, entry.term, entry.kind, entry.data)


def fields_checksum(index: int, term: int, kind: int, data: bytes) -> int:
    """That of an entry, whether its kind is known or not. Raises struct.error."""
    prefix: int = crc32c(_PREFIX.pack(index, term, kind))
    whole: int = crc32c(data, prefix)
    return whole


def verify_entry(entry: Entry, checksum: int) -> None:
    """Raises DamagedLog when the entry is not the one that was stored."""
    if entry_checksum(entry) != checksum:
        raise DamagedLog(f"log entry {entry.index}: checksum differs")


def hard_state_checksum(state: HardState, mark: SnapshotMark) -> int:
    """CRC32C over hard state and mark: a rolled-back or damaged vote must be noticed."""
    fields = (
        state.term,
        state.voted_for,
        state.commit,
        mark.index,
        mark.term,
        mark.membership,
    )
    checksum: int = crc32c(msgspec.msgpack.encode(fields))
    return checksum


def is_replaced(
    note: SnapshotMark, *, applied_index: int, mark: SnapshotMark, term_at_note: int | None
) -> bool:
    """Whether the tables are those of the noted snapshot and the log is still the one before it;
    `term_at_note` is that of the stored entry at note.index. A log that has the noted entry needs
    no install: the snapshot was broken off, the entries came after all, and others may follow
    them that were acknowledged."""
    return mark.index < note.index == applied_index and term_at_note != note.term


def after_install(state: HardState, mark: SnapshotMark) -> HardState:
    """The hard state beside a log that starts at `mark`. Its term is at least that of the mark:
    else a leader of an older term could have entries acknowledged by a log that never had them."""
    is_newer = mark.term > state.term
    return HardState(
        term=max(mark.term, state.term),
        voted_for=None if is_newer else state.voted_for,
        commit=max(state.commit, mark.index),
    )


class RaftStorage(Protocol):
    """Log, hard state and snapshot mark of one node."""

    async def initialize(self, membership: Membership) -> None:
        """Durable. On a database that never held a log: stores mark (0, 0, membership) and an
        empty hard state. Otherwise no effect (the stored membership wins)."""
        ...

    async def load(self, applied_index: int, tail_bytes_max: int) -> RaftState:
        """The state at start, verified: every entry's checksum, no gap, terms that never
        decrease, mark present. `tail` holds the newest entries, at most `tail_bytes_max` of data
        (but at least the last entry if there is one). Raises DamagedLog, UnknownFormat.

        A note left by `prepare_install` is settled here, durably: when `is_replaced` (the metadata
        was replaced before the crash) as `install(mark)`; otherwise the note is dropped."""
        ...

    async def append(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
    ) -> None:
        """Durable and atomic: deletes entries with index >= truncate_from (if given), inserts
        `entries` (contiguous, directly after what remains), replaces the hard state (if given).
        Raises FsyncFailed, StorageFull."""
        ...

    async def read_entries(self, lo: int, hi: int, bytes_max: int) -> tuple[Entry, ...]:
        """Verified entries lo <= index <= hi in order, cut after `bytes_max` of data, but at
        least one. Empty when `lo` is not in the log (compacted, or past the end)."""
        ...

    async def compact(self, mark: SnapshotMark) -> None:
        """Durable: deletes entries up to mark.index and moves the mark. Older or equal marks have
        no effect. The caller has made sure that the applied state at mark.index is flushed."""
        ...

    async def prepare_install(self, mark: SnapshotMark) -> None:
        """Durable note: the metadata is about to be replaced by a state at exactly mark.index."""
        ...

    async def install(self, mark: SnapshotMark) -> None:
        """Durable: the whole log is dropped, the mark becomes `mark`, the note is removed. The
        hard state becomes `after_install`."""
        ...
