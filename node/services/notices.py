"""What the leader tells the others after applying: hints for gateways, entries for learners."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from astra.ports import Bus
from astra.wire import Entry, Notice
from node.apply.touched import Touched
from node.services.ports import Consensus


class Announcer:
    """A listener of the Applier. Publishes only while leading, and only what somebody needs."""

    def __init__(
        self, *, consensus: Consensus, bus: Bus, has_followers: Callable[[], bool]
    ) -> None:
        """`has_followers`: whether there are members outside of the Raft group."""
        self._consensus = consensus
        self._bus = bus
        self._has_followers = has_followers

    def on_applied(self, entries: Sequence[Entry], touched: Sequence[Touched]) -> None:
        consensus = self._consensus
        if not consensus.is_leader:
            return
        access = any(change.access for change in touched)
        buckets = tuple(dict.fromkeys(name for change in touched for name in change.buckets))
        has_followers = self._has_followers()
        if not (access or buckets or has_followers):
            return
        self._bus.publish(
            Notice(
                term=consensus.term,
                index=entries[-1].index,
                access=access,
                buckets=buckets,
                entries=tuple(entries) if has_followers else (),
            )
        )
