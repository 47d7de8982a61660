"""Checks that the bus still has what trail and register tell of: a stream may have been emptied, or made again.

Whoever went on without `register` would know of no holder and no lost key, and a log begun then would say that nothing
is in force; without an input's place nobody would hear that something was lost with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker import codec, streams
from broker.distribute import GROUP
from broker.errors import InputLostError, RegisterEmptiedError, UnavailableError
from broker.notice import NOTHING, Leaf
from broker.step import ANY_BUREAU

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from broker.bus import Bus
    from broker.register import Register
    from broker.step import InForce
    from broker.trail import Trail

_OF = {"notices": ("series", "subscription"), "receipts": ("receipts",)}
"""What the register keeps of what was taken of an input, by family."""


async def same_register(bus: Bus, shard: int) -> bool:
    """Say whether `register` is the stream on which the shard was begun last: `distribute` keeps a place there then.

    On Kafka that goes with the topic. Afterwards a cache may still be as far as the stream, which grows anew.
    """
    return await bus.has_place(GROUP, streams.REGISTER, partition=shard)


async def lost_register(bus: Bus, shard: int) -> bool:
    """Say whether `register` is another stream by now; not where the bus does not answer."""
    try:
        return not await same_register(bus, shard)
    except UnavailableError:
        return False


async def check_stream(bus: Bus, trail: Trail, shard: int) -> None:
    """Look for it in the stream, before the shard is taken and the cache touched. Raises RegisterEmptiedError.

    The cache may be all that is left, and each taking of the shard on Kafka would write to the stream, until that was
    longer than the cache and would be called its own.
    """
    missing, place = _named(trail), 0
    end = await bus.end(streams.REGISTER, partition=shard)
    while missing and place < end and (found := await bus.read(streams.REGISTER, place, partition=shard)):
        missing -= {_kind(each.key) for each in found}
        place = found[-1].offset + 1
    _refuse(missing)


def check_restored(trail: Trail, known: InForce) -> None:
    """Hold what was put in force from the register against the last leaf. Raises RegisterEmptiedError."""
    _refuse(_named(trail) - _kinds(known))


def check_places(unplaced: Collection[str], register: Register, lost: Mapping[str, int]) -> None:
    """Hold inputs of which the bus has no place against what was taken of them. Raises InputLostError."""
    for stream in lost_with_places(unplaced, taken_of(unplaced, register)):
        if lost.get(stream) != 0:
            what = f"{stream} has no place any more, though of it was taken: it was lost, and made again"
            raise InputLostError(stream, 0, what)


def lost_with_places(unplaced: Collection[str], taken: Collection[str]) -> list[str]:
    """Name the inputs that were lost with their places, by those that have none, and those of which was taken.

    Where the bus has none in `versions` either, its places were lost, and no stream: all is taken once more, and called
    repeated.
    """
    return [] if streams.VERSIONS in unplaced else sorted({*unplaced} & {*taken})


def taken_of(inputs: Iterable[str], register: Register) -> set[str]:
    """Name those of the inputs of which the register has something that was taken."""
    return {each for each in inputs if _was_taken(each, register)}


def has_sent(register: Register) -> bool:
    """Say whether any bureau was ever given a delivery; a new log gives a number to those that nothing knows."""
    return any(key != ANY_BUREAU for key, _ in register.under("next/"))


def _was_taken(stream: str, register: Register) -> bool:
    of = _OF.get(streams.family_of(stream).name, ())
    return any(True for each in of for _ in register.under(f"{each}/{streams.member_of(stream)}/"))


def _named(trail: Trail) -> set[str]:
    """Name the kinds of version under which the last leaf was decided."""
    return _kinds(codec.decode(Leaf, trail.entry(trail.size - 1))) if trail.size else set()


def _kinds(of: Leaf | InForce) -> set[str]:
    return {kind for kind, digest in (("directory", of.directory), ("policies", of.policies)) if digest != NOTHING}


def _kind(key: bytes) -> str:
    return key.decode().removeprefix("version/")


def _refuse(missing: set[str]) -> None:
    if missing:
        raise RegisterEmptiedError(sorted(missing))
