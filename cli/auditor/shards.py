"""Finds the trails of all shards in the operator's folder."""

from __future__ import annotations

import re
from pathlib import Path

from broker import begun
from broker.errors import ConfigurationError

_TRAIL = re.compile(r"trail(?:-([0-9]{1,9}))?")


def trails(operator: Path) -> list[Path]:
    """Find the trails of all shards: trail, trail-1 … Raises ConfigurationError where there is none."""
    more = [each for each in operator.glob("trail-*") if each.is_dir() and each.name.removeprefix("trail-").isdecimal()]
    found = [each for each in (operator / "trail", *sorted(more, key=shard_of)) if each.is_dir()]
    if not found:
        message = f"there is no trail in {operator / 'trail'}: name its folder, or the home with --home"
        raise ConfigurationError(message)
    return found


def shard_of(folder: Path) -> int:
    """Tell a trail's shard by the name of its folder."""
    suffix = folder.name.removeprefix("trail").removeprefix("-")
    return int(suffix) if suffix.isdecimal() else 0


def may_hold(folder: Path, origin: str) -> bool:
    """Say whether a trail's folder, by its name, may hold this log: `trail-1` holds no other shard's."""
    named, shard = _TRAIL.fullmatch(folder.resolve().name), begun.shard_of(origin)
    return named is None or shard is None or int(named[1] or 0) == shard[1]
