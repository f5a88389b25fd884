"""s5cmd: many parallel copies and syncs."""

from pathlib import Path

from tests.support.buckets import new_name
from tests.support.clients import Clients
from tests.support.files import MIB, make_file, make_tree, same_file, tree


def test_parallel_cp_up_and_down_keeps_every_byte(clients: Clients, tmp_path: Path) -> None:
    bucket = f"s3://{new_name('s5cmd')}"
    clients.s5cmd("mb", bucket)
    here = make_tree(tmp_path / "here", 150)
    large = make_file(tmp_path / "large", 23 * MIB + 7)
    clients.s5cmd("cp", f"{here}/", f"{bucket}/p/")
    clients.s5cmd("cp", "--concurrency", "4", "--part-size", "5", str(large), f"{bucket}/large")
    clients.s5cmd("cp", f"{bucket}/p/*", f"{tmp_path / 'there'}/")
    clients.s5cmd("cp", "--concurrency", "4", f"{bucket}/large", str(tmp_path / "back"))
    assert tree(tmp_path / "there") == tree(here)
    assert same_file(large, tmp_path / "back")
    clients.s5cmd("rm", f"{bucket}/*")
    assert clients.s5cmd("ls", f"{bucket}/", check=False).output == ""


def test_sync_with_delete_leaves_equal_trees(clients: Clients, tmp_path: Path) -> None:
    bucket = f"s3://{new_name('s5cmd-sync')}"
    clients.s5cmd("mb", bucket)
    here = make_tree(tmp_path / "here", 60)
    clients.s5cmd("sync", f"{here}/", f"{bucket}/p/")
    for path in sorted(here.rglob("*.bin"))[:5]:
        path.unlink()
    clients.s5cmd("sync", "--delete", f"{here}/", f"{bucket}/p/")
    (tmp_path / "there").mkdir()
    clients.s5cmd("sync", f"{bucket}/p/*", f"{tmp_path / 'there'}/")
    assert tree(tmp_path / "there") == tree(here)
