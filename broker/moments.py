"""Reads times in ms with care: others may sign any number, and a clock may be set back."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(ms: int) -> datetime | None:
    """Make a time of ms since 1970-01-01T00:00:00Z, in UTC.

    None outside the years 1 to 9999: whoever signs may write any number, and stops no reader.
    """
    try:
        return datetime.fromtimestamp(ms / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def gone_by(while_ms: int, since: int, now: int) -> bool:
    """Say whether so many ms went by. Where a clock was set back nobody can tell: so it is said then, too."""
    return not 0 <= now - since < while_ms
