"""Tells what stands on record a second time, in sixteen bytes for each that stands there once."""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Hashable

_PARTS = 1 << 16
"""Parts of what is looked through, so that each look stays short."""


class Once:
    """What may come once only, by leaf.

    Known by Python's own hash, which is another in each process: nobody can choose two things that share it.
    """

    def __init__(self) -> None:
        self._seen: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))
        """Hash and leaf of each, in turn."""

    def before(self, thing: Hashable, leaf_number: int) -> int | None:
        """Give the leaf at which it stood before; None, and it is noted, where it did not."""
        first = self.at(thing)
        if first is None:
            known = hash(thing)
            self._seen[known % _PARTS].extend((known, leaf_number))
        return first

    def at(self, thing: Hashable) -> int | None:
        """Give the leaf at which it stands; None where it does not."""
        known = hash(thing)
        part = self._seen[known % _PARTS]
        for place in range(0, len(part), 2):
            if part[place] == known:
                return part[place + 1]
        return None
