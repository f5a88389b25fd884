"""The commands of `scripts/services`.

`up` is idempotent and finishes a half-started set; `down` stops what it started, by pid, and
keeps the data unless told to wipe it. Every change runs under the lock of the directory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.servicelib import postgres, rabbitmq_server, redis_server
from scripts.servicelib.process import (
    Account,
    Process,
    ServiceError,
    is_alive,
    kill,
    service_account,
    stop,
)
from scripts.servicelib.state import POSTGRES, SERVERS, USER, State, load, locked, new_state, save

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 20.0
NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


def say(text: str) -> None:
    """Progress is for people: stderr, so that stdout stays machine-readable."""
    print(text, file=sys.stderr, flush=True)


def main(argv: list[str]) -> int:
    """Run one command; 0 done, 1 failed with one clear message, 3 (status) not all running."""
    options = parse(argv)
    directory = Path(options.dir).resolve()
    try:
        if options.command in {"status", "env"}:
            return show(directory, options)
        with locked(directory):
            return change(directory, options)
    except ServiceError as failure:
        say(f"services: {failure}")
        return 1
    except KeyboardInterrupt:
        return 130


def parse(argv: list[str]) -> argparse.Namespace:
    """The command line."""
    default = os.environ.get("TEST_SERVICES_DIR") or str(ROOT / ".services")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--dir", default=default, help="where services.json and the data are")
    parser = argparse.ArgumentParser(prog="scripts/services", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    up = commands.add_parser("up", parents=[common], help="start what does not run yet")
    up.add_argument("--owner", default="", help="a note on who started them")
    down = commands.add_parser("down", parents=[common], help="stop all")
    down.add_argument("--wipe", action="store_true", help="and delete the data: kills, no farewell")
    commands.add_parser("status", parents=[common], help="what runs (exit 3: not everything)")
    env = commands.add_parser("env", parents=[common], help="addresses as shell variables")
    env.add_argument("--json", action="store_true")
    names = (*SERVERS, "postgres")
    for command in ("start", "stop", "restart"):
        one = commands.add_parser(command, parents=[common], help=f"{command} one server")
        one.add_argument("name", choices=names, help="'postgres' means all of them")
        if command != "start":
            one.add_argument("--kill", action="store_true", help="SIGKILL instead of asking")
    for command, text in (
        ("isolate", "make a database on each PostgreSQL and a RabbitMQ virtual host; print JSON"),
        ("forget", "remove what isolate made"),
    ):
        one = commands.add_parser(command, parents=[common], help=text)
        one.add_argument("name", help="lower case letters, digits, underscore")
    return parser.parse_args(argv)


def change(directory: Path, options: argparse.Namespace) -> int:
    """The commands that change something; the lock is held."""
    if options.command == "up":
        return up(directory, options.owner)
    state = load(directory)
    if state is None:
        if options.command == "down":
            say("services: nothing to stop")
            return 0
        raise ServiceError("not up: run scripts/services up first")
    if options.command == "down":
        return down(directory, state, wipe=options.wipe)
    if options.command == "isolate":
        return isolate(state, checked(options.name))
    if options.command == "forget":
        return forget(state, checked(options.name))
    names = POSTGRES if options.name == "postgres" else (options.name,)
    if options.command in {"stop", "restart"}:
        stop_all(state, names, kill_at_once=options.kill)
        save(directory, state)
    if options.command in {"start", "restart"}:
        start_all(directory, state, names)
    return 0


def checked(name: str) -> str:
    """A name that is safe in SQL, in a URL and on a command line."""
    if not NAME.fullmatch(name):
        raise ServiceError(f"{name!r}: use lower case letters, digits and underscores")
    return name


def up(directory: Path, owner: str) -> int:
    """Start what does not run; a port lost in a race is replaced once."""
    began = time.monotonic()
    state = load(directory)
    fresh = state is None
    if state is None:
        state = create(directory, owner)
    try:
        start_all(directory, state, SERVERS)
    except ServiceError as failure:
        stop_all(state, SERVERS, kill_at_once=True)
        if not fresh:
            raise
        remove(directory, state)
        if "in use" not in str(failure):
            raise
        say("services: a port was taken meanwhile, trying others")
        state = create(directory, owner)
        start_all(directory, state, SERVERS)
    say(f"services: up in {time.monotonic() - began:.1f} s ({directory / 'services.json'})")
    return 0


def create(directory: Path, owner: str) -> State:
    """Choose ports, password and data directory."""
    account = service_account()
    data = directory / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(data, account.uid, account.gid)
        if not reachable(data, account):
            data.rmdir()
            data = Path(tempfile.mkdtemp(prefix="astra-services-"))
            os.chown(data, account.uid, account.gid)
            say(f"services: user {account.name} cannot enter {directory}, data goes to {data}")
    state = new_state(data, owner)
    save(directory, state)
    return state


def reachable(data: Path, account: Account) -> bool:
    """True when the service user can enter the directory: all parents let it through."""
    check = subprocess.run(
        ["test", "-w", str(data)],
        check=False,
        cwd="/",
        user=account.uid,
        group=account.gid,
        extra_groups=[],
    )
    return check.returncode == 0


def start_all(directory: Path, state: State, names: tuple[str, ...]) -> None:
    """Start the named servers side by side; all are tried, the first failure is reported."""
    account = service_account()
    wanted = [name for name in names if not running(state, name)]

    def prepare() -> None:
        if any(name in POSTGRES for name in wanted):
            postgres.prepare(state, account)

    with ThreadPoolExecutor(max_workers=len(SERVERS) + 1) as pool:
        template = pool.submit(prepare)

        def start_one(name: str) -> tuple[str, Process]:
            began = time.monotonic()
            if name in POSTGRES:
                template.result()
            process = starters(state, account)[name.partition("-")[0]](name)
            say(f"  {name:<11} ready on port {state.ports[name]} ({seconds(began)})")
            return name, process

        futures = [pool.submit(start_one, name) for name in wanted]
    failures: list[BaseException] = []
    for future in futures:
        failure = future.exception()
        if failure is None:
            name, process = future.result()
            state.processes[name] = process
        else:
            failures.append(failure)
    save(directory, state)
    if failures:
        raise ServiceError("\n".join(str(failure) for failure in failures))


def starters(state: State, account: Account | None) -> dict[str, Callable[[str], Process]]:
    """How each kind of server is started."""
    return {
        "postgres": lambda name: postgres.start(state, name, account),
        "redis": lambda _name: redis_server.start(state, account),
        "rabbitmq": lambda _name: rabbitmq_server.start(state, account),
    }


def seconds(began: float) -> str:
    """Time since then, for people."""
    return f"{time.monotonic() - began:.1f} s"


def running(state: State, name: str) -> bool:
    """True while the recorded process lives."""
    process = state.processes.get(name)
    return process is not None and is_alive(process)


def stop_all(state: State, names: tuple[str, ...], *, kill_at_once: bool) -> None:
    """Stop the named servers side by side and forget their pids."""
    wanted = [*names, *(["epmd"] if "rabbitmq" in names else [])]

    def stop_one(name: str) -> None:
        process = state.processes.get(name)
        if process is None:
            return
        if kill_at_once:
            kill(process)
        else:
            # SIGINT is PostgreSQL's fast shutdown: it does not wait for clients.
            number = signal.SIGINT if name in POSTGRES else signal.SIGTERM
            stop(process, number=number, timeout=STOP_SECONDS)

    with ThreadPoolExecutor(max_workers=len(SERVERS) + 1) as pool:
        list(pool.map(stop_one, [name for name in wanted if name != "epmd"]))
        # The port mapper goes last: the broker says goodbye to it.
        list(pool.map(stop_one, [name for name in wanted if name == "epmd"]))
    for name in wanted:
        state.processes.pop(name, None)


def down(directory: Path, state: State, *, wipe: bool) -> int:
    """Stop all; with `wipe` nothing is left but the empty directory."""
    stop_all(state, SERVERS, kill_at_once=wipe)
    if wipe:
        remove(directory, state)
    else:
        save(directory, state)
    say("services: down" + (", data deleted" if wipe else ""))
    return 0


def remove(directory: Path, state: State) -> None:
    """Delete the data and the record of it."""
    shutil.rmtree(state.data, ignore_errors=True)
    (directory / "services.json").unlink(missing_ok=True)


def show(directory: Path, options: argparse.Namespace) -> int:
    """`status` and `env`: read only."""
    state = load(directory)
    if options.command == "env":
        if state is None:
            raise ServiceError("not up: run scripts/services up first")
        print_env(directory, state, as_json=options.json)
        return 0
    alive = {name: state is not None and running(state, name) for name in SERVERS}
    for name, up_now in alive.items():
        process = state.processes[name].pid if state and up_now else "-"
        port = state.ports[name] if state else "-"
        print(f"{name:<11} {'running' if up_now else 'stopped':<8} pid {process:<8} port {port}")
    return 0 if all(alive.values()) else 3


def print_env(directory: Path, state: State, *, as_json: bool) -> None:
    """Addresses for a shell (`eval "$(scripts/services env)"`) or for a program."""
    if as_json:
        print(json.dumps(state.public()))
        return
    print(f"export ASTRA_SERVICES={directory / 'services.json'}")
    for number, name in enumerate(POSTGRES, start=1):
        print(f"export ASTRA_POSTGRES_{number}='{state.postgres_url(name)}'")
    print(f"export ASTRA_REDIS='{state.redis_url()}'")
    print(f"export ASTRA_AMQP='{state.amqp_url()}'")


def isolate(state: State, name: str) -> int:
    """A database per node, a Redis number and a virtual host that nobody else uses."""
    account = service_account()
    for server in POSTGRES:
        postgres.query(state, server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        postgres.query(state, server, f"CREATE DATABASE {name}")
    rabbitmq_server.control(state, account, "add_vhost", name)
    rabbitmq_server.control(state, account, "set_permissions", "-p", name, USER, ".*", ".*", ".*")
    print(
        json.dumps(
            {
                "postgres": [state.postgres_url(server, name) for server in POSTGRES],
                # Redis has 16 databases; 0 stays for whoever does not ask.
                "redis": state.redis_url(1 + zlib.crc32(name.encode()) % 15),
                "amqp": state.amqp_url(name),
            }
        )
    )
    return 0


def forget(state: State, name: str) -> int:
    """Remove the databases and the virtual host; missing ones are fine."""
    for server in POSTGRES:
        if running(state, server):
            postgres.query(state, server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    if running(state, "rabbitmq"):
        try:
            rabbitmq_server.control(state, service_account(), "delete_vhost", name)
        except ServiceError as failure:
            say(f"services: {failure}")
    return 0
