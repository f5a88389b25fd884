"""What a node does while it leads one term: replicate, commit, confirm reads, hand over.

Rules: pure. One object per leadership; it is dropped on stepping down, so nothing of an old term
can leak into a new one.

Invariants:
- commits by counting only entries of its own term (Raft 5.4.2, figure 8);
- counts itself only for entries that are durable here (`log.stable`);
- the lease is measured from the *sending* time of heartbeats that a majority has answered, and ends
  `lease_margin_ms` before those voters may vote again; once TimeoutNow was sent there is no lease
  for the rest of the term, because the receiver may be elected at any time (thesis 6.4.1).
"""

from __future__ import annotations

from collections import deque

from astra.errors import Overloaded, RefusalCode, Refused, Unavailable
from astra.wire import (
    Append,
    AppendReply,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    Membership,
    ReadIndexReply,
    TimeoutNow,
)
from node.raft.log import ENTRY_OVERHEAD_BYTES, encode_membership, entry_bytes
from node.raft.progress import PeerState, Progress
from node.raft.quorum import agreed_value, members_of, voters_of
from node.raft.readindex import Read, ReadQueue
from node.raft.state import NodeState
from node.raft.types import NeedEntries, PeerStatus, ReadState


class Leadership:
    __slots__ = (
        "_heartbeat_at_ms",
        "_lease_is_off",
        "_node",
        "_transfer_until_ms",
        "_uncommitted",
        "_uncommitted_bytes",
        "peers",
        "reads",
        "transfer_to",
    )

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self.peers: dict[str, Progress] = {}
        self.reads = ReadQueue()
        self.transfer_to: str | None = None
        self._transfer_until_ms = 0
        self._lease_is_off = False
        self._uncommitted: deque[tuple[int, int]] = deque()  # (index, bytes) of own entries
        self._uncommitted_bytes = 0
        self._heartbeat_at_ms = node.now_ms
        self._sync_peers()
        self._append(EntryKind.NOOP, b"")

    # --- proposals -------------------------------------------------------------------------

    def propose(self, data: bytes) -> tuple[int, int]:
        """(index, term) of the new entry. Raises Overloaded, Unavailable."""
        self._refuse_during_transfer()
        limit = self._node.config.uncommitted_bytes_max
        if self._uncommitted and self._uncommitted_bytes + len(data) + ENTRY_OVERHEAD_BYTES > limit:
            raise Overloaded(f"more than {limit} bytes are waiting to be committed")
        entry = self._append(EntryKind.COMMAND, data)
        return entry.index, entry.term

    def propose_membership(self, membership: Membership) -> tuple[int, int]:
        """Takes effect at once here. Raises Refused, Unavailable (another change is under way,
        or no entry of this term is committed yet: the bug of single-step changes of 2015)."""
        self._refuse_during_transfer()
        log = self._node.log
        if log.membership_index > log.commit or not self.has_committed_own_term:
            raise Unavailable("another membership change is under way")
        check_single_step(log.membership, membership)
        entry = self._append(EntryKind.CONFIG, encode_membership(membership))
        self._sync_peers()
        return entry.index, entry.term

    def _refuse_during_transfer(self) -> None:
        if self.transfer_to is not None:
            raise Unavailable(f"leadership is being handed to {self.transfer_to}")

    def _append(self, kind: EntryKind, data: bytes) -> Entry:
        node = self._node
        entry = Entry(node.log.last_index + 1, node.term, kind, data)
        node.log.append((entry,))
        self._uncommitted.append((entry.index, entry_bytes(entry)))
        self._uncommitted_bytes += entry_bytes(entry)
        return entry

    def _sync_peers(self) -> None:
        node = self._node
        wanted = members_of(node.log.membership) - {node.node_id}
        for peer in [each for each in self.peers if each not in wanted]:
            del self.peers[peer]
        for peer in sorted(wanted - self.peers.keys()):
            self.peers[peer] = Progress(
                next=node.log.last_index + 1,
                inflight_max=node.config.inflight_max,
                inflight_bytes_max=node.config.inflight_bytes_max,
                active_ms=node.now_ms,  # a new member gets one election timeout of credit
            )

    # --- commit ----------------------------------------------------------------------------

    @property
    def has_committed_own_term(self) -> bool:
        node = self._node
        return node.log.matches(node.log.commit, node.term)

    @property
    def is_removed(self) -> bool:
        """A committed membership no longer lets this node vote: it must step down."""
        log = self._node.log
        return log.membership_index <= log.commit and self._node.node_id not in voters_of(
            log.membership
        )

    def advance_commit(self) -> None:
        """After an acknowledgement, by a follower or by our own disk."""
        node = self._node
        index = agreed_value(node.log.membership, self._match_of)
        if index <= node.log.commit or not node.log.matches(index, node.term):
            return
        node.log.commit_to(index)
        while self._uncommitted and self._uncommitted[0][0] <= index:
            self._uncommitted_bytes -= self._uncommitted.popleft()[1]

    def _match_of(self, member: str) -> int:
        if member == self._node.node_id:
            return self._node.log.stable
        return self.peers[member].match

    # --- replication -----------------------------------------------------------------------

    def flush(self) -> None:
        """Sends what may be sent now: one call per Ready batches all proposals before it."""
        if self.reads.wants_round and self.has_committed_own_term:
            self.broadcast_heartbeat()
        for peer, progress in self.peers.items():
            self._send_appends(peer, progress)

    def _send_appends(self, peer: str, progress: Progress) -> None:
        log = self._node.log
        while not progress.is_paused:
            if progress.next <= log.mark.index:
                self._send_snapshot(peer, progress)
                return
            if progress.next > log.last_index:
                unknown = progress.state is PeerState.PROBE and progress.match + 1 < progress.next
                if unknown or progress.commit_sent < log.commit:
                    self._send_append(peer, progress, ())
                return
            limit = self._node.config.append_bytes_max
            entries = log.slice(progress.next, log.last_index, limit)
            if entries is None:
                self._need_entries(peer, progress)
                return
            self._send_append(peer, progress, entries)

    def _send_append(self, peer: str, progress: Progress, entries: tuple[Entry, ...]) -> None:
        node = self._node
        prev = progress.next - 1
        body = Append(
            term=node.term,
            prev_index=prev,
            prev_term=node.log.term_at(prev) or 0,
            commit=node.log.commit,
            entries=entries,
        )
        node.send(peer, body)
        progress.commit_sent = node.log.commit
        progress.sent(last_index=prev + len(entries), byte_count=sum(map(entry_bytes, entries)))

    def _need_entries(self, peer: str, progress: Progress) -> None:
        progress.fetching_from = progress.next
        node = self._node
        node.needs.append(
            NeedEntries(
                peer=peer,
                from_index=progress.next,
                to_index=node.log.memory_index - 1,
                bytes_max=node.config.append_bytes_max,
            )
        )

    def entries_loaded(self, peer: str, from_index: int, entries: tuple[Entry, ...]) -> None:
        """The answer to NeedEntries; empty when they are gone (then a snapshot follows)."""
        progress = self.peers.get(peer)
        if progress is None or progress.fetching_from != from_index:
            return
        progress.fetching_from = 0
        log = self._node.log
        is_wanted = progress.next == from_index > log.mark.index and not progress.is_paused
        if entries and is_wanted:
            genuine = all(log.matches(each.index, each.term) for each in entries)
            if genuine and entries[0].index == from_index:
                self._send_append(peer, progress, entries)

    def _send_snapshot(self, peer: str, progress: Progress) -> None:
        node = self._node
        if node.now_ms - progress.active_ms > node.config.election_timeout_max_ms:
            return  # it would not come to fetch it; wait until it answers again
        mark = node.log.mark_at(node.log.applied)
        progress.become_snapshot(index=mark.index, now_ms=node.now_ms)
        node.send(
            peer,
            InstallSnapshot(
                term=node.term,
                index=mark.index,
                snapshot_term=mark.term,
                membership=mark.membership,
            ),
        )

    def on_append_reply(self, peer: str, reply: AppendReply) -> None:
        progress = self.peers.get(peer)
        if progress is None or reply.index > self._node.log.last_index:
            return
        progress.active_ms = self._node.now_ms
        if not reply.accepted:
            hint = reply.hint_index
            if reply.hint_term > 0:
                hint, _ = self._node.log.agreement_hint(hint, reply.hint_term)
            progress.rejected(index=reply.index, next_index=hint + 1)
            return
        moved = progress.acknowledged(reply.index)
        if _has_caught_up(progress, reply.index, self._node.log.mark.index):
            progress.become_replicate()
        if moved:
            self.advance_commit()
        self._continue_transfer(peer, progress)

    # --- heartbeats: reads, lease, CheckQuorum ---------------------------------------------

    def broadcast_heartbeat(self) -> None:
        node = self._node
        self._heartbeat_at_ms = node.now_ms + node.config.heartbeat_ms
        commit = node.log.commit if self.has_committed_own_term else None
        number = self.reads.start_round(commit)
        for peer, progress in self.peers.items():
            body = Heartbeat(
                term=node.term,
                commit=min(progress.match, node.log.commit),
                round=number,
                sent_at_ms=node.now_ms,
            )
            node.send(peer, body)
        self._confirm_reads()  # a single voter needs nobody

    def on_heartbeat_reply(self, peer: str, reply: HeartbeatReply) -> None:
        node = self._node
        progress = self.peers.get(peer)
        if progress is None or reply.sent_at_ms > node.now_ms or reply.round > self.reads.number:
            return
        progress.active_ms = node.now_ms
        progress.heartbeat_sent_ms = max(progress.heartbeat_sent_ms, reply.sent_at_ms)
        progress.round = max(progress.round, reply.round)
        self._confirm_reads()
        self._nudge(peer, progress)

    def _nudge(self, peer: str, progress: Progress) -> None:
        """Once per heartbeat: recovers from Appends or answers that were lost."""
        node = self._node
        match progress.state:
            case PeerState.PROBE:
                progress.probe_sent = False
            case PeerState.SNAPSHOT:
                if node.now_ms - progress.snapshot_sent_ms >= node.config.snapshot_retry_ms:
                    self._send_snapshot(peer, progress)
            case PeerState.REPLICATE:
                stuck = progress.match == progress.match_at_beat
                progress.free_one()
                if stuck and progress.match < progress.next - 1 and not progress.fetching_from:
                    self._send_append(peer, progress, ())  # refused if what is before it was lost
        progress.match_at_beat = progress.match

    def _confirm_reads(self) -> None:
        node = self._node
        number = agreed_value(
            node.log.membership,
            lambda each: self.reads.number if each == node.node_id else self.peers[each].round,
        )
        for read, index in self.reads.confirm(number):
            self._answer_read(read, index)

    def _answer_read(self, read: Read, index: int) -> None:
        node = self._node
        if read.origin == node.node_id:
            node.read_states.append(ReadState(context=read.context, index=index))
        else:
            node.send(
                read.origin, ReadIndexReply(term=node.term, context=read.context, index=index)
            )

    def request_read(self, read: Read) -> None:
        """Raises Overloaded."""
        if len(self.reads) >= self._node.config.reads_waiting_max:
            raise Overloaded("too many reads wait for the leader to be confirmed")
        self.reads.add(read)

    def lease_valid(self, now_ms: int) -> bool:
        """No other leader can have been elected at `now_ms`, and our state is the newest."""
        node = self._node
        if self._lease_is_off or not node.config.lease_reads or not self.has_committed_own_term:
            return False
        if node.node_id not in voters_of(node.log.membership):
            return False
        confirmed_ms = agreed_value(
            node.log.membership,
            lambda each: now_ms if each == node.node_id else self.peers[each].heartbeat_sent_ms,
        )
        return confirmed_ms >= 0 and now_ms < confirmed_ms + node.config.lease_ms

    def has_quorum(self) -> bool:
        """A majority has answered within one election timeout."""
        node = self._node
        active_ms = agreed_value(
            node.log.membership,
            lambda each: node.now_ms if each == node.node_id else self.peers[each].active_ms,
        )
        return node.now_ms - active_ms <= node.config.election_timeout_max_ms

    def tick(self) -> None:
        if self.transfer_to is not None and self._node.now_ms >= self._transfer_until_ms:
            self.transfer_to = None  # it did not take over: we go on
        if self._node.now_ms >= self._heartbeat_at_ms:
            self.broadcast_heartbeat()

    # --- handing over ----------------------------------------------------------------------

    def transfer(self, to: str) -> None:
        """Stops taking proposals and makes `to` campaign once it has everything (thesis 3.10).
        Gives up after one election timeout. This node itself: takes the wish back. Raises
        Refused."""
        node = self._node
        if to == node.node_id:
            self.transfer_to = None
            return
        if to == self.transfer_to:
            return
        if to not in voters_of(node.log.membership):
            raise Refused(RefusalCode.INVALID_ARGUMENT, f"{to} is not a voter")
        self.transfer_to = to
        self._transfer_until_ms = node.now_ms + node.config.election_timeout_max_ms
        self._continue_transfer(to, self.peers[to])

    def _continue_transfer(self, peer: str, progress: Progress) -> None:
        if peer == self.transfer_to and progress.match == self._node.log.last_index:
            self._lease_is_off = True
            self._node.send(peer, TimeoutNow(term=self._node.term))

    def successor(self) -> str | None:
        """The recently heard voter with the longest log."""
        node = self._node
        voters = voters_of(node.log.membership)
        heard_ms = node.now_ms - node.config.election_timeout_min_ms
        alive = [
            peer
            for peer, each in sorted(self.peers.items())
            if peer in voters and each.active_ms > heard_ms
        ]
        return max(alive, key=lambda peer: self.peers[peer].match, default=None)

    def peer_status(self) -> dict[str, PeerStatus]:
        now_ms = self._node.now_ms
        return {
            peer: PeerStatus(
                match=each.match,
                next=each.next,
                state=each.state.value,
                active_ms_ago=now_ms - each.active_ms,
            )
            for peer, each in self.peers.items()
        }


def _has_caught_up(progress: Progress, acknowledged: int, mark_index: int) -> bool:
    """Whether pipelining may start: what the follower has is known, and the log goes on there."""
    match progress.state:
        case PeerState.PROBE:
            return acknowledged >= progress.next - 1
        case PeerState.SNAPSHOT:
            return progress.match >= mark_index
        case PeerState.REPLICATE:
            return False


def check_single_step(old: Membership, new: Membership) -> None:
    """One voter more or fewer, so that any majority of one meets any of the other (thesis 4.1).
    Joint changes get their own entry point later. Raises Refused."""

    def require(condition: bool, reason: str) -> None:
        if not condition:
            raise Refused(RefusalCode.INVALID_ARGUMENT, reason)

    require(not new.voters_outgoing and not old.voters_outgoing, "joint changes are not built yet")
    require(bool(new.voters), "a group needs a voter")
    ids = [*new.voters, *new.learners]
    require(len(ids) == len(set(ids)), "a node is named twice")
    changed = set(old.voters) ^ set(new.voters)
    require(len(changed) <= 1, "only one voter may change at a time")
