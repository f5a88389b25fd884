"""A leader that serves badly hands over while the others can still take over quickly.

Two reasons: its database is away or damaged (it could acknowledge nothing), or its disk is much
slower than those of the other voters (node/raft/slowness.py decides).
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from astra.errors import AstraError
from astra.log import get_logger
from astra.ports import MetadataStore
from node.membership import ClusterMap
from node.raft.driver import RaftDriver
from node.raft.quorum import is_quorum, voters_of
from node.raft.slowness import faster_leader
from node.seat import Seat

_LOOK_S: Final = 0.5

_log = get_logger("giveway")


class GiveWay:
    def __init__(self, *, seat: Seat, store: MetadataStore, cluster: ClusterMap) -> None:
        self._seat = seat
        self._store = store
        self._cluster = cluster

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(_LOOK_S)
            driver = self._seat.driver
            if driver is None or not driver.is_leader:
                continue
            if await self._database_is_away():
                await self._hand_over(
                    driver, self._longest_log(driver), "the database is away or damaged"
                )
            elif (heir := self._faster(driver)) is not None:
                await self._hand_over(driver, heir, "the disk of the log is slow")

    def can_be_spared(self) -> bool:
        """Whether the others have a majority of the voters without this node."""
        driver = self._seat.driver
        me = self._cluster.node_id
        if driver is None or me not in voters_of(membership := driver.status().membership):
            return True
        reports = self._cluster.live_reports()
        return is_quorum(membership, {r.node_id for r in reports if r.log.life} - {me})

    async def _database_is_away(self) -> bool:
        """Twice in a row: one slow answer is no reason."""
        if await self._store.check() is None:
            return False
        await asyncio.sleep(_LOOK_S)
        return await self._store.check() is not None

    def _heirs(self, driver: RaftDriver) -> Collection[str]:
        voters = driver.status().membership.voters
        return [v for v in voters if v != self._cluster.node_id and self._cluster.is_live(v)]

    def _longest_log(self, driver: RaftDriver) -> str | None:
        if not driver.is_leader:
            return None
        peers = driver.status().peers
        live = [peer for peer in self._heirs(driver) if peer in peers]
        return max(live, key=lambda peer: peers[peer].match, default=None)

    def _faster(self, driver: RaftDriver) -> str | None:
        heirs = self._heirs(driver)
        times = {
            report.node_id: report.log_write_ms
            for report in self._cluster.placeable_reports()
            if report.node_id in heirs
        }
        return faster_leader(driver.write_ms.median_ms, times)

    async def _hand_over(self, driver: RaftDriver, heir: str | None, reason: str) -> None:
        if heir is None:
            return
        _log.warning("handing leadership over", to=heir, reason=reason)
        try:
            await driver.transfer(heir)
        except AstraError as error:
            _log.info("nobody took over", reason=str(error))
