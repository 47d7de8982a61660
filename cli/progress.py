"""Says how far a long look has come."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from cli import answer

PROGRESS_S = 1.0


def progress(what: str) -> Callable[[int, int], None]:
    """Say how far it is, on stderr, at most once a second and not in the first."""
    last = monotonic()

    def progress(done: int, size: int) -> None:
        nonlocal last
        if monotonic() - last >= PROGRESS_S:
            last = monotonic()
            answer.aside(f"{what} {done:,} of {size:,} leaves")

    return progress
