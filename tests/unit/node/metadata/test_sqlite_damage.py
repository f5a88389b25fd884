"""SQLite files that came out of a crash torn, that are damaged, or that another process holds."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from pathlib import Path

import pytest

from astra.errors import Fatal, StoreError
from astra.wire import Entry, EntryKind, Membership
from node.metadata.rows import DamagedRow
from node.metadata.sqlite import SqliteMetadataStore
from node.metadata.sqlite_engine import PAGE_BYTES
from node.raft.types import HardState
from tests.unit.node.metadata.test_sqlite import applied_state, apply


@pytest.fixture
async def crashed(tmp_path: Path) -> Path:
    """The files of a store after kill -9, with 20 entries and applies in the WAL."""
    source = await SqliteMetadataStore.open(tmp_path / "source.db")
    raft = source.raft()
    await raft.initialize(Membership(voters=("a",)))
    for index in range(1, 21):
        entry = Entry(index, index // 5, EntryKind.COMMAND, b"x" * 500)
        hard_state = HardState(term=index // 5, voted_for="a", commit=index - 1)
        await raft.append(hard_state, None, [entry])
        await apply(source, index)
    for suffix in ("", "-wal"):
        shutil.copy(tmp_path / f"source.db{suffix}", tmp_path / f"crashed.db{suffix}")
    await source.close()
    return tmp_path / "crashed.db"


def used_bytes(wal: bytes) -> int:
    """The WAL is longer than what is in it."""
    return len(wal.rstrip(b"\0"))


@pytest.mark.parametrize("torn", ["cut", "zeros", "flip"])
async def test_wal_torn_anywhere_leaves_a_consistent_beginning(crashed: Path, torn: str) -> None:
    """FAULTS row 31: whatever is lost is the newest, in the log as in the tables."""
    files = [crashed, crashed.with_name(crashed.name + "-wal")]
    database, wal = (file.read_bytes() for file in files)
    ends = []
    for offset in range(0, used_bytes(wal) + 1, used_bytes(wal) // 23):
        body = bytearray(wal[:offset])
        if torn == "zeros":
            body += bytes(len(wal) - offset)
        elif torn == "flip":  # of an older write, or of none: only what follows is new
            body += bytes(byte ^ 0x5A for byte in wal[offset : offset + 4096])
        files[0].write_bytes(database)
        files[1].write_bytes(body)
        crashed.with_name(crashed.name + "-shm").unlink(missing_ok=True)
        store = await SqliteMetadataStore.open(crashed)
        applied, newest, _ = await applied_state(store)
        raft = store.raft()
        await raft.initialize(Membership(voters=("a",)))
        state = await raft.load(applied, 1 << 20)
        assert applied == newest <= state.last_index <= 20
        assert [each.index for each in state.tail] == list(range(1, state.last_index + 1))
        assert state.hard_state.term == state.last_index // 5
        ends.append(state.last_index)
        await store.close()
    assert ends == sorted(ends)
    assert len(set(ends)) > 10


async def test_damaged_page_is_never_an_answer(crashed: Path) -> None:
    """FAULTS row 36: each page in turn. What opens still answers right, or with an error."""
    store = await SqliteMetadataStore.open(crashed)
    await store.close()  # all of the WAL is in the file now
    database = crashed.read_bytes()
    outcomes: set[str] = set()
    for page in range(len(database) // PAGE_BYTES):
        for damage in (bytes(PAGE_BYTES), bytes(range(256)) * (PAGE_BYTES // 256)):
            start = page * PAGE_BYTES
            for file in crashed.parent.glob("crashed.db*"):
                file.unlink()
            crashed.write_bytes(database[:start] + damage + database[start + PAGE_BYTES :])
            outcomes.add(await read_everything(crashed))
    assert outcomes == {"DamagedTables", "DamagedRow", "DamagedLog", "right"}


async def read_everything(path: Path) -> str:
    """The name of the error, or: right."""
    store = None
    try:
        store = await SqliteMetadataStore.open(path)
        state = await store.raft().load((await applied_state(store))[0], 1 << 20)
        assert (await applied_state(store), state.last_index) == ((20, 20, 20), 20)
    except StoreError as error:
        if isinstance(error, DamagedRow):
            assert store is not None
            assert "rebuild it" in (await store.check() or "")
        return type(error).__name__
    finally:
        if store is not None:
            await store.close()
    return "right"


async def test_lock_of_another_process_is_waited_for_and_then_an_error(
    tmp_path: Path,
) -> None:
    """FAULTS row 51: bounded, and nothing is half done."""
    store = await SqliteMetadataStore.open(tmp_path / "node.db")
    await apply(store, 1)
    store._writer.connection.execute("PRAGMA busy_timeout = 200")
    other = sqlite3.connect(tmp_path / "node.db", isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreError, match="locked") as caught:
        await apply(store, 2)
    assert not isinstance(caught.value, Fatal)
    assert await applied_state(store) == (1, 1, 1), "reads go on"
    release = threading.Timer(0.05, other.execute, ("ROLLBACK",))
    release.start()
    await apply(store, 2)
    release.join()
    other.close()
    assert await applied_state(store) == (2, 2, 2)
    await store.close()
