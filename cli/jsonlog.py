"""Writes what is logged to stderr, one JSON object a line."""

from __future__ import annotations

import logging
import sys

import structlog


def to_stderr() -> None:
    """Log from here on as JSON, from level info."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
