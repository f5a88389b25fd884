"""Settings, merged writes, the read queue."""

from __future__ import annotations

import random

import pytest

from astra.errors import ConfigError
from astra.wire import Entry, EntryKind, Membership
from node.raft.config import RaftConfig
from node.raft.memory import MemoryLog
from node.raft.readindex import Read, ReadQueue
from node.raft.types import HardState, LogWrite
from node.raft.writes import merge_writes


@pytest.mark.parametrize(
    "setting",
    [
        {"election_timeout_min_ms": 100},
        {"election_timeout_max_ms": 600},
        {"lease_margin_ms": 600},
        {"lease_margin_ms": -1},
        {"heartbeat_ms": 1},
        {"tick_ms": 0},
        {"inflight_max": 0},
        {"entries_retained": -1},
    ],
)
def test_setting_that_breaks_a_promise_is_refused(setting: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        RaftConfig(**setting)  # type: ignore[arg-type]  # numeric settings only


def test_lease_without_check_quorum_is_refused() -> None:
    with pytest.raises(ConfigError):
        RaftConfig(check_quorum=False)
    assert RaftConfig(check_quorum=False, lease_reads=False).lease_ms == 500


@pytest.mark.parametrize("seed", range(50))
def test_merged_writes_leave_the_same_log_as_one_by_one(seed: int) -> None:
    rng = random.Random(seed)
    one, many = MemoryLog(), MemoryLog()
    for log in (one, many):
        log.initialize(Membership(voters=("a",)))
    last = 0
    for term in range(1, 12):
        writes = []
        for seq in range(rng.randrange(1, 5)):
            cut = rng.randrange(1, last + 1) if last and rng.random() < 0.4 else None
            start = (cut or last + 1) - 1
            entries = tuple(
                Entry(start + n, term, EntryKind.COMMAND, b"%d" % seq)
                for n in range(1, rng.randrange(1, 4))
            )
            hard = HardState(term=term) if rng.random() < 0.3 else None
            writes.append(LogWrite(seq=seq, hard_state=hard, truncate_from=cut, entries=entries))
            one.append(hard, cut, entries)
            last = start + len(entries)
        merged = merge_writes(writes)
        many.append(merged.hard_state, merged.truncate_from, merged.entries)
        assert many.load(0, 1 << 20) == one.load(0, 1 << 20)
        assert merged.seq == writes[-1].seq


def test_reads_join_the_round_that_starts_after_them() -> None:
    queue = ReadQueue()
    queue.add(Read("a", 1))
    assert queue.wants_round
    first = queue.start_round(10)
    queue.add(Read("a", 2))
    assert not queue.wants_round  # one round at a time
    assert queue.confirm(first) == [(Read("a", 1), 10)]
    second = queue.start_round(12)
    assert queue.confirm(first) == []
    assert queue.confirm(second) == [(Read("a", 2), 12)]
    assert len(queue) == 0


def test_reads_wait_while_the_commit_index_may_be_old() -> None:
    queue = ReadQueue()
    queue.add(Read("a", 1))
    number = queue.start_round(None)
    assert queue.confirm(number) == []
    later = queue.start_round(3)
    assert queue.confirm(later) == [(Read("a", 1), 3)]


def test_same_read_twice_is_answered_once_and_drained_with_the_rest() -> None:
    queue = ReadQueue()
    queue.add(Read("a", 1))
    queue.add(Read("a", 1))
    queue.start_round(3)
    queue.add(Read("b", 2))
    assert queue.drain() == [Read("a", 1), Read("b", 2)]
    assert len(queue) == 0
