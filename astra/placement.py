"""Where a new blob goes, and from whom an old one is read.

Rules of this file: pure functions over the nodes' own reports; no clock and no randomness, so
that a simulation chooses as a cluster does. The caller passes reports of live nodes only.

DESIGN section 5: three nodes, the leader included while its free space is at or above the
average, otherwise the emptiest others; different zones first; with fewer nodes, what there is.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from typing import Final

from astra.constants import MIB, REPLICAS
from astra.wire import NodeReport

# Room that stays free on a node, so that its database and its log never meet a full disk.
RESERVE_BYTES_MAX: Final = 256 * MIB
RESERVE_FRACTION: Final = 0.02


def has_room(report: NodeReport, size: int) -> bool:
    """Whether a node takes a new blob of `size` bytes."""
    reserve = min(RESERVE_BYTES_MAX, int(report.total_bytes * RESERVE_FRACTION))
    return report.writable and report.free_bytes - reserve >= size


def place_blob(
    reports: Iterable[NodeReport],
    leader_id: str,
    size: int,
    *,
    count: int = REPLICAS,
    zones_used: Collection[str] = (),
) -> tuple[str, ...]:
    """At most `count` different nodes, best first; fewer when no more have room, () when none.
    `zones_used`: where copies are already, when one is repaired."""
    usable = [report for report in reports if has_room(report, size)]
    if not usable:
        return ()
    average = sum(report.free_bytes for report in usable) / len(usable)

    def merit(report: NodeReport) -> tuple[bool, int, int, str]:
        is_preferred = report.node_id == leader_id and report.free_bytes >= average
        return (not is_preferred, -report.free_bytes, report.streams, report.node_id)

    return _spread(sorted(usable, key=merit), count, zones_used)


def _spread(
    candidates: Sequence[NodeReport], count: int, zones_used: Collection[str]
) -> tuple[str, ...]:
    """The first candidates of zones that have none yet, then the first of the rest."""
    chosen: dict[str, None] = {}
    zones = set(zones_used)
    for report in candidates:
        if len(chosen) < count and report.zone not in zones:
            chosen[report.node_id] = None
            zones.add(report.zone)
    for report in candidates:
        if len(chosen) < count:
            chosen[report.node_id] = None
    return tuple(chosen)


def rank_holders(
    holders: Sequence[str], reports: Iterable[NodeReport], *, turn: int = 0
) -> tuple[str, ...]:
    """All `holders`, fastest first: by measured speed divided among the streams under way.

    Who has at least half of the best speed counts as equal, and equals take turns by `turn` (any
    number, such as a request counter): measurements of equal disks differ by more than the disks,
    and a holder that is never read is neither measured again nor found to be damaged. A speed
    that is not known counts as the best, so that it gets measured; a node without a report comes
    last, because it may be down."""
    by_id = {report.node_id: report for report in reports}
    speeds = {holder: _speed_for_one_more(by_id.get(holder)) for holder in holders}
    best = max((speed for speed in speeds.values() if speed is not None), default=0.0)

    def merit(place: int) -> tuple[bool, int, int]:
        speed = speeds[holders[place]]
        halvings = int(math.log2(best / speed)) if speed else 0
        return (speed is None, halvings, (place - turn) % len(holders))

    return tuple(holders[place] for place in sorted(range(len(holders)), key=merit))


def _speed_for_one_more(report: NodeReport | None) -> float | None:
    """None: nothing is known of the node; 0: it was not measured."""
    if report is None:
        return None
    return report.read_mib_per_s / (1 + max(0, report.streams))
