"""s3cmd: put, get, sync, multipart, info, del."""

import hashlib
from pathlib import Path

from tests.support.buckets import new_name
from tests.support.clients import Clients
from tests.support.files import MIB, make_file, make_tree, same_file, tree


def test_put_info_get_and_del_of_one_file(clients: Clients, tmp_path: Path) -> None:
    bucket = f"s3://{new_name('s3cmd')}"
    clients.s3cmd("mb", bucket)
    source = make_file(tmp_path / "source", 100_000)
    clients.s3cmd("put", str(source), f"{bucket}/a dir/ä file")
    info = clients.s3cmd("info", f"{bucket}/a dir/ä file").output
    assert "100000" in info
    assert hashlib.md5(source.read_bytes()).hexdigest() in info
    clients.s3cmd("get", f"{bucket}/a dir/ä file", str(tmp_path / "back"))
    assert same_file(source, tmp_path / "back")
    clients.s3cmd("del", f"{bucket}/a dir/ä file")
    assert clients.s3cmd("ls", "--recursive", bucket).output == ""
    clients.s3cmd("rb", bucket)


def test_multipart_put_keeps_every_byte(clients: Clients, tmp_path: Path) -> None:
    bucket = f"s3://{new_name('s3cmd-mp')}"
    clients.s3cmd("mb", bucket)
    source = make_file(tmp_path / "large", 17 * MIB + 5)
    clients.s3cmd("put", "--multipart-chunk-size-mb=5", str(source), f"{bucket}/large")
    clients.s3cmd("get", f"{bucket}/large", str(tmp_path / "back"))
    assert same_file(source, tmp_path / "back")
    assert clients.s3cmd("multipart", bucket).output.count("large") == 0


def test_sync_up_and_down_leaves_equal_trees(clients: Clients, tmp_path: Path) -> None:
    bucket = f"s3://{new_name('s3cmd-sync')}"
    clients.s3cmd("mb", bucket)
    here = make_tree(tmp_path / "here", 25)
    clients.s3cmd("sync", f"{here}/", f"{bucket}/p/")
    (tmp_path / "there").mkdir()
    clients.s3cmd("sync", f"{bucket}/p/", f"{tmp_path / 'there'}/")
    assert tree(tmp_path / "there") == tree(here)
    assert "upload:" not in clients.s3cmd("sync", f"{here}/", f"{bucket}/p/").output
    clients.s3cmd("del", "--recursive", "--force", bucket)
    assert clients.s3cmd("ls", "--recursive", bucket).output == ""
