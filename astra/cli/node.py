"""`astra node`: one node process."""

from __future__ import annotations

import asyncio

from astra.cli.process import run_until_signalled
from astra.cli.settings import node_settings
from astra.config import Config
from astra.log import configure_logging


def run_node(config: Config) -> int:
    """Runs until SIGTERM or SIGINT. Raises ConfigError."""
    from node.app import serve_node

    settings = node_settings(config)
    configure_logging(settings.log_level)

    async def main(stop: asyncio.Event) -> int:
        await serve_node(settings, stop)
        return 0

    return run_until_signalled(main)
