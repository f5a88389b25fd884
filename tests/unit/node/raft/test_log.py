"""The log: borders, conflicts, durability, membership."""

from __future__ import annotations

import random

import pytest

from astra.errors import DamagedLog, InvariantBroken
from astra.wire import Entry, EntryKind, Membership
from node.raft.log import RaftLog, decode_membership, encode_membership
from node.raft.types import HardState, RaftState, SnapshotMark, TermRun

ABC = Membership(voters=("a", "b", "c"))
AB = Membership(voters=("a", "b"))


def entry(index: int, term: int, data: bytes = b"x") -> Entry:
    return Entry(index, term, EntryKind.COMMAND, data)


def config_entry(index: int, term: int, membership: Membership) -> Entry:
    return Entry(index, term, EntryKind.CONFIG, encode_membership(membership))


def make_log(
    terms: list[int], *, mark_index: int = 0, mark_term: int = 0, memory_bytes_max: int = 1 << 20
) -> RaftLog:
    """A durable log whose entries after the mark have these terms."""
    mark = SnapshotMark(index=mark_index, term=mark_term, membership=ABC)
    entries = tuple(entry(mark_index + 1 + n, term) for n, term in enumerate(terms))
    runs = tuple(TermRun(index=each.index, term=each.term) for each in entries)
    state = RaftState(
        hard_state=HardState(term=max([mark_term, *terms])),
        mark=mark,
        last_index=mark_index + len(terms),
        term_runs=runs,
        tail=entries,
    )
    return RaftLog(state, applied=mark_index, memory_bytes_max=memory_bytes_max)


def terms_of(log: RaftLog) -> list[int | None]:
    return [log.term_at(index) for index in range(log.mark.index + 1, log.last_index + 1)]


def test_term_at_borders_of_a_compacted_log() -> None:
    log = make_log([5, 5, 6], mark_index=10, mark_term=4)
    found = {index: log.term_at(index) for index in range(8, 16)}
    assert found == {8: None, 9: None, 10: 4, 11: 5, 12: 5, 13: 6, 14: None, 15: None}


@pytest.mark.parametrize(
    ("last_index", "last_term", "expected"),
    [(4, 3, True), (3, 3, True), (2, 3, False), (9, 2, False), (1, 4, True), (0, 0, False)],
)
def test_is_up_to_date_compares_term_then_length(
    last_index: int, last_term: int, expected: bool
) -> None:
    assert make_log([1, 2, 3]).is_up_to_date(last_index, last_term) is expected


@pytest.mark.parametrize(
    ("prev", "prev_term", "new_terms", "expected_last", "expected_terms"),
    [
        (2, 3, [4], None, [1, 2, 3]),  # no match at prev
        (4, 3, [4], None, [1, 2, 3]),  # prev past the end
        (3, 3, [], 3, [1, 2, 3]),
        (3, 3, [4, 4], 5, [1, 2, 3, 4, 4]),
        (1, 1, [2], 2, [1, 2, 3]),  # a late, shorter message removes nothing
        (0, 0, [1, 2, 3], 3, [1, 2, 3]),
        (1, 1, [4, 4], 3, [1, 4, 4]),  # conflict: replaced from there
        (1, 1, [2, 4], 3, [1, 2, 4]),
        (0, 0, [1, 4], 2, [1, 4]),
    ],
)
def test_append_after_follows_the_receivers_rules(
    prev: int,
    prev_term: int,
    new_terms: list[int],
    expected_last: int | None,
    expected_terms: list[int],
) -> None:
    log = make_log([1, 2, 3])
    entries = [entry(prev + 1 + n, term) for n, term in enumerate(new_terms)]
    assert log.append_after(prev, prev_term, entries) == expected_last
    assert terms_of(log) == expected_terms


def test_truncation_of_committed_entries_stops_the_process() -> None:
    log = make_log([1, 2, 3])
    log.commit_to(2)
    with pytest.raises(InvariantBroken):
        log.append_after(1, 1, [entry(2, 4)])


def test_append_with_a_gap_or_a_falling_term_stops_the_process() -> None:
    with pytest.raises(InvariantBroken):
        make_log([1]).append([entry(3, 1)])
    with pytest.raises(InvariantBroken):
        make_log([2]).append([entry(2, 1)])


def test_commit_never_falls_and_never_passes_the_end() -> None:
    log = make_log([1, 1])
    assert log.commit_to(2)
    assert not log.commit_to(1)
    assert log.commit == 2
    with pytest.raises(InvariantBroken):
        log.commit_to(3)


@pytest.mark.parametrize(
    ("index", "term", "expected"),
    [(9, 3, (7, 3)), (9, 2, (3, 2)), (3, 9, (3, 2)), (9, 9, (9, 5)), (9, 0, (0, 0))],
)
def test_agreement_hint_skips_whole_terms(index: int, term: int, expected: tuple[int, int]) -> None:
    assert make_log([1, 1, 2, 3, 3, 3, 3, 5, 5]).agreement_hint(index, term) == expected


def test_agreement_hint_below_the_mark_is_unknown() -> None:
    log = make_log([5, 5], mark_index=10, mark_term=4)
    assert log.agreement_hint(12, 4) == (10, 4)
    assert log.agreement_hint(12, 3) == (9, 0)


def test_slice_respects_the_byte_limit_but_gives_one() -> None:
    log = make_log([1] * 10)
    assert log.slice(3, 9, 1) == (entry(3, 1),)
    assert len(log.slice(1, 10, 200) or ()) == 3
    assert log.slice(11, 11, 10) == ()


def test_acknowledged_write_of_an_overwritten_entry_proves_nothing() -> None:
    log = make_log([1])
    log.append([entry(2, 1, b"old")])
    assert log.take_unwritten(1) == (None, (entry(2, 1, b"old"),))
    log.append_after(1, 1, [entry(2, 2, b"new")])
    assert log.take_unwritten(2) == (2, (entry(2, 2, b"new"),))
    log.append_after(1, 1, [entry(2, 3, b"newer")])
    log.persisted(1)
    assert log.stable == 1
    log.persisted(2)
    assert log.stable == 1
    assert log.take_unwritten(3) == (2, (entry(2, 3, b"newer"),))
    log.persisted(3)
    assert log.stable == 2


def test_overwritten_before_it_was_written_needs_no_truncation() -> None:
    log = make_log([1])
    log.append([entry(2, 1), entry(3, 1)])
    log.append_after(1, 1, [entry(2, 2)])
    assert log.take_unwritten(1) == (None, (entry(2, 2),))


def test_only_durable_and_committed_entries_are_applicable() -> None:
    log = make_log([1])
    log.append([entry(2, 1)])
    log.commit_to(2)
    assert log.applicable == 1
    log.take_unwritten(1)
    log.persisted(1)
    assert log.applicable == 2


def test_apply_is_in_order_and_acknowledged_once_handed_out() -> None:
    log = make_log([1, 1])
    log.commit_to(2)
    with pytest.raises(InvariantBroken):
        log.hand_out([entry(2, 1)])
    log.hand_out([entry(1, 1)])
    with pytest.raises(InvariantBroken):
        log.applied_to(2)
    log.applied_to(1)
    assert log.applied == 1


def test_applied_state_newer_than_the_log_stops_the_process() -> None:
    with pytest.raises(InvariantBroken):
        RaftLog(
            RaftState(
                hard_state=HardState(),
                mark=SnapshotMark(index=0, term=0, membership=ABC),
                last_index=0,
            ),
            applied=3,
            memory_bytes_max=100,
        )


def test_memory_stays_bounded_and_terms_stay_known() -> None:
    log = make_log([1], memory_bytes_max=10_000)
    for index in range(2, 500):
        log.append([entry(index, 1 + index // 100, b"x" * 100)])
        log.take_unwritten(index)
        log.persisted(index)
        log.commit_to(index)
        log.hand_out([entry(log.handed + 1, 0), entry(index, 0)])
        log.applied_to(index)
    assert log.memory_index > 400
    assert log.slice(100, 120, 1000) is None
    assert [log.term_at(each) for each in (1, 99, 100, 250, 499)] == [1, 1, 2, 3, 5]


def test_memory_stays_bounded_while_apply_lags() -> None:
    log = make_log([1], memory_bytes_max=10_000)
    for index in range(2, 500):
        log.append([entry(index, 1, b"x" * 100)])
        log.take_unwritten(index)
        log.commit_to(index)
        log.persisted(index)
    assert log.applied == 0
    assert log.slice(1, 499, 1000) is None  # NeedEntries: it is read from storage
    assert sum(len(each.data) for each in log.slice(log.memory_index, 499, 1 << 20) or ()) < 10_000


def test_entries_that_are_not_committed_or_not_durable_stay_in_memory() -> None:
    log = make_log([], memory_bytes_max=1000)
    for index in range(1, 101):
        log.append([entry(index, 1, b"x" * 100)])
    log.take_unwritten(1)
    log.commit_to(60)
    assert log.memory_index == 1
    log.persisted(1)
    assert log.memory_index == 61


def test_compaction_keeps_the_term_of_the_mark_and_drops_the_rest() -> None:
    log = make_log([1, 1, 2, 2])
    log.commit_to(4)
    log.hand_out([entry(index, 0) for index in (1, 2, 3, 4)])
    log.applied_to(4)
    log.compact(log.mark_at(3))
    assert (log.mark.index, log.mark.term) == (3, 2)
    assert [log.term_at(each) for each in (2, 3, 4)] == [None, 2, 2]
    assert log.slice(3, 4, 100) is None
    log.compact(SnapshotMark(index=2, term=1, membership=ABC))
    assert log.mark.index == 3


def test_compacting_what_is_not_applied_stops_the_process() -> None:
    with pytest.raises(InvariantBroken):
        make_log([1, 1]).compact(SnapshotMark(index=2, term=1, membership=ABC))


def test_reset_to_a_snapshot_leaves_only_its_mark() -> None:
    log = make_log([1, 1] + [2] * 18)
    log.take_unwritten(1)  # a vote, that is on its way to the disk
    log.commit_to(3)
    log.reset(SnapshotMark(index=9, term=4, membership=AB))
    assert [log.term_at(each) for each in (4, 8, 9, 10)] == [None, None, 4, None]
    assert (log.last_index, log.commit, log.applied, log.stable) == (9, 9, 9, 9)
    assert (log.membership, log.memory_index, log.slice(10, 10, 100)) == (AB, 10, ())
    log.append([entry(10, 4)])
    log.persisted(1)  # of before the reset: proves nothing about what comes now
    assert log.stable == 9


def test_snapshot_never_takes_the_commit_index_back() -> None:
    log = make_log([1, 1, 1])
    log.commit_to(3)
    with pytest.raises(InvariantBroken):
        log.reset(SnapshotMark(index=2, term=1, membership=AB))


def test_slice_at_the_borders_of_a_compacted_log() -> None:
    log = make_log([5, 5, 6], mark_index=10, mark_term=4)
    assert log.slice(10, 13, 1000) is None  # the mark itself has no entry
    assert [each.index for each in log.slice(11, 99, 1000) or ()] == [11, 12, 13]
    assert log.slice(14, 20, 1000) == ()


def test_membership_is_in_force_when_appended_and_falls_back_when_truncated() -> None:
    log = make_log([1])
    log.append([config_entry(2, 1, AB)])
    assert (log.membership, log.membership_index) == (AB, 2)
    assert log.membership_at(1) == ABC
    log.append_after(1, 1, [entry(2, 2)])
    assert (log.membership, log.membership_index) == (ABC, 0)


def test_config_entry_that_is_none_is_refused() -> None:
    assert decode_membership(encode_membership(AB)) == AB
    with pytest.raises(DamagedLog):
        decode_membership(b"\xc1")


@pytest.mark.parametrize("seed", range(20))
def test_random_appends_agree_with_a_plain_list(seed: int) -> None:
    rng = random.Random(seed)
    log = make_log([1])
    plain = [1]
    seq = 0
    for _ in range(200):
        prev = rng.randrange(0, len(plain) + 1)
        prev_term = plain[prev - 1] if prev else 0
        term = max(plain[-1], prev_term) + rng.randrange(0, 2)
        new = [term] * rng.randrange(0, 4)
        if prev < len(plain) and new and plain[prev] != term and prev < log.commit:
            continue
        log.append_after(prev, prev_term, [entry(prev + 1 + n, t) for n, t in enumerate(new)])
        for n, each in enumerate(new):
            position = prev + n
            if position < len(plain) and plain[position] != each:
                del plain[position:]
            if position == len(plain):
                plain.append(each)
        assert terms_of(log) == plain
        if rng.random() < 0.3:
            seq += 1
            log.take_unwritten(seq)
            log.persisted(seq - rng.randrange(0, 2))
            assert log.stable <= log.last_index
