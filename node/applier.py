"""The shell around apply: committed entries in, results out, everybody told.

Invariants
- Entries are applied in log order, one batch at a time; results and applied index become visible
  in one transaction (the store's `write`).
- The witness is touched before a batch can become visible (services/witness.py says why).
- The index of `paused` is exactly that of the stored state while the pause lasts.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from astra.errors import DamagedLog, Unavailable, invariant
from astra.model import APPLIED_INDEX, APPLIED_TERM, MARKS
from astra.ports import MetadataStore, MetadataView
from astra.wire import Entry
from node.apply import Touched, apply_entries, touched_by_entry
from node.services.ports import Applied
from node.services.witness import Witness

OnApplied = Callable[[Sequence[Entry], Sequence[Touched]], None]


class Applier:
    def __init__(self, store: MetadataStore, witness: Witness) -> None:
        self._store = store
        self._witness = witness
        self._lock = asyncio.Lock()
        self._listeners: list[OnApplied] = []
        self._replacement_listeners: list[Callable[[], None]] = []
        self._waiters: list[tuple[int, asyncio.Future[None]]] = []
        self.applied_index = 0
        self.applied_term = 0

    async def load(self) -> int:
        """Reads how far this node had come. Call once, before anything else. Raises DamagedLog."""
        self.applied_index, self.applied_term = await self._store.read(_how_far)
        self._witness.touch_all(self.applied_index)
        return self.applied_index

    def listen(self, listener: OnApplied) -> None:
        """Called after each batch, in the event loop; must not block or raise."""
        self._listeners.append(listener)

    def listen_replaced(self, listener: Callable[[], None]) -> None:
        """Called after a snapshot replaced the whole state; must not block or raise."""
        self._replacement_listeners.append(listener)

    async def apply(self, entries: Sequence[Entry]) -> Sequence[object]:
        """One result per entry; see node.raft.driver.Apply."""
        if not entries:
            return []
        async with self._lock:
            invariant(
                entries[0].index == self.applied_index + 1,
                f"entry {entries[0].index} after applied index {self.applied_index}",
            )
            touched = [touched_by_entry(entry) for entry in entries]
            for entry, change in zip(entries, touched, strict=True):
                self._witness.touch(change, entry.index)
            results = await self._store.write(lambda txn: apply_entries(txn, entries))
            self._advance(entries[-1].index, entries[-1].term)
        for listener in self._listeners:
            listener(entries, touched)
        return [
            Applied(entry.index, result) for entry, result in zip(entries, results, strict=True)
        ]

    async def wait_for(self, index: int, timeout_s: float) -> None:
        """Until `index` is applied. Raises Unavailable after `timeout_s`."""
        if self.applied_index >= index:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((index, future))
        try:
            async with asyncio.timeout(timeout_s):
                await future
        except TimeoutError:
            raise Unavailable(f"entry {index} is not applied here yet") from None
        finally:
            self._waiters = [waiter for waiter in self._waiters if waiter[1] is not future]

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[int]:
        """Nothing is applied inside; gives the applied index."""
        async with self._lock:
            yield self.applied_index

    def replaced(self, index: int, term: int) -> None:
        """The whole state was replaced by one at `index`."""
        self._witness.touch_all(index)
        self._advance(index, term)
        for listener in self._replacement_listeners:
            listener()

    def _advance(self, index: int, term: int) -> None:
        self.applied_index, self.applied_term = index, term
        for awaited, future in self._waiters:
            if awaited <= index and not future.done():
                future.set_result(None)


async def _how_far(view: MetadataView) -> tuple[int, int]:
    """Index and term. They are set by the first entry, like no other mark before them: a name in
    which a bit has flipped must not pass for one that was never set, or everything would be
    applied a second time."""
    index = await view.get(MARKS, (APPLIED_INDEX,))
    term = await view.get(MARKS, (APPLIED_TERM,))
    if index is not None and term is not None:
        return index.value, term.value
    if await view.scan(MARKS, (), None, 1):
        raise DamagedLog("the tables are not empty, and do not say how far they have come")
    return 0, 0
