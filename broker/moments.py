"""Makes times of the milliseconds that others signed."""

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
