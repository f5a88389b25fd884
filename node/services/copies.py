"""Which copies of a blob count, and which node gives or takes one. Decisions only.

Rules of this file: pure functions over what is known of the nodes; no clock, no sockets.

A holder is *safe* (a member that was heard lately, or is silent for less than the grace), *leaving*
(draining, but its copy is good) or *gone* (not a member, or silent for longer). Only safe copies
count towards REPLICAS. Safe and leaving ones that are live can be copied from.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from msgspec.structs import replace

from astra.constants import REPLICAS
from astra.placement import has_room, place_blob
from astra.wire import NodeReport


class Standing(enum.Enum):
    LIVE = "live"
    LATE = "late"  # silent, but not for long
    LEAVING = "leaving"  # draining, and live
    GONE = "gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """The holders of one blob by their standing, each in the order of the metadata."""

    live: tuple[str, ...]
    late: tuple[str, ...]
    leaving: tuple[str, ...]
    gone: tuple[str, ...]

    @property
    def safe(self) -> tuple[str, ...]:
        return (*self.live, *self.late)

    @property
    def sources(self) -> tuple[str, ...]:
        """Who can be copied from now."""
        return (*self.live, *self.leaving)

    @property
    def left(self) -> int:
        """Copies that are there, for the urgency."""
        return len(self.safe) + len(self.leaving)

    @property
    def is_right(self) -> bool:
        return len(self.safe) == REPLICAS and not self.leaving and not self.gone


def judge(holders: Sequence[str], standing: Callable[[str], Standing]) -> Copies:
    by: dict[Standing, list[str]] = {each: [] for each in Standing}
    for holder in holders:
        by[standing(holder)].append(holder)
    return Copies(
        live=tuple(by[Standing.LIVE]),
        late=tuple(by[Standing.LATE]),
        leaving=tuple(by[Standing.LEAVING]),
        gone=tuple(by[Standing.GONE]),
    )


def holders_after(copies: Copies, new: str | None) -> tuple[str, ...]:
    """The holders once `new` has a good copy too. Leaving and gone ones stay until enough safe
    copies are there without them: a gone disk may come back, and be the last one that is good."""
    safe = (*copies.safe, new) if new is not None else copies.safe
    if len(safe) >= REPLICAS:
        return safe
    return (*safe, *copies.leaving, *copies.gone)


def choose_target(
    reports: Iterable[NodeReport],
    copies: Copies,
    size: int,
    *,
    leader_id: str,
    banned: Collection[str] = (),
) -> str | None:
    """The node that gets the next copy: one that holds none, in a zone that has none if there is
    such. `reports` of live nodes that are not draining; `banned`: with an old copy to delete."""
    known = list(reports)
    holders = {*copies.safe, *copies.leaving, *copies.gone}
    zones = {report.zone for report in known if report.node_id in copies.safe}
    candidates = [r for r in known if r.node_id not in holders and r.node_id not in banned]
    chosen = place_blob(candidates, leader_id, size, count=1, zones_used=zones)
    return chosen[0] if chosen else None


def choose_extra(safe: Sequence[str], reports: Iterable[NodeReport]) -> str | None:
    """Which of too many copies goes: of those without which no zone is lost, the one on the node
    with the least free space. None: not too many, or not all of their nodes are live."""
    by_id = {report.node_id: report for report in reports if report.node_id in safe}
    if len(safe) <= REPLICAS or len(by_id) < len(safe):
        return None

    def merit(node_id: str) -> tuple[int, int, str]:
        zones_left = {by_id[other].zone for other in safe if other != node_id}
        return (-len(zones_left), by_id[node_id].free_bytes, node_id)

    return min(safe, key=merit)


def keeps_zones(holders: Sequence[str], leaving: str, new: str, zone_of: Mapping[str, str]) -> bool:
    """Whether a copy may move from `leaving` to `new`: over at least as many zones as before."""
    before = {zone_of.get(holder, "") for holder in holders}
    after = {zone_of.get(holder, "") for holder in holders if holder != leaving}
    return len(after | {zone_of.get(new, "")}) >= len(before)


# --- rebalancing -----------------------------------------------------------------------------

START_BELOW: Final = 0.10  # a node this far below the average fill gets blobs
STOP_BELOW: Final = 0.03  # until it is this close


def fill_of(report: NodeReport) -> float:
    """The used part of a node's disk, 0 to 1."""
    if report.total_bytes <= 0:
        return 1.0
    return 1.0 - min(max(report.free_bytes / report.total_bytes, 0.0), 1.0)


def with_moves(reports: Iterable[NodeReport], moved: Mapping[str, int]) -> list[NodeReport]:
    """The reports as they will be when they tell of the bytes that moved to (or, below zero, from)
    each node: a report is old, and what moved away is deleted after a grace only."""
    return [
        replace(report, free_bytes=report.free_bytes - moved.get(report.node_id, 0))
        for report in reports
    ]


def choose_receiver(reports: Iterable[NodeReport], *, is_moving: bool) -> str | None:
    """The node onto which blobs should move, or None: balanced enough. Starts when a node is
    clearly emptier than the average, and stops near it, so that nothing moves to and fro.
    `reports` of live nodes that are not draining."""
    known = sorted(reports, key=lambda report: report.node_id)
    if len(known) <= REPLICAS:
        return None  # each blob is on all of them
    receiver = min(known, key=fill_of)
    tolerance = STOP_BELOW if is_moving else START_BELOW
    if average_fill(known) - fill_of(receiver) <= tolerance or not has_room(receiver, 0):
        return None
    return receiver.node_id


def average_fill(reports: Collection[NodeReport]) -> float:
    return sum(fill_of(report) for report in reports) / max(1, len(reports))


def choose_giver(
    holders: Sequence[str], reports: Collection[NodeReport], receiver: str
) -> str | None:
    """Whose copy of a blob moves to `receiver`: that of the fullest node, if it is fuller than
    the average and no zone is lost. None: this blob stays."""
    if receiver in holders:
        return None
    by_id = {report.node_id: report for report in reports}
    zone_of = {node_id: report.zone for node_id, report in by_id.items()}
    average = average_fill(reports)
    givers = [
        holder
        for holder in holders
        if holder in by_id
        and fill_of(by_id[holder]) > average
        and keeps_zones(holders, holder, receiver, zone_of)
    ]
    return max(givers, key=lambda holder: (fill_of(by_id[holder]), holder), default=None)
