"""The whole test run: fast tests in parallel, then real servers and clusters one at a time.

    .venv/bin/python scripts/testrun.py [pytest arguments for both phases]

The servers are always stopped, whatever happens; the last line sums up both phases as pytest
does, and the exit code is 0 only when every phase passed.
"""

import os
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET  # our own junit files
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SERVICES = ROOT / "scripts" / "services"
SERVICES_DIR = ROOT / ".services" / "make-test"
NO_TESTS = 5
LATE = 124
# CI gives the whole run 20 minutes; a run that hangs must still say what passed.
MINUTES_MAX = float(os.environ.get("ASTRA_TEST_MINUTES", "18"))
FAREWELL_SECONDS = 60
REAL = "cluster or services"
PHASES = {
    "unit": ["-m", f"not ({REAL})", "-n", "2"],
    "real": ["-m", REAL],
}


def interrupted(number: int, _frame: object) -> None:
    """SIGTERM ends like Ctrl-C: through the `finally` that stops the servers."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def services(command: str, *rest: str) -> int:
    """Run scripts/services for the servers of this run."""
    argv = [str(SERVICES), command, "--dir", str(SERVICES_DIR), *rest]
    return subprocess.run(argv, check=False, cwd=ROOT).returncode


def run_phase(name: str, extra: list[str], report: Path, deadline: float) -> int:
    """One pytest run; pytest gets the time to end by itself when it is late or interrupted."""
    print(f"\n##### {name} tests", flush=True)
    argv = [sys.executable, "-m", "pytest", "-q", "--durations=10", f"--junitxml={report}"]
    env = {**os.environ, "ASTRA_SERVICES_DIR": str(SERVICES_DIR)}
    child = subprocess.Popen([*argv, *PHASES[name], *extra], cwd=ROOT, env=env)
    try:
        return child.wait(max(deadline - time.monotonic(), 1))
    except subprocess.TimeoutExpired:
        print(f"out of time: {MINUTES_MAX:g} minutes for the whole run", flush=True)
        end(child)
        return LATE
    except KeyboardInterrupt:
        end(child)
        raise


def end(child: subprocess.Popen[bytes]) -> None:
    """Ask pytest to stop (it runs finalizers and prints its summary), then insist."""
    child.send_signal(signal.SIGINT)
    try:
        child.wait(FAREWELL_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def summary(reports: list[Path], seconds: float) -> str:
    """One line for all phases, in pytest's words."""
    total = dict.fromkeys(("failed", "passed", "skipped", "errors"), 0)
    for report in reports:
        if not report.exists():
            continue
        for suite in ET.parse(report).getroot().iter("testsuite"):
            count = {key: int(suite.get(key, "0")) for key in ("tests", "failures", "errors")}
            skipped = int(suite.get("skipped", "0"))
            total["failed"] += count["failures"]
            total["errors"] += count["errors"]
            total["skipped"] += skipped
            total["passed"] += count["tests"] - count["failures"] - count["errors"] - skipped
    words = [f"{number} {word}" for word, number in total.items() if number or word == "passed"]
    return f"{', '.join(words)} in {seconds:.2f}s".join(["=" * 10 + " ", " " + "=" * 10])


def main(extra: list[str]) -> int:
    """Both phases, the servers around them."""
    signal.signal(signal.SIGTERM, interrupted)
    began = time.monotonic()
    deadline = began + 60 * MINUTES_MAX
    codes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="astra-test-") as private:
        reports = {name: Path(private) / f"{name}.xml" for name in PHASES}
        try:
            codes["servers"] = services("up")
            for name, report in reports.items():
                codes[name] = run_phase(name, extra, report, deadline)
        except KeyboardInterrupt:
            codes["interrupted"] = 130
        finally:
            services("down", "--wipe")
        line = summary(list(reports.values()), time.monotonic() - began)
    if all(codes.get(name) == NO_TESTS for name in PHASES):
        codes["no tests"] = 1
    bad = {name: code for name, code in codes.items() if code not in (0, NO_TESTS)}
    if bad:
        print("failed: " + ", ".join(f"{name} (exit {code})" for name, code in bad.items()))
    print(line, flush=True)
    return min(next(iter(bad.values()), 0), 130)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
