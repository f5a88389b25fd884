"""`astra node`: one node process."""

from __future__ import annotations

from astra.cli.process import open_many_files, reuse_freed_memory
from astra.cli.settings import node_settings
from astra.config import Config


def run_node(config: Config) -> int:
    """Runs until SIGTERM or SIGINT; 70 after a fatal error. Raises ConfigError."""
    from node import app

    reuse_freed_memory()
    open_many_files()
    return app.run_node(node_settings(config))
