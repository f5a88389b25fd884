"""What walking a whole database has in common in both SQL stores: pace, and being sure.

Rules: no SQL. A walk is made of steps that are short for everybody else; between two of them
nothing is held, so that whoever walks may rest for as long as it likes. What a step finds it has to
find twice: what the memory did once to a copy of a row is no damage of the database. A queue that
is full is waited for; whatever else goes wrong says nothing about the rows, and ends the walk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from astra.constants import KIB
from astra.errors import DamagedLog, Overloaded
from astra.log import get_logger
from node.metadata.rows import DamagedRow, DamagedTables

T = TypeVar("T")

ROW_COST: Final = 4 * KIB  # what a row costs beside its bytes, as if it were bytes
STEP_COST: Final = 512 * KIB
_BUSY_S: Final = 1.0

DAMAGE: Final = (DamagedRow, DamagedTables, DamagedLog)

_log = get_logger("metadata")


async def sure(step: Callable[[], Awaitable[T]]) -> T:
    """The result of a step. Raises one of DAMAGE, StoreError."""
    try:
        return await _patiently(step)
    except DAMAGE as error:
        _log.warning("damage is met: reading again", reason=str(error))
        return await _patiently(step)


async def _patiently(step: Callable[[], Awaitable[T]]) -> T:
    while True:
        try:
            return await step()
        except Overloaded:
            await asyncio.sleep(_BUSY_S)
