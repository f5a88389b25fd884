"""Old images of whole disks, put back under the name of their node (docs/members.md, "An old disk
under a known name").

Limits: only what the product promises to notice is put back. Its node could not find voters enough
among those that have not, durably, seen more of it than the image knows (`is_found_out`); and while
one has not noticed yet, nobody else forgets what it has seen (`is_one_unnoticed`). In everything
else an old image counts as a disk that is lost.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from msgspec.msgpack import decode

from astra.wire import Membership
from node.raft.quorum import is_quorum, voters_of
from node.sightings import OWN_ROW, Known, OwnLife, judge, next_life
from tests.sim.disk import Storage
from tests.sim.node import SimNode
from tests.sim.watch import has_log, newest_membership

if TYPE_CHECKING:
    from tests.sim.members import MembersWorld


class Images:
    def __init__(self, world: MembersWorld) -> None:
        self._world = world
        self._rng = random.Random(f"images-{world.seed}")

    def take(self, node: SimNode) -> Storage:
        """Of a node that runs or not: as the disk would be after a loss of power."""
        self._world.note(f"an image of {node.name} is taken")
        return node.storage.imaged(self._fresh_rng(node.name))

    def may_put_back(self, name: str, image: Storage) -> bool:
        world = self._world
        is_noticed = not world.removing and self.is_found_out(name, image)
        return is_noticed and world.can_spare(name)

    def put_back(self, node: SimNode, image: Storage) -> None:
        world, old = self._world, node.storage
        world.crash(node, is_silent=self._rng.random() < 0.4)
        fresh = image.imaged(self._fresh_rng(node.name))
        fresh.is_old = True
        world.note(f"{node.name} gets an old disk: its log ends at {fresh.log.end()}")
        world.note_lost_log(node.name, old.log)
        lost = world.watch.lost_files.setdefault(node.name, set())
        lost |= old.chunks.blobs.keys() | old.chunks.quarantined.keys()
        lost -= fresh.chunks.blobs.keys()
        node.storage = fresh

    def _fresh_rng(self, name: str) -> random.Random:
        return random.Random(f"{name}-{self._rng.randrange(1 << 30)}")

    def is_found_out(self, name: str, image: Storage) -> bool:
        """Whoever it asks: voters enough to believe in this image cannot be had without one that
        knows better. Which voters are enough it learns from those that it asks (node/recall.py)."""
        group, own = newest_membership(image.log), own_life(image)
        if not group.voters or own.doubt:
            return True
        own = next_life(own, random.Random(0))
        knowing, groups = {name}, [group]
        for node in self._world.everybody.values():
            if node.name != name and self._knows_better(node, own, image):
                knowing.add(node.name)
            elif node.name != name:
                groups += groups_of(node)
        return not any(
            group.voters and is_quorum(group, (voters_of(group) - knowing) | {name})
            for group in groups
        )

    def _knows_better(self, node: SimNode, own: OwnLife, image: Storage) -> bool:
        row = node.storage.ledger.rows.get(image.name)
        if row is None:
            return False
        index, term = image.log._last_index, image.log._hard_state.term
        return bool(
            judge(own, last_index=index, term=term, seen=decode(row, type=Known).sighting())
        )


def groups_of(node: SimNode) -> list[Membership]:
    """What it may say about who votes."""
    end = node.process.consensus.log_end() if node.process is not None else None
    stored = newest_membership(node.storage.log)
    return [stored] if end is None else [stored, end.membership]


def own_life(storage: Storage) -> OwnLife:
    rows = storage.ledger.rows
    return decode(rows[OWN_ROW], type=OwnLife) if OWN_ROW in rows else OwnLife()


def is_unnoticed(storage: Storage) -> bool:
    """An old disk whose node has not asked the others yet, or has had no answer."""
    return storage.is_old and has_log(storage.log) and not own_life(storage).doubt
