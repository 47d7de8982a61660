"""Goes on in a stream that does not hold our place: from its start, or from its beginning where it was made again."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from adapters.database import transaction

if TYPE_CHECKING:
    from adapters.heads import Journal
    from broker.bus import Bus
    from broker.errors import OffsetGoneError

LOST = "stream-lost"


def _nothing() -> None:
    """Do nothing beside."""


async def begins_anew(
    bus: Bus, journal: Journal, stream: str, shard: int, at: int, beside: Callable[[], object] = _nothing
) -> bool:
    """Set our place back to the beginning of a stream that ends before it, with an alarm; say whether it was so.

    It was lost, and made again empty. Read on from there, all that comes until the stream has grown past the place
    would be passed over. What comes twice is known by its number or leaf. To be called where nothing was found at the
    place. `at`: time of the alarm, ms; `beside`: what is done in the same transaction.
    """
    place = journal.place(stream)
    if not place or place <= (end := await bus.end(stream, partition=shard)):
        return False
    begin_anew(journal, stream, place, at, f"ends at {end} and was read up to {place}", beside)
    return True


def begin_anew(
    journal: Journal, stream: str, place: int, at: int, found: str, beside: Callable[[], object] = _nothing
) -> None:
    """Set our place back from `place` to the beginning, with an alarm, unless another process moves it meanwhile."""
    with transaction(journal.database):
        if journal.place(stream) == place:
            journal.alarm(at, LOST, f"{stream} {found}: it was lost and made again")
            journal.move(stream, 0)
            beside()


def go_on(
    journal: Journal, place: int, at: int, gone: OffsetGoneError, what: str, beside: Callable[[], object] = _nothing
) -> None:
    """Set our place on from `place` to where its stream starts by now, with an alarm that says of `what` is gone.

    Not where another process moves it meanwhile.
    """
    with transaction(journal.database):
        if journal.place(gone.stream) == place:
            if place:  # who begins has missed nothing
                journal.alarm(at, gone.code, f"{what} {place} to {gone.start - 1}")
            beside()
            journal.move(gone.stream, gone.start)
