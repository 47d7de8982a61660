"""Takes a shard up again after its files were restored, if nobody outside saw more than they hold.

Everything is compared before anything is signed: a head that the world has seen is never signed a second time with
another root. What nobody outside was asked about cannot be found missing (DESIGN §8, THREATS "Left").
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker import begun, notes, remembers, streams
from broker.errors import LostLeavesError, NothingToCompareError, ProofError, TrailError, UnavailableError
from broker.notes import Checkpoint, Vkey
from broker.owner import Witnesses
from broker.records import Records
from broker.register import Register
from broker.seal import Sealer
from broker.submit import note_of
from broker.trail import Trail

if TYPE_CHECKING:
    from pathlib import Path

    from broker.bus import Bus, Shard
    from broker.signing import SigningKey


@dataclass(frozen=True, slots=True)
class Outside:
    """A head that somebody outside kept, and who."""

    head: Checkpoint
    source: str
    note: str = ""


@dataclass(frozen=True, slots=True)
class Resumed:
    """What the log stands at, and the newest head outside that bears it out."""

    size: int
    newest: Outside
    compared: int
    silent: Sequence[str]
    """Witnesses that did not answer."""


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored of a shard."""

    trail: Path
    records: Path
    register: Path
    origin: str
    shard: int
    key: SigningKey


def signed(kept: Iterable[tuple[str, str]], log: Vkey) -> list[Outside]:
    """Read (note, source) pairs; each head once. Raises TrailError for a note that the log did not sign."""
    found: dict[str, Outside] = {}
    for note, source in kept:
        if note in found:
            continue
        try:
            found[note] = Outside(notes.open_checkpoint(note, _key_of(note, log)), source, note)
        except ProofError as error:
            raise TrailError(f"{source} holds a head that this log did not sign: {error}") from error
    return list(found.values())


async def resume(
    restored: Restored,
    bus: Bus,
    kept: Callable[[Vkey], Sequence[Outside]],
    witnesses: Witnesses,
    leave_room: Callable[[], Awaitable[None]],
) -> Resumed:
    """Compare, then finish what the record left unsealed; whoever ran the shard is fenced, once nothing is against it.

    `leave_room` moves the ends of members' streams beyond every offset that a reader may have seen.

    Raises LostLeavesError, TrailError or NothingToCompareError with nothing signed, UnavailableError if the quorum of
    the witnesses does not answer.
    """
    with closing(Records(restored.records)) as records:

        def opened() -> Sealer:
            trail = Trail.open(restored.trail, restored.origin)
            return Sealer(trail, records, restored.key, bus, restored.shard)

        asking = opened()
        heard, silent = await ask(asking, witnesses)
        outside = [*kept(asking.vkey), *heard]
        await _compared(opened(), outside)  # read after what was seen outside: whoever runs goes on meanwhile
        await remembers.check_stream(bus, asking.trail, restored.shard)
        async with bus.own(restored.shard, [streams.VERSIONS]) as shard:
            sealer = opened()
            newest = await _compared(sealer, outside)
            outlook = await sealer.look()  # before we are told that the shard is ours still: no successor's work
            await _forget(restored.register, shard)
            await leave_room()
            if sealer.trail.checkpoint:  # so that whoever looks for the stream's last record need not cross the room
                await sealer.announce_cosigned(sealer.trail.checkpoint)
            await sealer.recover(outlook)
            return Resumed(sealer.trail.size, newest, len(outside), silent)


async def _forget(cache: Path, shard: Shard) -> None:
    """Empty the cache of the register: it may belong to another past, and the stream has it all.

    Raises FencedError if the shard is another's by now: what was asked outside takes its time.
    """
    with closing(Register(cache)) as register:
        await register.take_over(shard.now)
        register.forget()


def _key_of(note: str, log: Vkey) -> Vkey:
    """Give the key under which a checkpoint must open: a later log of this shard is newer than ours, not another's."""
    origin = begun.origin_of(note)
    return notes.vkey(origin, log.public.raw) if begun.is_before(log.name, origin) else log


async def ask(sealer: Sealer, witnesses: Witnesses) -> tuple[list[Outside], list[str]]:
    """Ask all witnesses; at least the quorum must answer, though it be that they hold nothing."""
    found, silent = list[Outside](), list[str]()
    for each in witnesses.known:
        name = each.cosigner.name
        try:
            note = await note_of(sealer, each)
            if note is not None:
                head = notes.open_checkpoint(note, sealer.vkey)
                found.append(Outside(head, f"the witness {name}", note.decode()))
        except (UnavailableError, ProofError):
            silent.append(name)
    if len(witnesses.known) - len(silent) < witnesses.quorum:
        raise UnavailableError(f"no quorum of witnesses answers; silent: {', '.join(silent)}")
    return found, silent


async def _compared(sealer: Sealer, outside: Sequence[Outside]) -> Outside:
    """Check that every head outside lies on our history; give the newest."""
    if not outside:
        raise NothingToCompareError("nobody outside was named who saw this log: nothing says that this is all of it")
    size, roots = await sealer.foresee({each.head.size for each in outside})
    newest = max(outside, key=lambda each: each.head.size)
    if newest.head.size > size:
        raise LostLeavesError(newest.head.size, newest.source, size)
    check_history(outside, roots)
    return newest


def check_history(outside: Iterable[Outside], roots: Mapping[int, bytes]) -> None:
    """Check heads outside against the roots that we have at their sizes. Raises TrailError."""
    for each in outside:
        if roots[each.head.size] != each.head.root:
            raise TrailError(f"{each.source} saw another head of {each.head.size} leaves: another history of this log")
