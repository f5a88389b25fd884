"""Before a node takes part again: may this disk be an old one? The others are asked.

Answers of so many voters are needed that they and this node are a majority: without one it could
not do anything anyway. Which voters: those by the newest of the logs that were heard of, the own
one included. Whoever has it may lead, and goes by that membership; those of the own log may be
replaced and gone. Who sits beside the group itself does not count: it may have forgotten this node,
and elects nobody. All the others are asked, because the one that knows may be any; who is down is
not waited for, but for as long as one that is there may take to answer, or to tell where it is.
`astra doctor --accept-old` overrules what they say.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Set
from typing import Final, NamedTuple

from astra.errors import AstraError, WireError
from astra.log import get_logger
from astra.net import Dialer
from astra.ports import Clock
from astra.wire import LogEnd, Membership, Sighting
from node.membership import ClusterMap
from node.raft.log import decode_membership
from node.raft.quorum import is_quorum, voters_of
from node.raft.types import RaftState
from node.sightings import Sightings, judge

_ANSWER_S: Final = 1.0
_HEAR_MS: Final = 2000  # the time of two reports

_log = get_logger("recall")


class Verdict(NamedTuple):
    """`is_known` False: too few have answered. `doubt` "": the disk may be trusted."""

    is_known: bool
    doubt: str = ""


class Recall:
    def __init__(
        self, *, sightings: Sightings, cluster: ClusterMap, dialer: Dialer, clock: Clock
    ) -> None:
        self._clock = clock
        self._sightings = sightings
        self._cluster = cluster
        self._dialer = dialer
        self._began_ms: int | None = None

    async def look(self, state: RaftState) -> Verdict:
        """One round of questions. Whatever it decides is durable."""
        own = self._sightings.own
        if own.doubt and not own.is_accepted:
            return Verdict(is_known=True, doubt=own.doubt)
        seen = await self._ask()
        if own.is_accepted:
            _log.warning("this disk counts, as it was decided", doubt=own.doubt)
            await self._renew(seen)
            return Verdict(is_known=True)
        for node_id, sighting in seen.items():
            doubt = judge(
                own, last_index=state.last_index, term=state.hard_state.term, seen=sighting
            )
            if doubt:
                await self._sightings.distrust(f"{doubt} ({node_id} says so)")
                return Verdict(is_known=True, doubt=self._sightings.own.doubt)
        heard = (each.log_end for each in seen.values() if each.log_end is not None)
        group = newest_group((log_end_of(state), *heard))
        voting = {node_id for node_id, sighting in seen.items() if sighting.takes_part}
        if not is_quorum(group, voting | {self._cluster.node_id}):
            return Verdict(is_known=False)
        if self._may_hear_more(voters_of(group), seen.keys()):
            return Verdict(is_known=False)
        await self._sightings.trust()
        return Verdict(is_known=True)

    def _may_hear_more(self, voters: Set[str], answered: Set[str]) -> bool:
        """Of a voter that is slow, or whose address is not known yet; or, if this node was once the
        only one, of those that have joined it since its disk was copied."""
        others = voters - {self._cluster.node_id}
        if others and others <= answered:
            return False
        now_ms = self._clock.monotonic_ms()
        if self._began_ms is None:
            self._began_ms = now_ms
        return now_ms - self._began_ms < _HEAR_MS

    async def distrust(self, doubt: str) -> str:
        """Durable; gives the doubt back."""
        await self._sightings.distrust(doubt)
        return doubt

    async def renew(self) -> None:
        """This node is level with a leader: its disk counts again, as a new one."""
        await self._renew(await self._ask())

    async def _renew(self, seen: dict[str, Sighting]) -> None:
        newest = max((each.life for each in seen.values()), default=0)
        await self._sightings.renew(newest, self._clock.wall_ms())

    async def _ask(self) -> dict[str, Sighting]:
        """The answers, by node, of those that gave one themselves. Everybody is asked that has an
        address here: a voter that has none tells it by its first report."""
        known = [
            node_id for node_id in self._cluster.known_ids() if node_id != self._cluster.node_id
        ]
        refs = self._cluster.refs(known)
        answers = await asyncio.gather(*(self._ask_one(ref.address) for ref in refs))
        return {
            ref.node_id: answer
            for ref, answer in zip(refs, answers, strict=True)
            if answer is not None and answer.node_id == ref.node_id
        }

    async def _ask_one(self, address: str) -> Sighting | None:
        own = self._sightings.own
        question = Sighting(life=own.life, token=own.token)
        try:
            answer = await self._dialer.control(address).call(question, timeout_s=_ANSWER_S)
            if not isinstance(answer, Sighting):
                raise WireError("a Sighting is answered by one")
        except AstraError as error:
            _log.debug("no answer", address=address, reason=str(error))
            return None
        return answer


def log_end_of(state: RaftState) -> LogEnd:
    """Of a stored log."""
    mark = state.mark
    return LogEnd(
        term=state.term_runs[-1].term if state.term_runs else mark.term,
        index=state.last_index,
        membership=decode_membership(state.configs[-1].data) if state.configs else mark.membership,
    )


def newest_group(ends: Iterable[LogEnd]) -> Membership:
    """By the log that Raft takes for the newest (5.4.1). At least one."""
    return max(ends, key=lambda end: (end.term, end.index)).membership
