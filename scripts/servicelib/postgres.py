"""PostgreSQL: one cluster (initdb) per node, fsync on, loopback TCP and a password.

The clusters are copies of one template, because initdb is the slow part. Template and copies
are bound to nobody: no replication, no shared directory, no socket outside the data directory.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from scripts.servicelib.process import (
    Account,
    Process,
    ServiceError,
    is_zombie,
    run,
    spawn,
    wait_ready,
)
from scripts.servicelib.state import DATABASE, USER, State

START_SECONDS = 30.0

SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_connections = 80
shared_buffers = 32MB
max_wal_size = 256MB
min_wal_size = 32MB
fsync = on
synchronous_commit = on
full_page_writes = on
jit = off
huge_pages = off
timezone = 'UTC'
log_timezone = 'UTC'
logging_collector = off
"""


def binary(name: str) -> Path:
    """A server program of the newest installed PostgreSQL."""
    installed = sorted(
        (path for path in Path("/usr/lib/postgresql").glob(f"*/bin/{name}") if path.exists()),
        key=lambda path: float(path.parts[-3]) if path.parts[-3].replace(".", "").isdigit() else 0,
    )
    found = installed[-1] if installed else shutil.which(name)
    if not found:
        raise ServiceError("PostgreSQL is not installed: apt-get install postgresql")
    return Path(found)


def environment(state: State) -> dict[str, str]:
    """What the programs may see: no PG* variable of the caller."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "LC_ALL": "C",
        "HOME": str(state.data),
        "PGPASSWORD": state.password,
        "PGCONNECT_TIMEOUT": "3",
    }


def prepare(state: State, account: Account | None) -> None:
    """Make the template cluster with the database in it, unless it is there."""
    template = state.data / "postgres-template"
    if template.exists():
        return
    unfinished = state.data / "postgres-template.new"
    shutil.rmtree(unfinished, ignore_errors=True)
    password_file = state.data / "postgres-password"
    descriptor = os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(state.password + "\n")
    if account:
        os.chown(password_file, account.uid, account.gid)
    tool: list[str | Path] = [
        binary("initdb"),
        "--pgdata",
        unfinished,
        "--username",
        USER,
        "--no-sync",
    ]
    tool += ["--auth", "scram-sha-256", "--pwfile", password_file]
    tool += ["--locale", "C", "--encoding", "UTF8"]
    env = environment(state)
    run(tool, env=env, cwd=state.data, account=account)
    password_file.unlink()
    with (unfinished / "postgresql.conf").open("a") as conf:
        conf.write(SETTINGS)
    single: Sequence[str | Path] = [binary("postgres"), "--single", "-F", "-D", unfinished]
    run(
        [*single, "template1"],
        env=env,
        cwd=state.data,
        account=account,
        stdin=f"CREATE DATABASE {DATABASE}\n",
    )
    unfinished.rename(template)


def start(state: State, name: str, account: Account | None) -> Process:
    """Start one node's cluster and wait until it answers a query; `prepare` came before."""
    directory = state.data / name
    if not directory.exists():
        unfinished = state.data / f"{name}.new"
        template = state.data / "postgres-template"
        run(["rm", "-rf", unfinished], env=environment(state), cwd=state.data, account=account)
        copy: list[str | Path] = ["cp", "-a", template, unfinished]
        run(copy, env=environment(state), cwd=state.data, account=account)
        unfinished.rename(directory)
    _forget_zombie(directory / "postmaster.pid")
    process = spawn(
        [binary("postgres"), "-D", directory, "-p", str(state.ports[name])],
        env=environment(state),
        log=state.log(name),
        cwd=state.data,
        account=account,
    )
    try:
        wait_ready(
            process,
            lambda: answers(state, name),
            timeout=START_SECONDS,
            name=name,
            log=state.log(name),
        )
    except ServiceError:
        state.processes[name] = process
        raise
    return process


def _forget_zombie(lock: Path) -> None:
    """Remove the lock of a killed server that nobody has reaped: PostgreSQL takes it for alive.

    Its children are gone (`kill` waits for them), so nothing else writes to the directory. The
    lock of any other process stays, and PostgreSQL judges it.
    """
    try:
        pid = int(lock.read_text().split()[0])
    except (FileNotFoundError, IndexError, ValueError):
        return
    if is_zombie(pid):
        lock.unlink()


def answers(state: State, name: str) -> bool:
    """True when a query is answered with the recorded password."""
    try:
        return query(state, name, "SELECT 1") == "1"
    except ServiceError:
        return False


def query(state: State, name: str, statement: str, database: str = DATABASE) -> str:
    """One statement through psql, its output unadorned."""
    argv = [str(binary("psql")), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"]
    argv += [
        "-h",
        "127.0.0.1",
        "-p",
        str(state.ports[name]),
        "-U",
        USER,
        "-d",
        database,
        "-c",
        statement,
    ]
    return run(argv, env=environment(state), cwd=Path("/"), account=None).strip()
