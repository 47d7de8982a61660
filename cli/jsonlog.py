"""Writes what is logged, by libraries too, to stderr: one JSON object a line."""

from __future__ import annotations

import logging

import structlog

from cli import answer


def to_stderr() -> None:
    """Log from here on as JSON, from level info."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=lambda *_: _Line(),
    )
    logging.getLogger().handlers[:] = [_Libraries(logging.WARNING)]


class _Line:
    """Prints a line as all that goes to stderr is printed: a broker whose log nobody reads any more goes on."""

    def info(self, line: str) -> None:
        """Print a line."""
        answer.aside(line)

    warning = error = critical = info


_PLAIN = logging.Formatter()


class _Libraries(logging.Handler):
    """Logs as ours what a library says: a line of text would be no JSON."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; names and texts are the library's own."""
        more = {"traceback": _PLAIN.formatException(record.exc_info)} if record.exc_info else {}
        said, severity = record.getMessage(), record.levelname.lower()
        # A warning whatever the library calls it: what fails for good is raised, and logged as ours.
        structlog.get_logger().warning("library.said", library=record.name, severity=severity, said=said, **more)
