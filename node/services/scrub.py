"""Each node reads every byte it holds, over and over, and has what went bad repaired.

Promise: each chunk is verified at least every 7 days, as far as the rate allows; when it does not,
status says so. How far it has come is noted, and a restart goes on from there. What is found bad is
reported to the leader before the walk goes on; the repair replaces bad chunks, and quarantines a
file whose footer is bad (blob_repair.py).
"""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from astra.constants import MIB
from astra.decoding import UNREADABLE
from astra.errors import AstraError, Fatal
from astra.log import get_logger
from astra.ports import Clock
from node.chunkstore.executor import AsyncChunkStore
from node.chunkstore.format import is_blob_id
from node.chunkstore.scrub import Finding, Scrubber
from node.notebook import Notebook
from node.services.census import report_bad
from node.services.ports import LeaderLink

PROMISE_S: Final = 7 * 24 * 3600
PERIOD_S: Final = 6 * 24 * 3600  # from the start of a walk to that of the next
NOTE: Final = "scrub.json"
NOTE_FORMAT: Final = 1
_NOTE_EVERY_S: Final = 10.0
_RETRY_S: Final = 10.0
_CLOCK_MS_MAX: Final = 24 * 3600 * 1000  # that the clock may have been ahead when a note was made

_log = get_logger("scrub")


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """As noted. Times are wall clock, in ms; 0: never."""

    format: int = NOTE_FORMAT
    cursor: str | None = None
    is_walking: bool = False
    started_ms: int = 0
    finished_ms: int = 0
    checked: int = 0
    found: int = 0  # bad ones, ever
    before_ms: int = 0  # when the walk before this one started


def decode_progress(data: bytes, now_ms: int) -> Progress:
    """A note as it was written. Raises ValueError for one that cannot be: notes are not synced, and
    one that a power loss left half right must neither stop the walk nor hide that it is late."""
    try:
        progress = msgspec.json.decode(data, type=Progress)
    except UNREADABLE as error:
        raise ValueError("not a note") from error
    times = (progress.started_ms, progress.finished_ms, progress.before_ms)
    if not all(0 <= time_ms <= now_ms + _CLOCK_MS_MAX for time_ms in times):
        raise ValueError("a time that cannot be")
    if progress.cursor is not None and not is_blob_id(progress.cursor):
        raise ValueError("a cursor that is no blob id")
    if progress.checked < 0 or progress.found < 0:
        raise ValueError("a count below zero")
    if progress.format != NOTE_FORMAT:
        raise ValueError("a note of another version")
    return progress


class ScrubService:
    def __init__(
        self,
        *,
        node_id: str,
        chunks: AsyncChunkStore,
        leader: LeaderLink,
        notebook: Notebook,
        clock: Clock,
        mib_per_s: float,
        period_s: float = PERIOD_S,
    ) -> None:
        self._node_id = node_id
        self._chunks = chunks
        self._leader = leader
        self._notebook = notebook
        self._clock = clock
        self._bytes_per_s = max(1, int(mib_per_s * MIB))
        self._period_ms = int(period_s * 1000)
        self.progress = Progress()

    async def run(self) -> None:
        """For ever."""
        await self._load()
        while True:
            await self._until_due()
            try:
                await self.walk()
            except Fatal:
                raise
            except AstraError as error:
                _log.warning("scrub interrupted", reason=str(error))
                await asyncio.sleep(_RETRY_S)

    async def _load(self) -> None:
        data = await self._notebook.read(NOTE)
        if data is not None:
            try:
                self.progress = decode_progress(data, self._clock.wall_ms())
            except ValueError:
                _log.warning("the note of the scrub cannot be read: it starts over")

    async def _until_due(self) -> None:
        while not self.progress.is_walking:
            due_ms = self.progress.started_ms + self._period_ms
            left_ms = due_ms - self._clock.wall_ms()
            # A clock that was set back must not stop the scrub for years.
            if left_ms <= 0 or left_ms > self._period_ms:
                return
            await asyncio.sleep(min(left_ms / 1000, 3600.0))

    async def walk(self) -> None:
        """One walk over all blobs, or the rest of one that was interrupted."""
        old = self.progress
        if not old.is_walking:
            await self._save(
                Progress(
                    is_walking=True,
                    started_ms=self._clock.wall_ms(),
                    finished_ms=old.finished_ms,
                    found=old.found,
                    before_ms=old.started_ms,
                )
            )
        scrubber = Scrubber(
            self._chunks,
            bytes_per_second=self._bytes_per_s,
            clock=lambda: self._clock.monotonic_ms() / 1000,
            sleep=asyncio.sleep,
            cursor=self.progress.cursor,
        )
        before = self.progress.checked
        noting = asyncio.create_task(self._keep_notes(scrubber, before))
        try:
            async for finding in scrubber.run_pass():
                await self._take(finding)
        finally:
            noting.cancel()
        checked = before + scrubber.checked
        await self._save(
            msgspec.structs.replace(
                self.progress, cursor=None, is_walking=False, checked=checked,
                finished_ms=self._clock.wall_ms(),
            )
        )  # fmt: skip
        _log.info("scrub finished", blobs=checked)

    async def _take(self, finding: Finding) -> None:
        _log.warning(
            "a copy is damaged",
            blob_id=finding.blob_id, chunks=len(finding.bad_chunks), whole=finding.is_whole,
        )  # fmt: skip
        self.progress = msgspec.structs.replace(self.progress, found=self.progress.found + 1)
        await report_bad(self._leader, self._node_id, [finding.blob_id])

    async def _keep_notes(self, scrubber: Scrubber, checked: int) -> None:
        while True:
            await asyncio.sleep(_NOTE_EVERY_S)
            now = msgspec.structs.replace(
                self.progress, cursor=scrubber.cursor, checked=checked + scrubber.checked
            )
            await self._save(now)

    async def _save(self, progress: Progress) -> None:
        self.progress = progress
        await self._notebook.write(NOTE, msgspec.json.encode(progress))

    # --- for people ---

    def problems(self) -> list[str]:
        progress = self.progress
        since = progress.before_ms if progress.is_walking else progress.started_ms
        age_s = (self._clock.wall_ms() - since) / 1000 if since else 0.0
        if age_s <= PROMISE_S:
            return []
        return [
            f"the scrub needs more than 7 days for this node ({age_s / 86400:.0f} days):"
            " raise node.scrub_mib_per_s"
        ]

    def summary(self) -> str:
        progress = self.progress
        if progress.is_walking:
            return f"walking, {progress.checked} blobs checked; {progress.found} were ever bad"
        return f"waiting for the next walk; {progress.found} were ever bad"
