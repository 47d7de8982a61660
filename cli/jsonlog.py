"""Writes what is logged, by libraries too, to stderr: one JSON object a line."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeAlias

import structlog

from cli import answer

AGAIN_S = 60.0
"""How soon a library's line is written once more: of a node that is down aiokafka says one 1,000 times a second."""
KNOWN = 5_000
"""Lines that are told apart; what a library says beyond these makes it forget the oldest."""


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
    logging.getLogger().handlers[:] = [Libraries(logging.WARNING)]


class _Line:
    """Prints a line as all that goes to stderr is printed: a broker whose log nobody reads any more goes on."""

    def info(self, line: str) -> None:
        """Print a line."""
        answer.aside(line)

    warning = error = critical = info


_PLAIN = logging.Formatter()
_Told: TypeAlias = tuple[str, str, str]
"""What makes a line another: who says it, what, and what was raised, for one text may stand over any exception."""


class Libraries(logging.Handler):
    """Logs as ours what a library says: a line of text would be no JSON.

    The same line at most once in AGAIN_S, and then how often it was said since: it would fill the disk that the trail
    lies on. `clock` gives seconds.
    """

    def __init__(self, level: int, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(level)
        self._clock = clock
        self._said: dict[_Told, tuple[float, int]] = {}
        """When a line was last written, and how often it was not since."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record; names and texts are the library's own."""
        said, severity = record.getMessage(), record.levelname.lower()
        raised = record.exc_info[1] if record.exc_info else None
        kept = self._kept_back((record.name, said, repr(raised)))
        if kept is None:
            return
        more: dict[str, str | int] = {"kept_back": kept} if kept else {}
        if record.exc_info:
            more["traceback"] = _PLAIN.formatException(record.exc_info)
        # A warning whatever the library calls it: what fails for good is raised, and logged as ours.
        structlog.get_logger().warning("library.said", library=record.name, severity=severity, said=said, **more)

    def _kept_back(self, line: _Told) -> int | None:
        """Tell how often a line was kept back before this time; None: it is kept back once more."""
        now = self._clock()
        at, times = self._said.get(line, (now - AGAIN_S, 0))
        if now - at < AGAIN_S:
            self._said[line] = (at, times + 1)
            return None
        self._said.pop(line, None)
        if len(self._said) >= KNOWN:
            del self._said[next(iter(self._said))]
        self._said[line] = (now, 0)
        return times
