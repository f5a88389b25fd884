"""What every ChunkStore keeps to: the one on disk and its twin in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from astra.constants import CHUNK_SIZE
from astra.errors import (
    BadChunk,
    BlobConflict,
    BlobNotFound,
    FsyncFailed,
    StorageFull,
    StoreError,
    UnknownFormat,
)
from node.chunkstore.format import TAIL_BYTES, chunk_count, crc32c, listing_order
from node.chunkstore.layout import initialise
from node.chunkstore.ports import ChunkRefused, DamagedBlob, DiskFailed
from tests.support.chunkstore import (
    CLUSTER,
    NODE,
    Bench,
    DiskBench,
    MemoryBench,
    append_bytes,
    blob_id_of,
    pattern,
    read_bytes,
    store_bytes,
)

SIZES = (0, 1, CHUNK_SIZE - 1, CHUNK_SIZE, CHUNK_SIZE + 1, 5 * CHUNK_SIZE + 7)
ONE, TWO = blob_id_of(1), blob_id_of(2)
BAD_IDS = (
    "",
    "../../../../etc/passwd",
    "/" + "a" * 31,
    "A" * 32,
    "a" * 31,
    "a" * 33,
    "a" * 32 + "\n",
    "a" * 31 + "\0",
    "a" * 32 + ".swp",
    "\N{ARABIC-INDIC DIGIT ONE}" * 32,
)


@pytest.fixture(scope="module")
def disk_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("chunks")
    initialise(str(root), cluster_id=CLUSTER, node_id=NODE)
    return root


@pytest.fixture(params=["memory", "disk"])
def bench(request: pytest.FixtureRequest, disk_root: Path) -> Iterator[Bench]:
    bench: Bench = MemoryBench() if request.param == "memory" else DiskBench(disk_root)
    yield bench
    bench.close()


@pytest.mark.parametrize("size", SIZES)
def test_finish_any_size_reads_back_whole_and_by_chunk(bench: Bench, size: int) -> None:
    content = pattern(size)
    stored = store_bytes(bench.store, ONE, content)
    assert (stored.blob_id, stored.size) == (ONE, size)
    with bench.store.open(ONE) as reader:
        assert (reader.blob_id, reader.size) == (ONE, size)
        assert reader.chunk_crcs == stored.chunk_crcs
        assert read_bytes(reader) == content
        for index in range(chunk_count(size)):
            chunk = reader.read(index)
            expected = content[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]
            assert (chunk.index, bytes(chunk.data)) == (index, expected)
            assert chunk.crc == crc32c(expected) == stored.chunk_crcs[index]
        with pytest.raises(IndexError):
            reader.read(chunk_count(size))
    assert bench.store.verify(ONE) == []


@pytest.mark.parametrize(
    ("offset", "length"),
    [
        (0, 0),
        (0, 1),
        (CHUNK_SIZE - 1, 2),
        (CHUNK_SIZE, CHUNK_SIZE),
        (5 * CHUNK_SIZE + 6, 1),
        (5 * CHUNK_SIZE + 7, 0),
        (3, 5 * CHUNK_SIZE),
    ],
)
def test_read_range_inside_the_blob_is_exact(bench: Bench, offset: int, length: int) -> None:
    content = pattern(5 * CHUNK_SIZE + 7)
    store_bytes(bench.store, ONE, content)
    with bench.store.open(ONE) as reader:
        pieces = list(reader.read_range(offset, length))
    assert b"".join(pieces) == content[offset : offset + length]
    assert all(pieces)


@pytest.mark.parametrize(("offset", "length"), [(-1, 1), (0, 11), (10, 1), (0, -1)])
def test_read_range_outside_the_blob_is_refused_at_once(
    bench: Bench, offset: int, length: int
) -> None:
    store_bytes(bench.store, ONE, pattern(10))
    with bench.store.open(ONE) as reader, pytest.raises(ValueError):
        reader.read_range(offset, length)


def test_append_what_cannot_be_next_is_refused_and_changes_nothing(bench: Bench) -> None:
    content = pattern(CHUNK_SIZE + 3)
    first, last = content[:CHUNK_SIZE], content[CHUNK_SIZE:]
    writer = bench.store.create(ONE)
    for chunk, crc in (
        (first, crc32c(first) ^ 1),
        (b"", 0),
        (content, crc32c(content)),
    ):
        with pytest.raises(ChunkRefused):
            writer.append(chunk, crc)
    append_bytes(writer, content)
    with pytest.raises(ChunkRefused):
        writer.append(last, crc32c(last))  # after a short one
    writer.finish()
    with bench.store.open(ONE) as reader:
        assert read_bytes(reader) == content


@pytest.mark.parametrize("blob_id", BAD_IDS)
def test_blob_id_of_another_form_is_refused_everywhere(bench: Bench, blob_id: str) -> None:
    store = bench.store
    calls = (
        lambda: store.create(blob_id),
        lambda: store.open(blob_id),
        lambda: store.delete(blob_id),
        lambda: store.verify(blob_id),
        lambda: store.quarantine(blob_id),
        lambda: store.replace_chunk(blob_id, 0, b"x", crc32c(b"x")),
        lambda: store.list_ids(blob_id, 1),
    )
    for call in calls:
        with pytest.raises(ValueError, match="32 lowercase hex"):
            call()


def test_create_second_writer_of_an_id_conflicts_until_the_first_ends(bench: Bench) -> None:
    writer = bench.store.create(ONE)
    with pytest.raises(BlobConflict):
        bench.store.create(ONE)
    writer.abort()
    writer.abort()
    store_bytes(bench.store, ONE, b"x")
    assert bench.temporaries() == 0


def test_finish_of_equal_content_again_is_idempotent(bench: Bench) -> None:
    content = pattern(CHUNK_SIZE + 1)
    first = store_bytes(bench.store, ONE, content)
    assert store_bytes(bench.store, ONE, content) == first
    assert bench.store.list_ids(None, 10) == [ONE]


def test_finish_of_other_content_conflicts_and_keeps_the_old(bench: Bench) -> None:
    store_bytes(bench.store, ONE, b"old")
    with pytest.raises(BlobConflict):
        store_bytes(bench.store, ONE, b"new")
    with bench.store.open(ONE) as reader:
        assert read_bytes(reader) == b"old"
    assert bench.temporaries() == 0


@pytest.mark.parametrize("spot", [0, -1])
def test_finish_over_a_rotten_copy_heals_it(bench: Bench, spot: int) -> None:
    store_bytes(bench.store, ONE, b"content")
    bench.edit(ONE, lambda file: flip(file, spot, 0))
    store_bytes(bench.store, ONE, b"content")
    assert bench.store.verify(ONE) == []


def test_writer_after_its_end_refuses(bench: Bench) -> None:
    writer = bench.store.create(ONE)
    writer.finish()
    with pytest.raises(DiskFailed):
        writer.append(b"x", crc32c(b"x"))
    with pytest.raises(DiskFailed):
        writer.finish()
    writer.abort()
    assert bench.store.verify(ONE) == []


def test_unfinished_blob_is_nowhere_to_be_seen(bench: Bench) -> None:
    writer = bench.store.create(ONE)
    append_bytes(writer, pattern(CHUNK_SIZE))
    with pytest.raises(BlobNotFound):
        bench.store.open(ONE)
    assert bench.store.list_ids(None, 10) == []
    assert bench.store.sweep_temporaries() == 0  # its writer lives
    writer.finish()
    assert bench.store.verify(ONE) == []


def test_kill_while_writing_leaves_only_what_the_sweep_removes(bench: Bench) -> None:
    store_bytes(bench.store, TWO, b"finished")
    append_bytes(bench.store.create(ONE), pattern(3 * CHUNK_SIZE))
    bench.kill()
    assert bench.store.list_ids(None, 10) == [TWO]
    assert bench.store.verify(TWO) == []
    assert bench.store.sweep_temporaries() == 1
    assert bench.temporaries() == 0


def test_create_after_a_kill_needs_no_sweep(bench: Bench) -> None:
    append_bytes(bench.store.create(ONE), pattern(CHUNK_SIZE))
    bench.kill()
    store_bytes(bench.store, ONE, b"again")
    assert bench.temporaries() == 0
    assert bench.store.verify(ONE) == []


def test_reader_survives_delete_and_quarantine(bench: Bench) -> None:
    content = pattern(2 * CHUNK_SIZE)
    for blob_id, remove in ((ONE, bench.store.delete), (TWO, bench.store.quarantine)):
        store_bytes(bench.store, blob_id, content)
        with bench.store.open(blob_id) as reader:
            remove(blob_id)
            remove(blob_id)  # idempotent
            with pytest.raises(BlobNotFound):
                bench.store.open(blob_id)
            assert read_bytes(reader) == content
    assert bench.quarantined() == [TWO]


def test_closed_reader_refuses(bench: Bench) -> None:
    store_bytes(bench.store, ONE, b"x")
    reader = bench.store.open(ONE)
    reader.close()
    reader.close()
    with pytest.raises(DiskFailed):
        reader.read(0)


def test_list_ids_in_pages_sees_each_once_in_order(bench: Bench) -> None:
    ids = [blob_id_of(n, directory=f"{(n * 7) % 5:03x}") for n in range(23)]
    ids.append(blob_id_of(0, directory="fff"))
    for blob_id in ids:
        store_bytes(bench.store, blob_id, b"")
    seen: list[str] = []
    while page := bench.store.list_ids(seen[-1] if seen else None, 4):
        assert len(page) <= 4
        seen += page
    assert seen == sorted(ids, key=listing_order)
    bench.store.delete(seen[4])
    assert bench.store.list_ids(seen[4], 1) == [seen[5]]  # a cursor may be gone


@pytest.mark.parametrize("limit", [0, 10_001])
def test_list_ids_with_a_limit_out_of_bounds_is_refused(bench: Bench, limit: int) -> None:
    with pytest.raises(ValueError):
        bench.store.list_ids(None, limit)


def flip(file: bytearray, position: int, bit: int) -> None:
    file[position] ^= 1 << bit


def test_every_flipped_bit_of_a_file_is_found(bench: Bench) -> None:
    content = b"0123456789"
    store_bytes(bench.store, ONE, content)
    length: list[int] = []
    bench.edit(ONE, lambda file: length.append(len(file)))
    for bit in range(8 * length[0]):
        bench.edit(ONE, lambda file, bit=bit: flip(file, bit // 8, bit % 8))  # type: ignore[misc]  # default argument binds the loop variable
        if bit // 8 < len(content):
            assert bench.store.verify(ONE) == [0]
            with bench.store.open(ONE) as reader, pytest.raises(BadChunk):
                read_bytes(reader)
        else:
            with pytest.raises(DamagedBlob):
                bench.store.open(ONE)
            with pytest.raises(BadChunk):
                bench.store.verify(ONE)
        bench.edit(ONE, lambda file, bit=bit: flip(file, bit // 8, bit % 8))  # type: ignore[misc]  # default argument binds the loop variable
    assert bench.store.verify(ONE) == []


def test_bad_chunk_in_the_middle_spares_the_others(bench: Bench) -> None:
    content = pattern(5 * CHUNK_SIZE + 7)
    store_bytes(bench.store, ONE, content)
    bench.edit(ONE, lambda file: flip(file, 2 * CHUNK_SIZE + 5, 3))
    bench.edit(ONE, lambda file: flip(file, 5 * CHUNK_SIZE, 0))
    assert bench.store.verify(ONE) == [2, 5]
    with bench.store.open(ONE) as reader:
        assert [chunk.index for chunk in reader.read_batch(0, 6)] == [0, 1]
        assert [chunk.index for chunk in reader.read_batch(3, 6)] == [3, 4]
        with pytest.raises(BadChunk) as caught:
            reader.read_batch(2, 1)
        assert (caught.value.blob_id, caught.value.index) == (ONE, 2)
        received = bytearray()
        with pytest.raises(BadChunk):
            for piece in reader.read_range(1, reader.size - 1):
                received += piece
    assert received == content[1 : 2 * CHUNK_SIZE]


def test_file_cut_or_extended_anywhere_is_damaged(bench: Bench) -> None:
    store_bytes(bench.store, ONE, b"0123456789")
    whole = bytearray()
    bench.edit(ONE, whole.extend)
    for length in range(len(whole)):
        bench.edit(ONE, lambda file, length=length: replace(file, whole[:length]))  # type: ignore[misc]  # default argument binds the loop variable
        with pytest.raises(DamagedBlob):
            bench.store.open(ONE)
    for other in (whole + b"\0", b"\0" + whole, whole + whole):
        bench.edit(ONE, lambda file, other=other: replace(file, other))  # type: ignore[misc]  # default argument binds the loop variable
        with pytest.raises(DamagedBlob):
            bench.store.open(ONE)


def replace(file: bytearray, content: bytes | bytearray) -> None:
    file[:] = content


def test_swapped_files_are_damaged_both(bench: Bench) -> None:
    store_bytes(bench.store, ONE, b"same size 1")
    store_bytes(bench.store, TWO, b"same size 2")
    bench.swap(ONE, TWO)
    for blob_id in (ONE, TWO):
        with pytest.raises(DamagedBlob, match="that of blob"):
            bench.store.open(blob_id)


def test_file_of_a_newer_format_is_refused_as_such(bench: Bench) -> None:
    def make_newer(file: bytearray) -> None:
        tail = file[-TAIL_BYTES:]
        tail[4:6] = (2).to_bytes(2, "little")
        tail[-4:] = crc32c(bytes(tail[:-4])).to_bytes(4, "little")
        file[-TAIL_BYTES:] = tail

    store_bytes(bench.store, ONE, b"x")
    bench.edit(ONE, make_newer)
    with pytest.raises(UnknownFormat):
        bench.store.open(ONE)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_replace_chunk_of_a_bad_one_repairs_it(bench: Bench, index: int) -> None:
    content = pattern(2 * CHUNK_SIZE + 9)
    store_bytes(bench.store, ONE, content)
    bench.edit(ONE, lambda file: flip(file, index * CHUNK_SIZE + 4, 4))
    assert bench.store.verify(ONE) == [index]
    good = content[index * CHUNK_SIZE : (index + 1) * CHUNK_SIZE]
    bench.store.replace_chunk(ONE, index, memoryview(good), crc32c(good))
    assert bench.store.verify(ONE) == []
    bench.kill()
    with bench.store.open(ONE) as reader:
        assert read_bytes(reader) == content


def test_replace_chunk_with_other_bytes_is_refused(bench: Bench) -> None:
    store_bytes(bench.store, ONE, b"right")
    bench.edit(ONE, lambda file: flip(file, 0, 0))
    for index, data, crc in (
        (0, b"wrong", crc32c(b"wrong")),
        (0, b"wrong", crc32c(b"right")),
        (0, b"right", crc32c(b"wrong")),
        (1, b"right", crc32c(b"right")),
        (-1, b"right", crc32c(b"right")),
    ):
        with pytest.raises(ChunkRefused):
            bench.store.replace_chunk(ONE, index, data, crc)
    assert bench.store.verify(ONE) == [0]


def test_replace_chunk_of_what_cannot_be_repaired_raises(bench: Bench) -> None:
    with pytest.raises(BlobNotFound):
        bench.store.replace_chunk(ONE, 0, b"x", crc32c(b"x"))
    store_bytes(bench.store, ONE, b"x")
    bench.edit(ONE, lambda file: flip(file, -1, 0))
    with pytest.raises(DamagedBlob):
        bench.store.replace_chunk(ONE, 0, b"x", crc32c(b"x"))


def test_quarantined_blob_can_be_stored_anew(bench: Bench) -> None:
    store_bytes(bench.store, ONE, b"content")
    bench.edit(ONE, lambda file: flip(file, -1, 0))
    bench.store.quarantine(ONE)
    bench.kill()
    assert bench.store.list_ids(None, 10) == []
    store_bytes(bench.store, ONE, b"content")
    assert bench.store.verify(ONE) == []


def test_fsync_error_in_finish_stores_nothing_and_ends_all_writing(bench: Bench) -> None:
    store_bytes(bench.store, TWO, b"before")
    other = bench.store.create(blob_id_of(3))
    bench.break_sync()
    with pytest.raises(FsyncFailed):
        store_bytes(bench.store, ONE, b"lost")
    for call in (
        lambda: bench.store.create(ONE),
        lambda: other.append(b"x", crc32c(b"x")),
        lambda: bench.store.quarantine(TWO),
        lambda: bench.store.replace_chunk(TWO, 0, b"before", crc32c(b"before")),
    ):
        with pytest.raises(FsyncFailed):
            call()
    with bench.store.open(TWO) as reader:
        assert read_bytes(reader) == b"before"
    bench.kill()
    bench.store.sweep_temporaries()
    assert bench.store.list_ids(None, 10) == [TWO]


def test_fsync_error_in_repair_ends_all_writing(bench: Bench) -> None:
    store_bytes(bench.store, ONE, b"content")
    bench.edit(ONE, lambda file: flip(file, 0, 0))
    bench.break_sync()
    with pytest.raises(FsyncFailed):
        bench.store.replace_chunk(ONE, 0, b"content", crc32c(b"content"))
    with pytest.raises(FsyncFailed):
        bench.store.create(TWO)


def test_full_disk_refuses_cleanly_and_works_again_when_freed(bench: Bench) -> None:
    store_bytes(bench.store, TWO, b"before")
    writer = bench.store.create(ONE)
    append_bytes(writer, pattern(CHUNK_SIZE))
    bench.set_full(True)
    assert bench.store.free_space().free == 0
    with pytest.raises(StorageFull):
        writer.append(b"x", crc32c(b"x"))
    assert bench.temporaries() == 0
    with bench.store.open(TWO) as reader:
        assert read_bytes(reader) == b"before"
    bench.set_full(False)
    store_bytes(bench.store, ONE, b"after")
    assert bench.store.verify(ONE) == []


def test_full_disk_in_finish_stores_nothing(bench: Bench) -> None:
    writer = bench.store.create(ONE)
    bench.set_full(True)
    with pytest.raises(StorageFull):
        writer.finish()
    bench.set_full(False)
    assert bench.temporaries() == 0
    assert bench.store.list_ids(None, 10) == []


def test_free_space_is_within_the_total(bench: Bench) -> None:
    space = bench.store.free_space()
    assert 0 < space.free <= space.total


def test_closed_store_has_aborted_its_writers_and_refuses_every_call(bench: Bench) -> None:
    store = bench.store
    writer = store.create(TWO)
    store.close()
    store.close()
    assert bench.temporaries() == 0
    with pytest.raises(StoreError):
        writer.append(b"x", crc32c(b"x"))
    for call in (
        lambda: store.create(ONE),
        lambda: store.open(ONE),
        lambda: store.delete(ONE),
        lambda: store.list_ids(None, 1),
        lambda: store.quarantine(ONE),
        store.sweep_temporaries,
        store.free_space,
    ):
        with pytest.raises(StoreError):
            call()
