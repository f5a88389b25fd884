"""`astra gateway`: the S3 endpoint, as a parent and its workers."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from astra.cli.process import open_many_files, reuse_freed_memory, run_until_signalled
from astra.cli.settings import gateway_settings
from astra.config import Config
from astra.log import configure_logging


def run_gateway(config: Config, *, config_file: Path | None) -> int:
    """The parent: listens, and keeps the workers running. Raises ConfigError."""
    from gateway.workers import Workers, open_listener

    settings = gateway_settings(config)
    configure_logging(settings.log_level)
    listening = open_listener(settings.listen_host, settings.listen_port)
    command = worker_command(listening.fileno(), config_file)

    async def main(stop: asyncio.Event) -> int:
        await Workers(settings, command, listening).run(stop)
        return 0

    return run_until_signalled(main)


def worker_command(listening_fd: int, config_file: Path | None) -> Sequence[str]:
    command = [sys.executable, "-P", "-m", "astra.cli.main", "gateway-worker"]
    command += ["--fd", str(listening_fd), "--parent", str(os.getpid())]
    if config_file is not None:
        command += ["--config", str(config_file)]
    return command


def run_worker(config: Config, *, listening_fd: int) -> int:
    """One worker on an inherited socket."""
    from gateway.http_server import serve_worker

    reuse_freed_memory()
    open_many_files()
    settings = gateway_settings(config)
    configure_logging(settings.log_level)
    serve_worker(settings, socket.socket(fileno=listening_fd))
    return 0
