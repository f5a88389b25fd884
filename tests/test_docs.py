"""The pages say what is so: the reference is what the tables in the code say, links lead somewhere,
and every test that a page names is there."""

import re
import subprocess
import sys
from pathlib import Path

from tests.chaos.faults import BACKEND_FAULTS, FAULTS
from tests.sim.members import MembersNemesis

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


# --- the fault matrix ----------------------------------------------------------------------------

FAULTS_PAGE = ROOT / "docs" / "faults.md"
ROWS_OF_THE_MATRIX = 74


def matrix_rows() -> list[list[str]]:
    """The cells of each numbered row."""
    lines = [line for line in FAULTS_PAGE.read_text().splitlines() if re.match(r"\| \d+ \|", line)]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def holds(name: str) -> bool:
    """Whether a test (FILE::NAME), a fault of chaos or one of the simulation is there."""
    kind, _, fault = name.partition(":")
    if kind == "chaos":
        return fault in {each.__name__ for each in (*FAULTS, *BACKEND_FAULTS)}
    if kind == "sim":
        return callable(getattr(MembersNemesis, fault, None))
    return "::" in name and is_there(name)


def test_the_matrix_has_every_row_once_and_no_empty_cell() -> None:
    rows = matrix_rows()
    assert [int(row[0]) for row in rows] == [*range(1, ROWS_OF_THE_MATRIX + 1)]
    assert [row[0] for row in rows if len(row) != 5 or not all(row)] == []


def test_every_row_of_the_matrix_is_held_by_tests_and_faults_that_exist() -> None:
    for row in matrix_rows():
        named = re.findall(r"`([^`]+)`", row[-1])
        assert named, f"row {row[0]} names no test"
        missing = [name for name in named if not holds(name)]
        assert not missing, f"row {row[0]}: {missing}"


def test_every_fault_of_chaos_and_simulation_is_in_the_matrix() -> None:
    named = {name for row in matrix_rows() for name in re.findall(r"`([^`]+)`", row[-1])}
    known = {f"chaos:{each.__name__}" for each in (*FAULTS, *BACKEND_FAULTS)}
    assert known - named == set()
