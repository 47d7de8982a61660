"""Begins a stream anew that ends before the place to which it was read, or holds other things there.

It was lost, and made again empty.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters.database import transaction

if TYPE_CHECKING:
    from adapters.heads import Journal
    from broker.bus import Bus

LOST = "stream-lost"


async def begins_anew(bus: Bus, journal: Journal, stream: str, shard: int, at: int) -> bool:
    """Set our place back to the beginning of a stream that ends before it, with an alarm; say whether it was so.

    Read on from there, all that comes until the stream has grown past the place would be passed over. What comes twice
    is known by its number or leaf. To be called where nothing was found at the place. `at`: time of the alarm, ms.
    """
    place = journal.place(stream)
    if not place or place <= (end := await bus.end(stream, partition=shard)):
        return False
    begin_anew(journal, stream, place, at, f"ends at {end} and was read up to {place}")
    return True


def begin_anew(journal: Journal, stream: str, place: int, at: int, found: str) -> None:
    """Set our place back from `place` to the beginning, with an alarm, unless another process moves it meanwhile."""
    with transaction(journal.database):
        if journal.place(stream) == place:
            journal.alarm(at, LOST, f"{stream} {found}: it was lost and made again")
            journal.move(stream, 0)
