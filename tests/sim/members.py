"""The second scenario: members change, and whole disks are lost (seeds from FIRST_SEED on).

Nodes join, are drained and removed, the leader too, die for good and are replaced, come again under
their old name with their old disk or an empty one; a disk is lost under its node. All of it beside
the faults of nemesis.py.

Limits: what cannot be survived is not asked for. A disk is lost only while the voters that have a
log are a majority without it, by every membership that a node may believe in, and while all the
other copies of its blobs are good (`can_spare`). So at most one voter at a time comes back with
nothing, and of the copies of a blob at most one is lost before it is made again.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from msgspec.msgpack import decode

from astra.wire import Membership
from node.raft.memory import MemoryLog
from node.raft.quorum import is_quorum, voters_of
from node.sightings import OWN_ROW, Known, OwnLife, judge, next_life
from tests.sim.disk import Storage
from tests.sim.history import Violation
from tests.sim.images import Images, is_unnoticed
from tests.sim.nemesis import GATEWAYS, Nemesis
from tests.sim.node import SimNode, address_of, sim_settings
from tests.sim.operator import STATUS_S, Operator
from tests.sim.scenario import CLIENTS_PER_GATEWAY, HEALING_S, Scenario, raise_violation
from tests.sim.watch import (
    active_nodes,
    compare_tables,
    has_log,
    held_blobs,
    newest_config,
    newest_membership,
    recorded_nodes,
)
from tests.sim.workload import Workload
from tests.sim.world import World

FIRST_SEED: Final = 1_000_000
OPERATIONS: Final = 130
CLIENT_PAUSE_S: Final = 1.0  # members need time to change
FAULT_EVERY_S: Final = 0.7
PUT_BACK_TRIES: Final = 20
MOVES: Final = 0.2  # of the starts
OPERATORS: Final = ("ops1", "ops2")
NOBODY_KNOWS_S: Final = 60.0  # node/seat.py: as long may a node wait whose voters are all gone
SETTLING_S: Final = 90.0


class MembersWorld(World):
    """`nodes` are in service: members, or about to be. Others are gone: `watch.nodes` knows all."""

    def __init__(self, seed: int, *, story: bool = False) -> None:
        super().__init__(seed, story=story)
        self.watch.nodes = self.everybody = dict(self.nodes)
        names = OPERATORS[: self.rng.choice((1, 2))]
        self.machines |= {name: self._machine() for name in names}
        self.operators = [Operator(self, name) for name in names]
        self.going: dict[str, str] = {}  # by administrator: the node that it is taking away
        self.removing: set[str] = set()  # the administrators who are: no log is lost meanwhile
        self.leaving: set[str] = set()  # what becomes of these nodes was left open
        self.dead: set[str] = set()  # for good, and still a member
        self.stays: Counter[str] = Counter()  # how often a node has come into service
        self.images = Images(self)
        self._moves = random.Random(f"moves-{seed}")
        self.may_move = True
        self.lost_log_s = -1e9  # when a log was lost the last time

    def _shape(self) -> tuple[int, int]:
        self.voters_max = self.rng.choice((3, 5))
        return self.rng.choice(((3, 0), (3, 1), (3, 2)))

    def _node(self, name: str, names: Sequence[str]) -> SimNode:
        node = super()._node(name, names)
        node.settings = replace(node.settings, voters_max=self.voters_max)
        return node

    @property
    def voters(self) -> list[str]:
        """As the node with the newest tables has it; only those in service."""
        newest = max(self.nodes.values(), key=lambda each: each.storage.log.end())
        group = newest_membership(newest.storage.log)
        return [name for name in group.voters if name in self.nodes]

    def memberships(self) -> list[Membership]:
        """Those that may hold, on the disk or in the memory of a node in service: without those
        after which another one was committed."""
        found = [newest_config(node.storage.log) for node in self.nodes.values()]
        for node in self.nodes.values():
            found += node.core._log._configs if node.core is not None else ()
        found = [(at, group) for at, group in found if group.voters]  # some have moved out
        known = max((at for at, _ in found if at <= self.watch.applied_max), default=0)
        return [group for at, group in found if at >= known]

    # --- who is in service -----------------------------------------------------------------------

    def staying(self) -> set[str]:
        """Those that no administrator is taking away."""
        return self.nodes.keys() - set(self.going.values())

    def enlist(self, name: str) -> SimNode:
        """A machine of this name, new or as it was left; not started."""
        node = self.everybody.get(name)
        if node is None:
            self.machines[name] = self._machine()
            node = self.everybody[name] = self._node(name, [*self.founders, name])
        lost = self.watch.lost_files.setdefault(name, set())
        lost -= node.storage.chunks.blobs.keys()
        self.leaving.discard(name)
        self.stays[name] += 1
        self.nodes[name] = node
        return node

    def retire(self, name: str) -> SimNode:
        """Out of service: nobody counts on it, or on its disk, any more. It may still run."""
        node = self.nodes.pop(name)
        self.note(f"{name} is out of service")
        self._lose_files(node)
        return node

    def boot(self, node: SimNode) -> None:
        if node.life is not None:
            return
        if is_unnoticed(node.storage) and not self.images.is_found_out(node.name, node.storage):
            self.lose_disk(node)  # others vote now, and they know nothing of this node
        port = node.settings.listen_port
        if not (recorded_nodes(node) and has_log(node.storage.log)):
            self._configure(node)
            self._write_addresses(node, node.settings.peers, port)
        elif self.may_move and self._moves.random() < MOVES:
            self._write_addresses(node, (*node.settings.peers, *self.nodes), port + 1)
            self.note(f"{node.name} moves to {node.address}")
        super().boot(node)

    def _write_addresses(self, node: SimNode, names: Iterable[str], port: int) -> None:
        """Into its settings: where it is from now on, and where these are today. Who moves is told
        of all: so of two that have moved the last one knows the other."""
        node.settings = replace(node.settings, listen_port=port)
        peers = {name: self.everybody[name].address for name in dict.fromkeys(names)}
        node.settings = replace(node.settings, peers=peers)

    def _configure(self, node: SimNode) -> None:
        """As an administrator does: some members that have a log, and itself."""
        known = [name for name, each in self.nodes.items() if each is not node and self.votes(each)]
        if not known:
            return  # a cluster that starts
        count = self.rng.randrange(min(2, len(known)), len(known) + 1)
        peers = [*self.rng.sample(known, count), node.name]
        settings = sim_settings(node.name, peers, peers[:5], self.raft)
        node.settings = replace(settings, voters_max=self.voters_max)

    def votes(self, node: SimNode) -> bool:
        """Whether it does, or will do as soon as it runs: it has a log, and nobody doubts that."""
        if node.core is not None:
            return True
        storage, name = node.storage, node.name
        if not newest_membership(storage.log).voters:
            return False
        rows = storage.ledger.rows
        own = decode(rows[OWN_ROW], type=OwnLife) if OWN_ROW in rows else OwnLife()
        own = next_life(own, random.Random(0))
        index, term = storage.log._last_index, storage.log._hard_state.term
        seen = [
            decode(each.storage.ledger.rows[name], type=Known).sighting()
            for each in self.nodes.values()
            if name in each.storage.ledger.rows
        ]
        is_doubted = own.doubt or any(
            judge(own, last_index=index, term=term, seen=each) for each in seen
        )
        return not is_doubted

    # --- disks -----------------------------------------------------------------------------------

    def can_spare(self, name: str) -> bool:
        """Whether everything can be had without this node's disk."""
        return self._can_spare_log(name) and self._can_spare_chunks(name)

    def _can_spare_log(self, name: str) -> bool:
        """Whether the others that vote are a majority, whatever membership turns out to hold; and
        what this node has seen of the others is not needed."""
        if self.is_one_unnoticed():
            return False
        left = {each for each, node in self.nodes.items() if each != name and self.votes(node)}
        return all(is_quorum(group, left) for group in self._memberships_after(name))

    def _memberships_after(self, lost: str) -> Iterator[Membership]:
        """Also with learners as voters that have just lost their log: before the leader knows of
        that it may promote them."""
        is_news = self.lost_log_s > self.loop.now_s - STATUS_S
        for group in self.memberships():
            yield group
            news = [each for each in group.learners if is_news or each == lost]
            yield Membership(voters=(*group.voters, *news), voters_outgoing=group.voters_outgoing)

    def is_one_unnoticed(self) -> bool:
        """Then what everybody has seen is needed to find out that a disk is old."""
        return any(is_unnoticed(node.storage) for node in self.everybody.values())

    def _can_spare_chunks(self, name: str) -> bool:
        """Whether all the other copies of what is there are good, and no log may change that."""
        newest = self.watch.newest()
        if newest is None or newest.storage.tables.applied < self._last_index():
            return False
        for blob_id, blob in held_blobs(newest).items():
            others = [each for each in blob.holders if each != name]
            good = [each for each in self.watch.good_copies(blob_id, blob) if each != name]
            if name in blob.holders and (not others or good != others):
                return False
        # Files that no table knows (yet) may have been counted on where they are lost since.
        once = set[str]().union(*self.watch.lost_files.values())
        elsewhere = [node.storage.chunks.blobs for each, node in self.nodes.items() if each != name]
        return all(
            any(blob_id in files for files in elsewhere)
            for blob_id in self.everybody[name].storage.chunks.blobs.keys() & once
        )

    def _last_index(self) -> int:
        """Of all entries that may be committed."""
        ends = [node.storage.log.end()[1] for node in self.nodes.values()]
        ends += [node.core.last_index for node in self.nodes.values() if node.core is not None]
        return max(ends)

    def lose_disk(self, node: SimNode, *, log: bool = True, chunks: bool = True) -> None:
        """Database (log, tables, ledger), chunk files, or both are gone."""
        self.crash(node, is_silent=self.rng.random() < 0.4)
        what = "disk" if log and chunks else "database" if log else "chunks"
        self.note(f"{node.name} loses its {what}")
        old, number = node.storage, self.rng.randrange(1 << 30)
        fresh = Storage(node.name, random.Random(f"{node.name}-{number}"), self.watch.on_append)
        if chunks:
            self._lose_files(node)
        else:
            fresh.chunks = old.chunks
        if log:
            self.note_lost_log(node.name, old.log)
        else:
            fresh.log, fresh.tables, fresh.ledger = old.log, old.tables, old.ledger
            fresh.is_old = old.is_old
        node.storage = fresh

    def note_lost_log(self, name: str, log: MemoryLog) -> None:
        self.watch.lost_logs.setdefault(name, []).append(log)
        self.lost_log_s = self.loop.now_s

    def _lose_files(self, node: SimNode) -> None:
        chunks = node.storage.chunks
        lost = self.watch.lost_files.setdefault(node.name, set())
        lost |= chunks.blobs.keys() | chunks.quarantined.keys()


class MembersNemesis(Nemesis):
    def __init__(self, world: MembersWorld) -> None:
        self.members_world = world
        super().__init__(world)

    def further_actions(self) -> list[tuple[Callable[[], None], int]]:
        return [(self.lose_disk, 4), (self.take_image, 5)]

    def take_image(self) -> None:
        """Of a node that has promised something. It is put back as soon as that is survived."""
        world = self.members_world
        names = [name for name, node in world.nodes.items() if has_log(node.storage.log)]
        if names:
            name = self.rng.choice(names)
            self._put_back_later(name, world.images.take(world.nodes[name]), PUT_BACK_TRIES)

    def _put_back_later(self, name: str, image: Storage, tries: int) -> None:
        delay_s = self.rng.uniform(0.5, 3.0)
        self.world.loop.call_later(delay_s, self._put_back, name, image, tries)

    def _put_back(self, name: str, image: Storage, tries: int) -> None:
        world = self.members_world
        if self.is_calm or not tries:
            return
        if name in world.nodes and world.images.may_put_back(name, image):
            world.images.put_back(world.nodes[name], image)
            tries = self.rng.choice((1, 1, tries))  # or once more, later
        self._put_back_later(name, image, tries - 1)

    def lose_disk(self) -> None:
        world = self.members_world
        node = self._some_node()
        log, chunks = self.rng.choice(((True, True), (True, True), (True, False), (False, True)))
        may_lose_log = world._can_spare_log(node.name) and not world.removing
        may_lose_chunks = world._can_spare_chunks(node.name)
        if (may_lose_log or not log) and (may_lose_chunks or not chunks):
            world.lose_disk(node, log=log, chunks=chunks)


class MembersScenario(Scenario):
    def __init__(self, world: MembersWorld) -> None:
        super().__init__(world, MembersNemesis(world))
        self.members_world = world
        self.fault_every_s = FAULT_EVERY_S
        self.workload = Workload(world, OPERATIONS, CLIENTS_PER_GATEWAY, pause_s=CLIENT_PAUSE_S)

    def begin(self) -> None:
        super().begin()
        for operator in self.members_world.operators:
            operator.start()

    def live_on(self) -> None:
        """As in any seed; the administrators were interrupted in the middle of something."""
        self.members_world.may_move = False
        for operator in self.members_world.operators:
            operator.interrupt()
        for name in GATEWAYS:  # they are told where the nodes are by now
            self.world.crash_gateway(name)
        super().live_on()

    def choose_core(self) -> list[str]:
        core: list[str] = []
        self._complete(core)
        return core

    def keep_core(self) -> None:
        """A change that was under way may ask for one node more."""
        before = len(self.core)
        self._complete(self.core)
        for name in self.core[before:]:
            self.world.note(f"{name} has to be there, too")
            for other in (*self.core, *GATEWAYS):
                self.world.net.heal(name, other)
                self.world.net.heal(other, name)
        super().keep_core()

    def _complete(self, core: list[str]) -> None:
        """Voters that are a majority by every membership that may hold."""
        world, rng = self.members_world, self.nemesis.rng
        order = [name for name, node in world.nodes.items() if world.votes(node)]
        rng.shuffle(order)
        while True:
            voting = {name for name in core if name in order}
            lacking = [each for each in world.memberships() if not is_quorum(each, voting)]
            if not lacking:
                return
            wanted = voters_of(lacking[0]) - set(core)
            found = [name for name in order if name in wanted]
            if not found:
                raise Violation(f"no majority of {lacking[0]} can be had from {order}")
            core.append(found[0])

    def heal_all(self) -> None:
        """All nodes in service, and no others, are members in the end."""
        world = self.members_world
        world.note("everything heals")
        world.net.heal_all()
        for node in world.everybody.values():
            if node.name not in world.nodes and world.rng.random() < 0.5:
                world.crash(node)
        world.operators[0].settle()
        self.require_whole()
        world.watch.check_tables()
        world.watch.check_referenced()

    def require_whole(self) -> None:
        world = self.members_world

        def is_whole() -> bool:
            for node in world.nodes.values():
                world.boot(node)
            return world.operators[0].is_settled and not self.what_is_wrong()

        if not world.run(HEALING_S + NOBODY_KNOWS_S + SETTLING_S, is_whole):
            raise_violation(world, f"not settled: {self.what_is_wrong()}", HEALING_S)

    def what_is_wrong(self) -> str:
        """With the members; "": nothing."""
        world = self.members_world
        newest, leader = world.watch.newest(), world.leader()
        names = set(world.nodes)
        if newest is None or leader is None or leader.core is None:
            return "nobody leads, or nobody has everything"
        indexes = {each.name: each.applied_index for each in world.nodes.values()}
        if len(set(indexes.values())) > 1 or min(indexes.values()) < world.watch.applied_max:
            return f"not level: {indexes}"
        if recorded_nodes(newest).keys() != names or active_nodes(newest) != names:
            return f"the members are {recorded_nodes(newest)}, in service are {names}"
        recorded = {name: row.address for name, row in recorded_nodes(newest).items()}
        if recorded != {name: node.address for name, node in world.nodes.items()}:
            return f"the recorded addresses are {recorded}"
        voters = set(leader.core.membership.voters)
        if not voters <= names or len(voters) != min(world.voters_max, len(names)):
            return f"the voters are {voters}, in service are {names}"
        return ""

    def grow_old(self) -> None:
        super().grow_old()
        wrong = self.what_is_wrong()
        if wrong:
            raise_violation(self.world, f"at the end: {wrong}", 0.0)
        nodes = list(self.members_world.nodes.values())
        for node in nodes[1:]:
            compare_tables(nodes[0], node)


__all__ = ["FIRST_SEED", "MembersScenario", "MembersWorld", "address_of"]
