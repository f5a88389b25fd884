"""The load generator: wrk with requests prepared beforehand, one thread of C.

Every request is a complete text in a Lua table, so that a request costs the generator a table
look-up. wrk counts answers of 400 and above as errors; a run with any is refused. The CPU time
of wrk is part of the result: below one core, the generator was waiting, not working.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_INSTALL_TIMEOUT_S = 300
_ONCE_S_MAX = 1800

_SCRIPT = """
local requests, count, at = {}, 0, 0
function init(args)
  local body = string.rep("x", BODY_BYTES)
  for line in io.lines(LIST) do
    count = count + 1
    requests[count] = METHOD .. " " .. line .. " HTTP/1.1\\r\\nHost: " .. HOST .. "\\r\\n" .. FIELDS
      .. "\\r\\n" .. body
  end
end
function request()
  at = at % count + 1
  return requests[at]
end
local answered, refused = 0, 0
if ONCE then -- wrk itself would wait for the end of its duration
  function response(status)
    answered = answered + 1
    refused = refused + (status >= 400 and 1 or 0)
    if answered == count then
      io.write(string.format('\\nRESULT {"requests": %d, "us": 0, "p50_us": 0, "p99_us": 0, '
        .. '"status": %d, "broken": 0}\\n', count, refused))
      io.flush()
      os.exit(0)
    end
  end
end
function done(summary, latency, _)
  local errors = summary.errors
  local broken = errors.connect + errors.read + errors.write + errors.timeout
  local found = '\\nRESULT {"requests": %d, "us": %d, "p50_us": %d, "p99_us": %d, '
  found = found .. '"status": %d, "broken": %d}\\n'
  io.write(string.format(found, summary.requests, summary.duration, latency:percentile(50),
    latency:percentile(99), errors.status, broken))
end
"""


class LoadFailed(Exception):
    """wrk could not run, or an answer was an error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """One run of the generator."""

    requests: int
    seconds: float  # as wrk counts them
    elapsed: float  # with its start and end
    p50_us: float
    p99_us: float
    generator_cpu: float  # cores used by wrk, 1.0 is all that its one thread can use

    @property
    def rate(self) -> float:
        return self.requests / self.seconds


def ensure_wrk() -> None:
    """Installs the Debian package when wrk is missing and this is root. Raises LoadFailed."""
    if shutil.which("wrk"):
        return
    if os.geteuid() == 0 and shutil.which("apt-get"):
        command = ["apt-get", "install", "--yes", "--no-install-recommends", "wrk"]
        subprocess.run(command, check=False, timeout=_INSTALL_TIMEOUT_S, capture_output=True)
    if not shutil.which("wrk"):
        raise LoadFailed("the benchmark needs wrk: apt-get install wrk")


def run(
    host: str,
    targets: Sequence[str],
    *,
    method: str = "GET",
    body_bytes: int = 0,
    clients: int = 16,
    seconds: int = 3,
    once: bool = False,
) -> Load:
    """Sends the requests in their order, again and again for `seconds`; with `once` until each
    was answered, whatever that takes (no latencies then). Raises LoadFailed on any bad answer."""
    seconds = _ONCE_S_MAX if once else seconds
    with tempfile.TemporaryDirectory(prefix="bench-wrk-") as directory:
        listing, script = Path(directory, "targets"), Path(directory, "load.lua")
        listing.write_text("\n".join(targets) + "\n")
        fields = f"Content-Length: {body_bytes}\\r\\n" if method == "PUT" else ""
        names = {"LIST": str(listing), "HOST": host, "METHOD": method, "FIELDS": fields}
        head = "".join(f'local {name} = "{text}"\n' for name, text in names.items())
        head += f"local BODY_BYTES = {body_bytes}\nlocal ONCE = {'true' if once else 'false'}\n"
        script.write_text(head + _SCRIPT)
        command = ["wrk", "--threads=1", f"--connections={clients}", f"--duration={seconds}s"]
        command += ["--timeout=10s", "--latency", f"--script={script}", f"http://{host}/"]
        return _measure(command)


def _measure(command: Sequence[str]) -> Load:
    began, used = time.monotonic(), os.times()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    elapsed, now = time.monotonic() - began, os.times()
    _, _, text = done.stdout.partition("RESULT ")
    if not text:
        raise LoadFailed(f"wrk: {done.stdout[-500:]} {done.stderr[-500:]}")
    found = json.loads(text.splitlines()[0])
    if found["status"] or found["broken"]:
        raise LoadFailed(f"{found['status']} error answers, {found['broken']} broken exchanges")
    cpu = now.children_user + now.children_system - used.children_user - used.children_system
    return Load(
        requests=found["requests"],
        seconds=found["us"] / 1e6 or elapsed,
        elapsed=elapsed,
        p50_us=found["p50_us"],
        p99_us=found["p99_us"],
        generator_cpu=cpu / elapsed,
    )
