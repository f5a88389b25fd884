# ruff: noqa: S608 (statements are made of names in this package; values are parameters)
"""The Raft log as rows, for both SQL backends: what is stored, and how it is verified.

    raft_entry  idx (primary key), term, kind, data, crc (node.raft.storage.entry_checksum)
    raft_meta   one row: term, voted_for, commit_, mark_index, mark_term, mark_membership,
                crc (hard_state_checksum), note (msgpack or null), note_crc; its key `one` is 1

Rules of this file: values only, no SQL is run. Rows at or below the mark do not exist, even
while compaction is still deleting them. Anything that does not fit raises DamagedLog.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Final, cast

import msgspec

from astra.decoding import UNREADABLE
from astra.errors import DamagedLog, UnknownFormat, invariant
from astra.wire import Entry, EntryKind, Membership
from node.metadata.rows import StoredColumns, crc32c
from node.raft.storage import (
    after_install,
    entry_checksum,
    fields_checksum,
    hard_state_checksum,
    is_replaced,
)
from node.raft.types import HardState, RaftState, SnapshotMark, TermRun

ENTRY_COLUMNS: Final = "idx, term, kind, data, crc"
META_COLUMNS: Final = (
    "term, voted_for, commit_, mark_index, mark_term, mark_membership, crc, note, note_crc"
)

META_GET: Final = f"SELECT one, {META_COLUMNS} FROM raft_meta"

EntryRow = tuple[int, int, int, bytes, int]
MetaRow = tuple[int, str | None, int, int, int, bytes, int, bytes | None, int | None]

_Note = tuple[int, int, Membership]
_encoder: Final = msgspec.msgpack.Encoder()
_membership_decoder: Final = msgspec.msgpack.Decoder(Membership)
_note_decoder: Final[msgspec.msgpack.Decoder[_Note]] = msgspec.msgpack.Decoder(_Note)


class RaftMeta(msgspec.Struct, frozen=True, kw_only=True):
    """The one row beside the entries."""

    hard_state: HardState
    mark: SnapshotMark
    note: SnapshotMark | None = None

    def with_hard_state(self, hard_state: HardState) -> RaftMeta:
        return RaftMeta(hard_state=hard_state, mark=self.mark, note=self.note)

    def compacted(self, mark: SnapshotMark) -> RaftMeta:
        return RaftMeta(hard_state=self.hard_state, mark=mark, note=self.note)

    def with_note(self, note: SnapshotMark | None) -> RaftMeta:
        return RaftMeta(hard_state=self.hard_state, mark=self.mark, note=note)

    def installed(self, mark: SnapshotMark) -> RaftMeta:
        """After the whole log was replaced by a snapshot at `mark`."""
        return RaftMeta(hard_state=after_install(self.hard_state, mark), mark=mark, note=None)

    def settled(self, applied_index: int, term_at_note: int | None) -> RaftMeta:
        """At start: without a note, and with another mark when the log is to be dropped."""
        note = self.note
        if note is not None and is_replaced(
            note, applied_index=applied_index, mark=self.mark, term_at_note=term_at_note
        ):
            return self.installed(note)
        return self.with_note(None)


def first_meta(membership: Membership) -> RaftMeta:
    mark = SnapshotMark(index=0, term=0, membership=membership)
    return RaftMeta(hard_state=HardState(), mark=mark)


def encode_meta(meta: RaftMeta) -> MetaRow:
    state, mark, note = meta.hard_state, meta.mark, meta.note
    packed = None if note is None else _encoder.encode((note.index, note.term, note.membership))
    return (
        state.term,
        state.voted_for,
        state.commit,
        mark.index,
        mark.term,
        _encoder.encode(mark.membership),
        hard_state_checksum(state, mark),
        packed,
        None if packed is None else crc32c(packed),
    )


def only_meta(rows: Sequence[StoredColumns]) -> RaftMeta | None:
    """The hard state out of what META_GET gives, or None. A row whose key has become another would
    be left behind by the next vote, and read again as if it were the newest. Raises DamagedLog."""
    if not rows:
        return None
    if len(rows) > 1 or rows[0][0] != 1:
        raise DamagedLog("hard state: its row has another key than its own")
    return decode_meta(cast(MetaRow, rows[0][1:]))


def decode_meta(row: MetaRow) -> RaftMeta:
    """Raises DamagedLog."""
    term, voted_for, commit, mark_index, mark_term, members, crc, packed, note_crc = row
    try:
        membership = _membership_decoder.decode(members)
        state = HardState(term=term, voted_for=voted_for, commit=commit)
        mark = SnapshotMark(index=mark_index, term=mark_term, membership=membership)
        if hard_state_checksum(state, mark) != crc:
            raise DamagedLog("hard state: checksum differs")
        return RaftMeta(hard_state=state, mark=mark, note=_decode_note(packed, note_crc))
    except UNREADABLE as error:
        raise DamagedLog(f"hard state cannot be read: {error}") from error


def _decode_note(packed: bytes | None, checksum: int | None) -> SnapshotMark | None:
    if packed is None and checksum is None:
        return None
    if packed is None or crc32c(packed) != checksum:
        raise DamagedLog("the note of a snapshot: checksum differs")
    index, term, membership = _note_decoder.decode(packed)
    return SnapshotMark(index=index, term=term, membership=membership)


def encode_entry(entry: Entry) -> EntryRow:
    return entry.index, entry.term, entry.kind, entry.data, entry_checksum(entry)


def decode_entry(row: EntryRow) -> Entry:
    """Raises DamagedLog; UnknownFormat when the entry is whole, and of a newer version."""
    index, term, kind, data, checksum = row
    try:
        is_whole = fields_checksum(index, term, kind, data) == checksum
    except struct.error as error:  # a database gives any integer; the checksum takes unsigned ones
        raise DamagedLog(f"log entry {index}: its index, term or kind cannot be") from error
    if not is_whole:
        raise DamagedLog(f"log entry {index}: checksum differs")
    try:
        return Entry(index, term, EntryKind(kind), data)
    except ValueError as error:
        raise UnknownFormat(f"log entry {index} is of kind {kind}, not known here") from error


def check_append(
    mark: SnapshotMark, last_index: int, truncate_from: int | None, entries: Sequence[Entry]
) -> None:
    """`last_index` is that before the truncation. Raises InvariantBroken."""
    if truncate_from is not None:
        invariant(truncate_from > mark.index, "truncating below the mark")
        last_index = min(last_index, truncate_from - 1)
    for index, entry in enumerate(entries, start=last_index + 1):
        invariant(entry.index == index, f"gap in the stored log before {entry.index}")


class LogScan:
    """Verifies a log from its first entry to its last; memory is bounded by the tail."""

    def __init__(self, meta: RaftMeta, tail_bytes_max: int) -> None:
        self._meta = meta
        self._tail_bytes_max = tail_bytes_max
        self._tail: deque[Entry] = deque()
        self._tail_bytes = 0
        self._last_index = meta.mark.index
        self._term = meta.mark.term
        self._runs: list[TermRun] = []
        self._configs: list[Entry] = []

    def feed(self, rows: Iterable[EntryRow]) -> None:
        """The next rows in order, those that do not count any more included: the index of a newer
        one may have become that of an older. Raises DamagedLog."""
        for row in rows:
            self._add(decode_entry(row))

    def _add(self, entry: Entry) -> None:
        if entry.index <= self._meta.mark.index and not self._runs:
            return  # compaction has not come to it yet
        if entry.index != self._last_index + 1:
            raise DamagedLog(f"log entry {self._last_index + 1} is missing")
        if entry.term < self._term:
            raise DamagedLog(f"log entry {entry.index}: its term is below the one before")
        if not self._runs or entry.term != self._term:
            self._runs.append(TermRun(index=entry.index, term=entry.term))
        self._last_index, self._term = entry.index, entry.term
        if entry.kind == EntryKind.CONFIG:
            self._configs.append(entry)
        self._tail.append(entry)
        self._tail_bytes += len(entry.data)
        while len(self._tail) > 1 and self._tail_bytes > self._tail_bytes_max:
            self._tail_bytes -= len(self._tail.popleft().data)

    def state(self) -> RaftState:
        return RaftState(
            hard_state=self._meta.hard_state,
            mark=self._meta.mark,
            last_index=self._last_index,
            term_runs=tuple(self._runs),
            configs=tuple(self._configs),
            tail=tuple(self._tail),
        )


class LogCheck:
    """Verifies entries from one that was verified before (or from 0), while the log goes on to
    be written, cut and compacted between two looks."""

    def __init__(self, meta: RaftMeta, after: int) -> None:
        self.last = max(after, meta.mark.index)

    def take(self, row: EntryRow) -> None:
        """The next row of the table: also one that does not count any more. Raises DamagedLog."""
        entry = decode_entry(row)
        if entry.index > self.last + 1:
            raise DamagedLog(f"log entry {self.last + 1} is missing")
        self.last = max(self.last, entry.index)


class BatchCut:
    """Takes entries lo, lo + 1, ... until `bytes_max` of data, at least one."""

    def __init__(self, lo: int, bytes_max: int) -> None:
        self._next = lo
        self._bytes_left = bytes_max
        self.entries: list[Entry] = []

    def take(self, row: EntryRow) -> bool:
        """False: the batch is full. Raises DamagedLog."""
        if row[0] != self._next:
            if self.entries:
                raise DamagedLog(f"log entry {self._next} is missing")
            return False
        self._bytes_left -= len(row[3])
        if self.entries and self._bytes_left < 0:
            return False
        self.entries.append(decode_entry(row))
        self._next += 1
        return True
