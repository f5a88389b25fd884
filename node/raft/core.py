"""The Raft core: consensus as a pure function of events. No IO, no clock, no threads.

Follows the Raft paper (figure 2), the thesis (PreVote 9.6, ReadIndex and leases 6.4, transfer
3.10, single-step membership 4.1) and the ideas of etcd-io/raft.

Events are the public methods. After one or many of them the driver calls `ready()` and owes this:
 1. Before each batch of events call `observe(now)` with the monotonic clock, and only hand over
    messages received before that moment or in this batch without waiting: leases depend on it.
    Call `tick(now)` about every config.tick_ms, after the messages that were waiting.
 2. Send `messages` at once: they promise nothing about this disk (an Append may leave before our
    own write of the same entries: Ongaro's thesis 10.2.1).
 3. Make `write` durable: all of it in one transaction, writes in the order of `seq` (several may be
    merged into one transaction), then call `persisted(seq)`.
 4. Send `messages_after_persist` only when this write *and all earlier ones* are durable; at once
    if none is under way. They are votes and acknowledgements.
 5. Apply `committed` in order, then call `applied(last index)`. May run beside everything else.
 6. Answer each of `needs` by `entries_loaded` (empty if they are compacted).
 7. On `snapshot`: wait until no write and no apply is under way, install, then call
    `snapshot_installed(mark)` or `snapshot_failed()`.
 8. A failed write is the end of the process: never call the core again.

Invariants (checked here; the simulator checks them across nodes):
- at most one leader per term: term and vote are durable before a vote or candidacy leaves;
- a leader never deletes or overwrites its own entries; no node truncates below its commit index;
- only durable, committed entries are applied;
- while it has heard a leader within election_timeout_min no node raises anybody's term, unless that
  leader asked for it (transfer). A restarted node has forgotten whether it promised a lease, so it
  acts as if it had, unless its disk has no term; so the first promise waits for the term's write.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from astra.errors import NotLeader, Overloaded, invariant
from astra.wire import (
    Append,
    AppendReply,
    Entry,
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
from node.raft.leader import Leadership
from node.raft.outlet import Outlet
from node.raft.quorum import VoteResult, vote_result, voters_of
from node.raft.readindex import Read
from node.raft.state import NodeState
from node.raft.types import (
    RaftState,
    ReadState,
    Ready,
    Rng,
    Role,
    SnapshotMark,
    SnapshotOffer,
)
from node.raft.view import CoreView

_NEVER_MS: Final = -(1 << 62)
_FROM_LEADER: Final = (Append, Heartbeat, InstallSnapshot)


class RaftCore(CoreView):
    """One node of one Raft group. See the module header for what its caller owes."""

    def __init__(
        self,
        *,
        node_id: str,
        config: RaftConfig,
        state: RaftState,
        applied: int,
        rng: Rng,
        now_ms: int,
        group: int = 0,
    ) -> None:
        node = NodeState(
            node_id=node_id,
            group=group,
            config=config,
            state=state,
            applied=applied,
            now_ms=now_ms,
        )
        super().__init__(node)
        self._config = config
        self._rng = rng
        self._votes: dict[str, bool] = {}
        self._is_new = state.hard_state.term == 0  # by its disk: it has promised nothing
        self._heard_leader_ms = _NEVER_MS if self._is_new else now_ms
        self._election_at_ms = 0
        self._transferred = False  # this candidacy was asked for by the leader
        self._forwarded_reads: set[int] = set()
        self._installing: SnapshotOffer | None = None
        self._outlet = Outlet(self._node)
        self._draw_election_timeout()

    # --- events: time ----------------------------------------------------------------------

    def observe(self, now_ms: int) -> None:
        """Tells the time without acting on it. Time never goes back."""
        if now_ms > self._node.now_ms:
            self._node.now_ms = now_ms

    def tick(self, now_ms: int) -> None:
        """Tells the time and lets timeouts happen."""
        self.observe(now_ms)
        now_ms = self._node.now_ms
        leadership = self._leadership
        if leadership is not None:
            if self._config.check_quorum and not leadership.has_quorum():
                self._become_follower(self._node.term, None)
            else:
                leadership.tick()
        elif now_ms >= self._election_at_ms:
            self._draw_election_timeout()
            if self._may_campaign():
                self._campaign(pre=self._config.pre_vote)

    # --- events: requests of this node -----------------------------------------------------

    def propose(self, data: bytes) -> tuple[int, int]:
        """(index, term). The proposal is committed when exactly this pair is applied. Raises
        NotLeader, Overloaded, Unavailable: then nothing happened."""
        return self._require_leadership().propose(data)

    def propose_membership(self, membership: Membership) -> tuple[int, int]:
        """As `propose`; also raises Refused for more than a single step."""
        return self._require_leadership().propose_membership(membership)

    def transfer(self, to: str) -> None:
        """Starts to hand leadership to a voter; to itself: stays. Raises NotLeader, Refused."""
        self._require_leadership().transfer(to)

    def read_index(self, context: int) -> None:
        """A ReadState with this context will follow, unless messages are lost: then ask again.
        `context` was never used by this node before, not even in an earlier life: answers may
        be late, and an old one names an old index. Raises NotLeader, Overloaded."""
        node = self._node
        if self._leadership is not None:
            self._leadership.request_read(Read(node.node_id, context))
            return
        if self.leader_id is None:
            raise NotLeader(None)
        if len(self._forwarded_reads) >= self._config.reads_waiting_max:
            raise Overloaded("too many reads wait for the leader")
        self._forwarded_reads.add(context)
        node.send(self.leader_id, ReadIndexRequest(term=node.term, context=context))

    def forget_read(self, context: int) -> None:
        """Nobody waits for it any more: its question, or the answer, may be lost."""
        self._forwarded_reads.discard(context)

    def campaign(self) -> None:
        """Starts an election now, whatever was promised to a leader that is heard: for tests. No
        effect on a leader."""
        if self._leadership is None and self._may_campaign():
            self._campaign(pre=self._config.pre_vote)

    def _require_leadership(self) -> Leadership:
        if self._leadership is None:
            raise NotLeader(self.leader_id)
        return self._leadership

    # --- events: the disk and the state machine --------------------------------------------

    def persisted(self, seq: int) -> None:
        """All writes up to `seq` are durable."""
        vote_is_durable = self._outlet.persisted(seq)
        self._is_new = self._is_new and not vote_is_durable
        if vote_is_durable and self.role is Role.CANDIDATE:
            self._votes[self._node.node_id] = True  # our own vote counts once it cannot be lost
            self._poll_votes()
        if self._leadership is not None:
            self._leadership.advance_commit()

    def applied(self, index: int) -> None:
        """Everything up to `index` is in the state machine."""
        self._log.applied_to(index)

    def compacted(self, mark: SnapshotMark) -> None:
        """Storage dropped the entries up to the mark."""
        self._log.compact(mark)

    def entries_loaded(self, peer: str, from_index: int, entries: tuple[Entry, ...]) -> None:
        """The answer to one NeedEntries."""
        if peer != self._node.node_id:
            if self._leadership is not None:
                self._leadership.entries_loaded(peer, from_index, entries)
        elif self._installing is not None:
            self._outlet.forget_loaded()  # the log is being replaced; if that fails we ask again
        else:
            self._outlet.entries_loaded(from_index, entries)

    def snapshot_installed(self, mark: SnapshotMark) -> None:
        """State and log were replaced; the log now starts after `mark`."""
        invariant(self._installing is not None, "no snapshot was asked for")
        self._installing = None
        self._outlet.forget_loaded()
        self._log.reset(mark)
        if mark.term > self._node.term:
            self._become_follower(mark.term, None)
        if self.leader_id is not None and self._leadership is None:
            self._acknowledge(self.leader_id, mark.index)

    def snapshot_failed(self) -> None:
        """Nothing was replaced; the leader will offer again."""
        self._installing = None

    # --- events: messages ------------------------------------------------------------------

    def step(self, message: RaftMessage) -> None:
        """A message from a peer: may be old, doubled or out of order."""
        node = self._node
        if message.to != node.node_id or message.sender == node.node_id:
            return
        if message.group != node.group:
            return
        term = message.body.term
        if term > node.term:
            if not self._meet_higher_term(message):
                return
        elif term < node.term:
            self._answer_old_term(message)
            return
        self._handle(message.sender, message.body)

    def _handle(self, sender: str, body: RaftMessageBody) -> None:
        """The sender's term is ours, or a wish (PreVote)."""
        match body:
            case Append():
                self._on_append(sender, body)
            case AppendReply():
                self._on_append_reply(sender, body)
            case Heartbeat():
                self._on_heartbeat(sender, body)
            case HeartbeatReply():
                if self._leadership is not None:
                    self._leadership.on_heartbeat_reply(sender, body)
            case RequestVote():
                self._on_request_vote(sender, body)
            case VoteReply():
                self._on_vote_reply(sender, body)
            case ReadIndexRequest():
                self._on_read_request(sender, body)
            case ReadIndexReply():
                self._on_read_reply(body)
            case InstallSnapshot():
                self._on_install_snapshot(sender, body)
            case TimeoutNow():
                if sender == self.leader_id and self._leadership is None and self._may_campaign():
                    self._campaign(pre=False, transferred=True)

    def _meet_higher_term(self, message: RaftMessage) -> bool:
        """Whether the message is still to be handled."""
        body = message.body
        if isinstance(body, RequestVote):
            if not body.transfer and self._hears_leader():
                return False  # not even its term: it may have been cut off (thesis 4.2.3)
            if body.pre:
                return True
        if isinstance(body, VoteReply) and body.pre and body.granted:
            return True  # carries the term that we wished for, which nobody has yet
        leader = message.sender if isinstance(body, _FROM_LEADER) else None
        self._become_follower(body.term, leader)
        return True

    def _answer_old_term(self, message: RaftMessage) -> None:
        """Old leaders and candidates learn the new term from the refusal, so that a node whose
        term ran ahead of a working leader does not stay out for ever."""
        node = self._node
        body = message.body
        if isinstance(body, _FROM_LEADER):
            node.send(message.sender, AppendReply(term=node.term, accepted=False, index=0))
        elif isinstance(body, RequestVote):
            node.send(message.sender, VoteReply(term=node.term, granted=False, pre=body.pre))

    def _hears_leader(self) -> bool:
        if not self._config.check_quorum:
            return False
        silence_ms = self._node.now_ms - self._heard_leader_ms
        return self._leadership is not None or silence_ms < self._config.election_timeout_min_ms

    # --- elections -------------------------------------------------------------------------

    @property
    def is_installing(self) -> bool:
        """A snapshot that a leader offered is on its way into the tables."""
        return self._installing is not None

    def _may_campaign(self) -> bool:
        return not self.is_installing and self._node.node_id in voters_of(self._log.membership)

    def _draw_election_timeout(self) -> None:
        config = self._config
        self._election_at_ms = self._node.now_ms + self._rng.randrange(
            config.election_timeout_min_ms, config.election_timeout_max_ms
        )

    def _campaign(self, *, pre: bool, transferred: bool = False) -> None:
        node = self._node
        self._drop_forwarded_reads()
        self.leader_id = None
        self._transferred = transferred
        self._votes = {}
        if pre:
            self.role = Role.PRE_CANDIDATE
            self._votes[node.node_id] = True
        else:
            self.role = Role.CANDIDATE
            node.term += 1
            node.voted_for = node.node_id
        self._draw_election_timeout()
        body = RequestVote(
            term=node.term + 1 if pre else node.term,
            last_index=self._log.last_index,
            last_term=self._log.last_term,
            pre=pre,
            transfer=transferred,
        )
        for voter in sorted(voters_of(self._log.membership) - {node.node_id}):
            if pre:
                node.send(voter, body)
            else:
                node.send_after_persist(voter, body)
        self._poll_votes()

    def _poll_votes(self) -> None:
        match vote_result(self._log.membership, self._votes):
            case VoteResult.WON:
                if self.role is Role.PRE_CANDIDATE:
                    self._campaign(pre=False)
                else:
                    self._become_leader()
            case VoteResult.LOST:
                self._become_follower(self._node.term, None)
            case VoteResult.PENDING:
                pass

    def _on_request_vote(self, sender: str, body: RequestVote) -> None:
        node = self._node
        free = node.voted_for is None and self.leader_id is None
        may_vote = free or node.voted_for == sender or (body.pre and body.term > node.term)
        granted = may_vote and self._log.is_up_to_date(body.last_index, body.last_term)
        if not granted:
            node.send(sender, VoteReply(term=node.term, granted=False, pre=body.pre))
        elif body.pre:
            node.send(sender, VoteReply(term=body.term, granted=True, pre=True))
        else:
            node.voted_for = sender
            self._draw_election_timeout()
            node.send_after_persist(sender, VoteReply(term=node.term, granted=True))

    def _on_vote_reply(self, sender: str, body: VoteReply) -> None:
        node = self._node
        if body.pre:
            wished = node.term + 1 if body.granted else node.term
            counts = self.role is Role.PRE_CANDIDATE and body.term == wished
        else:
            counts = self.role is Role.CANDIDATE and body.term == node.term
        if counts:
            self._votes.setdefault(sender, body.granted)
            self._poll_votes()

    def _become_follower(self, term: int, leader: str | None) -> None:
        node = self._node
        invariant(term >= node.term, f"term {term} is older than {node.term}")
        if term > node.term:
            node.term = term
            node.voted_for = None
        if self._leadership is not None:
            for read in self._leadership.reads.drain():
                if read.origin == node.node_id:
                    node.read_states.append(ReadState(context=read.context, index=None))
            self._leadership = None
        self.role = Role.FOLLOWER
        if leader != self.leader_id:
            self._drop_forwarded_reads()
            self.leader_id = leader
        self._draw_election_timeout()

    def _become_leader(self) -> None:
        invariant(self.role is Role.CANDIDATE, "only a candidate may become leader")
        self.role = Role.LEADER
        self.leader_id = self._node.node_id
        self._leadership = Leadership(self._node)

    def _step_down_if_removed(self) -> None:
        leadership = self._leadership
        if leadership is not None and leadership.is_removed:
            leadership.flush()  # tells the others that it is committed
            self._become_follower(self._node.term, None)

    # --- following -------------------------------------------------------------------------

    def _follow(self, leader: str) -> None:
        """A message of the leader of our term arrived."""
        invariant(self._leadership is None, f"two leaders in term {self._node.term}")
        if self.role is not Role.FOLLOWER or self.leader_id != leader:
            self._become_follower(self._node.term, leader)
        self._heard_leader_ms = self._node.now_ms
        self._draw_election_timeout()

    def _acknowledge(self, leader: str, index: int) -> None:
        node = self._node
        node.send_after_persist(leader, AppendReply(term=node.term, accepted=True, index=index))

    def _on_append(self, sender: str, body: Append) -> None:
        self._follow(sender)
        if self._installing is not None:
            return  # the log is about to be replaced
        log = self._log
        if body.prev_index < log.mark.index:
            self._acknowledge(sender, log.commit)
            return
        last = log.append_after(body.prev_index, body.prev_term, body.entries)
        if last is not None:
            log.commit_to(min(body.commit, last))
            self._acknowledge(sender, last)
            return
        hint_index, hint_term = log.agreement_hint(body.prev_index, body.prev_term)
        self._node.send(
            sender,
            AppendReply(
                term=self._node.term,
                accepted=False,
                index=body.prev_index,
                hint_index=hint_index,
                hint_term=hint_term,
            ),
        )

    def _on_append_reply(self, sender: str, body: AppendReply) -> None:
        if self._leadership is not None:
            self._leadership.on_append_reply(sender, body)
            self._step_down_if_removed()

    def _on_heartbeat(self, sender: str, body: Heartbeat) -> None:
        self._follow(sender)
        if self._installing is None:
            self._log.commit_to(min(body.commit, self._log.last_index))
        node = self._node
        reply = HeartbeatReply(term=node.term, round=body.round, sent_at_ms=body.sent_at_ms)
        if self._is_new:  # after a restart it would not know that it has promised something
            node.send_after_persist(sender, reply)
        else:
            node.send(sender, reply)  # promises time, not disk: needs no write before it

    def _on_install_snapshot(self, sender: str, body: InstallSnapshot) -> None:
        self._follow(sender)
        log = self._log
        if self._installing is not None:
            return
        if log.matches(body.index, body.snapshot_term):
            log.commit_to(body.index)  # we have these entries: no need to fetch
        if body.index <= log.commit:
            self._acknowledge(sender, log.commit)
            return
        mark = SnapshotMark(index=body.index, term=body.snapshot_term, membership=body.membership)
        self._installing = SnapshotOffer(leader=sender, mark=mark)

    # --- reads through the leader ----------------------------------------------------------

    def _on_read_request(self, sender: str, body: ReadIndexRequest) -> None:
        if self._leadership is not None:
            with suppress(Overloaded):  # unanswered: the follower asks again
                self._leadership.request_read(Read(sender, body.context))

    def _on_read_reply(self, body: ReadIndexReply) -> None:
        if body.context in self._forwarded_reads:
            self._forwarded_reads.discard(body.context)
            self._node.read_states.append(ReadState(context=body.context, index=body.index))

    def _drop_forwarded_reads(self) -> None:
        for context in sorted(self._forwarded_reads):
            self._node.read_states.append(ReadState(context=context, index=None))
        self._forwarded_reads.clear()

    # --- what is to be done ----------------------------------------------------------------

    def ready(self) -> Ready:
        """All that must be done since the last call; each thing is handed out once."""
        if self._leadership is not None:
            self._leadership.flush()
        return self._outlet.take(self.role, self.leader_id, self._installing)
