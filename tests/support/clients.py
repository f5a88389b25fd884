"""Real S3 clients with private configuration: boto3, aws-cli, s3cmd, rclone, s5cmd.

Nothing of the caller's home or environment is read: each runner gets a HOME of its own, and
the programs come from the bin directory of the running interpreter.
"""

import functools
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
PASTED_REGION = "local"  # as `astra dev` prints it: the aws CLI presigns with SigV4 there
COMMAND_SECONDS = 300
_SESSION_LOCK = threading.Lock()  # making clients of one session is not thread-safe


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where to talk to and as whom."""

    endpoint: str
    access_key: str
    secret_key: str

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`."""
        return urlsplit(self.endpoint).netloc


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """What a client program did; `output` is its standard output, `errors` the other one."""

    status: int
    output: str
    errors: str


def boto3_client(target: Target, config: Config | None = None) -> S3Client:
    """A client as users make it: default checksums and retries, path style, our endpoint."""
    base = Config(s3={"addressing_style": "path"}, connect_timeout=10, read_timeout=60)
    with _SESSION_LOCK:
        return _session().client(
            "s3",
            endpoint_url=target.endpoint,
            aws_access_key_id=target.access_key,
            aws_secret_access_key=target.secret_key,
            region_name=REGION,
            config=base.merge(config) if config else base,
        )


@functools.cache
def _session() -> boto3.session.Session:
    """One for all clients: a new one reads the whole model of S3 again, a tenth of a second."""
    return boto3.session.Session()


@dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    """Runs the command line clients against one target; make it with `make_clients`."""

    target: Target
    home: Path

    def aws(self, *arguments: str, check: bool = True) -> Finished:
        """`aws ...` (for example `clients.aws("s3", "cp", ...)`)."""
        return self._run("aws", arguments, check=check)

    def s3cmd(self, *arguments: str, check: bool = True) -> Finished:
        """`s3cmd ...` with a generated configuration file."""
        config = str(self.home / "s3cfg")
        return self._run("s3cmd", ["--config", config, "--no-progress", *arguments], check=check)

    def rclone(self, *arguments: str, check: bool = True) -> Finished:
        """`rclone ...`; the remote is called `astra:`."""
        config = str(self.home / "rclone.conf")
        return self._run("rclone", ["--config", config, *arguments], check=check)

    def s5cmd(self, *arguments: str, check: bool = True) -> Finished:
        """`s5cmd --endpoint-url ... ...`."""
        return self._run("s5cmd", ["--endpoint-url", self.target.endpoint, *arguments], check=check)

    def _run(self, name: str, arguments: Sequence[str], *, check: bool) -> Finished:
        argv = [str(client_binary(name)), *arguments]
        done = subprocess.run(
            argv,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=COMMAND_SECONDS,
            env=self._environment(),
            cwd=self.home,
            check=False,
        )
        finished = Finished(status=done.returncode, output=done.stdout, errors=done.stderr)
        if check:
            assert finished.status == 0, f"{name} {' '.join(arguments)}: {finished}"
        return finished

    def _environment(self) -> Mapping[str, str]:
        return {
            # The clients from PyPI are scripts that ask for their interpreter by name.
            "PATH": f"{client_binary('python').parent}:{os.environ.get('PATH', '/usr/bin:/bin')}",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "AWS_ACCESS_KEY_ID": self.target.access_key,
            "AWS_SECRET_ACCESS_KEY": self.target.secret_key,
            "AWS_DEFAULT_REGION": PASTED_REGION,
            "AWS_REGION": PASTED_REGION,
            "AWS_ENDPOINT_URL": self.target.endpoint,
            "AWS_CONFIG_FILE": str(self.home / "aws-config"),
            "AWS_SHARED_CREDENTIALS_FILE": str(self.home / "aws-credentials"),
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
            "NO_PROXY": "127.0.0.1,localhost",
        }


def client_binary(name: str) -> Path:
    """A program of the test requirements, beside the running interpreter."""
    path = Path(sys.executable).parent / name
    assert path.exists(), f"{name} is not installed: run make test, or scripts/venv test"
    return path


def make_clients(target: Target, home: Path) -> Clients:
    """Write the configuration files below `home` (an empty private directory)."""
    home.mkdir(parents=True, exist_ok=True)
    (home / "aws-config").write_text("[default]\ns3 =\n    addressing_style = path\n")
    (home / "aws-credentials").write_text("")
    (home / "s3cfg").write_text(
        "[default]\n"
        f"access_key = {target.access_key}\n"
        f"secret_key = {target.secret_key}\n"
        f"host_base = {target.host}\n"
        f"host_bucket = {target.host}\n"
        "use_https = False\n"
        "signature_v2 = False\n"
        f"bucket_location = {REGION}\n"
    )
    (home / "rclone.conf").write_text(
        "[astra]\n"
        "type = s3\n"
        "provider = Other\n"
        f"access_key_id = {target.access_key}\n"
        f"secret_access_key = {target.secret_key}\n"
        f"endpoint = {target.endpoint}\n"
        f"region = {REGION}\n"
        "force_path_style = true\n"
    )
    return Clients(target=target, home=home)
