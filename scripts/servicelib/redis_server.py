"""Redis: loopback, password, no persistence, bounded memory. The cache may lose everything."""

from __future__ import annotations

import os
import shutil
import socket

from scripts.servicelib.process import Account, Process, ServiceError, spawn, wait_ready
from scripts.servicelib.state import State

START_SECONDS = 15.0
ANSWER_SECONDS = 2.0


def start(state: State, account: Account | None) -> Process:
    """Start Redis and wait until it answers PING with the password."""
    program = shutil.which("redis-server")
    if not program:
        raise ServiceError("Redis is not installed: apt-get install redis-server")
    config = state.data / "redis.conf"
    descriptor = os.open(config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as out:
        out.write(
            f"bind 127.0.0.1\nport {state.ports['redis']}\nprotected-mode yes\n"
            f"requirepass {state.password}\ndaemonize no\ndir {state.data}\n"
            'save ""\nappendonly no\nmaxmemory 64mb\nmaxmemory-policy allkeys-lru\n'
        )
    if account:
        os.chown(config, account.uid, account.gid)
    process = spawn(
        [program, config],
        env={"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C"},
        log=state.log("redis"),
        cwd=state.data,
        account=account,
    )
    try:
        wait_ready(
            process,
            lambda: answers(state),
            timeout=START_SECONDS,
            name="redis",
            log=state.log("redis"),
        )
    except ServiceError:
        state.processes["redis"] = process
        raise
    return process


def answers(state: State) -> bool:
    """True when PING is answered with the recorded password."""
    try:
        return command(state, "PING") == "+PONG"
    except OSError:
        return False


def command(state: State, *words: str) -> str:
    """One command with a one-line answer (PING, FLUSHALL), after AUTH; the raw RESP line."""
    address = ("127.0.0.1", state.ports["redis"])
    with socket.create_connection(address, timeout=ANSWER_SECONDS) as connection:
        lines = connection.makefile("rb")
        answer = ""
        for parts in (("AUTH", state.password), words):
            encoded = [f"${len(part)}\r\n{part}\r\n" for part in parts]
            connection.sendall(f"*{len(parts)}\r\n{''.join(encoded)}".encode())
            answer = lines.readline(4096).decode().strip()
        return answer
