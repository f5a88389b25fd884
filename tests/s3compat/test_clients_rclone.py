"""rclone: sync, copy, `check --download`, 300 files and one of 300 MB, delete."""

import json
from pathlib import Path

from tests.support.buckets import new_name
from tests.support.clients import Clients
from tests.support.files import make_file, make_tree, tree


def _names(clients: Clients, where: str) -> set[str]:
    listed = clients.rclone("lsjson", "--recursive", "--files-only", where).output
    return {item["Path"] for item in json.loads(listed)}


def test_sync_of_300_files_check_and_delete(clients: Clients, tmp_path: Path) -> None:
    remote = f"astra:{new_name('rclone')}"
    clients.rclone("mkdir", remote)
    here = make_tree(tmp_path / "here", 300)
    clients.rclone("sync", str(here), f"{remote}/p")
    clients.rclone("check", "--download", str(here), f"{remote}/p")
    for path in sorted(here.rglob("*.bin"))[:10]:
        path.unlink()
    clients.rclone("sync", str(here), f"{remote}/p")
    assert _names(clients, f"{remote}/p") == set(tree(here))
    clients.rclone("copy", f"{remote}/p", str(tmp_path / "there"))
    assert tree(tmp_path / "there") == tree(here)
    clients.rclone("delete", f"{remote}/p")
    assert _names(clients, remote) == set()
    clients.rclone("rmdir", remote)


def test_copy_of_one_file_of_300_mb_and_check_by_download(clients: Clients, tmp_path: Path) -> None:
    remote = f"astra:{new_name('rclone-big')}"
    clients.rclone("mkdir", remote)
    make_file(tmp_path / "here" / "large", 300_000_000)
    clients.rclone("copy", str(tmp_path / "here"), remote)
    clients.rclone("check", "--download", str(tmp_path / "here"), remote)
    clients.rclone("moveto", f"{remote}/large", f"{remote}/moved")  # copies on the server
    (tmp_path / "here" / "large").rename(tmp_path / "here" / "moved")
    clients.rclone("check", "--download", str(tmp_path / "here"), remote)
    clients.rclone("purge", remote)
