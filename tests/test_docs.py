"""The reference pages are what the tables in the code say."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_reference_pages_are_up_to_date() -> None:
    command = [sys.executable, "scripts/reference.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_documents_that_the_readme_points_to_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    links = {part.split(")")[0] for part in readme.split("](")[1:]}
    missing = [link for link in links if not (ROOT / link).exists()]
    assert not missing
