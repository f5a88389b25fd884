"""A disk under one node that is full, not mounted, read-only, or fails (FAULTS 26, 27, 29, 36, 40).

Nodes in this process; the disk is a small tmpfs of its own, or the node is a process whose system
calls fail (tests/chaos/disk_fault.c).
"""

import asyncio
import errno
import shutil
import sqlite3
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from astra.commands import NewBlob, PutDone
from astra.errors import AstraError, StorageFull
from astra.wire import PlaceBlobs, Placed
from node.app import EXIT_FATAL
from node.lastwords import STOPS
from tests.support import diskfault
from tests.support.nodecommand import last_lines, node_process
from tests.support.nodes import NO_EPOCHS, LocalNodes, put_of
from tests.support.wait import wait_until_async

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]

MIB = 1 << 20
DISK_BYTES = 64 * MIB
BODY = bytes(range(256)) * 4096
SECONDS = 60.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A mounted tmpfs as the directory of n3."""
    path = tmp_path / "n3"
    path.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "small", str(path)]
    if subprocess.run(argv, capture_output=True, check=False).returncode != 0:
        pytest.skip("no right to mount a tmpfs")
    yield path
    subprocess.run(["umount", "--lazy", str(path)], check=True)


@pytest.fixture
async def nodes(tmp_path: Path, small_disk: Path) -> AsyncIterator[LocalNodes]:
    nodes = LocalNodes(tmp_path)
    for name in nodes.settings:
        nodes.change(name, repair_scan_interval_s=0.2, repair_delay_s=0.2, free_bytes_min=8 * MIB)
    async with nodes:
        await nodes.all_know_each_other()
        await nodes.make_bucket("bk")
        yield nodes


def fill(directory: Path) -> None:
    """To the last byte."""
    with (directory / "filler").open("wb", buffering=0) as file:
        for size in (MIB, 4096, 1):
            try:
                while file.write(b"\0" * size):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC


async def put(nodes: LocalNodes, key: bytes) -> NewBlob:
    placed = await nodes.ask(PlaceBlobs(bucket="bk", epochs=NO_EPOCHS, size=len(BODY)), Placed)
    blob = await nodes.write_all(placed.placements[0], BODY)
    assert isinstance(await nodes.commit(put_of("bk", key, blob)), PutDone)
    return blob


async def end_of(nodes: LocalNodes, name: str) -> None:
    """Stops a node, which may have given up by itself: for want of space only."""
    try:
        await nodes.stop(name)
    except StorageFull:
        return


async def test_full_disk_gets_no_blobs_says_so_and_recovers_when_freed(
    nodes: LocalNodes, small_disk: Path
) -> None:
    first = await put(nodes, b"before")
    assert set(first.holders) == {"n1", "n2", "n3"}
    fill(small_disk)

    async def says_so() -> bool:
        status = await nodes.status("n3")
        return status is not None and any("disk nearly full" in p for p in status.problems)

    await wait_until_async(says_so, SECONDS, "n3 says that its disk is full")
    assert await nodes.read_blob("n3", first.blob_id, length=len(BODY)) == BODY
    with pytest.raises(AstraError):
        await nodes.write_blob(nodes.addresses["n3"], first.blob_id[:-1] + "0", BODY)
    for number in range(30):
        blob = await put(nodes, b"full-%d" % number)
        assert set(blob.holders) == {"n1", "n2"}
        await nodes.put_inline("bk", b"small-%d" % number, BODY[:50_000])
    (small_disk / "filler").unlink()
    await end_of(nodes, "n3")
    await nodes.start("n3")

    async def has_three_copies() -> bool:
        located = [await nodes.locate("bk", b"full-%d" % number) for number in range(30)]
        return all(len(each.places[0].holders) == 3 for each in located)

    await wait_until_async(has_three_copies, SECONDS, "what was written meanwhile is copied to n3")
    place = (await nodes.locate("bk", b"full-7")).places[0]
    assert await nodes.read_blob("n3", place.blob_id, length=len(BODY)) == BODY


async def test_directory_that_is_not_mounted_is_refused(
    nodes: LocalNodes, small_disk: Path
) -> None:
    await nodes.stop("n3")
    chunks = small_disk / "chunks"
    shutil.move(chunks, small_disk / "elsewhere")
    chunks.mkdir()
    with pytest.raises(AstraError, match="is its disk mounted"):
        await nodes.start("n3")
    nodes._running.pop("n3")
    assert list(chunks.iterdir()) == [], "nothing was written where the disk should be"
    shutil.rmtree(chunks)
    shutil.move(small_disk / "elsewhere", chunks)
    await nodes.start("n3")


# --- a real process on a disk that fails (FAULTS 27, 29, and a disk gone read-only) ---------------

FAULTS = [
    ("eio metadata.sqlite", "FsyncFailed: SQLite: disk I/O error (SQLITE_IOERR_FSYNC)"),
    ("eio chunks/tmp", "FsyncFailed: fdatasync: Input/output error"),
    ("enospc metadata.sqlite", "StorageFull: SQLite: database or disk is full"),
    ("erofs metadata.sqlite", "FsyncFailed: SQLite: disk I/O error (SQLITE_IOERR_WRITE)"),
]


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    try:
        return diskfault.compile_library(tmp_path_factory.mktemp("library"))
    except diskfault.NoCompiler as error:
        pytest.skip(str(error))


async def test_node_whose_disk_fails_ends_and_says_why_and_comes_back(
    tmp_path: Path, library: Path
) -> None:
    """One after the other on one node, while two others go on."""
    nodes = LocalNodes(tmp_path)
    fault = tmp_path / "fault"
    server = node_process(nodes.settings["n3"], tmp_path)
    server.environment = diskfault.environment(library, fault)
    try:
        server.start()
        await nodes.start("n1", "n2")
        await nodes.make_bucket("bk")
        for number, (what, expected) in enumerate(FAULTS):
            await nodes.all_are_level()
            fault.write_text(what)
            blob_id = f"{number:032x}"
            with suppress(AstraError):  # it is ending
                await nodes.write_blob(nodes.addresses["n3"], blob_id, BODY)
            await nodes.put_inline("bk", b"%d" % number, b"x" * 1000)
            assert await asyncio.to_thread(server.wait_for_exit, SECONDS) == EXIT_FATAL
            said = last_lines(server)
            assert len(said) == number + 1, "one line for each end"
            assert said[-1].event == STOPS
            assert said[-1].what == expected
            assert "start it again" in said[-1].todo
            await nodes.put_inline("bk", b"after %d" % number, b"x")
            fault.unlink()
            server.start()
        await nodes.all_are_level()
    finally:
        server.kill()
        await nodes.__aexit__(None, None, None)


async def test_node_with_a_flipped_bit_in_a_key_ends_and_is_rebuilt_from_the_others(
    tmp_path: Path,
) -> None:
    """FAULTS row 36: the scrub finds it, and the last words are what helps."""
    nodes = LocalNodes(tmp_path)
    nodes.change("n3", metadata_scrub_period_s=1.0)
    server = node_process(nodes.settings["n3"], tmp_path)
    database = nodes.settings["n3"].data_dir / "metadata.sqlite"
    try:
        server.start()
        await nodes.start("n1", "n2")
        await nodes.make_bucket("bk")
        for number in range(10):
            await nodes.put_inline("bk", b"key-%d" % number, b"x" * 1000)
        await nodes.all_are_level()
        flip_a_key(database)
        assert await asyncio.to_thread(server.wait_for_exit, SECONDS) == EXIT_FATAL
        (said,) = last_lines(server)
        assert said.event == STOPS
        assert said.what.startswith("DamagedTables: ")
        assert f"move {database}* away and start it" in said.todo
        for path in database.parent.glob(database.name + "*"):
            path.unlink()
        server.start()
        await nodes.all_are_level()
        await nodes.stop("n2")
        located = await nodes.locate("bk", b"key-7")
        assert [data for _, data in located.inline] == [b"x" * 1000]
    finally:
        server.kill()
        await nodes.__aexit__(None, None, None)


def flip_a_key(database: Path) -> None:
    """Behind the back of the node that runs on it."""
    with closing(sqlite3.connect(database)) as connection:
        changed = connection.execute(
            'UPDATE objects SET "key" = ? WHERE "key" = ?', (b"kay-7", b"key-7")
        )
        assert changed.rowcount == 1
        connection.commit()


def test_node_on_a_read_only_disk_says_so_and_does_not_start(
    tmp_path: Path, small_disk: Path
) -> None:
    server = node_process(LocalNodes(tmp_path).settings["n3"], tmp_path)
    argv = ["mount", "-o", "remount,ro", str(small_disk)]
    subprocess.run(argv, check=True, capture_output=True)
    server.start()
    assert server.wait_for_exit(SECONDS) == 1
    (line,) = server.tail().splitlines()
    assert "cannot write to the data directory" in line
    assert "Read-only file system" in line
