"""Settings of one Raft node. Times in milliseconds of the monotonic clock, sizes in bytes.

The relations that safety needs are checked at construction: a lease must end before the
shortest time in which another leader can be elected.
"""

from __future__ import annotations

from dataclasses import dataclass

from astra.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class RaftConfig:
    # A follower that hears no leader for a time drawn from [min, max) starts an election.
    # Also: while it has heard one within `min`, it refuses to vote (CheckQuorum, leases).
    election_timeout_min_ms: int = 600
    election_timeout_max_ms: int = 1200
    heartbeat_ms: int = 75
    tick_ms: int = 15  # how often the driver calls tick()
    # A lease ends this much before a voter may vote again: covers clock drift between nodes.
    lease_margin_ms: int = 100
    pre_vote: bool = True  # ask before raising the term (thesis 9.6)
    check_quorum: bool = True  # a leader that hears no majority for `max` steps down
    lease_reads: bool = True  # False: every read costs a ReadIndex round

    append_bytes_max: int = 512 * 1024  # entries in one Append; one entry may exceed it
    inflight_max: int = 64  # unacknowledged Appends per follower
    inflight_bytes_max: int = 8 * 1024 * 1024  # their bytes
    uncommitted_bytes_max: int = 64 * 1024 * 1024  # proposals beyond are refused (Overloaded)
    apply_bytes_max: int = 1024 * 1024  # committed entries handed out at once
    memory_bytes_max: int = 32 * 1024 * 1024  # recent entries kept for slow followers
    reads_waiting_max: int = 65536
    snapshot_retry_ms: int = 2000  # a silent follower is offered its snapshot again
    entries_retained: int = 20_000  # kept by compaction for followers that lag

    def __post_init__(self) -> None:
        _require(self.tick_ms > 0, "tick_ms must be positive")
        _require(self.heartbeat_ms >= self.tick_ms, "heartbeat_ms must be at least tick_ms")
        _require(
            self.election_timeout_min_ms >= 3 * self.heartbeat_ms,
            "election_timeout_min_ms must be at least 3 heartbeats, or a lost one costs a leader",
        )
        _require(
            self.election_timeout_max_ms > self.election_timeout_min_ms,
            "election_timeout_max_ms must exceed the minimum, or votes split for ever",
        )
        _require(
            0 <= self.lease_margin_ms < self.election_timeout_min_ms,
            "lease_margin_ms must be between 0 and election_timeout_min_ms",
        )
        _require(
            self.check_quorum or not self.lease_reads,
            "lease_reads needs check_quorum: without it voters do not protect a lease",
        )
        for name in (
            "append_bytes_max",
            "inflight_max",
            "inflight_bytes_max",
            "uncommitted_bytes_max",
            "apply_bytes_max",
            "memory_bytes_max",
            "reads_waiting_max",
            "snapshot_retry_ms",
        ):
            _require(getattr(self, name) > 0, f"{name} must be positive")
        _require(self.entries_retained >= 0, "entries_retained must not be negative")

    @property
    def lease_ms(self) -> int:
        """How long after sending a heartbeat its acknowledgement keeps other leaders away."""
        return self.election_timeout_min_ms - self.lease_margin_ms


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ConfigError(message)
