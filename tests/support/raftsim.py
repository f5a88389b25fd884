"""A deterministic cluster of Raft cores: one thread, virtual time, one seed.

Faults: messages lost, doubled, delayed, reordered; links cut one-way or both ways; nodes crashed
(writes under way are lost, unflushed applied state may be) and paused; clocks that start anywhere
and drift. After every event invariant I6 of the fault matrix is checked: one leader per term, log
matching, leader completeness, one state per applied index, commits durable on a majority; and that
no lease is valid beside a newer leader, and no confirmed read is older than what was committed
when it was asked.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from astra.errors import AstraError, Fatal
from astra.wire import Entry, EntryKind, Membership, RaftMessage
from node.raft.config import RaftConfig
from node.raft.core import RaftCore
from node.raft.memory import MemoryLog
from node.raft.quorum import is_quorum
from node.raft.types import LogWrite, Ready, Role, SnapshotOffer
from node.raft.writes import merge_writes

TAIL_BYTES_MAX = 600


class SafetyViolation(AssertionError):
    """A promise of Raft was broken."""


def sim_config() -> RaftConfig:
    """Small limits, so that every border is met within a few hundred entries."""
    return RaftConfig(
        election_timeout_min_ms=160,
        election_timeout_max_ms=320,
        heartbeat_ms=40,
        tick_ms=20,
        lease_margin_ms=20,
        append_bytes_max=400,
        inflight_max=4,
        apply_bytes_max=500,
        memory_bytes_max=1500,
        snapshot_retry_ms=200,
    )


@dataclass
class SimNode:
    """One machine: its disk survives `crash`, everything else does not."""

    node_id: str
    clock_offset_ms: int
    clock_rate: float
    disk: MemoryLog = field(default_factory=MemoryLog)
    state: list[Entry] = field(default_factory=list)  # the applied entries, from index 1
    flushed: int = 0  # so many of them survive a crash
    core: RaftCore | None = None
    life: int = 0  # events of an earlier life are void
    paused_until: int = 0
    writes: list[tuple[LogWrite | None, tuple[RaftMessage, ...]]] = field(default_factory=list)
    writing: bool = False
    applying: bool = False
    checked: dict[int, int] = field(default_factory=dict)  # index -> term already checked

    def clock_ms(self, now: int) -> int:
        return self.clock_offset_ms + int(now * self.clock_rate)


class SimCluster:
    def __init__(self, seed: int, node_count: int, *, spare_count: int = 0) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self.loss = 0.0
        self.duplicates = 0.0
        self.delay_max = 8
        self.cut: set[tuple[str, str]] = set()
        self.config = sim_config()
        ids = [f"n{number}" for number in range(1, node_count + 1)]
        self.bootstrap = Membership(voters=tuple(ids))
        spares = [f"s{number}" for number in range(1, spare_count + 1)]
        self.nodes = {each: self._new_node(each) for each in [*ids, *spares]}
        self.leaders: dict[int, str] = {}
        self.known: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.committed: dict[int, Entry] = {}
        self.acknowledged: list[bytes] = []
        self._read_floor: dict[int, int] = {}
        self.reads_confirmed = 0
        self.snapshots_installed = 0
        self._context = 0
        for node in self.nodes.values():
            self.start(node)

    def _new_node(self, node_id: str) -> SimNode:
        offset, rate = self.rng.randrange(0, 10**6), self.rng.uniform(0.99, 1.01)
        return SimNode(node_id=node_id, clock_offset_ms=offset, clock_rate=rate)

    # --- time ------------------------------------------------------------------------------

    def at(self, delay: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + delay, self._order, action))

    def run(self, duration: int, until: Callable[[], bool] | None = None) -> bool:
        """Whether `until` came true (True without it)."""
        end = self.now + duration
        while self._queue and self._queue[0][0] <= end:
            self.now, _, action = heapq.heappop(self._queue)
            action()
            if until is not None and until():
                return True
        self.now = end
        return until is None

    def _on_node(self, node: SimNode, delay: int, action: Callable[[RaftCore], None]) -> None:
        """Runs in this life of the node, after a pause if it is paused."""
        life = node.life

        def run() -> None:
            if node.core is None or node.life != life:
                return
            if node.paused_until > self.now:
                self.at(node.paused_until - self.now, run)
                return
            node.core.observe(node.clock_ms(self.now))
            action(node.core)
            self._carry_out(node)

        self.at(delay, run)

    # --- nodes -----------------------------------------------------------------------------

    def start(self, node: SimNode) -> None:
        spare = node.node_id.startswith("s")
        node.disk.initialize(Membership(voters=()) if spare else self.bootstrap)
        state = node.disk.load(len(node.state), TAIL_BYTES_MAX)
        node.life += 1
        node.checked = {}
        node.core = RaftCore(
            node_id=node.node_id,
            config=self.config,
            state=state,
            applied=len(node.state),
            rng=self.rng,
            now_ms=node.clock_ms(self.now),
        )
        self._tick(node)

    def _tick(self, node: SimNode) -> None:
        def tick(core: RaftCore) -> None:
            core.tick(node.clock_ms(self.now))
            self._tick(node)

        self._on_node(node, self.config.tick_ms, tick)

    def crash(self, node: SimNode) -> None:
        node.core = None
        node.life += 1
        node.writes.clear()
        node.writing = node.applying = False
        survivors = self.rng.randrange(node.flushed, len(node.state) + 1)
        del node.state[survivors:]
        node.flushed = survivors

    def restart(self, node: SimNode) -> None:
        if node.core is None:
            self.start(node)

    def pause(self, node: SimNode, duration: int) -> None:
        node.paused_until = self.now + duration

    def live(self) -> list[SimNode]:
        return [node for node in self.nodes.values() if node.core is not None]

    def leader(self) -> SimNode | None:
        """The leader of the highest term."""
        leading = [node for node in self.live() if node.core and node.core.role is Role.LEADER]
        return max(leading, key=lambda node: node.core.term if node.core else 0, default=None)

    # --- duties of the driver ----------------------------------------------------------------

    def _carry_out(self, node: SimNode) -> None:
        if node.core is None:
            return
        ready = node.core.ready()
        self._check(node, node.core)
        for message in ready.messages:
            self._send(message)
        if ready.write is not None or ready.messages_after_persist:
            node.writes.append((ready.write, ready.messages_after_persist))
            self._write(node)
        if ready.committed:
            self._apply(node, ready)
        for need in ready.needs:
            entries = node.disk.read_entries(need.from_index, need.to_index, need.bytes_max)
            peer, start = need.peer, need.from_index
            self._on_node(
                node,
                self.rng.randrange(0, 6),
                lambda core, p=peer, s=start, e=entries: core.entries_loaded(p, s, e),  # type: ignore[misc]  # default arguments bind the loop's values
            )
        for read in ready.read_states:
            floor = self._read_floor.pop(read.context, None)
            if read.index is not None and floor is not None:
                self.reads_confirmed += 1
                self._require(read.index >= floor, f"stale read {read.index} < {floor}")
        if ready.snapshot is not None:
            self._install(node, ready.snapshot)

    def _write(self, node: SimNode) -> None:
        """Group commit: everything that waits goes into one atomic write."""
        if node.writing or not node.writes:
            return
        batch, node.writes = node.writes, []
        writes = [write for write, _ in batch if write is not None]
        node.writing = True

        def done(core: RaftCore) -> None:
            node.writing = False
            if writes:
                merged = merge_writes(writes)
                node.disk.append(merged.hard_state, merged.truncate_from, merged.entries)
                core.persisted(merged.seq)
            for _, messages in batch:
                for message in messages:
                    self._send(message)
            self._write(node)

        self._on_node(node, self.rng.randrange(0, 10) if writes else 0, done)

    def _apply(self, node: SimNode, ready: Ready) -> None:
        node.applying = True

        def done(core: RaftCore) -> None:
            node.applying = False
            for entry in ready.committed:
                self._require(entry.index == len(node.state) + 1, "applied out of order")
                node.state.append(entry)
                self._check_committed(entry)
                if core.role is Role.LEADER and entry.kind == EntryKind.COMMAND:
                    self.acknowledged.append(entry.data)
            core.applied(ready.committed[-1].index)

        self._on_node(node, self.rng.randrange(0, 5), done)

    def _install(self, node: SimNode, offer: SnapshotOffer) -> None:
        def attempt(core: RaftCore) -> None:
            if node.writing or node.applying:
                self._on_node(node, 3, attempt)
                return
            source = self.nodes[offer.leader]
            unreachable = {(node.node_id, offer.leader), (offer.leader, node.node_id)} & self.cut
            if source.core is None or unreachable or self.rng.random() < 0.2:
                core.snapshot_failed()
                return
            mark = source.core.mark_at(source.core.applied_index)
            node.disk.prepare_install(mark)
            if self.rng.random() < 0.1:
                self.crash(node)
                return
            if self.rng.random() < 0.1:  # the connection broke: the note stays
                core.snapshot_failed()
                return
            node.state = source.state[: mark.index]
            node.flushed = mark.index
            if self.rng.random() < 0.1:
                self.crash(node)
                return
            node.disk.install(mark)
            core.snapshot_installed(mark)
            self.snapshots_installed += 1

        self._on_node(node, self.rng.randrange(1, 60), attempt)

    def _send(self, message: RaftMessage) -> None:
        copies = 2 if self.rng.random() < self.duplicates else 1
        for _ in range(copies):
            if self.rng.random() >= self.loss:
                self.at(self.rng.randrange(1, self.delay_max + 1), self._delivery(message))

    def _delivery(self, message: RaftMessage) -> Callable[[], None]:
        def deliver() -> None:
            if (message.sender, message.to) in self.cut:
                return
            self._on_node(self.nodes[message.to], 0, lambda core: core.step(message))

        return deliver

    # --- load ------------------------------------------------------------------------------

    def propose(self, data: bytes) -> None:
        """To any node that believes it leads: an old leader must not be able to commit."""
        for node in self.live():
            if node.core is not None and node.core.role is Role.LEADER:
                self._attempt(node, lambda core: core.propose(data))

    def read(self, node: SimNode) -> None:
        self._context += 1
        context = self._context
        self._read_floor[context] = max(self.committed, default=0)
        self._attempt(node, lambda core: core.read_index(context))

    def change_membership(self, membership: Membership) -> None:
        leader = self.leader()
        if leader is not None:
            self._attempt(leader, lambda core: core.propose_membership(membership))

    def transfer(self, to: str) -> None:
        leader = self.leader()
        if leader is not None:
            self._attempt(leader, lambda core: core.transfer(to))

    def compact(self, node: SimNode) -> None:
        if node.core is None or node.applying:
            return
        node.flushed = len(node.state)
        index = node.core.applied_index - self.rng.randrange(0, 5)
        if index >= node.core.first_index:
            mark = node.core.mark_at(index)
            node.disk.compact(mark)
            node.core.compacted(mark)

    def _attempt(self, node: SimNode, action: Callable[[RaftCore], object]) -> None:
        if node.core is None or node.paused_until > self.now:
            return
        node.core.observe(node.clock_ms(self.now))
        try:
            action(node.core)
        except Fatal:
            raise
        except AstraError:
            return
        self._carry_out(node)

    # --- checks ----------------------------------------------------------------------------

    def _require(self, condition: bool, message: str) -> None:
        if not condition:
            raise SafetyViolation(f"seed {self.seed}, t={self.now}: {message}")

    def _check(self, node: SimNode, core: RaftCore) -> None:
        self._check_log(node, core)
        for index in range(max(self.committed, default=0) + 1, core.commit_index + 1):
            self._check_newly_committed(core, index)
        if core.role is Role.LEADER:
            self._check_leader(node, core)

    def _check_log(self, node: SimNode, core: RaftCore) -> None:
        """Log matching by induction: an (index, term) has one content and one predecessor."""
        log = core._log
        for index in range(core.last_index, log.mark.index, -1):
            term = log.term_at(index) or 0
            if node.checked.get(index) == term:
                break
            node.checked[index] = term
            entries = log.slice(index, index, 1)
            if entries is None:
                break
            fact = (log.term_at(index - 1) or 0, entries[0].data)
            known = self.known.setdefault((index, term), fact)
            self._require(known == fact, f"log matching broken at {index} on {node.node_id}")

    def _check_newly_committed(self, core: RaftCore, index: int) -> None:
        entries = core._log.slice(index, index, 1)
        if entries is None:
            return
        entry = entries[0]
        holders = {
            each.node_id
            for each in self.nodes.values()
            if entry.index <= (each.core.first_index - 1 if each.core else 0)
            or each.disk.read_entries(index, index, 1) == (entry,)
        }
        membership = core._log.membership
        self._require(is_quorum(membership, holders), f"commit {index} is only on {holders}")
        self._check_unbeatable(index, holders, membership)
        self._check_committed(entry)

    def _check_unbeatable(self, index: int, holders: set[str], membership: Membership) -> None:
        """No voter that lacks a committed entry could win an election, by the logs on the disks.
        Stronger than a majority of copies: it is what figure 8 of the Raft paper is about."""
        ends = {voter: self.nodes[voter].disk.end() for voter in membership.voters}
        for voter in set(membership.voters) - holders:
            votes = {each for each in ends if ends[voter] >= ends[each]}
            self._require(
                not is_quorum(membership, votes),
                f"{index} counts as committed, but {voter} lacks it and {votes} would vote for it",
            )

    def _check_committed(self, entry: Entry) -> None:
        known = self.committed.setdefault(entry.index, entry)
        self._require(known == entry, f"two entries committed at {entry.index}")

    def _check_leader(self, node: SimNode, core: RaftCore) -> None:
        known = self.leaders.get(core.term)
        if known is None:
            self.leaders[core.term] = node.node_id
            for index, entry in self.committed.items():
                covered = index < core.first_index or core._log.matches(index, entry.term)
                self._require(covered, f"leader {node.node_id} lacks committed entry {index}")
            self.check_leases()
        else:
            self._require(known == node.node_id, f"two leaders in term {core.term}")

    def check_leases(self) -> None:
        newest = self.leader()
        for node in self.live():
            core = node.core
            if core is None or newest is None or newest.core is None or core is newest.core:
                continue
            leased = core.lease_valid(node.clock_ms(self.now))
            self._require(
                not leased or core.term >= newest.core.term,
                f"{node.node_id} holds a lease beside leader {newest.node_id}",
            )

    def check_end(self) -> None:
        """After healing: every acknowledged command is in every state, all states are equal."""
        states = [node.state for node in self.live() if self._is_member(node)]
        longest = max(states, key=len)
        for state in states:
            self._require(state == longest[: len(state)], "states differ")
        data = {entry.data for entry in longest}
        missing = [each for each in self.acknowledged if each not in data]
        self._require(not missing, f"acknowledged but lost: {missing}")

    def _is_member(self, node: SimNode) -> bool:
        leader = self.leader()
        membership = leader.core.membership if leader and leader.core else self.bootstrap
        return node.node_id in membership.voters
