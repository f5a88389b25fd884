"""What is on the disks of a cluster's nodes."""

from collections.abc import Iterator
from pathlib import Path

from tests.support.cluster import Cluster
from tests.support.wait import wait_until

SETTLE_SECONDS = 60.0


def blob_files(cluster: Cluster) -> set[str]:
    """Every file of a blob on every node, finished or not, as `NODE/chunks/...`."""
    nodes = cluster.data / "nodes"
    return {
        str(path.relative_to(nodes))
        for path in _files(nodes)
        if {"blobs", "tmp", "quarantine"} & set(path.relative_to(nodes).parts)
    }


def wait_for_no_new_files(cluster: Cluster, before: set[str]) -> None:
    """Returns once no blob is there that was not there `before`, on any node: the third copy of
    an older one may still arrive."""
    known = {_blob_of(file) for file in before}
    wait_until(
        lambda: {_blob_of(file) for file in blob_files(cluster)} <= known,
        SETTLE_SECONDS,
        "the files of refused uploads are gone",
        poll=0.2,
    )


def _blob_of(file: str) -> str:
    """The blob's id: what the file's name begins with."""
    return Path(file).name[:32]


def paths_below(directory: Path) -> list[bytes]:
    """The names of all files and directories below `directory`, as the system has them."""
    return [bytes(path.relative_to(directory)) for path in directory.rglob("*")]


def _files(directory: Path) -> Iterator[Path]:
    for path in directory.rglob("*"):
        try:
            if path.is_file():
                yield path
        except OSError:
            continue  # It was deleted meanwhile.
