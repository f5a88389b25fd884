"""The reference pages are what the tables in the code say."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
SCRIPTS = TESTS / "raft" / "testdata"


def test_reference_pages_are_up_to_date() -> None:
    command = [sys.executable, "scripts/reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_documents_that_the_readme_points_to_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    links = {part.split(")")[0] for part in readme.split("](")[1:]}
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing


def scenario_holders() -> set[str]:
    """What the tables of the page name: scripts, and tests as file::test."""
    page = (ROOT / "docs" / "reference" / "raft-scenarios.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith("|")]
    return {name for row in rows for name in re.findall(r"`([^`]+)`", row)}


def is_there(name: str) -> bool:
    if "::" not in name:
        return (SCRIPTS / f"{name}.txt").exists()
    file, test = name.split("::")
    path = TESTS / file if "/" in file else TESTS / "unit" / "node" / "raft" / file
    return path.exists() and f"def {test}(" in path.read_text()


def test_scenarios_of_raft_are_held_by_scripts_and_tests_that_exist() -> None:
    named = scenario_holders()
    assert len(named) > 100
    assert sorted(name for name in named if not is_there(name)) == []


def test_every_script_of_raft_is_among_the_scenarios() -> None:
    assert {path.stem for path in SCRIPTS.glob("*.txt")} - scenario_holders() == set()
