"""A pytest plugin, loaded into the suite's own Python: one line of JSON for each test.

Runs in the process that collects the results of all workers. The suite itself is not changed.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

VARIABLE = "S3TESTS_RESULTS"
_REASON_CHARS = 300


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Writes the call's outcome; of set-up and tear-down only what is not a pass."""
    path = os.environ.get(VARIABLE)
    if path is None or "PYTEST_XDIST_WORKER" in os.environ:
        return
    if report.when != "call" and report.outcome == "passed":
        return
    reason = ""
    if report.failed:
        lines = [line for line in report.longreprtext.splitlines() if line.startswith("E ")]
        reason = lines[0][1:].strip() if lines else report.longreprtext[-_REASON_CHARS:]
    record = {
        "name": report.nodeid.partition("::")[2],
        "when": report.when,
        "outcome": report.outcome,
        "markers": [str(word) for word in report.keywords],
        "reason": reason[:_REASON_CHARS],
    }
    with Path(path).open("a") as file:
        file.write(json.dumps(record) + "\n")
