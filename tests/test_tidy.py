"""House rules that a machine can check: sizes, docstrings, nothing of anybody's machine.

The allowances are a ratchet: an entry may only get smaller, and must go when it is not needed.
"""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 500
SOURCES = ("astra", "gateway", "node", "tests", "bench", "scripts")
SKIPPED = {".git", ".venv", ".services", ".astra", "__pycache__", "node_modules"}

# file -> lines it may have. Reasons: the only wire definition (DESIGN.md section 7).
LONG_FILES: dict[str, int] = {"astra/wire.py": 750}
# "file:function" -> lines it may have.
LONG_FUNCTIONS: dict[str, int] = {}

# Built from pieces, so that this file does not contain what it forbids.
FORBIDDEN = re.compile(
    "|".join(
        [
            r"\bpypi" + r"\.org\b",
            r"\bpython" + r"hosted\.org\b",
            r"\bnpmjs" + r"\.(?:org|com)\b",
            r"\bproxy\.golang" + r"\.org\b",
            r"--(?:extra-)?index" + "-url",
            "--find" + "-links",
            r"(?<![\w.])/(?:wo" + r"rk|ro" + r"ot|home/[a-z]+)/",
            r"(?<![\w.])/tmp" + r"/w/",
        ]
    )
)


def tracked_files() -> list[Path]:
    """Files under version control; in an unpacked archive, all files."""
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False, text=True
    )
    if listed.returncode == 0 and listed.stdout:
        files = [ROOT / name for name in listed.stdout.split("\0") if name]
        return [file for file in files if file.is_file()]
    return [
        file
        for file in ROOT.rglob("*")
        if file.is_file() and not SKIPPED & set(file.relative_to(ROOT).parts)
    ]


def sources() -> list[Path]:
    """Our Python files."""
    return sorted(
        file
        for file in tracked_files()
        if file.suffix == ".py" and file.relative_to(ROOT).parts[0] in SOURCES
    )


def name_of(file: Path) -> str:
    """Path relative to the checkout."""
    return file.relative_to(ROOT).as_posix()


def long_files(limit: int) -> dict[str, int]:
    """Files with more lines than the limit."""
    counts = {name_of(file): len(file.read_text().splitlines()) for file in sources()}
    return {name: count for name, count in counts.items() if count > limit}


def long_functions(limit: int) -> dict[str, int]:
    """Functions with more lines than the limit, from `def` to the last line."""
    found = {}
    for file in sources():
        for item in ast.walk(ast.parse(file.read_text())):
            if isinstance(item, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (item.end_lineno or item.lineno) - item.lineno + 1
                if lines > limit:
                    found[f"{name_of(file)}:{item.name}"] = lines
    return found


def compare(found: dict[str, int], allowed: dict[str, int]) -> None:
    """Nothing beyond its allowance, no allowance without need."""
    beyond = {name: lines for name, lines in found.items() if lines > allowed.get(name, 0)}
    assert not beyond, f"too long: {beyond}"
    unneeded = sorted(allowed.keys() - found.keys())
    assert not unneeded, f"no longer too long, remove the allowance: {unneeded}"


def test_files_have_at_most_500_lines() -> None:
    compare(long_files(FILE_LINES_MAX), LONG_FILES)


def test_functions_have_at_most_70_lines() -> None:
    compare(long_functions(FUNCTION_LINES_MAX), LONG_FUNCTIONS)


def test_sources_are_found_and_measured() -> None:
    # The rules above would hold for an empty list too.
    assert len(sources()) > 20
    assert long_functions(5)
    assert long_files(50)


def test_modules_with_code_have_a_docstring() -> None:
    missing = [
        name_of(file)
        for file in sources()
        if (tree := ast.parse(file.read_text())).body and not ast.get_docstring(tree)
    ]
    assert not missing


def test_tracked_files_name_no_registry_and_no_machine() -> None:
    found = []
    for file in tracked_files():
        try:
            text = file.read_text()
        except UnicodeDecodeError:
            continue  # Binary test data.
        found += [f"{name_of(file)}: {match.group()}" for match in FORBIDDEN.finditer(text)]
    assert not found


@pytest.mark.parametrize(
    "text",
    [
        "https://pypi" + ".org/simple",
        "cd /ro" + "ot/project",
        "see /wo" + "rk/main",
        "/tmp" + "/w/x",
    ],
)
def test_forbidden_pattern_matches_what_it_is_for(text: str) -> None:
    assert FORBIDDEN.search(text)


@pytest.mark.parametrize("text", ["network/roots", "https://example.com/work/", "/var/tmp/x"])
def test_forbidden_pattern_ignores_ordinary_text(text: str) -> None:
    assert not FORBIDDEN.search(text)
