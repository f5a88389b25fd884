"""A node outside of the Raft group: follows the committed log without being part of it.

Entries come pushed (bus notices) in any order, doubled or not at all; what fits is applied, gaps
are fetched from the leader, and a node too far behind takes a snapshot. So the leader's cost does
not grow with the learners, and nothing depends on the bus.

Implements services.ports.Consensus, so that the services need not know: it never leads. It ends
(`finish`) when the leader takes this node into the group; seat.py does that.
"""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import deque
from collections.abc import Sequence
from typing import Final, TypeVar

from astra.commands import ForgetGarbage
from astra.errors import (
    AstraError,
    DamagedLog,
    DeadlineExceeded,
    Fatal,
    NotLeader,
    Unavailable,
    WireError,
)
from astra.log import get_logger
from astra.net import Dialer
from astra.wire import (
    Commit,
    Committed,
    Entry,
    EntryBatch,
    EntryKind,
    Epochs,
    FetchEntries,
    Membership,
    Message,
    Notice,
)
from node.applier import Applier
from node.membership import ClusterMap
from node.raft.log import decode_membership
from node.snapshots import SnapshotInstaller

M = TypeVar("M", bound=Message)

_FETCH_TIMEOUT_S: Final = 5.0
_PUSHED_MAX: Final = 1024  # notices with entries that wait; more are dropped and fetched later

_log = get_logger("learner")


class LogFollower:
    def __init__(
        self,
        *,
        voters: Sequence[str],
        applier: Applier,
        dialer: Dialer,
        cluster: ClusterMap,
        snapshots: SnapshotInstaller,
    ) -> None:
        """`voters`: whom to ask first; then every member."""
        self._voters = tuple(voters)
        self._guess = 0
        self._applier = applier
        self._dialer = dialer
        self._cluster = cluster
        self._snapshots = snapshots
        self._pushed: deque[tuple[Entry, ...]] = deque(maxlen=_PUSHED_MAX)
        self._wake = asyncio.Event()
        self._next_round: asyncio.Task[None] | None = None
        self._lock = asyncio.Lock()
        self._leader_at: str | None = None  # its address: it may be a node we do not know yet
        self._is_finished = False
        self.commit_index = 0
        self.membership: Membership | None = None  # of the Raft group, at the applied index
        self._membership_index = 0

    # --- Consensus ---

    async def propose(self, data: bytes, timeout_s: float = 10.0) -> object:
        raise NotLeader(self.leader)

    async def read_barrier(self, timeout_s: float = 5.0) -> int:
        """Everything that was committed before the call is applied here. Raises Unavailable,
        DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.shield(self._join_round())
        except TimeoutError:
            raise DeadlineExceeded(f"not level with the leader within {timeout_s:g} s") from None
        return self._applier.applied_index

    def lease_valid_now(self) -> bool:
        return False

    @property
    def is_leader(self) -> bool:
        return False

    @property
    def leader(self) -> str | None:
        return self._cluster.node_at(self._leader_at)

    @property
    def term(self) -> int:
        return self._applier.applied_term

    @property
    def applied_index(self) -> int:
        return self._applier.applied_index

    # --- following ---

    def on_notice(self, notice: Notice) -> None:
        """From the bus: never blocks."""
        if notice.entries or notice.index > self._applier.applied_index:
            self._pushed.append(notice.entries)
            self._wake.set()

    async def run(self, interval_s: float) -> None:
        """Until `finish`: applies what is pushed, and looks for itself every `interval_s`. May be
        run again later."""
        self._is_finished = False
        self.commit_index = self._applier.applied_index
        self.forget_group()
        while not self._is_finished:
            try:
                if await self._was_pushed(interval_s):
                    await self._apply_pushed()
                else:
                    await self._catch_up()
            except Fatal:
                raise
            except AstraError as error:
                _log.info("not following now", reason=f"{type(error).__name__}: {error}")

    async def commit_something(self) -> None:
        """On return the cluster has committed an entry that was proposed after this call. Raises
        Unavailable, Refused."""
        nothing = ForgetGarbage(node_id=self._cluster.node_id, blob_ids=())
        commit = Commit(request_id=uuid.uuid4().hex, epochs=Epochs(), command=nothing)
        await self._ask(commit, Committed)

    async def finish(self) -> None:
        """Nothing is applied by this follower after it returns."""
        self._is_finished = True
        self._wake.set()
        async with self._lock:
            pass

    def _require_work(self) -> None:
        if self._is_finished:
            raise Unavailable("this node is being taken into the Raft group")

    async def _was_pushed(self, interval_s: float) -> bool:
        try:
            async with asyncio.timeout(interval_s):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    async def _apply_pushed(self) -> None:
        self._wake.clear()
        has_gap = False
        while self._pushed:
            entries = self._pushed.popleft()
            async with self._lock:
                self._require_work()
                has_gap = not await self.take(entries)
        if has_gap:
            await self._catch_up()

    async def take(self, entries: Sequence[Entry]) -> bool:
        """Applies those that follow on what is applied; False when there is a gap before them.
        One call at a time."""
        applied = self._applier.applied_index
        fresh = [entry for entry in entries if entry.index > applied]
        if not fresh:
            return bool(entries)
        if fresh[0].index != applied + 1:
            return False
        check_consecutive(fresh)
        await self._applier.apply(fresh)
        for entry in fresh:
            if entry.kind is EntryKind.CONFIG:
                self.membership = decode_membership(entry.data)
                self._membership_index = entry.index
        self.commit_index = max(self.commit_index, self._applier.applied_index)
        return True

    async def _catch_up(self) -> None:
        """Until everything committed at the time of the last answer is applied."""
        async with self._lock:
            await self._get_level()

    def _join_round(self) -> asyncio.Task[None]:
        """A catching-up that has not asked the leader yet, shared by all who wait for one. A task
        of its own: whoever is tired of waiting must not cancel it, because an apply that is cut
        off is stored, and not counted."""
        if self._next_round is None or self._next_round.done():
            self._next_round = asyncio.create_task(self._round())
            self._next_round.add_done_callback(_see_error)
        return self._next_round

    async def _round(self) -> None:
        async with self._lock:
            self._next_round = None
            await self._get_level()

    async def _get_level(self) -> None:
        while True:
            self._require_work()
            after = self._applier.applied_index
            batch = await self._ask(FetchEntries(after=after), EntryBatch)
            self.commit_index = max(self.commit_index, batch.commit)
            if batch.commit < after:
                raise DamagedLog(
                    f"entry {after} is applied here, and the leader has committed no more than"
                    f" {batch.commit}: the voters were put back to an older state, and this node"
                    " must be rebuilt from them"
                )
            if batch.commit == after:
                self._note_level(batch)
                return
            if batch.entries:
                if not await self.take(batch.entries):
                    raise WireError("the leader sent entries that do not follow")
            else:  # compacted away
                await self._take_snapshot()

    def _note_level(self, batch: EntryBatch) -> None:
        """Everything up to the batch's commit index is applied here."""
        if batch.membership is not None and self._membership_index <= batch.commit:
            self.membership, self._membership_index = batch.membership, batch.commit

    async def _take_snapshot(self) -> None:
        if self._leader_at is None:
            raise Unavailable("no leader is known to take a snapshot from")
        await self._snapshots.fetch(self._leader_at, self._applier.applied_index)
        self.forget_group()

    def forget_group(self) -> None:
        """What was known of it is of an older index than what is applied."""
        self.membership, self._membership_index = None, 0

    async def _ask(self, question: Message, kind: type[M]) -> M:
        """The leader, whoever that is by now."""
        for _ in range(len(self._known()) + 1):
            address = self._leader_at or self._next_guess()
            try:
                answer = await self._dialer.control(address).call(
                    question, timeout_s=_FETCH_TIMEOUT_S
                )
            except NotLeader as error:
                self._leader_at = error.leader if error.leader != address else None
            except AstraError:
                self._leader_at = None
            else:
                if not isinstance(answer, kind):
                    raise WireError(f"{type(question).__name__} is answered by {kind.__name__}")
                self._leader_at = address
                return answer
        raise Unavailable("no voter leads, or none can be reached")

    def _known(self) -> list[str]:
        """Addresses of the other nodes, likely leaders first."""
        names = dict.fromkeys((*self._voters, *self._cluster.node_ids()))
        names.pop(self._cluster.node_id, None)
        return [ref.address for ref in self._cluster.refs(list(names))]

    def _next_guess(self) -> str:
        known = self._known()
        if not known:
            raise Unavailable("no other node is known")
        self._guess += 1
        return known[self._guess % len(known)]


def check_consecutive(entries: Sequence[Entry]) -> None:
    """Raises WireError when the indexes have a gap or the terms fall."""
    for before, after in itertools.pairwise(entries):
        if after.index != before.index + 1 or after.term < before.term:
            raise WireError("log entries are not consecutive")


def _see_error(task: asyncio.Task[None]) -> None:
    """Those who waited for it know; when nobody does any more, nobody needs to."""
    if not task.cancelled():
        task.exception()
