"""The members of the cluster, as the leader administers them: add, drain, remove, list.

Every change of a member's row goes through this service and its lock, as one linearizable read and
one proposal, so that no change undoes another. What is to be done without being asked (record
seeds and moves, make learners and voters) is decided by memberplan.py.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from astra.commands import AnyCommand, PutNode, Refusal, RemoveNode
from astra.config import parse_peers
from astra.constants import REPLICAS
from astra.errors import AstraError, ConfigError, Fatal, NotLeader, RefusalCode, Refused
from astra.log import get_logger
from astra.model import BLOBS, NODES, NodeInfo, NodeState
from astra.ports import MetadataView
from astra.wire import (
    Accepted,
    AddMember,
    Commit,
    CountHeld,
    DrainMember,
    Epochs,
    HeldCount,
    ListMembers,
    Member,
    MemberList,
    RemoveMember,
)
from node.lookup import rows_after
from node.membership import ClusterMap
from node.raft.driver import RaftDriver
from node.raft.progress import PeerState
from node.raft.quorum import members_of
from node.raft.types import RaftStatus
from node.seat import Seat
from node.services.commit import Committer
from node.services.memberplan import (
    Change,
    HandOver,
    Record,
    Situation,
    Step,
    answering,
    keeps_majority,
    next_step,
    part_of,
    record_seed,
    without,
)
from node.services.reads import Reads

NODES_MAX: Final = 1000
_SCAN_ROWS: Final = 1000
_PAGE_ROWS: Final = 20_000  # of BLOBS in one answer of `count`

_log = get_logger("members")


class MemberService:
    def __init__(
        self,
        *,
        seat: Seat,
        reads: Reads,
        committer: Committer,
        cluster: ClusterMap,
        voters_max: int,
    ) -> None:
        """`voters_max`: up to so many nodes are made voters; 0: none by itself."""
        self._seat = seat
        self._reads = reads
        self._committer = committer
        self._cluster = cluster
        self._voters_max = voters_max
        self._lock = asyncio.Lock()

    # --- what is asked for ---

    async def add(self, request: AddMember) -> Accepted:
        """Raises Refused INVALID_ARGUMENT for what is no address."""
        try:
            parse_peers(f"{request.node_id}={request.address}")
        except ConfigError as error:
            raise _refusal(str(error)) from error
        async with self._lock:
            nodes = await self._settled()
            known = nodes.get(request.node_id)
            if known is None and len(nodes) >= NODES_MAX:
                raise _refusal(f"a cluster has at most {NODES_MAX} nodes")
            node = known or NodeInfo(node_id=request.node_id, address=request.address)
            zone = request.zone or node.zone
            await self._put(known, replace(node, address=request.address, zone=zone))
        return Accepted()

    async def drain(self, request: DrainMember) -> Accepted:
        """Raises Refused for a stranger, and when too few nodes would take the data: a drain that
        cannot end looks like one that takes long."""
        wanted = NodeState.ACTIVE if request.undo else NodeState.DRAINING
        async with self._lock:
            nodes = await self._settled()
            node = _member(nodes, request.node_id)
            if wanted is NodeState.DRAINING:
                _require_takers(nodes, node)
            await self._put(node, replace(node, state=wanted))
        return Accepted()

    async def remove(self, request: RemoveMember) -> Accepted:
        """Raises Refused while blobs name the node (unless forced), and when the voters that
        would remain are no live majority. Raises NotLeader after handing over: ask there."""
        async with self._lock:
            nodes = await self._settled()
            driver = self._driver()
            if request.node_id not in nodes:
                await self._expel(driver, request.node_id)
                return Accepted()
            node = nodes[request.node_id]
            if not request.force:
                await self._require_empty(node)
            if not _active_beside(nodes, node):
                raise _refusal(f"{request.node_id} is the last active node")
            await self._put(node, replace(node, state=NodeState.DRAINING))
            await self._expel(driver, request.node_id)
            await self._commit(RemoveNode(node_id=request.node_id))
        _log.info("node removed", node_id=request.node_id, forced=request.force)
        return Accepted()

    async def list_members(self, request: ListMembers) -> MemberList:
        nodes = await self._nodes()
        driver = self._driver()
        memberships = (driver.status().membership, driver.committed()[1])
        reports = {report.node_id: report for report in self._cluster.live_reports()}
        return MemberList(
            leader=self._cluster.node_id,
            members=tuple(
                Member(
                    node=node,
                    part=part_of(node_id, memberships),
                    is_live=node_id in reports,
                    applied_index=reports[node_id].applied_index if node_id in reports else 0,
                )
                for node_id, node in sorted(nodes.items())
            ),
        )

    async def count(self, request: CountHeld) -> HeldCount:
        """One page: what `node_id` holds among the next blobs after `after`."""
        blobs = size = 0
        after = request.after
        for _ in range(_PAGE_ROWS // _SCAN_ROWS):
            held, after = await self._held_after(request.node_id, after)
            blobs, size = blobs + len(held), size + sum(held)
            if not after:
                break
        return HeldCount(blobs=blobs, bytes=size, resume=after)

    # --- steps ---

    async def _expel(self, driver: RaftDriver, node_id: str) -> None:
        """Out of the Raft group. A leader hands over first, and raises NotLeader."""
        membership = driver.status().membership
        if node_id not in members_of(membership):
            return
        remaining = without(membership, node_id)
        live = frozenset(report.node_id for report in self._cluster.live_reports())
        live = answering(self._cluster.node_id, live, driver.status().peers)
        if not keeps_majority(remaining, live):
            raise _refusal(f"without {node_id} no majority of the voters would answer")
        if node_id == self._cluster.node_id:
            await driver.transfer(self._heir(driver, remaining.voters, live))
            raise NotLeader(driver.leader)
        await driver.propose_membership(remaining)
        self._cluster.in_log = members_of(remaining)

    def _heir(self, driver: RaftDriver, voters: Sequence[str], live: frozenset[str]) -> str:
        peers = driver.status().peers
        heirs = [v for v in voters if v in live and v in peers]
        if not heirs:
            raise _refusal("no other voter is live to lead")
        preferred = [v for v in heirs if not self._cluster.is_draining(v)]
        return max(preferred or heirs, key=lambda voter: peers[voter].match)

    async def _require_empty(self, node: NodeInfo) -> None:
        if node.state is not NodeState.DRAINING:
            raise _refusal(f"{node.node_id} is active: drain it first")
        after = ""
        while True:
            held, after = await self._held_after(node.node_id, after)
            if held:
                raise _refusal(f"{node.node_id} still holds blobs: wait until it is drained")
            if not after:
                return

    async def _held_after(self, node_id: str, after: str) -> tuple[list[int], str]:
        """Sizes of its blobs in one scan, and where the next one starts ("": at no place)."""

        async def scan(view: MetadataView) -> tuple[list[int], str]:
            rows = await rows_after(view, BLOBS, after, _SCAN_ROWS)
            held = [blob.size for _, blob in rows if node_id in blob.holders]
            return held, rows[-1][0] if len(rows) == _SCAN_ROWS else ""

        return await self._reads.read(scan, scans=True)

    async def _settled(self) -> dict[str, NodeInfo]:
        """The rows, after all seeds of a cluster that starts are recorded: one that was removed
        before would be recorded afterwards."""
        while True:
            nodes = await self._nodes()
            step = record_seed(self._situation(nodes, self._driver().status()))
            if step is None:
                return nodes
            await self._commit(PutNode(node=step.node))

    async def _nodes(self) -> dict[str, NodeInfo]:
        rows = await self._reads.read(lambda view: view.scan(NODES, (), None, NODES_MAX))
        return {node.node_id: node for _, node in rows}

    async def _put(self, before: NodeInfo | None, after: NodeInfo) -> None:
        if before != after:
            await self._commit(PutNode(node=after))

    async def _commit(self, command: AnyCommand) -> None:
        request = Commit(request_id=uuid.uuid4().hex, epochs=Epochs(), command=command)
        result = (await self._committer.commit(request)).result
        if isinstance(result, Refusal):
            raise Refused(result.code, result.detail)
        self._cluster.set_members((await self._nodes()).values())  # holds here when it is answered

    def _driver(self) -> RaftDriver:
        self._reads.require_leader()
        driver = self._seat.driver
        if driver is None:
            raise NotLeader(self._seat.leader)
        return driver

    # --- what happens by itself ---

    async def run(self, interval_s: float) -> None:
        """For ever, on every node; only a leader acts. Several steps at once, when there are."""
        while True:
            await asyncio.sleep(interval_s)
            driver = self._seat.driver
            if driver is None:
                continue
            self._cluster.in_log = members_of(driver.status().membership)
            try:
                while self._seat.is_leader and await self.step_once():
                    pass
            except Fatal:
                raise
            except AstraError as error:
                _log.info("members: not now", reason=f"{type(error).__name__}: {error}")

    async def step_once(self) -> bool:
        """Whether there was anything to do."""
        async with self._lock:
            nodes = await self._nodes()
            driver = self._driver()
            step = next_step(self._situation(nodes, driver.status()))
            if step is None:
                return False
            await self._take(step, driver)
        return True

    def _situation(self, nodes: dict[str, NodeInfo], raft: RaftStatus) -> Situation:
        return Situation(
            node_id=self._cluster.node_id,
            nodes=nodes,
            seeds=self._cluster.seeds,
            membership=raft.membership,
            reports={report.node_id: report for report in self._cluster.live_reports()},
            match={
                peer: status.match
                for peer, status in raft.peers.items()
                if status.state == PeerState.REPLICATE.value
            },
            last_index=raft.last_index,
            voters_max=self._voters_max,
        )

    async def _take(self, step: Step, driver: RaftDriver) -> None:
        _log.info("members", step=str(step))
        match step:
            case Record():
                await self._commit(PutNode(node=step.node))
            case Change():
                await driver.propose_membership(step.membership)
                self._cluster.in_log = members_of(step.membership)
            case HandOver():
                await driver.transfer(step.to)


def _member(nodes: dict[str, NodeInfo], node_id: str) -> NodeInfo:
    node = nodes.get(node_id)
    if node is None:
        raise _refusal(f"{node_id} is no member of the cluster")
    return node


def _active_beside(nodes: Mapping[str, NodeInfo], node: NodeInfo) -> int:
    """How many other nodes get new blobs."""
    return sum(each.state is NodeState.ACTIVE for each in nodes.values() if each is not node)


def _require_takers(nodes: Mapping[str, NodeInfo], node: NodeInfo) -> None:
    others = _active_beside(nodes, node)
    if others < REPLICAS:
        raise _refusal(
            f"{node.node_id} cannot be emptied: each blob has {REPLICAS} copies, on nodes that do"
            f" not drain, and there are {others} others. Add a node first; or, to have fewer"
            " copies, wait until `astra status` tells no problem and give this one up with"
            " `astra node remove --force`"
        )


def _refusal(detail: str) -> Refused:
    return Refused(RefusalCode.INVALID_ARGUMENT, detail)
