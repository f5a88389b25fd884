"""This node's place in the log: in the Raft group (a driver), or beside it (a follower of notices).

A node sits beside until the group wants it: the leader makes it a Raft learner, sends it an Append,
and the node moves in, once, with the state it has applied so far as the start of its log. From
then on its own log says that it belongs there, also after a restart.

A database without any log belongs to a cluster that starts, to a node that joins one, or to a node
that lost its disk. It bootstraps only if the settings name this node as a voter *and* every other
voter says that it has no log either: a voter that is silent may hold what this node has forgotten,
and new nodes with careless settings must not elect a leader among themselves, beside the cluster
that they were meant to join. So a new cluster starts when all its voters are up. And it moves in
only after it has once been level with the leader: a voter that comes back with an empty disk has
then everything again that it may have acknowledged before, so its vote cannot lose it (until then
it is a voter that is down).

Implements services.ports.Consensus by whichever of both is in use.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Set
from typing import Final

from astra.errors import AstraError
from astra.log import get_logger
from astra.ports import MetadataStore
from astra.wire import Append, Heartbeat, InstallSnapshot, Membership, Notice, RaftMessage
from node.applier import Applier
from node.follower import LogFollower
from node.raft.driver import RaftDriver
from node.raft.storage import RaftStorage
from node.raft.types import RaftState, SnapshotMark

_NOBODY: Final = Membership(voters=())
_ASK_AGAIN_S: Final = 0.1
_INVITATIONS: Final = (Append, Heartbeat, InstallSnapshot)

_log = get_logger("seat")


class Seat:
    def __init__(
        self,
        *,
        driver: RaftDriver,
        follower: LogFollower,
        storage: RaftStorage,
        store: MetadataStore,
        applier: Applier,
        bootstrap: Membership | None,
        cluster_exists: Callable[[], Awaitable[bool | None]],
    ) -> None:
        """`bootstrap`: the membership of a cluster that starts, None when this node is not in
        it. `cluster_exists` asks the other nodes whether one has a log: None when that cannot
        be known yet, because a voter does not answer."""
        self.raft = driver
        self._follower = follower
        self._storage = storage
        self._store = store
        self._applier = applier
        self._bootstrap = bootstrap
        self._cluster_exists = cluster_exists
        self._in_use: RaftDriver | LogFollower = follower
        self._invited = asyncio.Event()
        self.moved_in = asyncio.Event()

    @property
    def driver(self) -> RaftDriver | None:
        """None while this node sits beside the group."""
        return self.raft if self._in_use is self.raft else None

    # --- life ---

    async def start(self, applied: int) -> None:
        """Moves in when this node's own log says that it belongs there. Raises DamagedLog."""
        await self._storage.initialize(_NOBODY)
        state = await self.raft.load(applied)
        if not _is_blank(state):
            self._move_in(applied, state)

    async def run(self, interval_s: float) -> None:
        """Starts a cluster together with the other voters, or follows the log until the leader
        wants this node in the group. The node must be answering by now: the others ask, too."""
        if self.driver is not None or await self._started_cluster():
            return
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

    async def _started_cluster(self) -> bool:
        """Waits until it is known whether there is a cluster already; starts one when not."""
        if self._bootstrap is None or self._applier.applied_index > 0:
            return False
        is_told = False
        while not self._invited.is_set():
            exists = await self._cluster_exists()
            if exists is not None:
                if not exists:
                    mark = SnapshotMark(index=0, term=0, membership=self._bootstrap)
                    await self._enter(mark)
                return not exists
            if not is_told:
                _log.info("waiting for every voter: a new cluster starts when all of them are up")
                is_told = True
            await asyncio.sleep(_ASK_AGAIN_S)
        return False

    async def _until_wanted(self) -> None:
        await self._invited.wait()
        self._follower.hurry()
        await self._follower.is_level.wait()

    async def _enter(self, mark: SnapshotMark) -> None:
        """The log starts after `mark`."""
        await self._storage.install(mark)
        self._move_in(mark.index, await self.raft.load(mark.index))

    def _move_in(self, applied: int, state: RaftState) -> None:
        self.raft.begin(applied, state)
        self._in_use = self.raft
        self.moved_in.set()

    # --- what arrives ---

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
        return self._in_use.term

    @property
    def applied_index(self) -> int:
        return self._in_use.applied_index

    @property
    def commit_index(self) -> int:
        return self._in_use.commit_index


def _is_blank(state: RaftState) -> bool:
    """Never was part of any group."""
    return (
        state.mark.index == state.last_index == state.hard_state.term == 0
        and not state.mark.membership.voters
    )


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
