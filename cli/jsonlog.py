"""Writes what is logged, by libraries too, to stderr: one JSON object a line."""

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
    logging.getLogger().handlers[:] = [_Libraries(logging.WARNING)]


_PLAIN = logging.Formatter()


class _Libraries(logging.Handler):
    """Logs as ours what a library says: a line of text would be no JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; names and texts are the library's own."""
        more = {"traceback": _PLAIN.formatException(record.exc_info)} if record.exc_info else {}
        said, severity = record.getMessage(), record.levelname.lower()
        # A warning whatever the library calls it: what fails for good is raised, and logged as ours.
        structlog.get_logger().warning("library.said", library=record.name, severity=severity, said=said, **more)
