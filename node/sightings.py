"""What the nodes remember of each other, so that none takes part again with an old disk.

A disk that is put back as it was (an image of a virtual machine, a copied directory) has forgotten
entries that its node acknowledged and votes that it gave: counted again, it could lose what was
committed (FAULTS row 39). It cannot see that in itself. So each start of a node is a *life*, with
a number one above that of the life before, and a random token. Before it takes part it tells the
others, who note it durably and answer with the most that they have seen of it: the newest life,
and how far its log had come, by its own reports (`judge`).

`doubt` is why this node does not trust its own disk. It is durable, and ends when the node is level
with a leader (seat.py), or when a person accepts the disk as it is (`astra doctor --accept-old`).

Invariants
- A life is durable here before anybody hears of it, and is the same again after a crash in which
  the node had not taken part yet: so neither a crash nor a restart looks like an old disk.
- What is reported (index, term) is durable in the own log: a restart never ends below it.
"""

from __future__ import annotations

import asyncio
from typing import Final, TypeVar

import msgspec
from msgspec.structs import replace

from astra.decoding import UNREADABLE
from astra.errors import AstraError, DamagedLog, Fatal
from astra.log import get_logger
from astra.wire import Sighting
from node.ledger import Ledger
from node.raft.types import Rng

Row = TypeVar("Row", bound=msgspec.Struct)

OWN_ROW: Final = "/own"  # no node id has a slash
_TOKEN_MAX: Final = 1 << 62
OLD_DISK: Final = "this disk is older than what this node has promised: it does not vote"
OLD_DISK_TODO: Final = (
    "nothing while the others have a majority: it counts again when it has everything; if they have"
    " not, and nothing newer is left: stop it, `astra doctor --accept-old NODE`, start it"
)

_log = get_logger("sightings")


class OwnLife(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """As stored. New fields go to the end, with a default."""

    life: int = 0
    token: int = 0
    took_part: bool = True
    doubt: str = ""
    is_accepted: bool = False  # by a person: this disk counts, however old it is


class Known(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """Of another node, as stored: fields of Sighting, and the life that told index and term."""

    life: int = 0
    token: int = 0
    index: int = 0
    term: int = 0
    reported: int = 0

    def sighting(self) -> Sighting:
        return Sighting(life=self.life, token=self.token, index=self.index, term=self.term)


# --- rules -----------------------------------------------------------------------------------


def judge(own: OwnLife, *, last_index: int, term: int, seen: Sighting) -> str:
    """Why the disk must be older than what was seen of it; "": it may be the newest."""
    if seen.life > own.life or (seen.life == own.life and seen.token != own.token):
        return f"its start number {seen.life} was seen before, and this disk does not know of it"
    if seen.index > last_index:
        return f"its log was seen to reach entry {seen.index}, and here it ends at {last_index}"
    if seen.term > term:
        return f"it was seen to take part in term {seen.term}, and here its newest is {term}"
    return ""


def after_start(known: Known, life: int, token: int) -> Known:
    """It told that it starts."""
    return replace(known, life=life, token=token) if life > known.life else known


def after_report(known: Known, told: Sighting) -> Known:
    """It takes part and tells how far it is. A newer life replaces what older ones told (a person
    may have accepted an old disk). An older life does so only when it is nowhere behind: then it
    has everything again. Otherwise it is a late report."""
    is_ahead = told.index >= known.index and told.term >= known.term
    if told.life < known.reported and not is_ahead:
        return known
    if told.life == known.reported and not is_ahead:
        told = replace(told, index=max(told.index, known.index), term=max(told.term, known.term))
    is_newest = told.life > known.life or told.life < known.reported
    newest = told if is_newest else known
    return Known(
        life=newest.life,
        token=newest.token,
        index=told.index,
        term=told.term,
        reported=told.life,
    )


def next_life(own: OwnLife, rng: Rng) -> OwnLife:
    """The life of a process that starts: that of the one before, unless it took part."""
    if not own.took_part:
        return own
    fresh = replace(own, life=own.life + 1, took_part=False)
    return replace(fresh, token=rng.randrange(1, _TOKEN_MAX))


# --- memory ----------------------------------------------------------------------------------


class Sightings:
    """Event loop only. `load` comes first."""

    def __init__(self, ledger: Ledger, rng: Rng) -> None:
        self._ledger = ledger
        self._rng = rng
        self._own = OwnLife()
        self._known: dict[str, Known] = {}
        self._unsaved: set[str] = set()

    @property
    def own(self) -> OwnLife:
        return self._own

    async def load(self) -> None:
        """Begins a life, durably. Raises DamagedLog."""
        rows = await self._ledger.read()
        own = _decoded(rows.pop(OWN_ROW), OwnLife) if OWN_ROW in rows else OwnLife()
        self._known = {node_id: _decoded(row, Known) for node_id, row in rows.items()}
        await self._keep(next_life(own, self._rng))

    async def _keep(self, own: OwnLife) -> None:
        await self._ledger.write({OWN_ROW: msgspec.msgpack.encode(own)})
        self._own = own

    async def trust(self) -> None:
        """This node is about to take part; durable."""
        await self._keep(replace(self._own, took_part=True))

    async def distrust(self, doubt: str) -> None:
        """It must not; durable, so that no restart forgets it."""
        await self._keep(replace(self._own, doubt=doubt))

    async def renew(self, seen: int, now_ms: int) -> None:
        """The disk counts again: a new life, above the newest that anybody has seen (`seen`: of
        those that answered). Above the time as well, which runs faster than any node restarts:
        who did not answer may remember a life of the disk that is lost."""
        life = max(self._own.life, seen, now_ms) + 1
        token = self._rng.randrange(1, _TOKEN_MAX)
        await self._keep(OwnLife(life=life, token=token, took_part=True))

    async def note_start(self, node_id: str, told: Sighting) -> Sighting:
        """The most that was seen of it before; this start is durable on return."""
        known = self._known.get(node_id, Known())
        after = after_start(known, told.life, told.token)
        if after != known:
            self._known[node_id] = after
            await self._ledger.write({node_id: msgspec.msgpack.encode(after)})
        return known.sighting()

    def seen(self, node_id: str) -> Sighting:
        """The most that was seen of it, also of one that was removed."""
        return self._known.get(node_id, Known()).sighting()

    def note_report(self, node_id: str, told: Sighting) -> None:
        """Never blocks; stored by `run`."""
        known = self._known.get(node_id, Known())
        after = after_report(known, told)
        if told.life and after != known:
            self._known[node_id] = after
            self._unsaved.add(node_id)

    async def save(self) -> None:
        """What was reported since the last time."""
        unsaved, self._unsaved = self._unsaved, set()
        rows = {node_id: msgspec.msgpack.encode(self._known[node_id]) for node_id in unsaved}
        if not rows:
            return
        try:
            await self._ledger.write(rows)
        except BaseException:
            self._unsaved |= unsaved
            raise

    async def run(self, interval_s: float) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(interval_s)
            try:
                await self.save()
            except Fatal:
                raise
            except AstraError as error:
                _log.info("sightings are not stored now", reason=str(error))


async def accept_old(ledger: Ledger) -> str:
    """The doubt that a person has decided to overrule; "": there is none. Durable."""
    row = (await ledger.read()).get(OWN_ROW)
    own = OwnLife() if row is None else _decoded(row, OwnLife)
    if own.doubt:
        accepted = replace(own, is_accepted=True)
        await ledger.write({OWN_ROW: msgspec.msgpack.encode(accepted)})
    return own.doubt


def _decoded(row: bytes, kind: type[Row]) -> Row:
    try:
        return msgspec.msgpack.decode(row, type=kind)
    except UNREADABLE as error:
        raise DamagedLog(f"the ledger cannot be read: {error}") from error
