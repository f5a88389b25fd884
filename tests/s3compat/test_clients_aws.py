"""aws-cli: mb, cp, sync, mv, rm --recursive, presign and s3api."""

import json
import urllib.request
from pathlib import Path

from tests.support.buckets import new_name
from tests.support.clients import Clients
from tests.support.files import MIB, make_file, make_tree, same_file, tree


def test_s3_commands_move_the_right_bytes(clients: Clients, tmp_path: Path) -> None:
    bucket = f"s3://{new_name('aws')}"
    clients.aws("s3", "mb", bucket)
    large = make_file(tmp_path / "large", 20 * MIB + 3)
    clients.aws("s3", "cp", "--no-progress", str(large), f"{bucket}/large")
    clients.aws("s3", "cp", "--no-progress", f"{bucket}/large", f"{bucket}/copy")
    clients.aws("s3", "mv", "--no-progress", f"{bucket}/copy", f"{bucket}/moved")
    clients.aws("s3", "cp", "--no-progress", f"{bucket}/moved", str(tmp_path / "back"))
    assert same_file(large, tmp_path / "back")
    listed = clients.aws("s3", "ls", f"{bucket}/").output.split()
    assert "moved" in listed
    assert "copy" not in listed
    url = clients.aws("s3", "presign", f"{bucket}/moved", "--expires-in", "60").output.strip()
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert answer.read() == large.read_bytes()
    clients.aws("s3", "rm", "--recursive", bucket)
    assert clients.aws("s3", "ls", f"{bucket}/").output == ""
    clients.aws("s3", "rb", bucket)


def test_sync_both_ways_and_with_delete_leaves_equal_trees(
    clients: Clients, tmp_path: Path
) -> None:
    bucket = f"s3://{new_name('aws-sync')}"
    clients.aws("s3", "mb", bucket)
    here = make_tree(tmp_path / "here", 40)
    clients.aws("s3", "sync", "--no-progress", str(here), f"{bucket}/p")
    clients.aws("s3", "sync", "--no-progress", f"{bucket}/p", str(tmp_path / "there"))
    assert tree(tmp_path / "there") == tree(here)
    victim = next(path for path in sorted(here.rglob("*.bin")))
    victim.unlink()
    clients.aws("s3", "sync", "--no-progress", "--delete", str(here), f"{bucket}/p")
    assert clients.aws("s3", "sync", "--no-progress", str(here), f"{bucket}/p").output == ""
    clients.aws("s3", "sync", "--no-progress", "--delete", f"{bucket}/p", str(tmp_path / "there"))
    assert tree(tmp_path / "there") == tree(here)


def test_s3api_put_head_and_list_show_the_metadata(clients: Clients, tmp_path: Path) -> None:
    bucket = new_name("aws-api")
    source = make_file(tmp_path / "body", 1234)
    clients.aws("s3api", "create-bucket", "--bucket", bucket)
    put = ["s3api", "put-object", "--bucket", bucket, "--key", "dir/ö", "--body", str(source)]
    put += ["--metadata", "color=green,size=xl", "--content-type", "text/x-test"]
    put += ["--cache-control", "no-store", "--checksum-algorithm", "SHA256"]
    stored = json.loads(clients.aws(*put).output)
    head_command = ["s3api", "head-object", "--bucket", bucket, "--key", "dir/ö"]
    head = json.loads(clients.aws(*head_command, "--checksum-mode", "ENABLED").output)
    assert head["Metadata"] == {"color": "green", "size": "xl"}
    assert head["ContentType"] == "text/x-test"
    assert head["CacheControl"] == "no-store"
    assert head["ContentLength"] == 1234
    assert head["ETag"] == stored["ETag"]
    assert head["ChecksumSHA256"] == stored["ChecksumSHA256"]
    listed = json.loads(clients.aws("s3api", "list-objects-v2", "--bucket", bucket).output)
    assert [item["Key"] for item in listed["Contents"]] == ["dir/ö"]
    assert [item["Size"] for item in listed["Contents"]] == [1234]
    missing = clients.aws("s3api", "head-object", "--bucket", bucket, "--key", "no", check=False)
    assert missing.status != 0
    assert "404" in missing.errors
