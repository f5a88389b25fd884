"""Asking the leader, whoever it is: finds it, and follows it when it changes.

Every message to the leader may be repeated: reads change nothing, and a Commit carries a request
id, so the cluster answers a repeated one with its first result. That is why any failure of the
way (no answer, a broken connection, no leader) is retried here until the time is up, and a
failover is a delay, never an error or a doubled write.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final, TypeVar

from astra.errors import (
    DeadlineExceeded,
    HandshakeFailed,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    Unavailable,
)
from astra.net import Dialer
from astra.wire import Message

_BACKOFF_S_FIRST: Final = 0.01
_BACKOFF_S_MAX: Final = 0.1

M = TypeVar("M", bound=Message)


class LeaderClient:
    """The leader of the cluster that these addresses belong to. One per process is enough."""

    def __init__(
        self,
        dialer: Dialer,
        addresses: Sequence[str],
        *,
        timeout_s: float,
        attempt_timeout_s: float,
    ) -> None:
        """`timeout_s` bounds a question, failover included; `attempt_timeout_s` one try of it."""
        self.dialer = dialer
        self.leader: str | None = None
        self._timeout_s = timeout_s
        self._attempt_timeout_s = attempt_timeout_s
        self._addresses = list(addresses)
        random.shuffle(self._addresses)  # not everybody asks the same node first

    async def ask(self, message: Message, answer: type[M]) -> M:
        """The leader's answer. Raises Refused (its decision), or Unavailable when there was no
        answer in time; then the outcome of a Commit is unknown."""
        clock = asyncio.get_running_loop().time
        deadline = clock() + self._timeout_s
        backoff = _BACKOFF_S_FIRST
        reason = "the cluster has no leader that answers"
        while (remaining := deadline - clock()) > 0:
            address = self.leader or self._addresses[0]
            try:
                found = await self.dialer.control(address).call(
                    message, timeout_s=min(remaining, self._attempt_timeout_s)
                )
                self.leader = address
                return _expect(found, answer)
            except NotLeader as error:
                if self._follow(error.leader, address):
                    continue
            except Overloaded as error:
                reason = str(error)  # the same leader, a little later
            except (Unavailable, OutcomeUnknown, DeadlineExceeded, HandshakeFailed) as error:
                reason = str(error)
                self._try_another(address)
            await asyncio.sleep(backoff * random.uniform(0.5, 1.0))  # noqa: S311 (jitter)
            backoff = min(backoff * 2, _BACKOFF_S_MAX)
        raise Unavailable(reason)

    def _follow(self, leader: str | None, asked: str) -> bool:
        """True when there is another node to ask at once."""
        if leader is None or leader == asked:
            self._try_another(asked)
            return False
        self.leader = leader
        if leader not in self._addresses:
            self._addresses.append(leader)
        return True

    def _try_another(self, failed: str) -> None:
        self.leader = None
        if self._addresses[0] == failed:
            self._addresses.append(self._addresses.pop(0))


def _expect(found: Message, answer: type[M]) -> M:
    if not isinstance(found, answer):
        raise Unavailable(f"the node answered a {type(found).__name__}")
    return found
