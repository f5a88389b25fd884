"""What every client did and was told, and what was done to the cluster meanwhile.

Each write has an id of its own, which goes along as user metadata: so an answer names the write
that it shows. The bytes follow from the id too: a body that is not exactly those of one write is
found out without keeping any.
"""

from __future__ import annotations

import enum
import hashlib
import threading
import time
from typing import Final

import msgspec

META_OP: Final = "x-amz-meta-op"


class Outcome(enum.StrEnum):
    OK = "ok"
    MISSING = "missing"  # 404 for the key
    REFUSED = "refused"  # 412: the condition did not hold
    UNKNOWN = "unknown"  # no answer, or a 5xx: it may have happened
    NOTHING = "nothing"  # certainly not carried out (409: a concurrent write won)


class Event(msgspec.Struct, kw_only=True):
    """One request on one key; times of time.monotonic()."""

    client: str
    kind: str
    key: str
    called: float
    returned: float = 0.0
    outcome: Outcome = Outcome.UNKNOWN
    status: int = 0
    op: str = ""  # the id of a write
    etag: str = ""  # that it was given
    if_match: str = ""
    if_none_match: bool = False
    seen_op: str = ""  # the write that an answer shows
    seen_etag: str = ""
    source: str = ""  # the key that was copied
    listed: dict[str, str] | None = None  # key: ETag
    covered: list[str] | None = None  # the keys that a page of a list had to show; None: all
    note: str = ""

    def line(self, start: float) -> str:
        """For people."""
        what = [self.client, self.kind, self.key, self.op, self.outcome.value, str(self.status)]
        what += [f"etag={self.etag}"] if self.etag else []
        what += [f"shows={self.seen_op or self.seen_etag}"] if self.seen_etag else []
        what += [f"if-match={self.if_match}"] if self.if_match else []
        what += ["if-none-match=*"] if self.if_none_match else []
        what += [f"from={self.source}"] if self.source else []
        ends = f"{self.called - start:8.3f} .. {self.returned - start:8.3f}"
        return f"{ends}  {' '.join(part for part in [*what, self.note] if part)}"


class Fault(msgspec.Struct, kw_only=True):
    """Something that was done to the cluster."""

    name: str
    detail: str
    began: float
    ended: float = 0.0

    def line(self, start: float) -> str:
        ends = f"{self.began - start:8.3f} .. {self.ended - start:8.3f}"
        return f"{ends}  ### {self.name} {self.detail}"


class Content(msgspec.Struct, frozen=True, kw_only=True):
    """The bytes of one body, by what they follow from."""

    name: str
    size: int

    def bytes(self) -> bytes:
        return hashlib.shake_128(self.name.encode()).digest(self.size)


class History:
    """Filled by all clients at once."""

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.events: list[Event] = []
        self.faults: list[Fault] = []
        self.wrong: list[str] = []
        self.contents: dict[str, Content] = {}  # by ETag: every body that was ever sent
        self._lock = threading.Lock()
        self._count = 0

    def new_op(self) -> str:
        with self._lock:
            self._count += 1
            return f"op{self._count}"

    def add(self, event: Event) -> None:
        with self._lock:
            self.events.append(event)

    def say_wrong(self, event: Event, what: str) -> None:
        """An answer that is wrong by itself, whatever the order of events was."""
        with self._lock:
            self.wrong.append(f"{what}: {event.line(self.started)}")

    def dump(self) -> dict[str, object]:
        """For the file that is kept of a failed run."""
        return {
            "started": self.started,
            "wrong": self.wrong,
            "faults": self.faults,
            "events": self.events,
            "contents": self.contents,
        }
