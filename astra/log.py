"""Logging for every process: one JSON object per line on stderr.

Rules: events are short sentences, facts are fields; no secret, no client byte without bounds.
"""

from __future__ import annotations

import sys
from typing import cast

import structlog
from structlog.typing import FilteringBoundLogger

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure_logging(level: str = "info") -> None:
    """Once per process, before the first line is written."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS.get(level, 20)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )


def get_logger(component: str) -> FilteringBoundLogger:
    """A logger whose lines say which part of the process wrote them."""
    return cast(FilteringBoundLogger, structlog.get_logger(component=component))
