"""The import rules of DESIGN.md section 3 hold, and each of them can fail.

The rules are the import-linter contracts in pyproject.toml. A rule that cannot fail protects
nothing, so every contract is also shown a copy of the tree with one forbidden import in it.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("astra", "gateway", "node")
LINT_SECONDS = 60

VIOLATIONS = [
    ("gateway/probe.py", "import node", "gateway and node meet only in astra"),
    ("node/probe.py", "from gateway import s3api", "gateway and node meet only in astra"),
    ("astra/probe.py", "import gateway", "astra knows neither gateway nor node"),
    ("node/probe.py", "import astra.cli", "nobody imports the command"),
    ("node/raft/core.py", "import asyncio", "the pure zone knows no clock"),
    ("gateway/sigv4.py", "import time", "the pure zone knows no clock"),
    # Through another file of ours: purity is not only a matter of the first import.
    ("astra/errors.py", "import socket", "the pure zone knows no clock"),
    ("node/probe.py", "import asyncpg", "asyncpg only in the PostgreSQL files"),
    ("gateway/probe.py", "import sqlite3", "sqlite3 only in the SQLite files"),
    ("node/probe.py", "import redis.asyncio", "redis only in node.cache.redis"),
    ("gateway/probe.py", "import aio_pika", "aio_pika only in the RabbitMQ link"),
    ("node/probe.py", "from lxml import etree", "lxml only in gateway.s3api.xml"),
    ("node/services/probe.py", "import redis", "services use the ports"),
]


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter over a tree with our packages and pyproject.toml in it."""
    program = Path(sys.executable).parent / "lint-imports"
    return subprocess.run(
        [str(program), "--no-cache", "--config", str(tree / "pyproject.toml")],
        capture_output=True,
        text=True,
        cwd=tree,
        timeout=LINT_SECONDS,
        check=False,
    )


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources, to put one wrong import into."""
    for package in PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_contracts_on_our_tree_are_kept() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(("file", "line", "contract"), VIOLATIONS)
def test_contract_with_a_forbidden_import_is_broken(
    tree: Path, file: str, line: str, contract: str
) -> None:
    with (tree / file).open("a") as source:
        source.write(f"\n{line}\n")
    result = lint(tree)
    broken = [text for text in result.stdout.splitlines() if text.endswith("BROKEN")]
    named = [text for text in result.stdout.splitlines() if contract in text and "BROKEN" in text]
    assert result.returncode != 0
    assert named, (broken, result.stdout[-2000:], result.stderr)
