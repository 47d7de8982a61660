"""Names the first of many, and says how many more there are: nothing is cut off in silence."""

from __future__ import annotations

from collections.abc import Sequence

NAMED = 5


def few(names: Sequence[str], most: int = NAMED, joined: str = "and") -> str:
    """Name so many at most, "A, B and 3 more"; "" where there is nobody."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" {joined} {more:,} more" if more > 0 else "")
