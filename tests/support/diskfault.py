"""A disk that fails, for a real process: the preloaded library tests/chaos/disk_fault.c."""

import shutil
import subprocess
from pathlib import Path

from tests.support.services import ROOT

_SOURCE = ROOT / "tests" / "chaos" / "disk_fault.c"


class NoCompiler(Exception):
    """Why the library cannot be made here."""


def compile_library(directory: Path) -> Path:
    """The library, in `directory`. Raises NoCompiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NoCompiler("no C compiler")
    library = directory / "disk_fault.so"
    argv = [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(_SOURCE), "-ldl"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode:
        raise NoCompiler(f"the C compiler fails ({done.stderr.strip()})")
    return library.resolve()


def environment(library: Path, fault: Path) -> dict[str, str]:
    """For a process whose disk does what the file `fault` says."""
    return {"LD_PRELOAD": str(library), "CHAOS_DISK_FAULT": str(fault)}
