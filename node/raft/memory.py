"""RaftStorage in memory: the twin for tests and the simulator, with a disk that can lose power.

`MemoryLog` is the synchronous machine (the simulator drives it directly); `MemoryStorage` gives it
the asyncio face. With `sync_each=False` a change is durable only after `sync()`, as on a disk that
lies about fsync; `crash()` takes the log back to what was durable.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from astra.errors import DamagedLog, invariant
from astra.wire import Entry, EntryKind, Membership
from node.raft.storage import (
    after_install,
    entry_checksum,
    hard_state_checksum,
    is_replaced,
    verify_entry,
)
from node.raft.types import HardState, RaftState, SnapshotMark, TermRun

_EMPTY_MARK = SnapshotMark(index=0, term=0, membership=Membership(voters=()))


class MemoryLog:
    """Contract: RaftStorage, without the waiting."""

    def __init__(self, *, sync_each: bool = True) -> None:
        self._sync_each = sync_each
        self._rows: dict[int, tuple[Entry, int]] = {}
        self._last_index = 0
        self._hard_state = HardState()
        self._mark: SnapshotMark | None = None
        self._note: SnapshotMark | None = None
        self._meta_checksum = 0
        self._undo: list[Callable[[], None]] = []

    # --- power -----------------------------------------------------------------------------

    def sync(self) -> None:
        """Everything written so far survives a crash."""
        self._undo.clear()

    def crash(self) -> None:
        """Power loss: what was not synced never happened."""
        while self._undo:
            self._undo.pop()()

    def damage(self, index: int) -> None:
        """Flips a bit of a stored entry."""
        entry, checksum = self._rows[index]
        data = bytes([*(entry.data[:-1]), (entry.data[-1] if entry.data else 0) ^ 1])
        self._rows[index] = (Entry(entry.index, entry.term, entry.kind, data), checksum)

    def damage_hard_state(self) -> None:
        """A vote that was rolled back behind our back."""
        self._hard_state = HardState(term=self._hard_state.term, voted_for=None)

    def end(self) -> tuple[int, int]:
        """Term and index of the last entry: how logs are compared in elections."""
        if self._last_index in self._rows:
            return self._rows[self._last_index][0].term, self._last_index
        return (0, 0) if self._mark is None else (self._mark.term, self._mark.index)

    # --- the contract ----------------------------------------------------------------------

    def initialize(self, membership: Membership) -> None:
        if self._mark is None:
            self._set_meta(HardState(), SnapshotMark(index=0, term=0, membership=membership), None)
            self._written()

    def load(self, applied_index: int, tail_bytes_max: int) -> RaftState:
        if self._mark is None:
            raise DamagedLog("the log was never initialized")
        if self._meta_checksum != hard_state_checksum(self._hard_state, self._mark):
            raise DamagedLog("hard state: checksum differs")
        if self._note is not None:
            self._settle(self._note, applied_index)
        mark = self._initialized()
        runs, configs = self._scan(mark)
        return RaftState(
            hard_state=self._hard_state,
            mark=mark,
            last_index=self._last_index,
            term_runs=tuple(runs),
            configs=tuple(configs),
            tail=self._tail(mark, tail_bytes_max),
        )

    def _settle(self, note: SnapshotMark, applied_index: int) -> None:
        mark = self._initialized()
        row = self._rows.get(note.index)
        term = None if row is None else row[0].term
        if is_replaced(note, applied_index=applied_index, mark=mark, term_at_note=term):
            self.install(note)
        else:
            self._set_meta(self._hard_state, mark, None)
            self._written()

    def _scan(self, mark: SnapshotMark) -> tuple[list[TermRun], list[Entry]]:
        runs: list[TermRun] = []
        configs: list[Entry] = []
        term = mark.term
        if len(self._rows) != self._last_index - mark.index:
            raise DamagedLog("log: rows outside of the log")
        for index in range(mark.index + 1, self._last_index + 1):
            if index not in self._rows:
                raise DamagedLog(f"log entry {index} is missing")
            entry, checksum = self._rows[index]
            verify_entry(entry, checksum)
            if entry.index != index or entry.term < term:
                raise DamagedLog(f"log entry {index}: wrong index or term")
            if not runs or entry.term != term:
                runs.append(TermRun(index=index, term=entry.term))
            term = entry.term
            if entry.kind == EntryKind.CONFIG:
                configs.append(entry)
        return runs, configs

    def _tail(self, mark: SnapshotMark, tail_bytes_max: int) -> tuple[Entry, ...]:
        tail: list[Entry] = []
        total = 0
        for index in range(self._last_index, mark.index, -1):
            entry = self._rows[index][0]
            total += len(entry.data)
            if tail and total > tail_bytes_max:
                break
            tail.append(entry)
        return tuple(reversed(tail))

    def append(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
    ) -> None:
        mark = self._initialized()
        if truncate_from is not None:
            invariant(truncate_from > mark.index, "truncating below the mark")
            self._cut_to(min(self._last_index, truncate_from - 1))
        first = self._last_index + 1
        for index, entry in enumerate(entries, start=first):
            invariant(entry.index == index, f"gap in the stored log before {entry.index}")
            self._rows[index] = (entry, entry_checksum(entry))
        if entries:
            self._last_index = entries[-1].index
            self._undo.append(lambda: self._forget_from(first))
        if hard_state is not None:
            self._set_meta(hard_state, mark, self._note)
        self._written()

    def read_entries(self, lo: int, hi: int, bytes_max: int) -> tuple[Entry, ...]:
        found: list[Entry] = []
        total = 0
        for index in range(lo, min(hi, self._last_index) + 1):
            if index not in self._rows:
                break
            entry, checksum = self._rows[index]
            total += len(entry.data)
            if found and total > bytes_max:
                break
            verify_entry(entry, checksum)
            found.append(entry)
        return tuple(found)

    def compact(self, mark: SnapshotMark) -> None:
        old = self._initialized()
        if mark.index <= old.index:
            return
        invariant(mark.index <= self._last_index, "compacting past the end")
        self._drop(range(old.index + 1, mark.index + 1))
        self._set_meta(self._hard_state, mark, self._note)
        self._written()

    def prepare_install(self, mark: SnapshotMark) -> None:
        self._set_meta(self._hard_state, self._initialized(), mark)
        self._written()

    def install(self, mark: SnapshotMark) -> None:
        old = self._initialized()
        self._drop(range(old.index + 1, self._last_index + 1))
        self._set_last_index(mark.index)
        self._set_meta(after_install(self._hard_state, mark), mark, None)
        self._written()

    # --- changes that can be undone ----------------------------------------------------------

    def _initialized(self) -> SnapshotMark:
        invariant(self._mark is not None, "initialize() comes first")
        return self._mark or _EMPTY_MARK

    def _set_meta(
        self, hard_state: HardState, mark: SnapshotMark, note: SnapshotMark | None
    ) -> None:
        before = (self._hard_state, self._mark, self._note, self._meta_checksum)

        def undo() -> None:
            self._hard_state, self._mark, self._note, self._meta_checksum = before

        self._undo.append(undo)
        self._hard_state, self._mark, self._note = hard_state, mark, note
        self._meta_checksum = hard_state_checksum(hard_state, mark)

    def _drop(self, indexes: range) -> None:
        removed = {index: self._rows.pop(index) for index in indexes}
        self._undo.append(lambda: self._rows.update(removed))

    def _set_last_index(self, index: int) -> None:
        before = self._last_index

        def undo() -> None:
            self._last_index = before

        self._undo.append(undo)
        self._last_index = index

    def _cut_to(self, last_index: int) -> None:
        self._drop(range(last_index + 1, self._last_index + 1))
        self._set_last_index(last_index)

    def _forget_from(self, index: int) -> None:
        for each in [each for each in self._rows if each >= index]:
            del self._rows[each]
        self._last_index = index - 1

    def _written(self) -> None:
        if self._sync_each:
            self.sync()


class MemoryStorage:
    """RaftStorage over a MemoryLog. `hold()` makes the disk slow: appends wait for `release()`;
    a crash meanwhile loses them. `fail_next` is raised by the next append."""

    def __init__(self, log: MemoryLog | None = None) -> None:
        self.log = log if log is not None else MemoryLog()
        self.fail_next: Exception | None = None
        self.append_count = 0
        self._may_write = asyncio.Event()
        self._may_write.set()

    def hold(self) -> None:
        self._may_write.clear()

    def release(self) -> None:
        self._may_write.set()

    async def initialize(self, membership: Membership) -> None:
        self.log.initialize(membership)

    async def load(self, applied_index: int, tail_bytes_max: int) -> RaftState:
        return self.log.load(applied_index, tail_bytes_max)

    async def append(
        self,
        hard_state: HardState | None,
        truncate_from: int | None,
        entries: Sequence[Entry],
    ) -> None:
        await self._may_write.wait()
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        self.append_count += 1
        self.log.append(hard_state, truncate_from, entries)

    async def read_entries(self, lo: int, hi: int, bytes_max: int) -> tuple[Entry, ...]:
        return self.log.read_entries(lo, hi, bytes_max)

    async def compact(self, mark: SnapshotMark) -> None:
        self.log.compact(mark)

    async def prepare_install(self, mark: SnapshotMark) -> None:
        self.log.prepare_install(mark)

    async def install(self, mark: SnapshotMark) -> None:
        self.log.install(mark)
