"""The whole test run: fast tests in parallel, then real clusters, embedded and on servers at once.

    .venv/bin/python scripts/testrun.py [pytest arguments for all phases]

The servers are always stopped, whatever happens; the last line sums up all phases as pytest
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
# A run that hangs must still say what passed.
MINUTES_MAX = float(os.environ.get("TEST_MINUTES", "40"))
FAREWELL_SECONDS = 60
PHASES = {
    "unit": ["-m", "not (cluster or services)", "-n", "2", "--dist", "worksteal"],
    "embedded": ["-m", "cluster and not services"],
    "services": ["-m", "services"],
}
# Tests with real processes run one after the other in each phase, and wait much. The fast ones
# compute: beside the others, clusters of three nodes in one process could not keep a leader.
STAGES = (("unit",), ("embedded", "services"))


def interrupted(number: int, _frame: object) -> None:
    """SIGTERM ends like Ctrl-C: through the `finally` that stops the servers."""
    raise KeyboardInterrupt(signal.Signals(number).name)


def services(command: str, *rest: str) -> int:
    """Run scripts/services for the servers of this run."""
    argv = [str(SERVICES), command, "--dir", str(SERVICES_DIR), *rest]
    return subprocess.run(argv, check=False, cwd=ROOT).returncode


def start_phase(name: str, extra: list[str], report: Path, output: Path) -> subprocess.Popen[bytes]:
    """One pytest run; what it prints is kept in `output`."""
    argv = [sys.executable, "-m", "pytest", "-q", "--durations=10", f"--junitxml={report}"]
    argv.append(f"--basetemp={output.with_suffix('.tmp')}")  # nobody else's leftovers to clean up
    env = {**os.environ, "TEST_SERVICES_DIR": str(SERVICES_DIR)}
    with output.open("wb") as file:
        return subprocess.Popen(
            [*argv, *PHASES[name], *extra], cwd=ROOT, env=env, stdout=file, stderr=file
        )


def run_stage(
    names: tuple[str, ...], extra: list[str], private: Path, deadline: float
) -> dict[str, int]:
    """Runs phases side by side; pytest gets the time to end by itself when it is late."""
    print(f"\n##### {' and '.join(names)} tests", flush=True)
    outputs = {name: private / f"{name}.log" for name in names}
    children = {
        name: start_phase(name, extra, private / f"{name}.xml", outputs[name]) for name in names
    }
    codes: dict[str, int] = {}
    try:
        for name, child in children.items():
            codes[name] = wait_for(child, deadline)
    except KeyboardInterrupt:
        for child in children.values():
            end(child)
        raise
    finally:
        for name, output in outputs.items():
            print(f"\n----- {name}", flush=True)
            sys.stdout.write(output.read_text(errors="replace"))
            sys.stdout.flush()
    return codes


def wait_for(child: subprocess.Popen[bytes], deadline: float) -> int:
    """Its exit status; a dot every half minute shows that the run is alive."""
    while True:
        try:
            return child.wait(min(30.0, max(deadline - time.monotonic(), 1)))
        except subprocess.TimeoutExpired:
            print(".", end="", flush=True)
        if time.monotonic() >= deadline:
            print(f"out of time: {MINUTES_MAX:g} minutes for the whole run", flush=True)
            end(child)
            return LATE


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
    """All phases, the servers around them."""
    signal.signal(signal.SIGTERM, interrupted)
    began = time.monotonic()
    deadline = began + 60 * MINUTES_MAX
    codes: dict[str, int] = {}
    with tempfile.TemporaryDirectory(prefix="astra-test-") as private:
        reports = {name: Path(private) / f"{name}.xml" for name in PHASES}
        try:
            codes["servers"] = services("up")
            for names in STAGES:
                codes |= run_stage(names, extra, Path(private), deadline)
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
