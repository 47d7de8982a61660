"""Says how far a long look has come."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from cli import answer

PROGRESS_S = 1.0


def progress(what: str, of: str = "leaves") -> Callable[[int, int], None]:
    """Say how far it is, on stderr, at most once a second and not in the first. Of a size of 0 nothing is said."""
    last = monotonic()

    def progress(done: int, size: int) -> None:
        nonlocal last
        if monotonic() - last >= PROGRESS_S:
            last = monotonic()
            answer.aside(f"{what} {done:,}{f' of {size:,}' if size else ''} {of}")

    return progress
