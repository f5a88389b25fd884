"""What a node says when it ends: what happened, why, what to do, and no secret."""

from pathlib import Path

import pytest

from astra.errors import (
    DamagedLog,
    FsyncFailed,
    InvariantBroken,
    OldFormat,
    StorageFull,
    StoreError,
    UnknownFormat,
)
from node.lastwords import last_words
from node.metadata.rows import DamagedTables
from node.settings import NodeSettings

DSN = "postgresql://astra:hunter2@db/one"


def settings(metadata: str) -> NodeSettings:
    return NodeSettings(
        node_id="n1",
        cluster_id="c",
        data_dir=Path("/srv/n1"),
        cluster_secret=b"a secret of the tests, 32 bytes long",
        voters=("n1",),
        metadata=metadata,
    )


@pytest.mark.parametrize(
    ("error", "todo"),
    [
        (StorageFull("full"), "free space"),
        (FsyncFailed("EIO"), "kernel's log"),
        (DamagedLog("entry 3"), "away and start it"),
        (DamagedTables("page 3"), "away and start it"),
        (UnknownFormat("schema 9"), "newer version"),
        (OldFormat("schema 1"), "older version again; or, one node after the other, move"),
        (OldFormat("layout 1"), "Wait until `astra status` tells no problem before the next one"),
        (InvariantBroken("a bug"), "for a report"),
        (StoreError("cannot open"), "check the disk"),
        (RuntimeError("a bug"), "for a report"),
    ],
)
def test_last_words_name_the_error_and_what_to_do(error: Exception, todo: str) -> None:
    words = last_words(error, settings("sqlite"))
    assert words.what == f"{type(error).__name__}: {error}"
    assert words.why
    assert todo in words.todo


def test_database_is_named_without_its_address() -> None:
    words = last_words(DamagedLog("entry 3"), settings(DSN))
    assert "empty PostgreSQL database" in words.todo
    assert "hunter2" not in str(words)
    assert "/srv/n1/metadata.sqlite*" in last_words(DamagedLog("e"), settings("sqlite")).todo
