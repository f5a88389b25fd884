"""`astra doctor` on a cluster of `astra dev`: the census of the product itself."""

import subprocess
import sys

import msgspec

from tests.support.cluster import Cluster
from tests.support.services import ROOT
from tests.support.wait import wait_until

SECONDS = 60.0


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    blob: str
    node: str | None


class Census(msgspec.Struct, frozen=True, kw_only=True):
    clean: bool
    blobs: int
    copies: int
    garbage: int
    dropped: int
    young: int
    unreachable: dict[str, str]
    findings: list[Finding]

    def of(self, what: str) -> set[tuple[str, str | None]]:
        """(blob, node) of one kind of finding."""
        return {(each.blob, each.node) for each in self.findings if each.what == what}


def run_doctor(cluster: Cluster, *arguments: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "astra.cli.main", "doctor", "--data", str(cluster.data)]
    return subprocess.run(
        [*argv, *arguments], capture_output=True, text=True, cwd=ROOT, timeout=SECONDS, check=False
    )


def take_census(cluster: Cluster, *, verify: bool = False) -> Census:
    done = run_doctor(cluster, "-o", "json", *(["--verify"] if verify else []))
    assert done.stdout.strip(), done.stderr
    census = msgspec.json.decode(done.stdout, type=Census)
    assert done.returncode == (0 if census.clean else 1)
    return census


def wait_until_clean(cluster: Cluster, *, copies: int, seconds: float = SECONDS) -> None:
    """Every byte of every copy is good, there are `copies` of them, and nothing lies about."""

    def is_clean() -> bool:
        census = take_census(cluster, verify=True)
        return census.clean and census.copies == copies

    wait_until(is_clean, seconds, f"{copies} good copies and nothing else", poll=0.5)
