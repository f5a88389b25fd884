"""Values that pass between the Raft core, its driver and its storage.

Rules: values only; no IO, no clock. What crosses the network is in astra/wire.py.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Protocol

from astra.wire import Entry, Membership, RaftMessage


class Role(enum.StrEnum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True, kw_only=True)
class HardState:
    """What a node must never forget. `commit` is a hint that may lag."""

    term: int = 0
    voted_for: str | None = None
    commit: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotMark:
    """The log starts after `index`: everything up to it is in the applied state. `membership`
    is the one in force at `index`."""

    index: int
    term: int
    membership: Membership


@dataclass(frozen=True, slots=True, kw_only=True)
class TermRun:
    """From `index` on, entries have `term` (until the next run)."""

    index: int
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftState:
    """What a restarted node knows. Invariants: `term_runs` and `configs` cover every entry after
    the mark; `tail` is contiguous and ends at `last_index`."""

    hard_state: HardState
    mark: SnapshotMark
    last_index: int
    term_runs: tuple[TermRun, ...] = ()  # of the entries after the mark, first run at mark + 1
    configs: tuple[Entry, ...] = ()  # every CONFIG entry after the mark
    tail: tuple[Entry, ...] = ()  # the newest entries


@dataclass(frozen=True, slots=True, kw_only=True)
class LogWrite:
    """One durable transaction. `truncate_from`: entries with this index and above are deleted
    first; `entries` follow without a gap. Writes must become durable in the order of `seq`."""

    seq: int
    hard_state: HardState | None = None
    truncate_from: int | None = None
    entries: tuple[Entry, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftState:
    role: Role
    leader: str | None
    term: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadState:
    """A confirmed read: answer once `index` is applied. `index` None: ask again, there is no
    leader that could confirm it."""

    context: int
    index: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NeedEntries:
    """Entries that are no longer in memory. `peer` is this node itself for entries to apply."""

    peer: str
    from_index: int
    to_index: int  # inclusive
    bytes_max: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotOffer:
    """`leader` has a state at least as new as `mark`; fetch it from there."""

    leader: str
    mark: SnapshotMark


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What the driver must do now. The order is in the header of core.py."""

    write: LogWrite | None = None
    messages: tuple[RaftMessage, ...] = ()
    messages_after_persist: tuple[RaftMessage, ...] = ()
    committed: tuple[Entry, ...] = ()
    read_states: tuple[ReadState, ...] = ()
    needs: tuple[NeedEntries, ...] = ()
    snapshot: SnapshotOffer | None = None
    soft_state: SoftState | None = None  # only when it changed


class Rng(Protocol):
    """random.Random fits. The upper bound is excluded."""

    def randrange(self, start: int, stop: int, /) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    match: int
    next: int
    state: str  # probe, replicate, snapshot
    active_ms_ago: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftStatus:
    node_id: str
    role: Role
    is_voter: bool
    leader: str | None
    term: int
    commit: int
    applied: int
    first_index: int
    last_index: int
    membership: Membership
    peers: dict[str, PeerStatus]  # empty unless leader
