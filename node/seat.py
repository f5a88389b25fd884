"""This node's place in the log: in the Raft group (a driver), or beside it (a follower of notices).

A node sits beside until the group wants it: the leader makes it a Raft learner, sends it an Append,
and the node moves in, once, with the state it has applied so far as the start of its log. From
then on its own log says that it belongs there, also after a restart.

A database without any log belongs to a cluster that starts, to a node that joins one, or to a node
that lost its disk. It bootstraps only if the settings name this node as a voter *and* every other
voter says that it has no log either: a voter that is silent may hold what this node has forgotten,
and new nodes with careless settings must not elect a leader among themselves, beside the cluster
that they were meant to join. So a new cluster starts when all its voters are up.

A node that was removed sees nothing of that, and may be a member again that the group does not
want, because enough others vote. When the leader says so (`leave`), it moves out: what its log
has promised is given up, as with a lost disk, and it follows beside.

A log may be older than what this node has promised: an old disk was put back. So the others are
asked first (recall.py), and a node whose disk is doubted sits beside, too.

Whoever sits beside moves in only when it has applied an entry that was proposed after it came back.
That entry is durable on a majority of which it was no part. So it has everything again that it may
have acknowledged before; and a candidate for whom it may have voted before lacks that entry, and
can no more be elected by that majority: what it has forgotten harms nobody. Until then it is a
voter that is down.

Implements services.ports.Consensus by whichever of both is in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Final

from astra.errors import AstraError, Fatal, Unavailable
from astra.log import get_logger
from astra.ports import MetadataStore
from astra.wire import (
    Append,
    Heartbeat,
    InstallSnapshot,
    LogEnd,
    Membership,
    Notice,
    RaftMessage,
)
from node.applier import Applier
from node.follower import LogFollower
from node.raft.driver import RaftDriver
from node.raft.storage import RaftStorage
from node.raft.types import RaftState, SnapshotMark
from node.recall import Recall, log_end_of
from node.sightings import OLD_DISK, OLD_DISK_TODO

_NOBODY: Final = Membership(voters=())
_ASK_AGAIN_S: Final = 0.1
# Without answers, beside a leader: then the voters that this log names are gone for good, and the
# group has others. Long, because a doubt takes a vote away from a group that may need it.
_NOBODY_KNOWS_S: Final = 60.0
_INVITATIONS: Final = (Append, Heartbeat, InstallSnapshot)

_log = get_logger("seat")


class Seat:
    def __init__(
        self,
        *,
        make_driver: Callable[[], RaftDriver],
        follower: LogFollower,
        storage: RaftStorage,
        store: MetadataStore,
        applier: Applier,
        bootstrap: Membership | None,
        cluster_exists: Callable[[], Awaitable[bool | None]],
        recall: Recall,
    ) -> None:
        """`make_driver`: for each time in the group. `bootstrap`: the membership of a cluster that
        starts, None when this node is not in it. `cluster_exists` asks the other nodes whether one
        has a log: None when that cannot be known yet, because a voter does not answer."""
        self._recall = recall
        self._stored: RaftState | None = None  # a log of which is not known yet whether it is old
        self._stored_term = 0
        self._make_driver = make_driver
        self.raft = make_driver()
        self._follower = follower
        self._storage = storage
        self._store = store
        self._applier = applier
        self._bootstrap = bootstrap
        self._cluster_exists = cluster_exists
        self._in_use: RaftDriver | LogFollower = follower
        self._invited = asyncio.Event()
        self._outside = asyncio.Event()

    @property
    def driver(self) -> RaftDriver | None:
        """None while this node sits beside the group."""
        return self.raft if self._in_use is self.raft else None

    @property
    def takes_part(self) -> bool:
        """In the group, or about to be as soon as it has asked the others. Who does not votes for
        nobody, and may have forgotten what it knew of others."""
        return self.driver is not None or self._stored is not None

    def log_end(self) -> LogEnd | None:
        """Of the log, or of what is followed; None while the group there is not known."""
        if self._stored is not None:
            return log_end_of(self._stored)
        if self._in_use is self.raft:
            return self.raft.log_end()
        group, applier = self._follower.membership, self._applier
        if group is None:
            return None
        return LogEnd(term=applier.applied_term, index=applier.applied_index, membership=group)

    # --- life ---

    async def start(self, applied: int) -> None:
        """Looks whether this node's log says that it belongs to the group. Raises DamagedLog."""
        await self._storage.initialize(_NOBODY)
        state = await self.raft.load(applied)
        if not log_end_of(state).membership.voters:
            return  # never was part of any group, or moved out
        self._stored, self._stored_term = state, state.hard_state.term

    async def run(self, interval_s: float) -> None:
        """For ever. Goes on where this node was; or starts a cluster together with the other
        voters; or follows the log until the leader wants this node in the group. The node must be
        answering by now: the others ask, too."""
        if self._stored is not None:
            await self._return(self._stored)
        elif self.driver is None:
            await self._start_cluster()
        while True:
            if self.driver is None:
                await self._follow(interval_s)
            self._outside.clear()
            await self._outside.wait()
            await self._move_out()

    async def _follow(self, interval_s: float) -> None:
        """Beside the group, until this node is in it."""
        _log.info("following the log until the leader takes this node into the group")
        following = asyncio.create_task(self._follower.run(interval_s))
        invited = asyncio.create_task(self._until_wanted())
        try:
            await asyncio.wait((following, invited), return_when=asyncio.FIRST_COMPLETED)
            if following.done():
                following.result()  # what is fatal
            await self._follower.finish()
            await self._store.flush()
            index, term = self._applier.applied_index, self._applier.applied_term
            membership = self._follower.membership or _NOBODY
            await self._enter(SnapshotMark(index=index, term=term, membership=membership))
        finally:
            invited.cancel()
            following.cancel()
        _log.info("taken into the Raft group", applied_index=index)

    async def _return(self, state: RaftState) -> None:
        """Waits until it is known whether the disk may be trusted; moves in when it may."""
        doubt = await self._doubt(state)
        self._stored = None
        if self._outside.is_set():
            await self._give_up_log()
        elif doubt:
            _log.error(OLD_DISK, why=doubt, todo=OLD_DISK_TODO)
        else:
            self._move_in(self._applier.applied_index, state)

    async def _doubt(self, state: RaftState) -> str:
        """Why the disk cannot be trusted; "": it can, or nobody counts on it any more."""
        loop = asyncio.get_running_loop()
        began_s, is_told = loop.time(), False
        while True:
            verdict = await self._recall.look(state)
            if self._outside.is_set():
                return ""
            if verdict.is_known:
                return verdict.doubt
            if not is_told:
                _log.info("waiting for other voters: have they seen more of this node's log?")
                is_told = True
            if self._invited.is_set() and loop.time() - began_s >= _NOBODY_KNOWS_S:
                return await self._recall.distrust(
                    "a leader is there, but too few voters say what they have seen of this node"
                )
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _start_cluster(self) -> None:
        """Waits until it is known whether there is a cluster already; starts one when not."""
        if self._bootstrap is None or self._applier.applied_index > 0:
            return
        is_told = False
        while not self._invited.is_set():
            exists = await self._cluster_exists()
            if exists is not None:
                if not exists:
                    mark = SnapshotMark(index=0, term=0, membership=self._bootstrap)
                    await self._enter(mark)
                return
            if not is_told:
                _log.info("waiting for every voter: a new cluster starts when all of them are up")
                is_told = True
            await asyncio.sleep(_ASK_AGAIN_S)

    async def _until_wanted(self) -> None:
        await self._invited.wait()
        await self._attempt(self._follower.commit_something)
        await self._attempt(self._follower.read_barrier)

    async def _attempt(self, work: Callable[[], Awaitable[object]]) -> None:
        """Until it succeeds. Raises what is fatal."""
        while True:
            try:
                await work()
            except Fatal:
                raise
            except AstraError as error:
                _log.info("not level yet", reason=f"{type(error).__name__}: {error}")
                await asyncio.sleep(_ASK_AGAIN_S)
            else:
                return

    async def _enter(self, mark: SnapshotMark) -> None:
        """The log starts after `mark`. The doubt ends after it is durable."""
        await self._storage.install(mark)
        await self._recall.renew()
        self._move_in(mark.index, await self.raft.load(mark.index))

    def _move_in(self, applied: int, state: RaftState) -> None:
        self.raft.begin(applied, state)
        self._in_use = self.raft

    async def _move_out(self) -> None:
        """What this node has acknowledged or voted for is given up: it moves in again as one that
        comes back without a disk does."""
        self._follower.forget_group()
        self._in_use = self._follower
        self._invited.clear()
        await self.raft.leave()
        await self._give_up_log()
        self.raft = self._make_driver()

    async def _give_up_log(self) -> None:
        """Durable: this log belongs to no group. Term and vote stay."""
        _log.warning("this node is a member, but not in the Raft group any more")
        await self._store.flush()
        index, term = self._applier.applied_index, self._applier.applied_term
        await self._storage.install(SnapshotMark(index=index, term=term, membership=_NOBODY))

    # --- what arrives ---

    def leave(self) -> None:
        """The leader says that this node is no part of the group. Never blocks."""
        self._outside.set()

    def on_raft(self, message: RaftMessage) -> None:
        """Never blocks. Beside the group the first one of a leader is an invitation; it sends
        again whatever it sent too early."""
        if self._in_use is self.raft:
            self.raft.receive(message)
        elif isinstance(message.body, _INVITATIONS):
            self._invited.set()

    def on_notice(self, notice: Notice) -> None:
        if self._in_use is self._follower:
            self._follower.on_notice(notice)

    # --- Consensus ---

    async def propose(self, data: bytes, timeout_s: float = 10.0) -> object:
        return await self._in_use.propose(data, timeout_s)

    async def read_barrier(self, timeout_s: float = 5.0) -> int:
        if self._stored is not None:
            raise Unavailable("this node is starting")  # nothing may be applied meanwhile
        return await self._in_use.read_barrier(timeout_s)

    def lease_valid_now(self) -> bool:
        return self._in_use.lease_valid_now()

    @property
    def is_leader(self) -> bool:
        return self._in_use.is_leader

    @property
    def leader(self) -> str | None:
        return self._in_use.leader

    @property
    def term(self) -> int:
        return max(self._in_use.term, self._stored_term)

    @property
    def applied_index(self) -> int:
        return self._in_use.applied_index

    @property
    def commit_index(self) -> int:
        return self._in_use.commit_index


async def any_has_log(asking: Mapping[str, Awaitable[bool]], voters: Set[str]) -> bool | None:
    """Whether one of the nodes (by id) says that it has a log. None: nobody does, but one of the
    `voters` gave no answer."""

    async def has_log(answer: Awaitable[bool]) -> bool | None:
        try:
            return await answer
        except AstraError:
            return None

    answers = await asyncio.gather(*map(has_log, asking.values()))
    if any(answers):
        return True
    silent = {node for node, found in zip(asking, answers, strict=True) if found is None}
    return None if silent & voters else False
