"""Who is answered, with what, and that nobody is forgotten."""

from __future__ import annotations

import asyncio

import pytest

from astra.errors import NotLeader, OutcomeUnknown
from astra.wire import Entry, EntryKind
from node.raft.waiters import ProposalWaiters, ReadWaiters, Result


def entry(index: int, term: int) -> Entry:
    return Entry(index, term, EntryKind.COMMAND, b"")


def new_result() -> Result:
    return asyncio.get_running_loop().create_future()


async def test_each_proposal_gets_the_result_of_its_own_entry() -> None:
    waiting = ProposalWaiters()
    futures = [new_result() for _ in range(5)]
    for index, future in enumerate(futures, start=1):
        waiting.add(index, 1, future)
    waiting.applied([entry(index, 1) for index in (1, 2)], ["one", "two"])
    assert [future.done() for future in futures] == [True, True, False, False, False]
    waiting.applied([entry(index, 1) for index in (3, 4, 5)], ["three", "four", "five"])
    assert [future.result() for future in futures] == ["one", "two", "three", "four", "five"]
    assert len(waiting) == 0


async def test_entry_of_another_term_in_the_same_place_answers_nobody_with_its_result() -> None:
    waiting = ProposalWaiters()
    future = new_result()
    waiting.add(7, 1, future)
    waiting.applied([entry(6, 2)], ["not mine"])
    assert not future.done()
    waiting.applied([entry(7, 2)], ["not mine either"])
    with pytest.raises(NotLeader):
        future.result()


async def test_lost_leadership_gives_up_what_is_not_committed_and_keeps_the_rest() -> None:
    waiting = ProposalWaiters()
    committed, lost = new_result(), new_result()
    waiting.add(3, 1, committed)
    waiting.add(4, 1, lost)
    waiting.give_up(3, OutcomeUnknown("leadership was lost"))
    with pytest.raises(OutcomeUnknown):
        lost.result()
    assert not committed.done()
    waiting.applied([entry(3, 1)], ["done"])
    assert committed.result() == "done"


async def test_reads_of_one_batch_share_an_answer_and_a_late_one_finds_nobody() -> None:
    reads = ReadWaiters(first_context=100)
    futures = [reads.join() for _ in range(3)]
    first = reads.take_batch(now_ms=0)
    assert first is not None
    assert reads.take_batch(now_ms=0) is None  # nobody new waits
    assert reads.ask_again(asked_before_ms=1) == [first]
    second = reads.take_batch(now_ms=5)
    assert second is not None
    assert second != first
    reads.confirmed(first, 3)  # of the question that was given up
    assert not any(future.done() for future in futures)
    reads.confirmed(second, 9)
    assert [future.result() for future in futures] == [9, 9, 9]
