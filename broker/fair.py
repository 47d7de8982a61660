"""How many records a step takes from each stream, so that no member's backlog starves another's."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.streams import ANNEXES, ASKS, VERSIONS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.bus import Place

FIRST = (VERSIONS, ANNEXES, ASKS)
"""streams that are taken up before anything else, in this order"""


def shares(backlogs: Mapping[Place, int], limit: int, turn: int) -> dict[Place, int]:
    """Divide `limit` records among the backlogged streams, in the order to take them up.

    What `FIRST` names comes whole, as far as the limit goes; the others share the rest evenly, and what one does not
    need goes to those that do. `turn` says who begins: raise it with each step, and where the limit is smaller than
    the number of streams each has its turn.
    """
    given: dict[Place, int] = {}
    for name in FIRST:
        for place in sorted(place for place in backlogs if place[0] == name):
            given[place] = min(backlogs[place], limit)
            limit -= given[place]
    waiting = [place for place, backlog in backlogs.items() if backlog > 0 and place not in given]
    begin = turn % max(len(waiting), 1)
    given |= _evenly(backlogs, waiting[begin:] + waiting[:begin], limit)
    return {place: share for place, share in given.items() if share}


def _evenly(backlogs: Mapping[Place, int], waiting: list[Place], left: int) -> dict[Place, int]:
    given = dict.fromkeys(waiting, 0)
    while left and waiting:
        quota = max(1, left // len(waiting))
        for place in waiting:
            more = min(quota, backlogs[place] - given[place], left)
            given[place] += more
            left -= more
        waiting = [place for place in waiting if given[place] < backlogs[place]]
    return given
