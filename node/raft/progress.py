"""What the leader knows about one follower, and how much it may send it.

Rules: pure. States (after etcd-io/raft):
    PROBE      where the logs agree is unknown: one Append at a time, the next after its answer
    REPLICATE  appends are pipelined: `next` moves when sending; bounded by the inflight window
    SNAPSHOT   the entries it needs are compacted: nothing is sent until it has caught up

Invariant: match < next; `match` never falls while this node leads.
"""

from __future__ import annotations

import enum
from collections import deque
from dataclasses import dataclass, field

from astra.errors import invariant


class PeerState(enum.StrEnum):
    PROBE = "probe"
    REPLICATE = "replicate"
    SNAPSHOT = "snapshot"


@dataclass(slots=True)
class Progress:
    next: int
    inflight_max: int
    inflight_bytes_max: int
    match: int = 0
    state: PeerState = PeerState.PROBE
    commit_sent: int = 0
    match_at_beat: int = -1  # match at its last heartbeat answer: unchanged means stuck
    fetching_from: int = 0  # the driver reads entries from here on for it; 0: it does not
    probe_sent: bool = False
    active_ms: int = 0  # when it last answered
    heartbeat_sent_ms: int = -1  # newest of our heartbeats that it has answered: for the lease
    round: int = 0  # newest heartbeat round that it has answered: for ReadIndex
    snapshot_index: int = 0
    snapshot_sent_ms: int = 0
    _inflight: deque[tuple[int, int]] = field(default_factory=deque)  # (last index, bytes)
    _inflight_bytes: int = 0

    @property
    def is_paused(self) -> bool:
        """Nothing may be sent now."""
        if self.fetching_from:
            return True
        match self.state:
            case PeerState.REPLICATE:
                return self.is_full
            case PeerState.PROBE:
                return self.probe_sent
            case PeerState.SNAPSHOT:
                return True

    @property
    def is_full(self) -> bool:
        return (
            len(self._inflight) >= self.inflight_max
            or self._inflight_bytes >= self.inflight_bytes_max
        )

    @property
    def inflight_count(self) -> int:
        return len(self._inflight)

    def sent(self, *, last_index: int, byte_count: int) -> None:
        """Entries up to last_index were sent (last_index == next - 1: none)."""
        if self.state is PeerState.PROBE:
            self.probe_sent = True
        elif last_index >= self.next:
            self.next = last_index + 1
            self._inflight.append((last_index, byte_count))
            self._inflight_bytes += byte_count

    def acknowledged(self, index: int) -> bool:
        """The follower's log matches ours up to `index`. False when we knew that."""
        while self._inflight and self._inflight[0][0] <= index:
            self._inflight_bytes -= self._inflight.popleft()[1]
        self.next = max(self.next, index + 1)
        if index <= self.match:
            return False
        self.match = index
        self.probe_sent = False
        return True

    def rejected(self, *, index: int, next_index: int) -> bool:
        """The follower refused an Append after `index` and may agree before `next_index`. False
        for an old answer that proves nothing."""
        if self.state is PeerState.REPLICATE:
            if index <= self.match:
                return False
            self.become_probe()
            self.next = max(self.match + 1, min(next_index, index))
            return True
        if self.state is PeerState.SNAPSHOT or index != self.next - 1:
            return False
        self.next = max(self.match + 1, min(next_index, index), 1)
        self.probe_sent = False
        return True

    def free_one(self) -> None:
        """Lets one Append through a full window: the acknowledgements may be lost."""
        if self._inflight and self.is_full:
            self._inflight_bytes -= self._inflight.popleft()[1]

    def become_probe(self) -> None:
        if self.state is PeerState.SNAPSHOT:
            self.next = max(self.match, self.snapshot_index) + 1
        else:
            self.next = self.match + 1
        self._reset(PeerState.PROBE)

    def become_replicate(self) -> None:
        self._reset(PeerState.REPLICATE)
        self.next = self.match + 1

    def become_snapshot(self, *, index: int, now_ms: int) -> None:
        self._reset(PeerState.SNAPSHOT)
        self.snapshot_index = index
        self.snapshot_sent_ms = now_ms

    def _reset(self, state: PeerState) -> None:
        self.state = state
        self.probe_sent = False
        self.fetching_from = 0
        self._inflight.clear()
        self._inflight_bytes = 0
        invariant(self.match < self.next, "next must be past match")
