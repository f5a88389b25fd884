"""kill -9 at every system call of storing a blob, and power loss in the twin (FAULTS row 73).

strace injects SIGKILL at the n-th call of each kind that the store makes, in a real process on
a real directory; what is left is opened by this process. A kill keeps the page cache, so the
order of sync and rename is checked beside it: nothing is renamed before it was synced.
"""

from __future__ import annotations

import random
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from astra.constants import CHUNK_SIZE
from astra.errors import BlobNotFound, StoreError
from node.chunkstore.format import crc32c
from node.chunkstore.layout import initialise
from node.chunkstore.memory import MemoryChunkStore, MemoryDisk, SimulatedCrash
from node.chunkstore.store import DiskChunkStore
from tests.support.chunkstore import CLUSTER, NODE, blob_id_of, pattern, read_bytes, store_bytes

ONE, TWO = blob_id_of(1), blob_id_of(2)
CONTENT = pattern(2 * CHUNK_SIZE + 11, seed=7)
REPOSITORY = Path(__file__).parents[4]
WRITER = Path(__file__).with_name("write_one_blob.py")

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crash")
    initialise(str(root), cluster_id=CLUSTER, node_id=NODE)
    return root


def run_traced(root: Path, action: str, *options: str) -> subprocess.CompletedProcess[str]:
    strace = shutil.which("strace")
    assert strace is not None
    command = [strace, "-f", *options, sys.executable, str(WRITER), str(root), ONE, action]
    return subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=60, check=False
    )


def calls_of(trace: str) -> list[str]:
    """The store's own calls: those between the two marks that the program leaves."""
    inside = trace.split("BEGIN-BLOB", 1)[1].split("END-BLOB", 1)[0]
    return names_in(inside)[:-1]  # the last one writes the mark


def names_in(trace: str) -> list[str]:
    return re.findall(r"^(?:\[pid +\d+\] |\d+ +)?(\w+)\(", trace, re.MULTILINE)


def traced_calls(root: Path, action: str) -> tuple[list[str], list[str]]:
    """All calls before the first mark, and those between the marks."""
    done = run_traced(root, action)
    assert done.returncode == 0, done.stderr[-2000:]
    before = done.stderr.split("BEGIN-BLOB", 1)[0]
    return names_in(before), calls_of(done.stderr)


def open_store(root: Path) -> DiskChunkStore:
    return DiskChunkStore(str(root), cluster_id=CLUSTER, node_id=NODE)


def is_stored(store: DiskChunkStore) -> bool:
    """Absent, or complete and right: anything else fails here."""
    try:
        with store.open(ONE) as reader:
            assert read_bytes(reader) == CONTENT
            return True
    except BlobNotFound:
        return False


def crash_points(before: list[str], inside: list[str]) -> list[tuple[str, int]]:
    """(call, n): the n-th call of that name in the whole run is one of the store's."""
    counts: dict[str, int] = {}
    for name in before:
        counts[name] = counts.get(name, 0) + 1
    points: list[tuple[str, int]] = []
    for name in inside:
        counts[name] = counts.get(name, 0) + 1
        points.append((name, counts[name]))
    return points


@needs_strace
def test_store_killed_at_every_system_call_is_whole_or_absent(prepared: Path) -> None:
    before, inside = traced_calls(prepared, "store")
    assert {"fdatasync", "fsync", "write", "openat"} <= set(inside)
    outcomes: set[bool] = set()
    for name, number in crash_points(before, inside):
        clear(prepared)
        done = run_traced(
            prepared, "store", "-o", "/dev/null", "-e", f"trace={name}",
            "-e", f"inject={name}:signal=KILL:when={number}",
        )  # fmt: skip
        assert done.returncode != 0, (name, number)
        store = open_store(prepared)
        stored = is_stored(store)
        outcomes.add(stored)
        assert stored or "STORED" not in done.stdout
        store.sweep_temporaries()
        assert not list((prepared / "tmp").iterdir())
        store_bytes(store, ONE, CONTENT)  # whatever was left: the id can be stored
        assert is_stored(store)
        store.close()
    assert outcomes == {True, False}  # kills before and after the rename were among them


@needs_strace
def test_store_syncs_data_then_renames_then_syncs_the_directory(prepared: Path) -> None:
    clear(prepared)
    _, inside = traced_calls(prepared, "store")
    order = [name for name in inside if re.match(r"write|fdatasync|rename|fsync", name)]
    assert set(order[:-3]) == {"write"}
    assert [name.removesuffix("at") for name in order[-3:]] == ["fdatasync", "rename", "fsync"]


@needs_strace
def test_repair_killed_at_every_system_call_is_bad_or_good_never_wrong(prepared: Path) -> None:
    clear(prepared)
    store = open_store(prepared)
    store_bytes(store, ONE, CONTENT)
    store.close()
    file = prepared / "blobs" / ONE[-2:] / ONE
    rotten = bytearray(file.read_bytes())
    rotten[CHUNK_SIZE + 17] ^= 4
    file.write_bytes(rotten)
    before, inside = traced_calls(prepared, "repair")
    assert "pwrite64" in inside
    for name, number in crash_points(before, inside):
        file.write_bytes(rotten)
        run_traced(
            prepared, "repair", "-o", "/dev/null", "-e", f"trace={name}",
            "-e", f"inject={name}:signal=KILL:when={number}",
        )  # fmt: skip
        store = open_store(prepared)
        assert store.verify(ONE) in ([], [1])
        good = CONTENT[CHUNK_SIZE : 2 * CHUNK_SIZE]
        store.replace_chunk(ONE, 1, good, crc32c(good))
        assert is_stored(store)
        store.close()


def clear(root: Path) -> None:
    for name in ("tmp", "quarantine", f"blobs/{ONE[-2:]}"):
        for path in (root / name).iterdir():
            path.unlink()


@pytest.mark.parametrize("seed", range(20))
def test_power_loss_in_finish_of_the_twin_is_whole_or_absent(seed: int) -> None:
    disk = MemoryDisk(random.Random(seed))
    store = MemoryChunkStore(disk)
    store_bytes(store, TWO, b"acknowledged")
    store.create(blob_id_of(3)).append(b"half", crc32c(b"half"))
    disk.arm_crash()
    with pytest.raises(SimulatedCrash):
        store_bytes(store, ONE, CONTENT)
    with pytest.raises(StoreError):
        store.open(TWO)  # the old process is gone
    after = MemoryChunkStore(disk)
    assert after.verify(TWO) == []
    assert after.list_ids(None, 10) in ([TWO], [ONE, TWO])
    assert all(after.verify(blob_id) == [] for blob_id in after.list_ids(None, 10))
    assert after.sweep_temporaries() >= 1
    assert not disk.temporaries


def test_power_loss_in_finish_of_the_twin_has_both_outcomes() -> None:
    outcomes: set[int] = set()
    for seed in range(20):
        disk = MemoryDisk(random.Random(seed))
        disk.arm_crash()
        with pytest.raises(SimulatedCrash):
            store_bytes(MemoryChunkStore(disk), ONE, b"x")
        outcomes.add(len(disk.blobs))
    assert outcomes == {0, 1}


@pytest.mark.parametrize("seed", range(10))
def test_power_loss_in_repair_of_the_twin_is_bad_or_good_never_wrong(seed: int) -> None:
    disk = MemoryDisk(random.Random(seed))
    store = MemoryChunkStore(disk)
    store_bytes(store, ONE, b"content")
    disk.flip_bit(ONE, 5)
    disk.arm_crash()
    with pytest.raises(SimulatedCrash):
        store.replace_chunk(ONE, 0, b"content", crc32c(b"content"))
    assert MemoryChunkStore(disk).verify(ONE) in ([], [0])
