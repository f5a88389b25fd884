"""The real store on a disk that loses what was not synced, cut at every call (FAULTS row 30)."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from astra.constants import CHUNK_SIZE
from astra.errors import BlobNotFound, ForeignDirectory
from node.chunkstore.format import crc32c
from node.chunkstore.layout import LEAVES, initialise
from node.chunkstore.store import DiskChunkStore
from tests.support.chunkstore import CLUSTER, NODE, blob_id_of, pattern, read_bytes, store_bytes
from tests.support.powercut import PowerCut, PowerCutDisk

ONE, TWO, SAME_DIRECTORY = blob_id_of(1), blob_id_of(2, directory="fff"), blob_id_of(3)
CONTENT = pattern(CHUNK_SIZE + 5 * 4096, seed=3)
SEEDS = 5


def open_store(disk: PowerCutDisk) -> DiskChunkStore:
    return DiskChunkStore("ignored", cluster_id=CLUSTER, node_id=NODE, disk=disk)


def make_store() -> tuple[PowerCutDisk, DiskChunkStore]:
    disk = PowerCutDisk()
    initialise("ignored", cluster_id=CLUSTER, node_id=NODE, disk=disk)
    store = open_store(disk)
    for blob_id in (TWO, SAME_DIRECTORY):
        store_bytes(store, blob_id, CONTENT)
    return disk, store


def cut_everywhere(
    prepare: Callable[[DiskChunkStore, PowerCutDisk], None],
    action: Callable[[DiskChunkStore], None],
    check: Callable[[DiskChunkStore, bool], None],
) -> int:
    """Runs `action` with a cut before its first, second, ... call, and without; how many."""
    cut = 0
    while True:
        has_returned = False
        for seed in range(SEEDS):
            disk, store = make_store()
            prepare(store, disk)
            disk.cut_at = len(disk.calls) + cut
            try:
                action(store)
                has_returned = True
            except PowerCut:
                pass
            disk.restart(random.Random(f"{cut}-{seed}"))
            after = open_store(disk)
            assert after.verify(TWO) == after.verify(SAME_DIRECTORY) == []
            check(after, has_returned)
        if has_returned:
            return cut
        cut += 1


def nothing(store: DiskChunkStore, disk: PowerCutDisk) -> None:
    pass


def test_power_cut_while_storing_leaves_whole_or_absent_and_keeps_what_was_answered() -> None:
    outcomes: set[tuple[bool, bool]] = set()

    def check(after: DiskChunkStore, has_returned: bool) -> None:
        try:
            with after.open(ONE) as reader:
                assert read_bytes(reader) == CONTENT
            is_there = True
        except BlobNotFound:
            is_there = False
        outcomes.add((has_returned, is_there))
        after.sweep_temporaries()
        store_bytes(after, ONE, CONTENT)
        assert after.verify(ONE) == []

    points = cut_everywhere(nothing, lambda store: void(store_bytes(store, ONE, CONTENT)), check)
    assert points == 7  # create, three writes, sync, rename, sync
    assert outcomes == {(False, False), (False, True), (True, True)}


def void(result: object) -> None:
    """A statement where a lambda wants an expression."""


def test_power_cut_in_repair_leaves_bad_or_good() -> None:
    good = CONTENT[:CHUNK_SIZE]

    def rot(store: DiskChunkStore, disk: PowerCutDisk) -> None:
        store_bytes(store, ONE, CONTENT)
        file = disk.top.names["blobs"].names["bc"].names[ONE]
        file.data[5] ^= 1
        file.synced = bytes(file.data)

    def check(after: DiskChunkStore, has_returned: bool) -> None:
        assert after.verify(ONE) in ([[]] if has_returned else [[], [0]])
        after.replace_chunk(ONE, 0, good, crc32c(good))
        assert after.verify(ONE) == []

    action = lambda store: store.replace_chunk(ONE, 0, good, crc32c(good))  # noqa: E731  # a name for one line
    assert cut_everywhere(rot, action, check) == 2


def test_power_cut_in_quarantine_never_loses_the_blob_from_both_places_unseen() -> None:
    def prepare(store: DiskChunkStore, disk: PowerCutDisk) -> None:
        store_bytes(store, ONE, CONTENT)

    def check(after: DiskChunkStore, has_returned: bool) -> None:
        if has_returned:
            assert ONE not in after.list_ids(None, 10)
        elif ONE in after.list_ids(None, 10):
            assert after.verify(ONE) == []

    assert cut_everywhere(prepare, lambda store: store.quarantine(ONE), check) == 3


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 4, 5, 20, *range(258, 266)])
def test_power_cut_in_initialise_leaves_no_store_or_a_whole_one(cut: int) -> None:
    disk = PowerCutDisk()
    disk.cut_at = cut
    try:
        initialise("ignored", cluster_id=CLUSTER, node_id=NODE, disk=disk)
    except PowerCut:
        disk.restart(random.Random(cut))
        try:
            open_store(disk)
        except ForeignDirectory:
            initialise("ignored", cluster_id=CLUSTER, node_id=NODE, disk=disk)
    store_bytes(open_store(disk), ONE, CONTENT)
    disk.restart(random.Random(cut))
    assert open_store(disk).verify(ONE) == []


@pytest.mark.parametrize("cut", [0, 3, 4, 20, *range(258, 265)])
def test_kill_in_initialise_and_power_cut_much_later_keep_the_blobs(cut: int) -> None:
    disk = PowerCutDisk()
    disk.cut_at = cut
    with pytest.raises(PowerCut):
        initialise("ignored", cluster_id=CLUSTER, node_id=NODE, disk=disk)
    disk.revive()  # directories that were made are there, but perhaps only in memory
    initialise("ignored", cluster_id=CLUSTER, node_id=NODE, disk=disk)
    store = open_store(disk)
    ids = [blob_id_of(1, directory=f"0{leaf}") for leaf in LEAVES[::16]]
    for blob_id in ids:
        store_bytes(store, blob_id, b"acknowledged")
    disk.restart(random.Random(cut))
    assert open_store(disk).list_ids(None, 100) == ids


@pytest.mark.parametrize("seed", range(8))
def test_power_cut_after_initialise_keeps_the_store(seed: int) -> None:
    disk = PowerCutDisk()
    initialise("ignored", cluster_id=CLUSTER, node_id=NODE, disk=disk)
    disk.restart(random.Random(seed))
    open_store(disk)
