"""Follows versions and the heads of a shard's log together: a log that is begun anew is one that a directory names."""

from __future__ import annotations

from adapters.heads import Heads, Journal
from adapters.versions import Versions
from broker import notes
from broker.bus import Bus
from broker.errors import ConfigurationError


async def follow(
    bus: Bus, known: Versions, heads: Heads, shard: int, at: int, *, versions: bool, to_end: bool = True
) -> notes.Vkey:
    """Take in new heads; first new `versions`, if asked, or if a head is of a log that none of ours names.

    `at` is the time of an alarm where no version names it either; `to_end` as for `Heads.follow`. Gives the key of the
    log that was followed, as `log_of` does.
    """
    if versions:
        await known.follow(bus)
    log = log_of(known, shard)
    await heads.follow(bus, log, shard, to_end=to_end)
    if heads.ahead and versions:
        heads.ring_ahead(at)
    elif heads.ahead:
        return await follow(bus, known, heads, shard, at, versions=True)
    return log


def ring_called_lost(known: Versions, journal: Journal, member: str, at: int) -> None:
    """Raise an alarm, once, for each key of a member that another has followed without its signature."""
    found = known.called_lost(member)
    speaking = ", ".join(each[:16] for each in found.speaking)
    for each in found.keys:
        about, more = f"{member}'s key {each[:16]} for directories is called lost", f"; {speaking} speaks for {member}"
        journal.ring_once(at, "key-called-lost", about, more)  # later keys of the member's own make it no news


def log_of(known: Versions, shard: int) -> notes.Vkey:
    """Give the key of the shard's log by the newest directory. Raises ConfigurationError where it names none."""
    vkey = known.newest().logs.get(shard)
    if vkey is None:
        message = f"the directory names no log of shard {shard}: ask the operator"
        raise ConfigurationError(message)
    return notes.parse_vkey(vkey)
