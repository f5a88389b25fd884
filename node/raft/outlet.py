"""What leaves the core: gathers messages, log writes, entries to apply and news into a Ready.

Rules: pure. Each thing is handed out once. Writes are numbered, so that their acknowledgements
cannot be taken for one another's. One batch of entries is applied at a time: the next one gathers
meanwhile.
"""

from __future__ import annotations

from typing import Final

from astra.errors import invariant
from astra.wire import Entry
from node.raft.state import NodeState
from node.raft.types import (
    HardState,
    LogWrite,
    NeedEntries,
    Ready,
    Role,
    SnapshotOffer,
    SoftState,
)

_NOTHING: Final = Ready()


class Outlet:
    __slots__ = (
        "_apply_loaded",
        "_apply_wanted",
        "_node",
        "_offer_told",
        "_seq",
        "_told",
        "_vote_writes",
        "_written_vote",
    )

    def __init__(self, node: NodeState) -> None:
        self._node = node
        self._seq = 0
        self._written_vote = (node.term, node.voted_for)
        self._vote_writes: list[tuple[int, int]] = []  # (seq, term) under way
        self._apply_wanted: int | None = None  # entries to apply are read from storage
        self._apply_loaded: tuple[Entry, ...] = ()
        self._offer_told: SnapshotOffer | None = None
        self._told: SoftState | None = None

    def take(self, role: Role, leader: str | None, installing: SnapshotOffer | None) -> Ready:
        node = self._node
        write = self._take_write()
        committed = self._take_committed() if installing is None else ()
        news = self._take_news(role, leader, node.term)
        offer = installing if installing is not self._offer_told else None
        self._offer_told = installing
        waiting = node.messages or node.after_persist or node.read_states or node.needs
        if not (waiting or write or committed or news or offer):
            return _NOTHING
        ready = Ready(
            write=write,
            messages=tuple(node.messages),
            messages_after_persist=tuple(node.after_persist),
            committed=committed,
            read_states=tuple(node.read_states),
            needs=tuple(node.needs),
            snapshot=offer,
            soft_state=news,
        )
        node.messages.clear()
        node.after_persist.clear()
        node.read_states.clear()
        node.needs.clear()
        return ready

    def _take_news(self, role: Role, leader: str | None, term: int) -> SoftState | None:
        told = self._told
        if told is not None and (told.role, told.leader, told.term) == (role, leader, term):
            return None
        self._told = SoftState(role=role, leader=leader, term=term)
        return self._told

    def _take_write(self) -> LogWrite | None:
        node = self._node
        vote = (node.term, node.voted_for)
        vote_changed = vote != self._written_vote
        if not vote_changed and not node.log.has_unwritten:
            return None
        self._seq += 1
        truncate_from, entries = node.log.take_unwritten(self._seq)
        hard_state = None
        if vote_changed:
            self._written_vote = vote
            self._vote_writes.append((self._seq, node.term))
            hard_state = HardState(term=node.term, voted_for=node.voted_for, commit=node.log.commit)
        return LogWrite(
            seq=self._seq, hard_state=hard_state, truncate_from=truncate_from, entries=entries
        )

    def persisted(self, seq: int) -> bool:
        """All writes up to `seq` are durable. Whether the vote of the present term became so."""
        invariant(seq <= self._seq, f"write {seq} was never asked for")
        self._node.log.persisted(seq)
        is_durable = False
        while self._vote_writes and self._vote_writes[0][0] <= seq:
            is_durable = self._vote_writes.pop(0)[1] == self._node.term
        return is_durable

    def _take_committed(self) -> tuple[Entry, ...]:
        log = self._node.log
        if log.handed >= log.applicable or log.handed != log.applied:
            return ()
        if self._apply_wanted is not None:
            return ()
        entries: tuple[Entry, ...] | None = self._apply_loaded
        self._apply_loaded = ()
        if not entries:
            limit = self._node.config.apply_bytes_max
            entries = log.slice(log.handed + 1, log.applicable, limit)
        if entries is None:
            self._ask_for_committed()
            return ()
        log.hand_out(entries)
        return entries

    def _ask_for_committed(self) -> None:
        node = self._node
        self._apply_wanted = node.log.handed + 1
        node.needs.append(
            NeedEntries(
                peer=node.node_id,
                from_index=self._apply_wanted,
                to_index=min(node.log.applicable, node.log.memory_index - 1),
                bytes_max=node.config.apply_bytes_max,
            )
        )

    def entries_loaded(self, from_index: int, entries: tuple[Entry, ...]) -> None:
        if self._apply_wanted != from_index:
            return
        self._apply_wanted = None
        genuine = all(self._node.log.matches(each.index, each.term) for each in entries)
        invariant(bool(entries) and genuine, f"storage lost committed entry {from_index}")
        self._apply_loaded = entries

    def forget_loaded(self) -> None:
        """The log was replaced."""
        self._apply_wanted = None
        self._apply_loaded = ()
