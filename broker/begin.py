"""Begins a new log that names the old one, where leaves of it were lost for good.

The old log ends at what was restored; the new one has those leaves, and a name of its own. Register, holders and
receipts go on; delivery numbers jump over all that the lost leaves can have used. What is done here may be cut off at
any point and is then gone on with: the name stands on disk before the record says it, and the record is whole before
anything is signed under it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker import begun, codec, crash, durable, notes, remembers, streams
from broker.begun import ENDED, ORIGIN, SEEN
from broker.errors import NothingLostError, NothingToCompareError, ProofError, TrailError
from broker.judge import Ruling
from broker.merkle import leaf_hash
from broker.notes import Checkpoint, Vkey
from broker.notice import BEGUN, LOST, Entry, Leaf
from broker.owner import Owner
from broker.records import Records
from broker.register import Register
from broker.resume import Outside, ask, check_history
from broker.seal import Sealer
from broker.step import ANY_BUREAU, Step
from broker.trail import Trail
from broker.up import restored
from broker.witnessed import WITNESSED

if TYPE_CHECKING:
    from broker.adopt import Adopter
    from broker.bus import Bus, Shard

AT_ONCE = 2_000
"""Leaves in one step: a day's may have been lost."""
Kept = Callable[[Vkey], Sequence[Outside]]
Tell = Callable[[Sequence[str]], None]
"""Names the witnesses that did not answer, before the log has ended: whoever is cut off later asks them no more."""


@dataclass(frozen=True, slots=True)
class Began:
    """The new log, and what is known of the old one."""

    vkey: Vkey
    size: int
    ended: Checkpoint
    seen: Checkpoint
    silent: Sequence[str] | None
    """Witnesses that did not answer when the old log was compared: they may have seen more. None: compared before."""


async def begin(owner: Owner, bus: Bus, kept: Kept, tell: Tell, leave_room: Callable[[], Awaitable[None]]) -> Began:
    """End the log at what was restored and begin the next; whoever ran the shard is fenced, once nothing is against it.

    Nobody is shown the new log before a directory names it. Raises NothingLostError where no head outside goes beyond
    ours, TrailError or NothingToCompareError with nothing signed, UnavailableError without a quorum of the witnesses.
    """
    with ExitStack() as stack:
        register, records = Register(owner.register), Records(owner.records)
        stack.callback(register.close)
        stack.callback(records.close)
        heard = await _heard(owner, records, bus, kept) if await _is_to_end(owner, records, bus) else None
        if heard:  # before the shard is taken: what is refused leaves whoever runs it alone
            await _compared(owner, records, bus, heard)
        await remembers.check_stream(bus, Trail.open(owner.trail), owner.shard)
        async with bus.own(owner.shard, [streams.VERSIONS]) as shard:
            lost = await _compared(owner, records, bus, heard) if heard else None
            await register.take_over(shard.now)
            register.forget()  # it may belong to another past; the stream has it all
            adopter = await restored(register, bus, owner, shard)
            if lost:
                await _end(owner, lost, tell, shard)
            trail = Trail.open(owner.trail)
            trail.go_on_as(owner.origin)
            sealer = Sealer(trail, records, owner.key, bus, owner.shard)
            first = await _Writer(owner, sealer, records, register, adopter, shard).write()
            old, seen = _read(first, sealer.vkey)
            crash.here("begin.whole")
            _put_aside(trail, sealer.vkey)
            crash.here("begin.put-aside")
            await sealer.finish()
            crash.here("begin.sealed")
            await leave_room()
            return Began(sealer.vkey, trail.size, old, seen, heard.silent if heard else None)


async def _is_to_end(owner: Owner, records: Records, bus: Bus) -> bool:
    """Say whether the log on disk is still to be ended, rather than a new one under way that was cut off."""
    trail = Trail.open(owner.trail)
    if trail.checkpoint and trail.origin != owner.origin:
        return False
    if begun.place_of(owner.origin) == 1:
        return True
    return bool(trail.checkpoint) and await Sealer(trail, records, owner.key, bus, owner.shard).shows_us()


@dataclass(frozen=True, slots=True)
class _Heard:
    """What was seen of the old log outside."""

    outside: Sequence[Outside]
    silent: Sequence[str]
    """Witnesses that did not answer."""


@dataclass(frozen=True, slots=True)
class _Lost:
    """What the old log, which `sealer` is to finish, was compared with, and the newest head, which goes beyond it."""

    sealer: Sealer
    heard: _Heard
    newest: Outside


def _present(owner: Owner, records: Records, bus: Bus) -> Sealer:
    """Open the log as it is on disk now."""
    return Sealer(Trail.open(owner.trail, owner.origin), records, owner.key, bus, owner.shard)


async def _heard(owner: Owner, records: Records, bus: Bus, kept: Kept) -> _Heard:
    """Ask who saw the old log."""
    sealer = _present(owner, records, bus)
    heard, silent = await ask(sealer, owner.witnesses)
    return _Heard([*kept(sealer.vkey), *heard], silent)


async def _compared(owner: Owner, records: Records, bus: Bus, heard: _Heard) -> _Lost:
    """Compare the old log with what was seen of it outside; nothing is written."""
    sealer = _present(owner, records, bus)
    return _Lost(sealer, heard, await _newest(sealer, heard.outside))


async def _end(owner: Owner, lost: _Lost, tell: Tell, shard: Shard) -> None:
    """Finish the old log as far as the record goes, and write down how it ended and what comes after it.

    Raises FencedError, with nothing written down, if another owns the shard by now: it goes on with the old log.
    """
    tell(lost.heard.silent)
    await lost.sealer.finish(await lost.sealer.look())
    await shard.now()
    trail = lost.sealer.trail
    head = Checkpoint(trail.origin, trail.size, trail.root)
    ended = notes.sign_checkpoint(head, owner.key)
    durable.put(owner.trail / f"{ENDED}{begun.place_of(head.origin)}", ended.encode())
    durable.put(owner.trail / SEEN, lost.newest.note.encode())
    origin = begun.after(head.origin, *(each.head.origin for each in lost.heard.outside))
    crash.here("begin.compared")
    durable.put(owner.trail / ORIGIN, f"{origin}\n".encode())
    crash.here("begin.named")


async def _newest(sealer: Sealer, outside: Sequence[Outside]) -> Outside:
    """Give the newest head outside: it goes beyond ours, and all others lie on our history or beyond it, too."""
    if not outside:
        raise NothingToCompareError("nobody outside was named who saw this log: nothing says how much was lost")
    size, roots = await sealer.foresee({each.head.size for each in outside})
    newest = max(outside, key=lambda each: each.head.size)
    if newest.head.size <= size:
        raise NothingLostError(f"the newest head outside has {newest.head.size} leaves, {size} are here")
    check_history((each for each in outside if each.head.size <= size), roots)
    return newest


def _read(first: Entry, log: Vkey) -> tuple[Checkpoint, Checkpoint]:
    try:
        return begun.read(first, log)
    except ProofError as error:
        raise TrailError(f"the record does not begin {log.name}: {error}") from error


def _put_aside(trail: Trail, vkey: Vkey) -> None:
    """Put the new log's key in the place of the old one's, and the old one's cosigned checkpoint aside."""
    durable.put(trail.folder / "vkey", f"{vkey}\n".encode())
    witnessed = trail.folder / WITNESSED
    if witnessed.exists() and begun.origin_of(witnessed.read_text(encoding="utf-8")) != trail.origin:
        witnessed.replace(trail.folder / f"{ENDED}{WITNESSED}")
        durable.sync(trail.folder)


class _Writer:
    """Commits the first leaves of a new log; goes on where an earlier try was cut off."""

    def __init__(
        self, owner: Owner, sealer: Sealer, records: Records, register: Register, adopter: Adopter, shard: Shard
    ) -> None:
        self._owner, self._sealer, self._records = owner, sealer, records
        self._register, self._adopter, self._shard = register, adopter, shard
        self._frontier, self._now = sealer.trail.frontier(), 0

    async def write(self) -> Entry:
        """Bring the record to the size at which the old log was seen; return the entry that begins the new one."""
        trail = self._sealer.trail
        if trail.checkpoint and begun.origin_of(trail.checkpoint) == trail.origin:
            return self._sealed()
        if trail.size:
            self._now = codec.decode(Leaf, trail.entry(trail.size - 1)).now
        first = None
        async for entry in self._sealer.beyond():
            first = first or entry
            self._frontier.add(leaf_hash(entry.leaf))
        self._now = max(self._now, await self._shard.now())
        first = first or await self._begin()
        crash.here("begin.begun")
        _, seen = _read(first, self._sealer.vkey)
        while missing := seen.size - self._frontier.size:
            await self._commit([Ruling(LOST)] * min(missing, AT_ONCE))
        return first

    def _sealed(self) -> Entry:
        """Give the first entry of a new log that is on disk already: then the record is whole."""
        number = begun.ended_at(self._owner.trail, self._owner.origin)
        salt, decision = self._records.get(number) or (b"", b"")
        return Entry(number, self._sealer.trail.entry(number), salt, decision)

    async def _begin(self) -> Entry:
        folder = self._owner.trail
        ended, seen = begun.ended(folder)[-1], (folder / SEEN).read_text(encoding="utf-8")
        lost = notes.parse_checkpoint(notes.parse(seen).text).size - self._frontier.size
        ruling = Ruling(
            BEGUN,
            begun.origin_of(ended),
            detail=begun.detail(ended, seen),
            entries=self._numbers(lost),
        )
        return (await self._commit([ruling]))[0]

    def _numbers(self, lost: int) -> dict[str, bytes | None]:
        """Let delivery numbers go on beyond all that were lost: a leaf gives a bureau one at the most.

        So do those of a bureau that nothing here knows: it may have entered after the backup.
        """
        keys = sorted({ANY_BUREAU, *self._register.keys("next/")})
        first = {key: int.from_bytes(self._register.get(key) or b"\1", "big") for key in keys}
        return {key: (number + lost).to_bytes(8, "big") for key, number in first.items()}

    async def _commit(self, rulings: Sequence[Ruling]) -> Sequence[Entry]:
        step = Step(self._register, self._frontier, self._owner.random, self._adopter.in_force(None), self._now)
        for ruling in rulings:
            step.apply(None, ruling, self._now)
        done = step.done()
        self._register.check_ours()  # as ingest does: the numbers that it read go on from all that were given
        offsets = await self._shard.commit(done.taken, done.writes)
        if streams.REGISTER in offsets:
            self._register.settle(done.changes, offsets[streams.REGISTER] + 1)
        return done.entries
