"""`scripts/s3tests`: the public suite, unpatched, beside a fresh embedded cluster.

The suite lies where S3TESTS_DIR says; its Python packages go to an environment of their own
outside of this repository. Exit status 1 when fewer tests pass than `--at-least`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from scripts.s3suite import recorder
from scripts.s3suite.results import read_outcomes, render_counts, render_failures
from scripts.s3suite.users import create_users, write_configuration
from tests.support.cluster import Cluster

_FILES: Final = ("s3tests/functional/test_s3.py", "s3tests/functional/test_headers.py")
_TEST_TIMEOUT_S: Final = 300
_EXTRA: Final = ("pytest-xdist", "pytest-timeout")


def parse() -> tuple[argparse.Namespace, list[str]]:
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser()
    parser = argparse.ArgumentParser(
        prog="scripts/s3tests", epilog="everything else goes to pytest, such as -k multipart"
    )
    parser.add_argument("--suite", type=Path, default=os.environ.get("S3TESTS_DIR"))
    parser.add_argument("--venv", type=Path, default=cache / "astrastorage" / "s3tests-venv")
    parser.add_argument("--processes", type=int, default=2, help="tests at once (2)")
    parser.add_argument("--workers", type=int, default=2, help="gateway workers (2)")
    parser.add_argument("--at-least", type=int, default=0, help="exit 1 when fewer pass")
    parser.add_argument("--failures", type=Path, help="write what did not pass into a file")
    parser.add_argument("--logs", type=Path, help="keep the cluster's logs in a directory")
    options, rest = parser.parse_known_args()
    if options.suite is None or not (options.suite / _FILES[0]).is_file():
        parser.error("say where the suite lies: S3TESTS_DIR=/path/to/s3-tests (docs/s3-tests.md)")
    return options, rest


def ensure_venv(path: Path, suite: Path) -> Path:
    """The Python of the suite's environment, made when it is not there."""
    python = path / "bin" / "python"
    made = path / "complete"
    if not made.exists():
        venv.create(path, with_pip=True, clear=True)
        install = [str(python), "-m", "pip", "install", "--quiet"]
        install += ["--requirement", str(suite / "requirements.txt"), *_EXTRA]
        subprocess.run(install, check=True)
        made.touch()
    return python


def run_suite(
    python: Path, options: argparse.Namespace, rest: Sequence[str], port: int, directory: Path
) -> Path:
    """Runs pytest in the suite's directory; returns the file of results."""
    configuration, results = directory / "s3tests.conf", directory / "results.jsonl"
    write_configuration(configuration, port)
    results.touch()
    command = [str(python), "-m", "pytest", "-p", Path(recorder.__file__).stem, "-q"]
    command += ["-p", "no:cacheprovider", "-n", str(options.processes), "--tb=short"]
    command += [f"--timeout={_TEST_TIMEOUT_S}", "-m", "not fails_on_aws", *rest, *_FILES]
    kept = {name: text for name, text in os.environ.items() if not name.startswith("AWS_")}
    environ = {
        **kept,
        "S3TEST_CONF": str(configuration),
        "PYTHONPATH": str(Path(recorder.__file__).parent),
        "PYTHONDONTWRITEBYTECODE": "1",
        recorder.VARIABLE: str(results),
    }
    with (directory / "pytest.log").open("wb") as log:
        subprocess.run(command, cwd=options.suite, env=environ, stdout=log, check=False)
    print((directory / "pytest.log").read_text().rstrip().rpartition("\n")[2])
    return results


def main() -> int:
    options, rest = parse()
    python = ensure_venv(options.venv, options.suite)
    with tempfile.TemporaryDirectory(prefix="astra-s3tests-") as name:
        directory = Path(name)
        cluster = Cluster.start(
            backend="embedded", directory=directory / "cluster", workers=options.workers
        )
        try:
            cluster.wait_healthy()
            create_users(cluster.data)
            results = run_suite(python, options, rest, cluster.port, directory)
            outcomes = read_outcomes(results)
        finally:
            if options.logs:
                options.logs.mkdir(parents=True, exist_ok=True)
                (options.logs / "cluster.log").write_text(cluster.logs(5000))
            cluster.close()
        if options.logs:
            shutil.copy(directory / "pytest.log", options.logs)
    print(render_counts(outcomes))
    if options.failures:
        options.failures.write_text(render_failures(outcomes) + "\n")
    passed = sum(outcome.outcome == "passed" for outcome in outcomes)
    return 1 if passed < options.at_least else 0


if __name__ == "__main__":
    sys.exit(main())
