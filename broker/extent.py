"""Tells which bundles of a trail lie on disk, so that a walk ends with what is there, whatever size is claimed."""

from __future__ import annotations

import os
import re
from array import array
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

from broker.tiles import ENTRIES, WIDTH, path

_ABOVE, _LAST = re.compile(r"x[0-9]{3}"), re.compile(r"[0-9]{3}")
_DEEP = 7
"""Parts of the longest name: no checkpoint can say more than 19 digits of leaves."""


def bundles(folder: Path, size: int) -> Iterator[range]:
    """Give the bundles of a tree of `size` leaves, in order: one at a time, but those in a row that lie nowhere as one.

    The folder is listed only where something is missing: a running broker may move what it holds meanwhile.
    """
    count, index = -(-size // WIDTH), 0
    full: array[int] | None = None
    while index < count:
        end = index + 1
        if not _lies(folder, index, size):
            full = _full(folder) if full is None else full
            at = bisect_right(full, index)
            end = count - 1 if index < count - 1 and _lies(folder, count - 1, size) else count
            end = min(end, full[at]) if at < len(full) else end
        yield range(index, end)
        index = end


def _lies(folder: Path, index: int, size: int) -> bool:
    """Say whether entries or hashes of a bundle lie on disk."""
    width = min(WIDTH, size - index * WIDTH)
    return any(os.path.lexists(folder / path(level, index, each)) for level in (ENTRIES, 0) for each in (width, WIDTH))


def _full(folder: Path) -> array[int]:
    """List the full bundles and tiles of hashes by their names, in order."""
    found = array("Q")
    for level in (ENTRIES, 0):
        found.extend(_below(folder / "tile" / str(level), 0, 1))
    return array("Q", sorted(found))


def _below(folder: Path, above: int, deep: int) -> Iterator[int]:
    """List what lies in a folder and those below it; links are not followed, they may lead around in a ring."""
    try:
        listed = list(os.scandir(folder))
    except OSError:
        return  # whoever reads what should be there says so
    for each in listed:
        if _LAST.fullmatch(each.name):
            yield above * 1000 + int(each.name)
        elif _ABOVE.fullmatch(each.name) and deep < _DEEP and each.is_dir(follow_symlinks=False):
            yield from _below(Path(each.path), above * 1000 + int(each.name[1:]), deep + 1)
