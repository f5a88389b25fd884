"""Who gets blobs while reports are late: nothing is counted twice for good."""

from collections.abc import Mapping

from astra.wire import NodeReport
from node.services.rebalance import Balance
from tests.support.handclock import HandClock

TOTAL = 100
ARRIVAL_MS, DEPARTURE_MS = 1000, 3000


def reports(used: Mapping[str, int]) -> list[NodeReport]:
    return [
        NodeReport(
            node_id=name,
            address=f"{name}:1",
            zone="",
            total_bytes=TOTAL,
            free_bytes=TOTAL - bytes_used,
            writable=True,
        )
        for name, bytes_used in used.items()
    ]


def test_new_node_gets_blobs_until_it_is_near_the_others_also_when_reports_are_quick() -> None:
    """A report that tells early of what moved counts it twice for a while. It stopped then, nine
    per cent below the average, and that is no reason to start again."""
    clock = HandClock()
    balance = Balance(clock, arrival_ms=ARRIVAL_MS, departure_ms=DEPARTURE_MS)
    used = {"a": 24, "b": 24, "c": 24, "new": 0}
    givers = ("a", "b", "c")
    while balance.receiver(reports(used)) is not None:
        balance.note("new", givers[used["new"] % 3], 1)
        used["new"] += 1  # told at once
    assert used["new"] == 9, "by what it counts, all are equal"
    for giver in givers:
        used[giver] -= 3
    clock.now_ms += DEPARTURE_MS
    assert balance.receiver(reports(used)) == "new", "it goes on when it is known better"
    used |= {"a": 19, "b": 19, "c": 18, "new": 16}
    assert balance.receiver(reports(used)) is None, "near enough"
    used |= {"a": 20, "b": 20, "c": 20, "new": 12}
    assert balance.receiver(reports(used)) is None, "and it does not begin again for so little"
