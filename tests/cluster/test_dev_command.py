"""`astra dev` and its fellow commands as a person meets them in a terminal."""

import json
import os
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.support.buckets import read
from tests.support.clients import Target, boto3_client, client_binary
from tests.support.ports import free_port
from tests.support.procs import Proc, family
from tests.support.services import ROOT
from tests.support.wait import wait_until

pytestmark = pytest.mark.cluster

READY_SECONDS = 90.0
STOP_SECONDS = 20.0  # 10 s are promised; a busy machine doubles them
COMMAND_SECONDS = 60.0


def _environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    hidden = ("ASTRA_", "AWS_")
    kept = {name: text for name, text in os.environ.items() if not name.startswith(hidden)}
    return {**kept, "PYTHONUNBUFFERED": "1", **(extra or {})}


def _astra(
    *arguments: str, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "astra.cli.main", *arguments],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        env=_environment(env),
        cwd=ROOT,
        check=False,
    )


class _Running:
    """`astra dev` in a terminal."""

    def __init__(self, data: Path, port: int, env: Mapping[str, str] | None) -> None:
        self.data = data
        self._log = data.parent / "terminal"
        argv = [sys.executable, "-P", "-m", "astra.cli.main", "dev", "--nodes", "3"]
        argv += ["--listen", f"127.0.0.1:{port}", "--data", str(data), "--workers", "1"]
        start = self._log.stat().st_size if self._log.exists() else 0
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(env),
                cwd=ROOT,
                start_new_session=True,
            )
        wait_until(
            lambda: b"\nready " in self._log.read_bytes()[start:] or self.process.poll(),
            READY_SECONDS,
            "astra dev is ready",
        )
        self.output = self._log.read_bytes()[start:].decode()
        assert self.process.poll() is None, self.output
        self.members = family(self.process.pid)

    def stop(self, number: int) -> float:
        """Sends the signal; returns how long it took until every process was gone."""
        began = time.monotonic()
        self.process.send_signal(number)
        assert self.process.wait(STOP_SECONDS) == 0
        wait_until(lambda: not _alive(self.members), STOP_SECONDS, "all its processes are gone")
        return time.monotonic() - began

    def close(self) -> None:
        self.members |= family(self.process.pid)
        self.process.kill()
        self.process.wait()
        for member in self.members:
            member.signal(signal.SIGKILL)


def _alive(members: set[Proc]) -> list[Proc]:
    return [member for member in members if member.is_alive()]


@contextmanager
def _dev(data: Path, port: int, env: Mapping[str, str] | None = None) -> Iterator[_Running]:
    running = _Running(data, port, env)
    try:
        yield running
    finally:
        running.close()


def _one_clear_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode != 0
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert len(lines) == 1, done
    assert "Traceback" not in lines[0]
    return lines[0]


def test_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        at = f"127.0.0.1:{taken.getsockname()[1]}"
        line = _one_clear_line(_astra("dev", "--listen", at, "--data", str(tmp_path / "d")))
    assert at in line
    assert "in use" in line


def test_unwritable_directory_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no directory")
    at = str(tmp_path / "file" / "data")
    line = _one_clear_line(_astra("dev", "--listen", f"127.0.0.1:{free_port()}", "--data", at))
    assert at in line


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--lisen", "127.0.0.1:9000"], "--lisen"),
        (["--listen", "nowhere"], "nowhere"),
        (["--nodes", "many"], "--nodes"),
        (["--nodes", "0"], "--nodes"),
        (["--workers", "0"], "workers"),
        (["--backend", "tape"], "tape"),
        (["--backend", "services", "--services", "/nonexistent.json"], "/nonexistent.json"),
        (["--config", "/nonexistent.toml"], "/nonexistent.toml"),
    ],
)
def test_wrong_option_is_one_clear_line(tmp_path: Path, arguments: list[str], named: str) -> None:
    line = _one_clear_line(_astra("dev", "--data", str(tmp_path / "d"), *arguments))
    assert named in line


def test_unknown_setting_in_the_environment_is_refused_with_the_nearest(tmp_path: Path) -> None:
    done = _astra("dev", "--data", str(tmp_path / "d"), env={"ASTRA_GATEWAY_LISTENN": "x"})
    line = _one_clear_line(done)
    assert "ASTRA_GATEWAY_LISTENN" in line
    assert "ASTRA_GATEWAY_LISTEN?" in line


def test_second_dev_on_the_same_directory_is_refused_and_signals_stop_it(tmp_path: Path) -> None:
    data = tmp_path / "data"
    port = free_port()
    with _dev(data, port) as first:
        other = _astra("dev", "--listen", f"127.0.0.1:{free_port()}", "--data", str(data))
        assert str(data) in _one_clear_line(other)
        _paste(first, tmp_path)
        _check_credentials_file(data)
        _check_status(data)
        _check_config_show(data)
        _check_keys(data, port)
        assert first.stop(signal.SIGINT) < STOP_SECONDS
    with _dev(data, port) as again:
        target = _target(data, port)
        assert target.access_key in again.output
        s3 = boto3_client(target)
        assert read(s3, "my-bucket", "hello.txt") == b"hello\n"
        s3.close()
        assert again.stop(signal.SIGTERM) < STOP_SECONDS


def _target(data: Path, port: int) -> Target:
    found = json.loads((data / "credentials.json").read_text())
    return Target(
        endpoint=f"http://127.0.0.1:{port}",
        access_key=found["access_key"],
        secret_key=found["secret_key"],
    )


def _paste(running: _Running, home: Path) -> None:
    """The printed commands work as printed, in a shell that has aws on its PATH."""
    lines = [line.strip() for line in running.output.splitlines() if re.match(r"  \S", line)]
    commands = [line for line in lines if re.match(r"(export|aws|echo) ", line)]
    assert sum(line.startswith("aws s3 ") for line in commands) >= 3
    tools = client_binary("aws").parent
    done = subprocess.run(
        ["/bin/sh", "-e", "-c", "\n".join(commands)],
        capture_output=True,
        text=True,
        timeout=COMMAND_SECONDS,
        cwd=home,
        env=_environment({"HOME": str(home), "PATH": f"{tools}:{os.environ['PATH']}"}),
        check=False,
    )
    assert done.returncode == 0, done
    assert "hello.txt" in done.stdout.splitlines()[-1]


def _check_credentials_file(data: Path) -> None:
    for name in ("credentials.json", "cluster-secret", "nodes/n1.toml", "gateway.toml"):
        mode = stat.S_IMODE((data / name).stat().st_mode)
        assert mode == 0o600, f"{name}: {mode:o}"
    assert stat.S_IMODE(data.stat().st_mode) == 0o700


def _check_status(data: Path) -> None:
    def is_well() -> bool:
        return _astra("status", "--data", str(data)).returncode == 0

    wait_until(is_well, READY_SECONDS, "every node is through with its start", poll=0.2)
    done = _astra("status", "--data", str(data), "-o", "json")
    assert done.returncode == 0, done
    status = json.loads(done.stdout)
    nodes = status["nodes"]
    assert sorted(node["role"] for node in nodes) == ["follower", "follower", "leader"]
    assert {node["id"] for node in nodes} == {"n1", "n2", "n3"}
    for node in nodes:
        assert node["pid"]
        assert node["term"] >= 1
        assert node["commit"] >= node["applied"] - 1
        assert node["free_bytes"] > 0
        assert node["health"] == "ok"
    table = _astra("status", "--data", str(data))
    assert table.returncode == 0
    assert "leader" in table.stdout
    line = _one_clear_line(_astra("status", "--data", str(data.parent / "nothing")))
    assert "nothing" in line


def _check_config_show(data: Path) -> None:
    env = {"ASTRA_LOG_LEVEL": "warning"}
    done = _astra("config", "show", "--data", str(data), "-o", "json", env=env)
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert rows["log.level"]["value"] == "warning"
    assert rows["log.level"]["origin"] == "environment ASTRA_LOG_LEVEL"
    assert rows["cluster.peers"]["origin"].startswith("file ")
    assert rows["gateway.workers"]["origin"] == "default"
    assert (data / "cluster-secret").read_text().strip() not in done.stdout


def _check_keys(data: Path, port: int) -> None:
    at = ["--data", str(data), "-o", "json"]
    made = json.loads(_astra("key", "create", "--user", "alice", "--email", "a@x.y", *at).stdout)
    given = ["--access-key", "MIGRATED", "--secret-key", "a-secret-of-old-times"]
    assert _astra("key", "create", "--user", "alice", *given, *at).returncode == 0
    listed = _astra("key", "list", *at).stdout
    assert made["secret_key"] not in listed
    alice = [row for row in json.loads(listed) if row["user_id"] == "alice"]
    assert {row["access_key"] for row in alice} == {made["access_key"], "MIGRATED"}
    assert {row["email"] for row in alice} == {"a@x.y"}
    endpoint = f"http://127.0.0.1:{port}"
    s3 = boto3_client(
        Target(endpoint=endpoint, access_key="MIGRATED", secret_key="a-secret-of-old-times")
    )
    s3.create_bucket(Bucket="of-alice")
    assert [bucket["Name"] for bucket in s3.list_buckets()["Buckets"]] == ["of-alice"]
    with pytest.raises(ClientError) as denied:
        s3.list_objects_v2(Bucket="my-bucket")
    assert denied.value.response["Error"]["Code"] == "AccessDenied"
    assert _astra("key", "delete", "MIGRATED", "--data", str(data)).returncode == 0
    with pytest.raises(ClientError) as refused:
        s3.list_buckets()
    assert refused.value.response["Error"]["Code"] == "InvalidAccessKeyId"
    s3.close()
    assert _one_clear_line(_astra("key", "delete", "MIGRATED", "--data", str(data)))


def test_root_keys_from_the_environment_are_used_and_kept(tmp_path: Path) -> None:
    env = {"ASTRA_ROOT_ACCESS_KEY": "MYROOT", "ASTRA_ROOT_SECRET_KEY": "my-root-secret-key"}
    port = free_port()
    half = _astra("dev", "--data", str(tmp_path / "d"), env={"ASTRA_ROOT_ACCESS_KEY": "MYROOT"})
    assert "ASTRA_ROOT_SECRET_KEY" in _one_clear_line(half)
    with _dev(tmp_path / "data", port, env) as running:
        target = _target(tmp_path / "data", port)
        assert (target.access_key, target.secret_key) == ("MYROOT", "my-root-secret-key")
        s3 = boto3_client(target)
        s3.create_bucket(Bucket="by-root")
        s3.close()
        for member in running.members:
            environ = Path(f"/proc/{member.pid}/environ").read_bytes()
            is_supervisor = member.pid == running.process.pid
            assert is_supervisor or b"my-root-secret-key" not in environ
