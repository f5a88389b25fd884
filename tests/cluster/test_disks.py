"""A full disk under one node, and a disk that is not mounted (FAULTS 26, 27, 40).

Nodes in this process; the disk is a small tmpfs of its own. EIO of fsync is the chaos harness's
(tests/chaos/faults.py).
"""

import errno
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from astra.commands import NewBlob, PutDone
from astra.errors import AstraError, StorageFull
from astra.wire import PlaceBlobs, Placed
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
