"""RabbitMQ with an Erlang port mapper of its own: private node name, ports and directories.

The user `guest` does not exist (another default user is generated at the first start), no
plugin is enabled, every listener is bound to loopback.
"""

from __future__ import annotations

import os
import shutil
import socket
import struct
from pathlib import Path

from scripts.servicelib.process import (
    Account,
    Process,
    ServiceError,
    is_alive,
    run,
    spawn,
    wait_ready,
)
from scripts.servicelib.state import USER, State

START_SECONDS = 60.0
ANSWER_SECONDS = 3.0
PROGRAMS = Path("/usr/lib/rabbitmq/bin")
LOOPBACK = "-kernel inet_dist_use_interface {127,0,0,1}"


def program(name: str) -> Path:
    """The real script: the wrapper in /usr/sbin insists on root or on its own user."""
    path = PROGRAMS / name
    if path.exists():
        return path
    found = shutil.which(name)
    if not found:
        raise ServiceError("RabbitMQ is not installed: apt-get install rabbitmq-server")
    return Path(found)


def environment(state: State) -> dict[str, str]:
    """The whole environment of the broker and of rabbitmqctl; nothing of the caller's."""
    home = state.data / "rabbitmq"
    # The port makes the name unique on this machine; 'localhost' always resolves.
    return {
        "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(state.ports["epmd"]),
        "ERL_MAX_PORTS": "4096",
        "RABBITMQ_NODENAME": f"astra{state.ports['rabbitmq']}@localhost",
        "RABBITMQ_DIST_PORT": str(state.ports["rabbitmq-dist"]),
        "RABBITMQ_BASE": str(home),
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "none.conf"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ADVANCED_CONFIG_FILE": str(home / "advanced.config"),
        "RABBITMQ_CONFIG_FILES": str(home / "conf.d"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"+S 2:2 {LOOPBACK}",
        "RABBITMQ_CTL_ERL_ARGS": f"+S 1:1 {LOOPBACK}",
        "RABBITMQ_MAX_NUMBER_OF_PROCESSES": "65536",
    }


def start(state: State, account: Account | None) -> Process:
    """Start the port mapper and the broker; ready means a client can log in."""
    home = _write_config(state, account)
    env = environment(state)
    mapper = state.processes.get("epmd")
    if mapper is None or not is_alive(mapper):
        tool = shutil.which("epmd")
        if not tool:
            raise ServiceError("Erlang's epmd is not installed: apt-get install rabbitmq-server")
        argv = [tool, "-address", "127.0.0.1", "-port", str(state.ports["epmd"])]
        mapper = spawn(argv, env=env, log=state.log("epmd"), cwd=home, account=account)
        state.processes["epmd"] = mapper
        wait_ready(
            mapper,
            lambda: _listens(state.ports["epmd"]),
            timeout=START_SECONDS,
            name="epmd",
            log=state.log("epmd"),
        )
    log = state.log("rabbitmq")
    broker = spawn([program("rabbitmq-server")], env=env, log=log, cwd=home, account=account)
    try:
        wait_ready(broker, lambda: answers(state), timeout=START_SECONDS, name="rabbitmq", log=log)
    except ServiceError:
        state.processes["rabbitmq"] = broker
        raise
    return broker


def _write_config(state: State, account: Account | None) -> Path:
    home = state.data / "rabbitmq"
    home.mkdir(mode=0o700, exist_ok=True)
    files = {
        "rabbitmq.conf": (
            f"listeners.tcp.local = 127.0.0.1:{state.ports['rabbitmq']}\n"
            f"num_acceptors.tcp = 2\n"
            f"default_user = {USER}\ndefault_pass = {state.password}\n"
            "vm_memory_high_watermark.absolute = 512MiB\n"
            "disk_free_limit.absolute = 64MB\n"
            "log.file.level = info\n"
        ),
        "enabled_plugins": "[].\n",
    }
    for name, text in files.items():
        descriptor = os.open(home / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as out:
            out.write(text)
        if account:
            os.chown(home / name, account.uid, account.gid)
    if account:
        os.chown(home, account.uid, account.gid)
    return home


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS).close()
    except OSError:
        return False
    return True


def answers(state: State) -> bool:
    """True when the broker accepts the recorded user (AMQP 0-9-1 up to connection.tune)."""
    address = ("127.0.0.1", state.ports["rabbitmq"])
    try:
        with socket.create_connection(address, timeout=ANSWER_SECONDS) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            stream = connection.makefile("rb")
            if _read_method(stream.read) != (10, 10):  # connection.start
                return False
            response = f"\0{USER}\0{state.password}".encode()
            body = struct.pack(">HHI", 10, 11, 0)  # connection.start-ok, no client properties
            body += b"\x05PLAIN" + struct.pack(">I", len(response)) + response + b"\x05en_US"
            connection.sendall(struct.pack(">BHI", 1, 0, len(body)) + body + b"\xce")
            return _read_method(stream.read) == (10, 30)  # connection.tune
    except (OSError, struct.error):
        return False


def _read_method(read: object) -> tuple[int, int]:
    assert callable(read)
    _kind, _channel, size = struct.unpack(">BHI", read(7))
    payload: bytes = read(min(size, 65536) + 1)
    class_id, method_id = struct.unpack_from(">HH", payload)
    return class_id, method_id


def control(state: State, account: Account | None, *words: str) -> str:
    """rabbitmqctl of this broker."""
    return run(
        [program("rabbitmqctl"), "-q", *words],
        env=environment(state),
        cwd=state.data / "rabbitmq",
        account=account,
    )
