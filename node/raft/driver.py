"""The asyncio shell around the Raft core: one node of one group. Thread: the event loop only.

How it works: every event (message, proposal, read, tick, end of a write or an apply) schedules one
`_turn`, which hands all waiting events to the core and carries out one Ready. So whatever arrives
in one loop iteration shares one round of Appends and one transaction. Four kinds of work wait
outside of the turn: the writer (one transaction at a time), the applier (one batch at a time),
reads of old entries, and the installation of a snapshot. Appends leave before our own write.

Rules: the duties of core.py's header. Any error of the storage or of apply ends the node through
`on_fatal`; nothing is retried. Queues are bounded; waits have deadlines.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Final

from astra.errors import (
    AstraError,
    DeadlineExceeded,
    Fatal,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
    invariant,
)
from astra.ports import Clock
from astra.wire import Entry, Membership, RaftMessage
from node.raft.config import RaftConfig
from node.raft.core import RaftCore
from node.raft.driverview import DriverView
from node.raft.ports import Apply, Send, Snapshots
from node.raft.storage import RaftStorage
from node.raft.types import (
    LogWrite,
    NeedEntries,
    RaftState,
    Ready,
    Rng,
    Role,
    SnapshotMark,
    SnapshotOffer,
    SoftState,
)
from node.raft.waiters import AppliedWaiters, ProposalWaiters, ReadWaiters, Result, Watchers, refuse
from node.raft.writes import merge_writes

__all__ = ["Apply", "RaftDriver", "Send", "Snapshots"]

INBOX_MAX = 16_384
PROPOSALS_MAX = 16_384
MESSAGES_PER_TURN_MAX = 1024
_CONTEXTS: Final = 1 << 62


class RaftDriver(DriverView):
    """`apply` gets every committed entry once per process life in order (NOOP and CONFIG too) and
    returns one result per entry; it must store the applied index in the same transaction.
    `on_fatal` is called once when disk or invariant failed: the process must stop.
    `on_role` is called after each change of role, leader or term.
    """

    def __init__(
        self,
        *,
        node_id: str,
        config: RaftConfig,
        storage: RaftStorage,
        send: Send,
        apply: Apply,
        snapshots: Snapshots,
        clock: Clock,
        rng: Rng,
        on_fatal: Callable[[BaseException], None],
        on_role: Callable[[SoftState], None] | None = None,
        group: int = 0,
    ) -> None:
        super().__init__()
        self._node_id = node_id
        self._group = group
        self._config = config
        self._storage = storage
        self._send = send
        self._apply = apply
        self._snapshots = snapshots
        self._clock = clock
        self._rng = rng
        self._on_fatal = on_fatal
        self._on_role = on_role
        self._main: asyncio.Task[None] | None = None
        self._tasks: asyncio.TaskGroup | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_scheduled = False
        self._tick_is_due = False
        self._inbox: deque[RaftMessage] = deque()
        self._proposals: deque[tuple[bytes | Membership, Result]] = deque()
        self._waiting = ProposalWaiters()
        self._reads = ReadWaiters(rng.randrange(0, _CONTEXTS))
        self._applied = AppliedWaiters()
        self._writes: list[LogWrite] = []
        self._after_persist: list[RaftMessage] = []
        self._is_writing = False
        self._write_wanted = asyncio.Event()
        self._storage_lock = asyncio.Lock()  # append and install: one at a time
        self._to_apply: tuple[Entry, ...] = ()
        self._apply_wanted = asyncio.Event()
        self._watchers = Watchers()

    # --- life ------------------------------------------------------------------------------

    async def start(self, applied_index: int, bootstrap: Membership) -> None:
        """Loads the log and starts. `bootstrap` is used only by a database without a log; a node
        that is to be added later passes Membership(voters=()). Raises DamagedLog."""
        await self._storage.initialize(bootstrap)
        self.begin(applied_index, await self.load(applied_index))

    async def load(self, applied_index: int) -> RaftState:
        """The log as it is stored, for `begin`. Raises DamagedLog."""
        return await self._storage.load(applied_index, self._config.memory_bytes_max // 2)

    def begin(self, applied_index: int, state: RaftState) -> None:
        """Starts with a log that was loaded before."""
        invariant(self._core is None, "a driver starts once")
        self.durable_term = state.hard_state.term
        self._core = RaftCore(
            node_id=self._node_id,
            group=self._group,
            config=self._config,
            state=state,
            applied=applied_index,
            rng=self._rng,
            now_ms=self._clock.monotonic_ms(),
        )
        self._accepts = True
        self._main = asyncio.get_running_loop().create_task(self._run(), name="raft")
        self._on_timer()

    async def _run(self) -> None:
        """Owns every task of this driver."""
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                tasks.create_task(self._write_loop(), name="raft-writer")
                tasks.create_task(self._apply_loop(), name="raft-applier")
                self._wake()
        except* Exception as errors:
            self._die(errors.exceptions[0])

    async def stop(self, timeout_s: float = 5.0) -> None:
        """Refuses new work, hands over leadership if this node leads, then ends all tasks."""
        self._accepts = False
        if self._core is not None and not self._is_dead:
            try:
                async with asyncio.timeout(timeout_s):
                    await self._watchers.until(self._is_drained)
                    await self._hand_over(self._core)
            except (TimeoutError, AstraError):
                pass  # the others will notice by their election timeout
        self._end(Unavailable("the node is stopping"))
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait([self._main])

    async def leave(self) -> None:
        """Ends in a process that goes on, with nothing half done. Gets no messages any more."""
        self._accepts = False
        await self._watchers.until(lambda: not self._has_work() or self._is_dead)
        await self.stop(0.0)

    def _has_work(self) -> bool:
        is_installing = self._core is not None and self._core.is_installing
        return (
            bool(self._inbox or self._is_writing or self._writes or self._to_apply) or is_installing
        )

    def _is_drained(self) -> bool:
        return not self._proposals and not len(self._waiting)

    async def _hand_over(self, core: RaftCore) -> None:
        successor = core.successor()
        if successor is not None:
            core.transfer(successor)
            self._wake()
            await self._watchers.until(lambda: core.transfer_to is None)

    def _die(self, error: BaseException) -> None:
        """Disk or invariant failed: nothing more is written, sent or answered."""
        if self._is_dead:
            return
        self._end(OutcomeUnknown(f"the node failed: {error}"))
        if self._main is not None:
            self._main.cancel()
        self._on_fatal(error)

    def _end(self, error: AstraError) -> None:
        self._is_dead = True
        self._accepts = False
        if self._timer is not None:
            self._timer.cancel()
        unknown = OutcomeUnknown(str(error))
        for _, future in self._proposals:
            refuse(future, error)
        self._proposals.clear()
        self._waiting.give_up(-1, unknown)
        self._reads.give_up(error)
        self._applied.give_up(error)
        self._watchers.notify()

    # --- the turn --------------------------------------------------------------------------

    def _wake(self) -> None:
        if not self._is_scheduled and not self._is_dead:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _on_timer(self) -> None:
        self._tick_is_due = True
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._config.tick_ms / 1000, self._on_timer)
        self._wake()

    def _turn(self) -> None:
        self._is_scheduled = False
        if self._is_dead or self._core is None:
            return
        try:
            self._take_events(self._core)
            self._carry_out(self._core, self._core.ready())
        except Exception as error:
            self._die(error)
        self._watchers.notify()

    def _take_events(self, core: RaftCore) -> None:
        """Messages before the tick: after a pause, what was waiting counts as heard."""
        core.observe(self._clock.monotonic_ms())
        for _ in range(min(len(self._inbox), MESSAGES_PER_TURN_MAX)):
            core.step(self._inbox.popleft())
        if self._inbox:
            self._wake()
        elif self._tick_is_due:
            self._tick_is_due = False
            now_ms = self._clock.monotonic_ms()
            core.tick(now_ms)
            if core.role is not Role.LEADER:
                for context in self._reads.ask_again(now_ms - 4 * self._config.heartbeat_ms):
                    core.forget_read(context)
        while self._proposals:
            self._propose_next(core)
        self._ask_reads(core)

    def _propose_next(self, core: RaftCore) -> None:
        request, future = self._proposals.popleft()
        if future.done():
            return
        try:
            if isinstance(request, Membership):
                index, term = core.propose_membership(request)
            else:
                index, term = core.propose(request)
        except AstraError as error:
            refuse(future, error)
            if isinstance(error, Fatal):
                raise
        else:
            self._waiting.add(index, term, future)

    def _ask_reads(self, core: RaftCore) -> None:
        context = self._reads.take_batch(self._clock.monotonic_ms())
        if context is None:
            return
        try:
            core.read_index(context)
        except (NotLeader, Overloaded) as error:
            self._reads.refused(context, error)

    def _carry_out(self, core: RaftCore, ready: Ready) -> None:
        for message in ready.messages:
            self._send(message)
        if ready.write is not None:
            self._writes.append(ready.write)
        self._after_persist.extend(ready.messages_after_persist)
        if self._writes:
            self._write_wanted.set()
        elif not self._is_writing:
            after, self._after_persist = self._after_persist, []
            for message in after:
                self._send(message)
        if ready.committed:
            self._to_apply = ready.committed
            self._apply_wanted.set()
        for read in ready.read_states:
            self._reads.confirmed(read.context, read.index)
        if self._reads.next_batch is not None:
            self._wake()  # refused reads ask again
        for need in ready.needs:
            self._spawn(self._load_entries(core, need))
        if ready.snapshot is not None:
            self._spawn(self._install(core, ready.snapshot))
        if ready.soft_state is not None:
            self._role_changed(core, ready.soft_state)

    def _role_changed(self, core: RaftCore, state: SoftState) -> None:
        if state.role is not Role.LEADER:
            lost = OutcomeUnknown("leadership was lost before the commit")
            self._waiting.give_up(core.commit_index, lost)
        if self._on_role is not None:
            self._on_role(state)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        if self._tasks is not None:  # always, while turns happen
            self._tasks.create_task(work)

    # --- work beside the turn --------------------------------------------------------------

    async def _write_loop(self) -> None:
        while True:
            await self._write_wanted.wait()
            self._write_wanted.clear()
            while self._writes and not self._is_dead:
                await self._write_once()

    async def _write_once(self) -> None:
        writes, self._writes = self._writes, []
        after, self._after_persist = self._after_persist, []
        write = merge_writes(writes)
        self._is_writing = True
        began_ms = self._clock.monotonic_ms()
        async with self._storage_lock:
            await self._storage.append(write.hard_state, write.truncate_from, write.entries)
        self.write_ms.add(self._clock.monotonic_ms() - began_ms)
        if write.hard_state is not None:
            self.durable_term = write.hard_state.term
        self._is_writing = False
        if self._core is None or self._is_dead:
            return
        self._core.persisted(write.seq)
        if not self._writes:
            after += self._after_persist
            self._after_persist = []
        for message in after:
            self._send(message)
        self._turn()

    async def _apply_loop(self) -> None:
        while True:
            await self._apply_wanted.wait()
            self._apply_wanted.clear()
            entries = self._to_apply
            results = await self._apply(entries)
            invariant(len(results) == len(entries), "apply must answer every entry")
            if self._core is None or self._is_dead:
                return
            self._to_apply = ()
            self._core.applied(entries[-1].index)
            self._waiting.applied(entries, results)
            self._applied.applied_to(entries[-1].index)
            self._turn()

    async def _load_entries(self, core: RaftCore, need: NeedEntries) -> None:
        entries = await self._storage.read_entries(need.from_index, need.to_index, need.bytes_max)
        core.entries_loaded(need.peer, need.from_index, entries)
        self._wake()

    async def _install(self, core: RaftCore, offer: SnapshotOffer) -> None:
        await self._watchers.until(
            lambda: not (self._is_writing or self._writes or self._to_apply) or self._is_dead
        )
        try:
            mark = await self._snapshots.install(offer, self._prepare_install)
        except Fatal:
            raise
        except (AstraError, OSError, TimeoutError):
            core.snapshot_failed()
        else:
            async with self._storage_lock:
                await self._storage.install(mark)
            core.snapshot_installed(mark)
            overtaken = OutcomeUnknown("a snapshot came before the result")
            self._waiting.give_up(-1, overtaken)
            self._applied.applied_to(mark.index)
        self._wake()

    async def _prepare_install(self, mark: SnapshotMark) -> None:
        async with self._storage_lock:
            await self._storage.prepare_install(mark)

    # --- what others call ------------------------------------------------------------------

    def receive(self, message: RaftMessage) -> None:
        """A message from a peer; never blocks. Drops when the inbox is full."""
        if not self._is_dead and len(self._inbox) < INBOX_MAX:
            self._inbox.append(message)
            self._wake()

    async def propose(self, data: bytes, timeout_s: float = 10.0) -> object:
        """Durable on a majority and applied here; returns apply's result. Raises NotLeader,
        Overloaded, Unavailable (nothing happened), OutcomeUnknown (leadership or patience
        lost)."""
        return await self._submit(data, timeout_s)

    async def propose_membership(self, membership: Membership, timeout_s: float = 10.0) -> None:
        """One voter more or fewer (learners freely). Committed on return. Raises as propose, and
        Refused for a change that is not a single step."""
        await self._submit(membership, timeout_s)

    async def _submit(self, request: bytes | Membership, timeout_s: float) -> object:
        if self._running().role is not Role.LEADER:
            raise NotLeader(self.leader)
        if len(self._proposals) >= PROPOSALS_MAX:
            raise Overloaded("too many proposals wait")
        future: Result = asyncio.get_running_loop().create_future()
        self._proposals.append((request, future))
        self._wake()
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise OutcomeUnknown(f"no commit within {timeout_s} s") from None

    async def read_barrier(self, timeout_s: float = 5.0) -> int:
        """An applied index: local state at or after it is linearizable for reads that began
        before the call. Lease when valid, else one round shared by all waiting. On a follower
        the leader is asked. Raises NotLeader (no leader known), DeadlineExceeded."""
        core = self._running()
        leased = core.lease_valid(self._clock.monotonic_ms())
        if leased and core.applied_index >= core.commit_index:
            return core.applied_index
        try:
            async with asyncio.timeout(timeout_s):
                index = core.commit_index if leased else await self._read_round()
                await self._wait_applied(core, index)
        except TimeoutError:
            raise DeadlineExceeded(f"no confirmed read within {timeout_s} s") from None
        return core.applied_index

    async def _read_round(self) -> int:
        self._wake()
        return await self._reads.join()

    async def _wait_applied(self, core: RaftCore, index: int) -> None:
        if core.applied_index < index:
            await self._applied.add(index)

    async def level_with(self, index: int, timeout_s: float = 2.0) -> None:
        """For who sees `index` in the tables: returns when the core knows of it, too, which is a
        moment later. Raises Unavailable (starting, stopping, or not of the group),
        DeadlineExceeded."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._wait_applied(self._running(), index)
        except TimeoutError:
            raise DeadlineExceeded(f"entry {index} is applied, and nobody noted it") from None

    def lease_valid_now(self) -> bool:
        """True while no other leader can exist, by the monotonic clock read in this call. Ask
        again when the answer leaves; when False, take a new read_barrier and read again."""
        core = self._core
        if core is None or self._is_dead:
            return False
        return core.lease_valid(self._clock.monotonic_ms())

    async def transfer(self, to: str, timeout_s: float = 5.0) -> None:
        """Makes `to` the leader. Raises NotLeader, Refused, DeadlineExceeded (we still lead)."""
        core = self._running()
        core.observe(self._clock.monotonic_ms())
        core.transfer(to)
        self._wake()
        try:
            async with asyncio.timeout(timeout_s):
                await self._watchers.until(lambda: core.transfer_to is None)
        except TimeoutError:
            raise DeadlineExceeded(f"{to} did not take over within {timeout_s} s") from None
        if core.role is Role.LEADER and to != self._node_id:
            raise DeadlineExceeded(f"{to} did not take over")

    async def compact(self, flushed_index: int) -> None:
        """Drops old entries. `flushed_index`: an applied index that is itself durable. Keeps
        config.entries_retained before it for followers that lag."""
        core = self._running()
        index = min(flushed_index, core.applied_index) - self._config.entries_retained
        if index <= core.first_index:
            return
        mark = core.mark_at(index)
        await self._storage.compact(mark)
        core.compacted(mark)

    async def read_entries(self, lo: int, hi: int, bytes_max: int) -> tuple[Entry, ...]:
        """Committed entries for learners that fetch gaps; empty: compacted (take a snapshot), or
        not committed yet."""
        hi = min(hi, self._running().commit_index)
        return await self._storage.read_entries(lo, hi, bytes_max) if lo <= hi else ()
