"""The six users that the suite knows by name, and its configuration file."""

from __future__ import annotations

import configparser
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
_TIMEOUT_S: Final = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteUser:
    """One user; the keys are fixed and worth nothing outside a test cluster."""

    section: str
    user_id: str
    display_name: str
    email: str
    access_key: str
    secret_key: str


def _user(section: str, user_id: str, display_name: str, email: str) -> SuiteUser:
    letters = "".join(part.upper() for part in section.split())
    return SuiteUser(
        section=section,
        user_id=user_id,
        display_name=display_name,
        email=email,
        access_key=f"S3TESTS{letters}"[:20].ljust(20, "X"),
        secret_key=f"secret-of-{'-'.join(section.split())}".ljust(40, "x"),
    )


USERS: Final = (
    _user("s3 main", "s3tests-main", "Main Tester", "main@s3tests.invalid"),
    _user("s3 alt", "s3tests-alt", "Alt Tester", "alt@s3tests.invalid"),
    _user("s3 tenant", "s3tests-tenant", "Tenant Tester", "tenant@s3tests.invalid"),
    _user("iam", "s3tests-iam", "IAM Tester", "iam@s3tests.invalid"),
    _user("iam root", "s3tests-iam-root", "IAM Root", "iamroot@s3tests.invalid"),
    _user("iam alt root", "s3tests-iam-alt-root", "IAM Alt Root", "iamaltroot@s3tests.invalid"),
)


def create_users(data: Path) -> None:
    """Creates them in the cluster with this data directory. Raises CalledProcessError."""
    for user in USERS:
        command = [sys.executable, "-m", "astra.cli.main", "key", "create", "--data", str(data)]
        command += ["--user", user.user_id, "--name", user.display_name, "--email", user.email]
        command += ["--access-key", user.access_key, "--secret-key", user.secret_key]
        kept = {name: text for name, text in os.environ.items() if not name.startswith("ASTRA_")}
        subprocess.run(
            command, check=True, cwd=ROOT, env=kept, timeout=_TIMEOUT_S, stdout=subprocess.DEVNULL
        )


def write_configuration(path: Path, port: int) -> None:
    """The suite's configuration file for a cluster on a port of 127.0.0.1."""
    found = configparser.RawConfigParser()
    found["DEFAULT"] = {
        "host": "127.0.0.1",
        "port": str(port),
        "is_secure": "False",
        "ssl_verify": "False",
    }
    found["fixtures"] = {"bucket prefix": "s3tests-{random}-"}
    for user in USERS:
        found[user.section] = {
            "user_id": user.user_id,
            "display_name": user.display_name,
            "email": user.email,
            "access_key": user.access_key,
            "secret_key": user.secret_key,
        }
    found["s3 main"]["api_name"] = "eu-central-1"  # us-east-1 is shown as no location
    found["s3 tenant"]["tenant"] = "testx"
    with path.open("w") as file:
        found.write(file)
