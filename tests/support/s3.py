"""What tests of the S3 interface share: buckets of their own, refusals, other users."""

import subprocess
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pytest
from botocore.exceptions import ClientError
from mypy_boto3_s3 import S3Client

from tests.support.clients import Target, boto3_client
from tests.support.cluster import Cluster, environment
from tests.support.services import ROOT

COMMAND_SECONDS = 60.0


def new_name(stem: str = "t") -> str:
    """A bucket name that nobody has."""
    return f"{stem}-{uuid.uuid4().hex[:20]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """How S3 said no."""

    status: int
    code: str
    message: str


def refused(call: Callable[[], object]) -> Refused:
    """The refusal that `call` gets; the test fails when it gets none."""
    with pytest.raises(ClientError) as caught:
        call()
    response = caught.value.response
    return Refused(
        status=response["ResponseMetadata"]["HTTPStatusCode"],
        code=response["Error"]["Code"],
        message=response["Error"].get("Message", ""),
    )


def answer(call: Callable[[], object]) -> tuple[int, str]:
    """Status and code of the refusal."""
    found = refused(call)
    return found.status, found.code


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    access_key: str
    secret_key: str


def make_user(cluster: Cluster, display_name: str = "Another User") -> tuple[str, S3Client]:
    """A new user, who is not root, and a client that signs as that user."""
    user_id = f"user-{uuid.uuid4().hex[:12]}"
    argv = [sys.executable, "-m", "astra.cli.main", "key", "create", "--user", user_id]
    argv += ["--name", display_name, "--data", str(cluster.data), "-o", "json"]
    done = subprocess.run(
        argv,
        capture_output=True,
        cwd=ROOT,
        env=environment(),
        timeout=COMMAND_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    key = msgspec.json.decode(done.stdout, type=_Key)
    target = Target(endpoint=cluster.endpoint, access_key=key.access_key, secret_key=key.secret_key)
    return user_id, boto3_client(target)


def put_all(s3: S3Client, bucket: str, *keys: str) -> None:
    """Small objects, each with its key as its bytes."""
    for key in keys:
        s3.put_object(Bucket=bucket, Key=key, Body=key.encode())


def enable_versioning(s3: S3Client, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})


def suspend_versioning(s3: S3Client, bucket: str) -> None:
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
