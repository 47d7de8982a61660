"""Says how far a long look has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread
from time import monotonic

from cli import answer

PROGRESS_S = 1.0
MB = 1_000_000


def progress(what: str, of: str = "leaves") -> Callable[[int, int], None]:
    """Say how far it is, on stderr, at most once a second and not in the first. Of a size of 0 nothing is said."""
    last = monotonic()

    def progress(done: int, size: int) -> None:
        nonlocal last
        if monotonic() - last >= PROGRESS_S:
            last = monotonic()
            answer.aside(f"{what} {done:,}{f' of {size:,}' if size else ''} {of}")

    return progress


@contextmanager
def progress_of(what: str, size: int, look: Callable[[], int]) -> Iterator[None]:
    """Say how far it is, as above, while the block works: of bytes, in MB, which `look` counts in a thread of its own.

    For work that calls nobody back; while it stands still nothing is said.
    """
    ended, say = Event(), progress(what, "MB")

    def watch() -> None:
        last = 0
        while not ended.wait(PROGRESS_S):
            if (done := look()) != last:
                say(done // MB, size // MB)
                last = done

    watching = Thread(target=watch, name="progress", daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()
