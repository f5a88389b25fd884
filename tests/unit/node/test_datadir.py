"""A data directory belongs to one node of one cluster, and to one process."""

import errno
import os
from pathlib import Path

import pytest

from astra.errors import ConfigError, ForeignDirectory
from node.datadir import MARKER, DataDirectory


def claim(path: Path, *, cluster: str = "c", node: str = "n1", settle: bool = True) -> None:
    directory = DataDirectory(path, cluster_id=cluster, node_id=node)
    if settle:
        directory.settle()
    directory.close()


def test_claim_again_by_the_same_node_is_fine(tmp_path: Path) -> None:
    claim(tmp_path / "d")
    claim(tmp_path / "d")


def test_claim_before_it_was_settled_starts_over(tmp_path: Path) -> None:
    claim(tmp_path, settle=False)
    directory = DataDirectory(tmp_path, cluster_id="c", node_id="n1")
    assert directory.is_new
    directory.close()


@pytest.mark.parametrize(("cluster", "node"), [("other", "n1"), ("c", "n2")])
def test_claim_by_another_is_refused(tmp_path: Path, cluster: str, node: str) -> None:
    claim(tmp_path)
    with pytest.raises(ForeignDirectory, match="belongs to node n1 of cluster c"):
        claim(tmp_path, cluster=cluster, node=node)


def test_database_without_a_marker_is_refused(tmp_path: Path) -> None:
    claim(tmp_path)
    (tmp_path / "metadata.sqlite").touch()
    (tmp_path / MARKER).unlink()
    with pytest.raises(ForeignDirectory):
        claim(tmp_path)


@pytest.mark.parametrize("content", [b"{", b"", b"[" * 4000, b"\xff"])
def test_damaged_marker_is_refused(tmp_path: Path, content: bytes) -> None:
    claim(tmp_path)
    (tmp_path / MARKER).write_bytes(content)
    with pytest.raises(ForeignDirectory):
        claim(tmp_path)


def test_marker_without_an_end_is_refused_unread(tmp_path: Path) -> None:
    claim(tmp_path)
    os.truncate(tmp_path / MARKER, 1 << 40)  # sparse: nobody's memory
    with pytest.raises(ForeignDirectory):
        claim(tmp_path)


def test_disk_that_became_read_only_or_full_while_settling_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = DataDirectory(tmp_path, cluster_id="c", node_id="n1")

    def refuse(_: int) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(ConfigError, match=r"cannot write to the data directory .* Read-only"):
        directory.settle()
    assert directory.is_new
    directory.close()


def test_second_process_is_refused_while_the_first_runs(tmp_path: Path) -> None:
    first = DataDirectory(tmp_path, cluster_id="c", node_id="n1")
    with pytest.raises(ConfigError, match="another process"):
        DataDirectory(tmp_path, cluster_id="c", node_id="n1")
    first.close()
    claim(tmp_path)


def test_unwritable_directory_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot write to the data directory"):
        claim(tmp_path / "file" / "below")
