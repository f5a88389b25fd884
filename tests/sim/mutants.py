"""Bugs made on purpose, each by replacing one function of the product: can the simulator see them?

A mutant that a second line of defence renders harmless is no mutant: it is not in this list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any, Final

from astra.commands import AnyCommand, Result
from astra.model import Extent
from astra.ports import MetadataTxn
from astra.wire import BlobStored, Entry, RequestVote, Sighting
from gateway.blob_write import BlobUpload
from node import recall
from node.applier import Applier
from node.apply import apply_entries, blobs, requests
from node.apply.state import Batch, Turn
from node.process import NodeProcess
from node.raft import leader as leadership
from node.raft.core import RaftCore
from node.raft.driver import RaftDriver
from node.raft.leader import Leadership
from node.raft.log import RaftLog
from node.raft.quorum import agreed_value
from node.raft.state import NodeState
from node.raft.types import HardState, RaftState
from node.seat import Seat
from node.services import garbage, memberplan, members
from node.services.blobs import BlobService
from node.services.members import MemberService
from node.services.ports import Applied
from node.services.querycache import QueryCache
from node.services.reads import Reads
from node.sightings import OwnLife
from tests.sim.disk import SimMetadataStore, SimRaftStorage

Patch = tuple[Any, str, Any]  # where, which name, and what is there instead

MUTANTS: Final[dict[str, Callable[[], Patch]]] = {}


def mutant(make: Callable[[], Patch]) -> Callable[[], Patch]:
    MUTANTS[make.__name__] = make
    return make


@contextmanager
def broken(name: str) -> Generator[None]:
    """Inside, the product has this bug."""
    where, attribute, replacement = MUTANTS[name]()
    is_inherited = attribute not in vars(where)
    original = getattr(where, attribute)
    setattr(where, attribute, replacement)
    try:
        yield
    finally:
        if is_inherited:
            delattr(where, attribute)
        else:
            setattr(where, attribute, original)


# --- elections -------------------------------------------------------------------------------


@mutant
def vote_twice() -> Patch:
    """A vote does not stand in the way of another one in the same term."""
    original = RaftCore._on_request_vote

    def forgetful(self: RaftCore, sender: str, body: RequestVote) -> None:
        if not body.pre:
            self._node.voted_for = self.leader_id = None
        original(self, sender, body)

    return RaftCore, "_on_request_vote", forgetful


@mutant
def forget_the_vote_at_restart() -> Patch:
    original = SimRaftStorage.load

    async def load(self: SimRaftStorage, applied_index: int, tail_bytes_max: int) -> RaftState:
        state = await original(self, applied_index, tail_bytes_max)
        term = state.hard_state.term - 1 if state.hard_state.term else 0
        return RaftState(
            hard_state=HardState(term=term, voted_for=None, commit=state.hard_state.commit),
            mark=state.mark,
            last_index=state.last_index,
            term_runs=state.term_runs,
            configs=state.configs,
            tail=state.tail,
        )

    return SimRaftStorage, "load", load


@mutant
def vote_for_anybody() -> Patch:
    """Also for a candidate whose log lacks committed entries."""
    return RaftLog, "is_up_to_date", lambda self, last_index, last_term: True


# --- log and commit --------------------------------------------------------------------------


@mutant
def commit_old_terms_by_counting() -> Patch:
    """Figure 8 of the Raft paper."""

    def advance_commit(self: Leadership) -> None:
        log = self._node.log
        log.commit_to(agreed_value(log.membership, self._match_of))

    return Leadership, "advance_commit", advance_commit


@mutant
def commit_without_a_majority() -> Patch:
    def first(membership: object, value_of: Callable[[str], int]) -> int:
        return max(value_of(voter) for voter in membership.voters)  # type: ignore[attr-defined]  # a Membership

    return leadership, "agreed_value", first


@mutant
def acknowledge_before_fsync() -> Patch:
    """Votes and acknowledgements leave before the write that they promise."""
    return NodeState, "send_after_persist", NodeState.send


@mutant
def forget_truncation() -> Patch:
    original = RaftLog.take_unwritten

    def keep(self: RaftLog, seq: int) -> tuple[int | None, tuple[Entry, ...]]:
        return None, original(self, seq)[1]

    return RaftLog, "take_unwritten", keep


# --- reads -----------------------------------------------------------------------------------


@mutant
def lease_without_end() -> Patch:
    """A leader that was paused or cut off goes on reading by its lease."""

    def lease_valid(self: Leadership, now_ms: int) -> bool:
        return self.has_committed_own_term

    return Leadership, "lease_valid", lease_valid


@mutant
def read_before_apply() -> Patch:
    async def at_once(self: RaftDriver, core: RaftCore, index: int) -> None:
        return None

    return RaftDriver, "_wait_applied", at_once


@mutant
def answer_when_deposed() -> Patch:
    """From tables that may be ahead of the new leader's."""
    return Reads, "_require_term", lambda self, term: None


@mutant
def believe_the_cache() -> Patch:
    """The witness is not asked."""
    return QueryCache, "_last_change", lambda self, query: 0


# --- writes ----------------------------------------------------------------------------------


class _Peeked(Exception):
    def __init__(self, results: list[Result]) -> None:
        super().__init__()
        self.results = results


@mutant
def acknowledge_before_apply() -> Patch:
    """The results are known, and leave, a moment before the tables show them."""
    original = Applier.apply
    running: dict[Applier, asyncio.Task[Sequence[object]]] = {}

    async def later(applier: Applier, entries: Sequence[Entry]) -> Sequence[object]:
        await asyncio.sleep(0.01)
        return await original(applier, entries)

    async def apply(self: Applier, entries: Sequence[Entry]) -> Sequence[object]:
        if self in running:
            await running[self]

        async def peek(txn: MetadataTxn) -> None:
            raise _Peeked(await apply_entries(txn, entries))

        try:
            await self._store.write(peek)
        except _Peeked as peeked:
            running[self] = asyncio.get_running_loop().create_task(later(self, entries))
            pairs = zip(entries, peeked.results, strict=True)
            return [Applied(entry.index, result) for entry, result in pairs]
        return []

    return Applier, "apply", apply


@mutant
def ignore_request_ids() -> Patch:
    async def nothing(batch: Batch, request_id: str, command: AnyCommand) -> Result | None:
        return None

    return requests, "recall", nothing


@mutant
def apply_twice_after_restart() -> Patch:
    original = Applier.load

    async def load(self: Applier) -> int:
        self.applied_index = max(0, await original(self) - 1)
        return self.applied_index

    return Applier, "load", load


@mutant
def snapshot_keeps_old_rows() -> Patch:
    original = SimMetadataStore.replace

    async def replace(self: SimMetadataStore, pieces: Any) -> int:
        before = {name: dict(rows.docs) for name, rows in self._tables.items()}
        index = await original(self, pieces)
        for name, docs in before.items():
            for key, doc in docs.items():
                if key not in self._tables[name].docs:
                    self._tables[name].set(key, doc)
        return index

    return SimMetadataStore, "replace", replace


# --- bytes -----------------------------------------------------------------------------------


@mutant
def acknowledge_before_the_write_quorum() -> Patch:
    """All holders that were asked are named, however many have it."""

    async def finish(self: BlobUpload, on_late: Callable[[str], None]) -> tuple[str, ...]:
        for writer in self._writers:
            if writer.is_alive:
                await writer.put(None)
        await self._wait_for(1)
        return tuple(writer.holder.node_id for writer in self._writers)

    return BlobUpload, "finish", finish


@mutant
def blob_stored_before_it_is_durable() -> Patch:
    original = BlobService._take_pieces

    async def take(self: BlobService, writer: Any, stream: Any) -> int:
        size = await original(self, writer, stream)
        await stream.send(BlobStored(size=size))
        return size

    return BlobService, "_take_pieces", take


@mutant
def sweep_what_is_referenced() -> Patch:
    async def nobody(view: object, blob_id: str) -> bool:
        return False

    return garbage, "_is_known", nobody


@mutant
def copies_do_not_count() -> Patch:
    """A copy shares the bytes without counting its reference, so deleting the source frees them."""

    async def share(turn: Turn, extents: Iterable[Extent]) -> None:
        return None

    return blobs, "share", share


# --- members and whole disks (tests/sim/members.py) --------------------------------------------


@mutant
def removed_node_keeps_its_vote() -> Patch:
    """It goes from the table, and not from the Raft group."""
    return members, "without", lambda membership, node_id: membership


@mutant
def empty_disk_votes_at_once() -> Patch:
    """Nobody is asked whether there is a cluster already."""

    async def cluster_exists(self: NodeProcess) -> bool:
        return False

    return NodeProcess, "_cluster_exists", cluster_exists


@mutant
def drain_ends_before_the_data_moved() -> Patch:
    async def held_after(self: MemberService, node_id: str, after: str) -> tuple[list[int], str]:
        return [], ""

    return MemberService, "_held_after", held_after


@mutant
def moved_in_without_a_new_entry() -> Patch:
    """A node without a log takes part as soon as a leader wants it, with whatever it has."""

    async def until_wanted(self: Seat) -> None:
        await self._invited.wait()

    return Seat, "_until_wanted", until_wanted


@mutant
def moved_node_is_not_recorded() -> Patch:
    return memberplan, "_follow_report", lambda now: None


@mutant
def old_disk_is_believed() -> Patch:
    """Whatever the others have seen of this node."""

    def judge(own: OwnLife, *, last_index: int, term: int, seen: Sighting) -> str:
        return ""

    return recall, "judge", judge


# Only the second scenario does what they need.
OF_MEMBERS: Final = frozenset(
    {
        "removed_node_keeps_its_vote",
        "empty_disk_votes_at_once",
        "drain_ends_before_the_data_moved",
        "moved_in_without_a_new_entry",
        "moved_node_is_not_recorded",
        "old_disk_is_believed",
    }
)
