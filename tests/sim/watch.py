"""The promises that are checked while a simulation runs, and those that hold at its end.

I6: one leader per term, log matching, leader completeness, one entry per applied index, commits
durable on a majority, no lease beside a newer leader. I7: equal tables at equal applied index.
I8: no referenced chunk is deleted, no orphan outlives its grace, three good copies.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

from astra.constants import REPLICAS
from astra.model import BLOBS, GARBAGE, NODES, Blob, NodeInfo, NodeState
from astra.wire import Entry, EntryKind, Membership
from node.chunkstore.memory import MemoryChunkStore, MemoryDisk
from node.raft.core import RaftCore
from node.raft.log import decode_membership
from node.raft.memory import MemoryLog
from node.raft.quorum import is_quorum, voters_of
from node.raft.types import Role, SoftState
from tests.sim.history import Violation
from tests.sim.node import SimNode

Fact = tuple[int, int]  # term, checksum of the data


class Watch:
    """`nodes` are all that ever were; `members` those of them that belong to the cluster now, or
    are about to. `lost_logs` and `lost_files`: what was on disks that are lost, by node."""

    def __init__(self) -> None:
        self.nodes: Mapping[str, SimNode] = {}
        self.members: Mapping[str, SimNode] = {}
        self.lost_logs: dict[str, list[MemoryLog]] = {}
        self.lost_files: dict[str, set[str]] = {}
        self.leaders: dict[int, str] = {}
        self.committed: dict[int, Fact] = {}
        self._seen_in: dict[int, int] = {}  # by index: a term in which it was committed already
        self.applied_max = 0
        self._known: dict[Fact, Fact] = {}  # (index, term) -> (term before, data)

    # --- Raft ----------------------------------------------------------------------------------

    def on_append(self, name: str, entries: Sequence[Entry], log: MemoryLog) -> None:
        """Log matching by induction: an (index, term) has one content and one predecessor. And
        nothing is promised on an old disk."""
        if self.nodes[name].storage.is_old:
            raise Violation(f"{name} takes part with an old disk")
        for entry in entries:
            before = log._rows.get(entry.index - 1)
            if before is None:
                continue  # right behind the mark
            fact = (before[0].term, zlib.crc32(entry.data))
            known = self._known.setdefault((entry.index, entry.term), fact)
            if known != fact:
                raise Violation(f"log matching is broken at index {entry.index} on {name}")

    def on_applied(self, name: str, entries: Sequence[Entry]) -> None:
        for entry in entries:
            fact = (entry.term, zlib.crc32(entry.data))
            known = self.committed.get(entry.index)
            if known is None:
                self.committed[entry.index] = fact
                core = self.nodes[name].core
                newest = max(self.leaders, default=entry.term)
                self._seen_in[entry.index] = newest if core is None else core.term
                self._check_durable(entry, name)
            elif known != fact:
                raise Violation(f"{name} applied another entry at index {entry.index}")
        self.applied_max = max(self.applied_max, entries[-1].index)

    def _check_durable(self, entry: Entry, name: str) -> None:
        """It is, or was on a disk that is lost since, with a majority of those who voted then: by
        any membership that was appended after it, which its leader may be the only one to have."""
        if self.nodes[name].core is None:
            return
        cores = [node.core for node in self.nodes.values() if node.core is not None]
        holders = {each.name for each in self.nodes.values() if _has_entry(each.storage.log, entry)}
        had = {
            each
            for each, logs in self.lost_logs.items()
            if any(_has_entry(log, entry) for log in logs)
        }
        groups = [
            group
            for core in cores
            if core._log.matches(entry.index, entry.term)
            for group in memberships_since(core, entry.index)
        ]
        if not any(is_quorum(group, holders | had) for group in groups):
            raise Violation(f"entry {entry.index} was applied on {name}, but only {holders} has it")
        self._check_safe(entry, holders)

    def _check_safe(self, entry: Entry, holders: set[str]) -> None:
        """No voter without the entry could win an election, by the logs on the disks. Stronger
        than a majority of copies: it is what figure 8 of the Raft paper is about. Who has no log,
        or an old one, does not vote."""
        ends = {
            each.name: each.storage.log.end()
            for each in self.nodes.values()
            if has_log(each.storage.log) and not each.storage.is_old
        }
        for candidate in ends.keys() - holders:
            group = newest_membership(self.nodes[candidate].storage.log)
            votes = {
                each for each in voters_of(group) & ends.keys() if ends[candidate] >= ends[each]
            }
            if candidate in voters_of(group) and is_quorum(group, votes):
                raise Violation(
                    f"entry {entry.index} counts as committed, but {candidate} lacks it and "
                    f"{sorted(votes)} would vote for it"
                )

    def on_role(self, name: str, state: SoftState, now_of: Mapping[str, int]) -> None:
        core = self.nodes[name].core
        if state.role is not Role.LEADER or core is None:
            return
        known = self.leaders.setdefault(state.term, name)
        if known != name:
            raise Violation(f"two leaders in term {state.term}: {known} and {name}")
        for index, (term, _) in self.committed.items():
            if self._seen_in[index] > state.term:
                continue  # this leader is late: it slept while a later term began
            if index >= core.first_index and not core._log.matches(index, term):
                raise Violation(f"leader {name} lacks the committed entry {index}")
        self._check_leases(name, state.term, now_of)

    def _check_leases(self, leader: str, term: int, now_of: Mapping[str, int]) -> None:
        for name, node in self.nodes.items():
            core = node.core
            if name == leader or core is None or core.term > term:
                continue
            if core.lease_valid(now_of[name]):
                raise Violation(f"{name} has a lease while {leader} leads term {term}")

    # --- tables --------------------------------------------------------------------------------

    def check_tables(self) -> None:
        """Equal at equal applied index."""
        by_index: dict[int, SimNode] = {}
        for node in self.nodes.values():
            other = by_index.setdefault(node.storage.tables.applied, node)
            if other is not node:
                compare_tables(other, node)

    def newest(self) -> SimNode | None:
        """A node, running or not, whose tables contain everything that was ever applied."""
        node = max(self.nodes.values(), key=lambda each: each.storage.tables.applied)
        return node if node.storage.tables.applied >= self.applied_max else None

    # --- chunks --------------------------------------------------------------------------------

    def check_referenced(self) -> None:
        """Every holder that the metadata names has the file (or has put a bad one aside), if it did
        not lose it with its disk, and is not gone for good."""
        node = self.newest()
        for blob_id, blob in held_blobs(node).items():
            for holder in blob.holders:
                if holder not in self.members:
                    continue
                disk = self.nodes[holder].storage.chunks
                lost = self.lost_files.get(holder, set())
                if blob_id in disk.blobs or blob_id in disk.quarantined:
                    lost.discard(blob_id)
                elif blob_id not in lost:
                    raise Violation(f"blob {blob_id} is referenced, but {holder} has no copy")

    def blobs_without_three_copies(self) -> list[str]:
        wanted = min(REPLICAS, len(self.members))
        return [
            f"{blob_id}: {self.good_copies(blob_id, blob)} of {blob.holders}"
            for blob_id, blob in held_blobs(self.newest()).items()
            if len(self.good_copies(blob_id, blob)) < wanted
        ]

    def good_copies(self, blob_id: str, blob: Blob) -> list[str]:
        return [
            name for name in blob.holders if name in self.members and self.is_good(name, blob_id)
        ]

    def is_good(self, name: str, blob_id: str) -> bool:
        return is_good_copy(self.nodes[name].storage.chunks, blob_id)

    def check_no_orphans(self) -> None:
        """After the grace of orphans: no file that the metadata does not know."""
        newest = self.newest()
        if newest is None:
            raise Violation("no node is up to date at the end")
        known = newest.storage.tables._tables[BLOBS.name].docs
        garbage = newest.storage.tables._tables[GARBAGE.name].docs
        for name, node in self.members.items():
            for blob_id in node.storage.chunks.blobs:
                if (blob_id,) not in known and (blob_id,) not in garbage:
                    raise Violation(f"{name} still has {blob_id}, which nothing knows")

    def check_no_garbage(self) -> list[str]:
        """After the grace of garbage: the holders deleted it, and the leader forgot it."""
        newest = self.newest()
        rows = newest.storage.tables._tables[GARBAGE.name].docs if newest is not None else {}
        return [str(key[0]) for key in rows]


def has_log(log: MemoryLog) -> bool:
    """Whether its node takes part in elections: one without a log sits beside the group."""
    return bool(newest_membership(log).voters)


def newest_membership(log: MemoryLog) -> Membership:
    """As this disk has it, committed or not."""
    return newest_config(log)[1]


def newest_config(log: MemoryLog) -> tuple[int, Membership]:
    """The newest membership, and an index at which it was in force."""
    for index in range(log._last_index, 0, -1):
        row = log._rows.get(index)
        if row is None:
            break
        if row[0].kind is EntryKind.CONFIG:
            return index, decode_membership(row[0].data)
    return (
        (0, Membership(voters=())) if log._mark is None else (log._mark.index, log._mark.membership)
    )


def memberships_since(core: RaftCore, index: int) -> Iterable[Membership]:
    """Those that may have been in force when the entry was committed."""
    log = core._log
    yield log.membership_at(max(index, log._configs[0][0]))
    yield from (membership for at, membership in log._configs if at > index)


def recorded_nodes(node: SimNode | None) -> dict[str, NodeInfo]:
    """The members, as this node's tables know them."""
    if node is None:
        return {}
    rows = node.storage.tables._tables[NODES.name].docs
    return {str(key[0]): row for key, row in rows.items() if isinstance(row, NodeInfo)}


def active_nodes(node: SimNode | None) -> set[str]:
    return {name for name, row in recorded_nodes(node).items() if row.state is NodeState.ACTIVE}


def held_blobs(node: SimNode | None) -> dict[str, Blob]:
    """The blobs that are kept as chunks, as this node's tables know them."""
    if node is None:
        return {}
    rows = node.storage.tables._tables[BLOBS.name].docs
    return {str(key[0]): row for key, row in rows.items() if isinstance(row, Blob) and row.holders}


def is_good_copy(disk: MemoryDisk, blob_id: str) -> bool:
    if blob_id not in disk.blobs:
        return False
    try:
        return not MemoryChunkStore(disk).verify(blob_id)
    except Exception:
        return False


def compare_tables(one: SimNode, other: SimNode) -> None:
    for table, rows in one.storage.tables._tables.items():
        mine, theirs = rows.docs, other.storage.tables._tables[table].docs
        if mine != theirs:
            different = [key for key in {**mine, **theirs} if mine.get(key) != theirs.get(key)]
            key = different[0]
            raise Violation(
                f"{one.name} and {other.name} differ at index {one.storage.tables.applied} "
                f"in {table} {key!r}: {mine.get(key)} and {theirs.get(key)}"
            )


def _has_entry(log: MemoryLog, entry: Entry) -> bool:
    if log._mark is not None and entry.index <= log._mark.index:
        return True
    row = log._rows.get(entry.index)
    return row is not None and row[0].term == entry.term
