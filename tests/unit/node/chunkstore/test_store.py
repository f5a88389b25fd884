"""What only a real directory can show: errors of calls, links, the marker, the lock."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from astra.constants import CHUNK_SIZE
from astra.errors import (
    BadChunk,
    BlobNotFound,
    ForeignDirectory,
    FsyncFailed,
    StorageFull,
    UnknownFormat,
)
from node.chunkstore.layout import BLOBS, MARKER, initialise
from node.chunkstore.ports import DamagedBlob, DiskFailed
from node.chunkstore.store import DiskChunkStore
from tests.support.chunkstore import (
    CLUSTER,
    NODE,
    DiskBench,
    FaultyDisk,
    append_bytes,
    blob_id_of,
    pattern,
    read_bytes,
    store_bytes,
)

ONE, TWO = blob_id_of(1), blob_id_of(2)


@pytest.fixture(scope="module")
def disk_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chunks")
    initialise(str(root), cluster_id=CLUSTER, node_id=NODE)
    return root


@pytest.fixture
def bench(disk_root: Path) -> Iterator[DiskBench]:
    bench = DiskBench(disk_root)
    yield bench
    bench.close()


def test_short_writes_and_reads_are_continued(bench: DiskBench) -> None:
    content = pattern(CHUNK_SIZE + 100)
    bench.disk.write_limit = 40_000
    store_bytes(bench.store, ONE, content)
    with bench.store.open(ONE) as reader:
        assert read_bytes(reader) == content


def test_repair_with_short_writes_is_whole(bench: DiskBench) -> None:
    content = pattern(1000)
    stored = store_bytes(bench.store, ONE, content)
    file = bytearray(bench.path(ONE).read_bytes())
    file[:1000] = bytes(1000)
    bench.path(ONE).write_bytes(file)
    bench.disk.write_limit = 7
    bench.store.replace_chunk(ONE, 0, content, stored.chunk_crcs[0])
    bench.disk.write_limit = None
    assert bench.store.verify(ONE) == []


@pytest.mark.parametrize(
    ("call", "number", "error"),
    [
        ("create", errno.EIO, DiskFailed),
        ("create", errno.ENOSPC, StorageFull),
        ("write", errno.EIO, DiskFailed),
        ("write", errno.EDQUOT, StorageFull),
        ("sync_data", errno.EIO, FsyncFailed),
        ("sync_data", errno.ENOSPC, StorageFull),
        ("rename", errno.EIO, DiskFailed),
        ("rename", errno.ENOSPC, StorageFull),
        ("sync_dir", errno.EIO, FsyncFailed),
        ("sync_dir", errno.ENOSPC, FsyncFailed),
    ],
)
def test_failed_call_while_storing_leaves_nothing(
    bench: DiskBench, call: str, number: int, error: type[Exception]
) -> None:
    bench.disk.fail_next(call, number)
    with pytest.raises(error):
        store_bytes(bench.store, ONE, b"content")
    assert bench.temporaries() == 0
    with pytest.raises(BlobNotFound):
        bench.store.open(ONE)
    if error is FsyncFailed:
        with pytest.raises(FsyncFailed):
            bench.store.create(ONE)
    else:
        store_bytes(bench.store, ONE, b"content")


def test_directory_sync_error_over_an_equal_blob_keeps_it(bench: DiskBench) -> None:
    store_bytes(bench.store, ONE, b"content")
    bench.disk.fail_next("sync_dir", errno.EIO)
    with pytest.raises(FsyncFailed):
        store_bytes(bench.store, ONE, b"content")
    assert bench.store.verify(ONE) == []


def test_medium_error_in_a_batch_costs_only_the_bad_chunk(bench: DiskBench) -> None:
    store_bytes(bench.store, ONE, pattern(3 * CHUNK_SIZE))
    with bench.store.open(ONE) as reader:
        bench.disk.fail_next("pread", errno.EIO)
        assert [chunk.index for chunk in reader.read_batch(0, 3)] == [0]
        bench.disk.fail_next("pread", errno.EIO)
        with pytest.raises(BadChunk):
            reader.read(1)


def test_medium_error_in_the_footer_is_a_damaged_blob(bench: DiskBench) -> None:
    store_bytes(bench.store, ONE, b"content")
    bench.disk.fail_next("pread", errno.EIO)
    with pytest.raises(DamagedBlob):
        bench.store.open(ONE)


def test_file_cut_under_an_open_reader_is_a_bad_chunk(bench: DiskBench) -> None:
    store_bytes(bench.store, ONE, pattern(2 * CHUNK_SIZE))
    with bench.store.open(ONE) as reader:
        os.truncate(bench.path(ONE), CHUNK_SIZE + 5)
        assert reader.read(0).index == 0
        with pytest.raises(BadChunk):
            reader.read(1)


def test_symlink_fifo_or_directory_in_place_of_a_blob_is_refused(
    bench: DiskBench, tmp_path: Path
) -> None:
    store_bytes(bench.store, TWO, b"content")
    secret = tmp_path / "secret"
    secret.write_bytes(bench.path(TWO).read_bytes())
    place = bench.path(ONE)
    place.symlink_to(secret)
    with pytest.raises(DamagedBlob):
        bench.store.open(ONE)
    place.unlink()
    os.mkfifo(place)
    with pytest.raises(DamagedBlob):
        bench.store.open(ONE)
    place.unlink()
    place.mkdir()
    with pytest.raises(DamagedBlob):
        bench.store.open(ONE)
    place.rmdir()


def test_symlink_in_place_of_a_directory_is_not_followed(bench: DiskBench, tmp_path: Path) -> None:
    store_bytes(bench.store, ONE, b"content")
    leaf = bench.path(ONE).parent
    leaf.rename(tmp_path / "elsewhere")
    leaf.symlink_to(tmp_path / "elsewhere")
    try:
        with pytest.raises(DiskFailed):
            bench.store.delete(ONE)
        with pytest.raises(DiskFailed):
            bench.store.open(ONE)
        with pytest.raises(DiskFailed):
            store_bytes(bench.store, ONE, b"content")
        assert bench.store.list_ids(None, 10) == []
    finally:
        leaf.unlink()
        (tmp_path / "elsewhere").rename(leaf)
    assert bench.store.verify(ONE) == []


def test_symlink_in_place_of_a_temporary_is_not_written_through(
    bench: DiskBench, tmp_path: Path
) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (bench.root / "tmp" / ONE).symlink_to(victim)
    store_bytes(bench.store, ONE, b"content")
    assert victim.read_bytes() == b"precious"
    assert bench.store.verify(ONE) == []


def test_foreign_names_are_neither_listed_nor_swept(bench: DiskBench) -> None:
    strange = [bench.path(ONE).with_name("notes.txt"), bench.path(TWO).with_name("f" * 32)]
    strange.append(bench.root / "tmp" / "notes.txt")
    for path in strange:
        path.write_bytes(b"")
    assert bench.store.list_ids(None, 10) == []  # the second is not in its own directory
    assert bench.store.sweep_temporaries() == 0
    assert all(path.exists() for path in strange)


def test_temporary_file_is_private(bench: DiskBench) -> None:
    writer = bench.store.create(ONE)
    assert (bench.root / "tmp" / ONE).stat().st_mode & 0o777 == 0o600
    writer.abort()


def test_large_blob_starts_writeback_early_and_lets_go_of_what_was_written(
    bench: DiskBench,
) -> None:
    started: list[tuple[int, int]] = []

    class Watched(FaultyDisk):
        def start_writeback(self, fd: int, offset: int, length: int) -> None:
            started.append((offset, length))
            super().start_writeback(fd, offset, length)

    bench.store.close()
    store = DiskChunkStore(str(bench.root), cluster_id=CLUSTER, node_id=NODE, disk=Watched())
    writer = store.create(ONE)
    append_bytes(writer, bytes(20 * CHUNK_SIZE))
    store.close()
    window = 8 * CHUNK_SIZE
    assert started == [(0, window), (window, window), (0, window)]


def test_open_without_marker_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ForeignDirectory, match="mounted"):
            DiskChunkStore(str(path), cluster_id=CLUSTER, node_id=NODE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("cluster", "node"), [("other", NODE), (CLUSTER, "other")])
def test_directory_of_somebody_else_is_refused(disk_root: Path, cluster: str, node: str) -> None:
    with pytest.raises(ForeignDirectory, match="the directory is that of node"):
        DiskChunkStore(str(disk_root), cluster_id=cluster, node_id=node)
    with pytest.raises(ForeignDirectory):
        initialise(str(disk_root), cluster_id=cluster, node_id=node)
    initialise(str(disk_root), cluster_id=CLUSTER, node_id=NODE)  # again: nothing to do


def test_second_process_on_a_directory_is_refused(bench: DiskBench) -> None:
    with pytest.raises(ForeignDirectory, match="in use"):
        DiskChunkStore(str(bench.root), cluster_id=CLUSTER, node_id=NODE)


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", ForeignDirectory),
        (b"[1]", ForeignDirectory),
        (b"\xff\xfe", ForeignDirectory),
        (b"[" * 4000, ForeignDirectory),
        (b'{"layout": 2, "node_id": ' + b"[" * 4000, ForeignDirectory),
        (b'{"layout": 2}', ForeignDirectory),
        (b'{"layout": 3, "new": true}', UnknownFormat),
    ],
)
def test_marker_that_is_not_ours_is_refused(
    tmp_path: Path, content: bytes, error: type[Exception]
) -> None:
    (tmp_path / MARKER).write_bytes(content)
    with pytest.raises(error):
        DiskChunkStore(str(tmp_path), cluster_id=CLUSTER, node_id=NODE)


def test_initialise_of_a_directory_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ForeignDirectory, match="not empty"):
        initialise(str(tmp_path), cluster_id=CLUSTER, node_id=NODE)
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


def test_lost_marker_over_blobs_is_not_made_anew(bench: DiskBench) -> None:
    store_bytes(bench.store, ONE, b"content")
    marker = bench.root / MARKER
    marker.rename(bench.root / "ASTRA-CHUNKS.new")
    with pytest.raises(ForeignDirectory, match="blobs without"):
        initialise(str(bench.root), cluster_id=CLUSTER, node_id=NODE)
    (bench.root / "ASTRA-CHUNKS.new").rename(marker)


def test_no_file_descriptor_stays_open(bench: DiskBench) -> None:
    before = len(os.listdir("/proc/self/fd"))
    store_bytes(bench.store, ONE, b"content")
    bench.store.verify(ONE)
    bench.store.create(TWO).abort()
    bench.store.list_ids(None, 10)
    bench.disk.fail_next("sync_data", errno.ENOSPC)
    with pytest.raises(StorageFull):
        store_bytes(bench.store, TWO, b"content")
    bench.path(ONE).write_bytes(b"")
    with pytest.raises(DamagedBlob):
        bench.store.open(ONE)
    bench.store.quarantine(ONE)
    assert len(os.listdir("/proc/self/fd")) == before


def test_initialise_refuses_directories_of_another_layout_without_a_marker(tmp_path: Path) -> None:
    """They may be full of somebody's blobs."""
    (tmp_path / BLOBS / "0" / "12").mkdir(parents=True)
    with pytest.raises(ForeignDirectory, match="what is not ours"):
        initialise(str(tmp_path), cluster_id=CLUSTER, node_id=NODE)
