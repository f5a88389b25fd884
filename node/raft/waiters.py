"""Who waits for what in the driver: proposals for their results, reads for their index.

Rules: futures only, no tasks and no core. Every waiter is answered exactly once; one that has gone
(timeout, cancellation) is skipped.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from astra.errors import NotLeader, OutcomeUnknown
from astra.wire import Entry

Result = asyncio.Future[object]
Index = asyncio.Future[int]


def answer(future: asyncio.Future[object], value: object) -> None:
    if not future.done():
        future.set_result(value)


def refuse(future: asyncio.Future[object] | asyncio.Future[int], error: Exception) -> None:
    if not future.done():
        future.set_exception(error)


class ProposalWaiters:
    """Proposals in the log, by index. An entry is ours only if its term is the proposed one."""

    def __init__(self) -> None:
        self._by_index: dict[int, tuple[int, Result]] = {}

    def __len__(self) -> int:
        return len(self._by_index)

    def add(self, index: int, term: int, future: Result) -> None:
        self._by_index[index] = (term, future)

    def applied(self, entries: Sequence[Entry], results: Sequence[object]) -> None:
        if not self._by_index:
            return
        for entry, result in zip(entries, results, strict=True):
            waiting = self._by_index.pop(entry.index, None)
            if waiting is None:
                continue
            term, future = waiting
            if term == entry.term:
                answer(future, result)
            else:
                refuse(future, NotLeader(None))  # another entry took its place: it never commits

    def give_up(self, above_index: int, error: OutcomeUnknown) -> None:
        """Those above may or may not commit: nobody here will learn it."""
        for index in [each for each in self._by_index if each > above_index]:
            _, future = self._by_index.pop(index)
            refuse(future, error)


@dataclass(slots=True)
class ReadBatch:
    """Reads that share one context, and so one round."""

    asked_ms: int = 0
    waiters: list[Index] = field(default_factory=list)


class ReadWaiters:
    """Reads that wait for a round to be confirmed."""

    def __init__(self, first_context: int) -> None:
        """`first_context` differs in every life of the node: late answers to an earlier one must
        not be taken for those to this one."""
        self.next_batch: ReadBatch | None = None
        self._asked: dict[int, ReadBatch] = {}
        self._context = first_context

    def join(self) -> Index:
        future: Index = asyncio.get_running_loop().create_future()
        self.rejoin([future])
        return future

    def rejoin(self, waiters: list[Index]) -> None:
        if self.next_batch is None:
            self.next_batch = ReadBatch()
        self.next_batch.waiters.extend(waiter for waiter in waiters if not waiter.done())

    def take_batch(self, now_ms: int) -> int | None:
        """The context under which the waiting reads are asked now."""
        batch, self.next_batch = self.next_batch, None
        if batch is None or not batch.waiters:
            return None
        self._context += 1
        batch.asked_ms = now_ms
        self._asked[self._context] = batch
        return self._context

    def confirmed(self, context: int, index: int | None) -> None:
        """Index None: ask again."""
        batch = self._asked.pop(context, None)
        if batch is None:
            return
        if index is None:
            self.rejoin(batch.waiters)
            return
        for waiter in batch.waiters:
            if not waiter.done():
                waiter.set_result(index)

    def refused(self, context: int, error: Exception) -> None:
        batch = self._asked.pop(context, None)
        for waiter in batch.waiters if batch is not None else ():
            refuse(waiter, error)

    def ask_again(self, asked_before_ms: int) -> list[int]:
        """The question or its answer may be lost: the contexts that are given up."""
        late = [each for each, batch in self._asked.items() if batch.asked_ms < asked_before_ms]
        for context in late:
            self.rejoin(self._asked.pop(context).waiters)
        return late

    def give_up(self, error: Exception) -> None:
        for context in list(self._asked):
            self.refused(context, error)
        if self.next_batch is not None:
            for waiter in self.next_batch.waiters:
                refuse(waiter, error)
            self.next_batch = None


class AppliedWaiters:
    """Waiters for the applied index to reach a value."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Index]] = []
        self._order = 0

    def add(self, index: int) -> Index:
        self._order += 1
        future: Index = asyncio.get_running_loop().create_future()
        heapq.heappush(self._heap, (index, self._order, future))
        return future

    def applied_to(self, index: int) -> None:
        while self._heap and self._heap[0][0] <= index:
            future = heapq.heappop(self._heap)[2]
            if not future.done():
                future.set_result(index)

    def give_up(self, error: Exception) -> None:
        for _, _, future in self._heap:
            refuse(future, error)
        self._heap.clear()


class Watchers:
    """Waiters for any condition, looked at after each turn: for rare waits only."""

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[None]] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        """Returns after the turn that made `condition` true."""
        while not condition():
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._futures.append(future)
            await future

    def notify(self) -> None:
        if self._futures:
            futures, self._futures = self._futures, []
            for future in futures:
                if not future.done():
                    future.set_result(None)
