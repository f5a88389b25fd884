"""A few Raft cores whose every step the test decides: time, disk, network.

Used by the paper tests and by the scripts of tests/raft. Nothing happens by itself: messages wait
until delivered, writes are durable at once unless the node's disk is held, committed entries are
applied at once.
"""

from __future__ import annotations

from collections.abc import Sequence

from astra.wire import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Membership,
    RaftMessage,
    RaftMessageBody,
    ReadIndexReply,
    ReadIndexRequest,
    RequestVote,
    TimeoutNow,
    VoteReply,
)
from node.raft.config import RaftConfig
from node.raft.core import RaftCore
from node.raft.memory import MemoryLog
from node.raft.types import HardState, LogWrite, Ready, SnapshotOffer

TAIL_BYTES_MAX = 1 << 20
PLAIN = RaftConfig(pre_vote=False)


class LowestRng:
    """Draws the shortest election timeout, or what the test says."""

    def __init__(self) -> None:
        self.offset = 0
        self.draws: list[tuple[int, int]] = []

    def randrange(self, start: int, stop: int, /) -> int:
        self.draws.append((start, stop))
        return min(start + self.offset, stop - 1)


class BenchNode:
    def __init__(self, node_id: str, config: RaftConfig) -> None:
        self.node_id = node_id
        self.config = config
        self.disk = MemoryLog()
        self.rng = LowestRng()
        self.core: RaftCore | None = None
        self.is_held = False
        self.held: list[tuple[LogWrite | None, tuple[RaftMessage, ...]]] = []
        self.applied: list[Entry] = []
        self.reads: list[tuple[int, int | None]] = []
        self.offer: SnapshotOffer | None = None

    @property
    def raft(self) -> RaftCore:
        assert self.core is not None
        return self.core

    @property
    def log(self) -> list[Entry]:
        """Every entry of the log, oldest first, durable or not."""
        log = self.raft._log
        return list(log.slice(log.memory_index, log.last_index, 1 << 30) or ())

    @property
    def terms(self) -> list[int]:
        return [entry.term for entry in self.log]


class Bench:
    def __init__(
        self,
        voters: Sequence[str],
        *,
        learners: Sequence[str] = (),
        config: RaftConfig | None = None,
    ) -> None:
        self.config = config if config is not None else RaftConfig(pre_vote=False)
        self.now_ms = 0
        self.membership = Membership(voters=tuple(voters), learners=tuple(learners))
        self.messages: list[RaftMessage] = []
        self.copies: list[RaftMessage] = []
        self.cut: set[tuple[str, str]] = set()
        self.trace: list[str] = []
        self.nodes = {each: BenchNode(each, self.config) for each in [*voters, *learners]}

    def __getitem__(self, node_id: str) -> BenchNode:
        return self.nodes[node_id]

    # --- life ------------------------------------------------------------------------------

    def start(
        self,
        node_id: str,
        *,
        terms: Sequence[int] = (),
        term: int | None = None,
        voted_for: str | None = None,
    ) -> RaftCore:
        """With a log of one entry per term in `terms`, and a hard state."""
        node = self.nodes[node_id]
        node.disk.initialize(self.membership)
        entries = [
            Entry(index, each, EntryKind.COMMAND, b"%d/%d" % (index, each))
            for index, each in enumerate(terms, start=1)
        ]
        own = term if term is not None else max(terms, default=0)
        if entries or own:
            node.disk.append(HardState(term=own, voted_for=voted_for), None, entries)
        return self._boot(node)

    def start_all(self) -> None:
        for node_id in self.nodes:
            self.start(node_id)

    def restart(self, node_id: str) -> RaftCore:
        """Loses all that was not written; the state machine is kept."""
        node = self.nodes[node_id]
        node.held.clear()
        self.messages = [each for each in self.messages if each.sender != node_id]
        return self._boot(node)

    def _boot(self, node: BenchNode) -> RaftCore:
        applied = len(node.applied)
        node.core = RaftCore(
            node_id=node.node_id,
            config=node.config,
            state=node.disk.load(applied, TAIL_BYTES_MAX),
            applied=applied,
            rng=node.rng,
            now_ms=self.now_ms,
        )
        node.core.ready()
        return node.core

    # --- duties of the driver ----------------------------------------------------------------

    def ready(self, node_id: str) -> bool:
        """Carries out one Ready. Whether there was anything to do."""
        node = self.nodes[node_id]
        if node.core is None:
            return False
        ready = node.core.ready()
        if ready == Ready():
            return False
        self._show_ready(node, ready)
        self.messages += ready.messages
        if ready.write is not None or ready.messages_after_persist:
            node.held.append((ready.write, ready.messages_after_persist))
        if not node.is_held:
            self.persist(node_id)
        node.reads += [(read.context, read.index) for read in ready.read_states]
        node.offer = ready.snapshot or node.offer
        if ready.committed:
            node.applied += ready.committed
            node.core.applied(ready.committed[-1].index)
        for need in ready.needs:
            entries = node.disk.read_entries(need.from_index, need.to_index, need.bytes_max)
            node.core.entries_loaded(need.peer, need.from_index, entries)
        return True

    def persist(self, node_id: str, count: int = 1 << 30) -> None:
        """Makes the oldest waiting writes durable."""
        node = self.nodes[node_id]
        batch, node.held = node.held[:count], node.held[count:]
        for write, messages in batch:
            if write is not None:
                node.disk.append(write.hard_state, write.truncate_from, write.entries)
                node.raft.persisted(write.seq)
            self.messages += messages

    def deliver(self, *to: str) -> bool:
        """Delivers what waits now, to these nodes (all by default)."""
        batch = [each for each in self.messages if not to or each.to in to]
        self.messages = [each for each in self.messages if each not in batch]
        for message in batch:
            lost = (message.sender, message.to) in self.cut
            self.trace.append(("lost  " if lost else "recv  ") + show_message(message))
            core = self.nodes[message.to].core
            if not lost and core is not None:
                core.observe(self.now_ms)
                core.step(message)
        return bool(batch)

    def _waiting(self, sender: str, to: str) -> list[RaftMessage]:
        return [each for each in self.messages if (each.sender, each.to) == (sender, to)]

    def copy(self, sender: str, to: str) -> None:
        """Remembers what waits."""
        self.copies += self._waiting(sender, to)

    def drop(self, sender: str, to: str) -> None:
        lost = self._waiting(sender, to)
        self.messages = [each for each in self.messages if each not in lost]

    def late(self, sender: str, to: str) -> None:
        """What was copied arrives, once more."""
        for message in self.copies:
            if (message.sender, message.to) == (sender, to):
                self.send(sender, to, message.body)

    def stabilize(self) -> None:
        """Until nothing moves."""
        for _ in range(1000):
            moved = [self.ready(each) for each in self.nodes]
            if not (self.deliver() or any(moved)):
                return
        raise AssertionError("the cores never come to rest")

    def take_messages(self, node_id: str) -> list[RaftMessage]:
        """What this node sends now; removed from the network."""
        while self.ready(node_id):
            pass
        sent = [each for each in self.messages if each.sender == node_id]
        self.messages = [each for each in self.messages if each.sender != node_id]
        return sent

    def send(self, sender: str, to: str, body: RaftMessageBody) -> None:
        """Delivers a message of the test's own making."""
        message = RaftMessage(sender=sender, to=to, body=body)
        self.trace.append("recv  " + show_message(message))
        self.nodes[to].raft.observe(self.now_ms)
        self.nodes[to].raft.step(message)

    # --- time and faults -------------------------------------------------------------------

    def advance(self, duration_ms: int, *node_ids: str) -> None:
        """All clocks move; only these nodes (all by default) notice and tick."""
        self.now_ms += duration_ms
        for node_id in node_ids or tuple(self.nodes):
            node = self.nodes.get(node_id)
            core = node.core if node is not None else None
            if core is not None:
                core.tick(self.now_ms)

    def beat(self, node_id: str, rounds: int = 1) -> None:
        """Time passes quietly under this leader."""
        for _ in range(rounds):
            self.advance(self.config.heartbeat_ms)
            self.stabilize()
        assert self.nodes[node_id].raft.role == "leader"

    def isolate(self, *node_ids: str) -> None:
        """These can talk to each other, but not to the rest."""
        for inside in node_ids:
            for outside in self.nodes.keys() - set(node_ids):
                self.cut |= {(inside, outside), (outside, inside)}

    def elect(self, node_id: str) -> RaftCore:
        """Makes it campaign, and everything else follow."""
        node = self.nodes[node_id].raft
        self.advance(self.config.election_timeout_max_ms, node_id)
        for each in self.nodes.values():
            if each.core is not None:
                each.core.observe(self.now_ms)
        if node.role not in ("candidate", "pre-candidate", "leader"):
            node.campaign()
        self.stabilize()
        return node

    def install_snapshot(self, node_id: str) -> None:
        """Fetches the offered state from the leader that offered it."""
        node = self.nodes[node_id]
        assert node.offer is not None
        source = self.nodes[node.offer.leader]
        mark = source.raft.mark_at(source.raft.applied_index)
        node.applied = source.applied[: mark.index]
        node.disk.install(mark)
        node.offer = None
        node.raft.snapshot_installed(mark)

    def interrupt_snapshot(self, node_id: str) -> None:
        """The fetch breaks off after its note, before anything was replaced."""
        node = self.nodes[node_id]
        assert node.offer is not None
        source = self.nodes[node.offer.leader].raft
        node.disk.prepare_install(source.mark_at(source.applied_index))
        node.offer = None
        node.raft.snapshot_failed()

    def compact(self, node_id: str, index: int) -> None:
        node = self.nodes[node_id]
        mark = node.raft.mark_at(index)
        node.disk.compact(mark)
        node.raft.compacted(mark)

    # --- trace -----------------------------------------------------------------------------

    def _show_ready(self, node: BenchNode, ready: Ready) -> None:
        name = node.node_id
        if ready.soft_state is not None:
            state = ready.soft_state
            self.trace.append(f"{name}: {state.role} term={state.term} leader={state.leader}")
        if ready.write is not None:
            self.trace.append(f"{name}: write {show_write(ready.write)}")
        for message in ready.messages:
            self.trace.append("send  " + show_message(message))
        for message in ready.messages_after_persist:
            self.trace.append("after " + show_message(message))
        if ready.committed:
            self.trace.append(f"{name}: apply {show_entries(ready.committed)}")
        for read in ready.read_states:
            self.trace.append(f"{name}: read {read.context} at {read.index}")
        for need in ready.needs:
            self.trace.append(f"{name}: need {need.from_index}..{need.to_index} for {need.peer}")
        if ready.snapshot is not None:
            mark = ready.snapshot.mark
            self.trace.append(
                f"{name}: fetch snapshot {mark.index}/{mark.term} from {ready.snapshot.leader}"
            )


def led(count: int = 3, config: RaftConfig = PLAIN) -> Bench:
    """`a` leads term 1; its no-op is committed."""
    bench = Bench([chr(ord("a") + number) for number in range(count)], config=config)
    bench.start_all()
    bench.elect("a")
    return bench


def appends(bench: Bench, node_id: str = "a") -> dict[str, list[Append]]:
    """The Appends that it sends now, by receiver; removed from the network."""
    found: dict[str, list[Append]] = {}
    for message in bench.take_messages(node_id):
        if isinstance(message.body, Append):
            found.setdefault(message.to, []).append(message.body)
    return found


def show_entries(entries: Sequence[Entry]) -> str:
    shown = []
    for entry in entries:
        match entry.kind:
            case EntryKind.NOOP:
                what = "noop"
            case EntryKind.CONFIG:
                what = "config"
            case _:
                what = entry.data.decode()
        shown.append(f"{entry.index}/{entry.term}:{what}")
    return "[" + " ".join(shown) + "]"


def read_entries(text: str) -> tuple[Entry, ...]:
    """The other way round, of commands: 2/1:a,3/1:b"""
    found = []
    for each in text.split(","):
        place, data = each.split(":")
        index, term = place.split("/")
        found.append(Entry(int(index), int(term), EntryKind.COMMAND, data.encode()))
    return tuple(found)


def show_write(write: LogWrite) -> str:
    parts = []
    if write.hard_state is not None:
        parts.append(f"term={write.hard_state.term} vote={write.hard_state.voted_for}")
    if write.truncate_from is not None:
        parts.append(f"truncate>={write.truncate_from}")
    if write.entries:
        parts.append(show_entries(write.entries))
    return " ".join(parts)


def show_message(message: RaftMessage) -> str:
    return f"{message.sender}->{message.to} {show_body(message.body)}"


def show_body(body: RaftMessageBody) -> str:
    match body:
        case RequestVote():
            flags = (" pre" if body.pre else "") + (" transfer" if body.transfer else "")
            shown = f"RequestVote{flags} last={body.last_index}/{body.last_term}"
        case VoteReply():
            pre = " pre" if body.pre else ""
            shown = f"VoteReply{pre} {'granted' if body.granted else 'refused'}"
        case Append():
            shown = f"Append prev={body.prev_index}/{body.prev_term} commit={body.commit}"
            if body.entries:
                shown += " " + show_entries(body.entries)
        case AppendReply():
            if body.accepted:
                shown = f"AppendReply match={body.index}"
            else:
                hint = f"{body.hint_index}/{body.hint_term}"
                shown = f"AppendReply refused prev={body.index} hint={hint}"
        case Heartbeat():
            shown = f"Heartbeat commit={body.commit} round={body.round} at={body.sent_at_ms}"
        case HeartbeatReply():
            shown = f"HeartbeatReply round={body.round} at={body.sent_at_ms}"
        case InstallSnapshot():
            shown = f"InstallSnapshot {body.index}/{body.snapshot_term}"
        case TimeoutNow():
            shown = "TimeoutNow"
        case ReadIndexRequest():
            shown = f"ReadIndexRequest {body.context}"
        case ReadIndexReply():
            shown = f"ReadIndexReply {body.context} at {body.index}"
    return f"{shown} term={body.term}"
