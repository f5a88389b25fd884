"""The log as the core sees it: recent entries in memory, and the shape of all the others.

Rules: pure. The whole log's terms are known as runs (terms change rarely), so that matching and
conflict hints never need an entry that is no longer in memory (Raft 5.3). Membership takes effect
when its entry is appended and falls back when that entry is truncated (thesis 4.1).

Invariants, checked here:
    mark.index <= applied <= handed <= min(commit, stable)    and commit <= last_index
    nothing at or below `commit` is ever truncated or overwritten.

`stable` is the last index known to be durable *here*. Acknowledgements carry the sequence number
of a write; a truncation lowers what all older writes can prove, so that the acknowledgement of an
overwritten entry never counts for its successor (the ABA race of asynchronous storage writes).
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from astra.decoding import UNREADABLE
from astra.errors import DamagedLog, invariant
from astra.wire import Entry, EntryKind, Membership
from node.raft.types import RaftState, SnapshotMark

ENTRY_OVERHEAD_BYTES = 64  # what an entry costs beside its data

_decoder = msgspec.msgpack.Decoder(Membership)


def encode_membership(membership: Membership) -> bytes:
    """The data of a CONFIG entry."""
    return msgspec.msgpack.encode(membership)


def decode_membership(data: bytes) -> Membership:
    """Raises DamagedLog when it is none: a config entry must never be skipped."""
    try:
        return _decoder.decode(data)
    except UNREADABLE as error:
        raise DamagedLog(f"config entry is not a membership: {error}") from error


def entry_bytes(entry: Entry) -> int:
    """What an entry counts against byte limits."""
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


@dataclass(slots=True)
class _Write:
    seq: int
    last_index: int  # durable up to here once acknowledged; lowered by truncations


class RaftLog:
    """See the module header. Indexes are 1-based; mark.index itself has a term but no entry."""

    __slots__ = (
        "_configs",
        "_entries",
        "_handed_out",
        "_memory_bytes",
        "_memory_bytes_max",
        "_run_starts",
        "_run_terms",
        "_truncate_from",
        "_writes",
        "applied",
        "commit",
        "handed",
        "last_index",
        "mark",
        "stable",
    )

    def __init__(self, state: RaftState, *, applied: int, memory_bytes_max: int) -> None:
        self.mark = state.mark
        self.last_index = state.last_index
        self.stable = state.last_index
        invariant(
            state.mark.index <= applied <= state.last_index,
            f"applied index {applied} is outside of the log "
            f"({state.mark.index}..{state.last_index}]",
        )
        self.applied = applied
        self.handed = applied
        self.commit = max(applied, min(state.hard_state.commit, state.last_index))
        self._entries: list[Entry] = list(state.tail)
        self._memory_bytes = sum(map(entry_bytes, state.tail))
        self._memory_bytes_max = memory_bytes_max
        self._run_starts = [state.mark.index]
        self._run_terms = [state.mark.term]
        for run in state.term_runs:
            self._add_run(run.index, run.term)
        self._configs = [(state.mark.index, state.mark.membership)]
        self._configs += [(e.index, decode_membership(e.data)) for e in state.configs]
        self._handed_out = state.last_index  # last index given to storage
        self._truncate_from: int | None = None
        self._writes: deque[_Write] = deque()
        self._check_tail()

    def _check_tail(self) -> None:
        expected = self.last_index - len(self._entries) + 1
        for index, entry in enumerate(self._entries, start=expected):
            invariant(entry.index == index, f"log tail has a gap at {index}")
            invariant(entry.term == self.term_at(index), f"log tail has a wrong term at {index}")

    # --- reading ---------------------------------------------------------------------------

    @property
    def memory_index(self) -> int:
        """The first entry in memory (last_index + 1 when none is)."""
        return self.last_index - len(self._entries) + 1

    @property
    def last_term(self) -> int:
        return self._run_terms[-1]

    def term_at(self, index: int) -> int | None:
        """None outside of mark.index..last_index."""
        if not self.mark.index <= index <= self.last_index:
            return None
        if index >= self._run_starts[-1]:
            return self._run_terms[-1]
        return self._run_terms[bisect_right(self._run_starts, index) - 1]

    def matches(self, index: int, term: int) -> bool:
        return self.term_at(index) == term

    def is_up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a candidate with that log may lead us (Raft 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def agreement_hint(self, index: int, term: int) -> tuple[int, int]:
        """The largest (index', term') with index' <= index and term' <= term: a conflict at
        `index` proves that the logs cannot agree after it. (mark.index, 0) if unknown."""
        index = min(index, self.last_index)
        while index >= self.mark.index:
            position = bisect_right(self._run_starts, index) - 1
            if self._run_terms[position] <= term:
                return index, self._run_terms[position]
            index = self._run_starts[position] - 1
        return max(index, 0), 0

    def slice(self, lo: int, hi: int, bytes_max: int) -> tuple[Entry, ...] | None:
        """Entries lo..hi cut after `bytes_max` (at least one); None when `lo` is not in memory."""
        first = self.memory_index
        if lo < first:
            return None
        start = lo - first
        end = start
        total = 0
        stop = min(hi, self.last_index) - first + 1
        entries = self._entries
        while end < stop:
            total += len(entries[end].data) + ENTRY_OVERHEAD_BYTES
            if total > bytes_max and end > start:
                break
            end += 1
        return tuple(entries[start:end])

    # --- membership ------------------------------------------------------------------------

    @property
    def membership(self) -> Membership:
        """The newest one in the log, committed or not."""
        return self._configs[-1][1]

    @property
    def membership_index(self) -> int:
        return self._configs[-1][0]

    def membership_at(self, index: int) -> Membership:
        position = bisect_right(self._configs, index, key=lambda pair: pair[0]) - 1
        invariant(position >= 0, f"membership at {index} was compacted")
        return self._configs[position][1]

    def mark_at(self, index: int) -> SnapshotMark:
        """The mark that compacting or exporting at `index` would make."""
        term = self.term_at(index)
        invariant(term is not None and index <= self.applied, f"no mark at {index}")
        return SnapshotMark(index=index, term=term or 0, membership=self.membership_at(index))

    # --- appending -------------------------------------------------------------------------

    def append(self, entries: Sequence[Entry]) -> None:
        """Puts entries at the end; the caller has resolved conflicts."""
        for entry in entries:
            invariant(entry.index == self.last_index + 1, f"log gap before {entry.index}")
            invariant(entry.term >= self.last_term, f"log term falls at {entry.index}")
            self._entries.append(entry)
            self._memory_bytes += len(entry.data) + ENTRY_OVERHEAD_BYTES
            self.last_index = entry.index
            self._add_run(entry.index, entry.term)
            if entry.kind == EntryKind.CONFIG:
                self._configs.append((entry.index, decode_membership(entry.data)))

    def append_after(self, prev_index: int, prev_term: int, entries: Sequence[Entry]) -> int | None:
        """The receiver's rules of AppendEntries (Raft 5.3): the last matching index, or None
        when the logs disagree at `prev_index`. Deletes only from the first conflict on, so that
        a late, shorter message never removes what a newer one has brought."""
        if not self.matches(prev_index, prev_term):
            return None
        for position, entry in enumerate(entries):
            if not self.matches(entry.index, entry.term):
                if entry.index <= self.last_index:
                    self._truncate(entry.index)
                self.append(entries[position:])
                break
        return prev_index + len(entries)

    def _truncate(self, index: int) -> None:
        invariant(index > self.commit, f"entry {index} is committed (commit {self.commit})")
        keep = max(0, index - self.memory_index)
        for entry in self._entries[keep:]:
            self._memory_bytes -= entry_bytes(entry)
        del self._entries[keep:]
        self.last_index = index - 1
        while self._run_starts[-1] >= index:
            self._run_starts.pop()
            self._run_terms.pop()
        while self._configs[-1][0] >= index:
            self._configs.pop()
        self.stable = min(self.stable, index - 1)
        for write in self._writes:
            write.last_index = min(write.last_index, index - 1)
        if index <= self._handed_out:
            self._handed_out = index - 1
            self._truncate_from = min(index, self._truncate_from or index)

    def _add_run(self, index: int, term: int) -> None:
        if term != self._run_terms[-1]:
            self._run_starts.append(index)
            self._run_terms.append(term)

    # --- durability ------------------------------------------------------------------------

    @property
    def has_unwritten(self) -> bool:
        return self._handed_out < self.last_index or self._truncate_from is not None

    def take_unwritten(self, seq: int) -> tuple[int | None, tuple[Entry, ...]]:
        """(truncate_from, entries) for the write `seq`; called even when both are empty, so that
        writes of the hard state are ordered with the others."""
        entries = tuple(self._entries[self._handed_out + 1 - self.memory_index :])
        truncate_from, self._truncate_from = self._truncate_from, None
        self._handed_out = self.last_index
        self._writes.append(_Write(seq, self.last_index))
        return truncate_from, entries

    def persisted(self, seq: int) -> None:
        """All writes up to `seq` are durable."""
        while self._writes and self._writes[0].seq <= seq:
            self.stable = max(self.stable, self._writes.popleft().last_index)
        self._trim()

    # --- commit and apply ------------------------------------------------------------------

    def commit_to(self, index: int) -> bool:
        """Whether the commit index moved. It never moves back."""
        if index <= self.commit:
            return False
        invariant(index <= self.last_index, f"commit {index} is past the log")
        self.commit = index
        return True

    @property
    def applicable(self) -> int:
        """Entries up to here may be applied: committed, and durable here."""
        return min(self.commit, self.stable)

    def hand_out(self, entries: Sequence[Entry]) -> None:
        """These entries go to the state machine now."""
        invariant(entries[0].index == self.handed + 1, "apply order has a gap")
        self.handed = entries[-1].index
        invariant(self.handed <= self.applicable, "applying what is not committed and durable")

    def applied_to(self, index: int) -> None:
        invariant(self.applied <= index <= self.handed, f"applied {index} was not handed out")
        self.applied = index
        self._trim()

    # --- forgetting ------------------------------------------------------------------------

    def _trim(self) -> None:
        """Drops the oldest entries from memory, a quarter of the limit at a time. Those that are
        still to be applied, too: a follower that applies slowly reads them from storage."""
        if self._memory_bytes <= self._memory_bytes_max:
            return
        last = min(self.commit, self.stable, self._handed_out)
        first = self.memory_index
        target = self._memory_bytes_max * 3 // 4
        count = 0
        while count < len(self._entries) and first + count <= last:
            if self._memory_bytes <= target:
                break
            self._memory_bytes -= entry_bytes(self._entries[count])
            count += 1
        del self._entries[:count]

    def compact(self, mark: SnapshotMark) -> None:
        """Entries up to mark.index no longer exist anywhere."""
        if mark.index <= self.mark.index:
            return
        invariant(mark.index <= self.applied, "compacting what is not applied")
        invariant(self.matches(mark.index, mark.term), "mark does not match the log")
        drop = max(0, mark.index - self.memory_index + 1)
        for entry in self._entries[:drop]:
            self._memory_bytes -= entry_bytes(entry)
        del self._entries[:drop]
        position = bisect_right(self._run_starts, mark.index) - 1
        del self._run_starts[:position], self._run_terms[:position]
        self._run_starts[0] = mark.index
        kept = [pair for pair in self._configs if pair[0] > mark.index]
        self._configs = [(mark.index, mark.membership), *kept]
        self.mark = mark

    def reset(self, mark: SnapshotMark) -> None:
        """A snapshot replaced the state and dropped the whole log."""
        invariant(mark.index >= self.commit, "a snapshot must not go back")
        invariant(not self.has_unwritten, "log writes during an install")
        for write in self._writes:  # a vote may be on its way to the disk; it proves no entries
            write.last_index = mark.index
        self.mark = mark
        self.last_index = self.stable = self.commit = mark.index
        self.handed = self.applied = self._handed_out = mark.index
        self._entries.clear()
        self._memory_bytes = 0
        self._run_starts = [mark.index]
        self._run_terms = [mark.term]
        self._configs = [(mark.index, mark.membership)]
