"""Runs one shard of the broker: takes it over, recovers, works until told to stop.

Whoever takes a shard over fences the old owner first, finishes what the disk lacks, restores the register, sends what
may not have left, and only then takes anything in (DESIGN §7, §8).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from broker import begun, durable, remembers, streams
from broker.adopt import Adopter
from broker.checker import Checker
from broker.distribute import Distribute
from broker.erase import Eraser
from broker.errors import FencedError, TopicGoneError, UnavailableError, VersionRefusedError
from broker.given import Givens
from broker.handover import Handover
from broker.ingest import Ingest, Parts
from broker.judge import Judge
from broker.marker import Marker
from broker.notice import CLOCK_SKEW_MS, Head
from broker.overdue import Overdue
from broker.owner import Owner
from broker.quick import seek_cycles_rarely
from broker.records import Records
from broker.register import Register
from broker.seal import Outlook, Sealer
from broker.submit import Submit, check_seen
from broker.trail import Trail
from broker.trust.guard import pinned

if TYPE_CHECKING:
    from broker.bus import Bus, Shard

log = structlog.get_logger()
AGAIN_S = 1.0
OURS_S = 5.0
"""How often who has nothing to commit looks whether another process has taken over, or inputs are gone."""
STEP_OBJECTS = 200_000
"""More than a step makes."""


async def run(owner: Owner, bus: Bus, ready: Callable[[], None]) -> None:
    """Work for ever.

    Raises FencedError if another process takes the shard, TrailError if the disk contradicts, InputLostError if a
    stream does not hold what is to be taken next.
    """
    seek_cycles_rarely(STEP_OBJECTS)
    apart = Apart(owner.clock)
    while True:
        try:
            await _own_and_work(owner, bus, ready, apart)
        except FencedError:
            raise
        except UnavailableError as error:
            if (task := asyncio.current_task()) and task.cancelling():
                raise asyncio.CancelledError from error  # a task group raises its errors in the place of this
            log.warning("shard.unavailable", shard=owner.shard, code=error.code, said=str(error))
            await asyncio.sleep(AGAIN_S)


async def _own_and_work(owner: Owner, bus: Bus, ready: Callable[[], None], apart: Apart) -> None:
    with durable.room(owner.home), ExitStack() as stack:
        register = Register(owner.register)
        stack.callback(register.close)
        records = Records(owner.records)
        stack.callback(records.close)
        marker = Marker(owner.judging)
        stack.callback(marker.close)
        checker = Checker(owner.judging, owner.pace.trial_s)
        stack.callback(checker.close)
        inputs = await _foreseen(register, bus, owner)
        async with bus.own(owner.shard, inputs, owner.lost) as shard:
            # Nobody can commit any more but us: what the streams hold now is all there is.
            adopter = await restored(register, bus, owner, shard)
            if adopter.inputs() != inputs:
                return
            remembers.check_places(shard.unplaced(), register, owner.lost)
            trail = Trail.open(owner.trail, owner.origin)
            sealer = Sealer(trail, records, owner.key, bus, owner.shard)
            outlook = await sealer.look()
            # Ours still: otherwise we would seal what a successor commits, and fence it by that.
            apart.measure(await shard.now())
            head = await _recovered(sealer, outlook)
            remembers.check_restored(trail, adopter.in_force(None))
            await check_seen(sealer, owner.witnesses)
            submit = Submit(sealer, owner.witnesses, owner.clock)
            eraser = Eraser(bus, register, records, trail.entry, owner.shard)
            distribute = Distribute(bus, sealer, eraser, owner.shard, apart.now, owner.lost)
            await distribute.catch_up(has_sent=remembers.has_sent(register))
            givens = Givens(records)
            has_lost = begun.place_of(owner.origin) > 1
            judge = Judge(register, adopter.view, givens.find, has_lost=has_lost) if adopter.view else None
            parts = Parts(bus, shard, register, judge, givens, adopter, marker, checker, owner.random, owner.pace)
            out = Handover()
            ingest = Ingest(parts, trail.frontier(), head.now if head else 0, out)
            overdue = Overdue(register, apart.now, owner.review_alarm_ms)
            lost_register = partial(remembers.lost_register, bus, owner.shard)
            watch = partial(_watch, register, shard, lost_register, Moved(owner.clock))
            beside = (submit.run, overdue.run, eraser.run, watch)
            await _work(ingest, distribute, beside, out, ready)


async def _recovered(sealer: Sealer, outlook: Outlook) -> Head | None:
    """Recover; the old owner, no longer able to commit, may have sealed its last step meanwhile: once more then."""
    try:
        return await sealer.recover(outlook)
    except FencedError as error:
        raise UnavailableError("the old owner has just sealed its last step") from error


class Apart:
    """Tells the bus's time, by which all is dated, from this machine's clock: what runs out does so by the same."""

    def __init__(self, clock: Callable[[], int]) -> None:
        self._clock, self._ahead, self._rung = clock, 0, 0

    def measure(self, bus: int) -> None:
        """Take the bus's present time; raise the alarm where the clock is not that, once for each time that it is."""
        self._ahead = bus - self._clock()
        if abs(self._ahead) <= CLOCK_SKEW_MS:
            self._rung = 0
        elif abs(self._ahead - self._rung) > CLOCK_SKEW_MS:
            self._rung = self._ahead
            log.error("clock.apart", alarm=True, bus_ahead_ms=self._ahead)

    def now(self) -> int:
        """Tell the time of the bus, as far as the clock went right since."""
        return self._clock() + self._ahead


class Moved:
    """Tells that this machine's clock was set, or that it stood still."""

    def __init__(self, clock: Callable[[], int], steady: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._steady = clock, steady
        self._apart = self._now()

    def look(self) -> None:
        """Raise the alarm where it went another way than the time that went by, once for each time.

        Raises UnavailableError then: how far it is from the bus's is to be measured again.
        """
        if abs(moved := self._now() - self._apart) > CLOCK_SKEW_MS:
            self._apart += moved
            log.error("clock.moved", alarm=True, by_ms=moved)
            raise UnavailableError("this machine's clock was set")

    def _now(self) -> int:
        return self._clock() - int(self._steady() * 1000)


async def _watch(register: Register, shard: Shard, lost_register: Callable[[], Awaitable[bool]], moved: Moved) -> None:
    """End who was taken over from, and ring for inputs that are gone; where nothing comes in no commit tells it.

    Nor does one tell of a stream that was lost and made again: the shard is owned again, which looks what it has.

    Raises FencedError, UnavailableError.
    """
    before = rung = frozenset[str]()
    while True:
        register.check_ours()
        moved.look()
        if await lost_register():
            raise UnavailableError(f"{streams.REGISTER} was lost, and made again")
        found = await shard.gone()
        gone = found & before  # at two looks: a node that begins may not know of them yet
        if gone - rung:
            error = TopicGoneError(sorted(gone))
            log.error("inputs.gone", alarm=True, code=error.code, said=str(error))
        before, rung = found, gone
        await asyncio.sleep(OURS_S)


async def _work(
    ingest: Ingest,
    distribute: Distribute,
    beside: Sequence[Callable[[], Coroutine[None, None, None]]],
    out: Handover,
    ready: Callable[[], None],
) -> None:
    """Run ingest and distribute until the inputs change or one of them fails; what is committed is sent first.

    Beside them witnesses are asked, silent reviewers raise an alarm, what was erased is taken from disk, and another's
    takeover is looked for.
    """
    try:
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(distribute.run(out))
            others = [tasks.create_task(each()) for each in beside]
            await ingest.resume()
            ready()
            await ingest.run()
            await out.join()
            sending.cancel()
            for each in others:
                each.cancel()
    except BaseExceptionGroup as group:
        raise _first(group) from group


def _first(error: BaseException) -> BaseException:
    """Find what went wrong first inside task groups."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def _foreseen(register: Register, bus: Bus, owner: Owner) -> list[str]:
    """Tell which streams to take by the cache as it is, without writing: until the shard is ours it may be another's.

    What it does not tell, being behind or of another past, is told once it is restored: the shard is then owned again.
    Raises RegisterEmptiedError where it is not of another past, but the stream has forgotten its own.
    """
    adopter = _adopter(register, owner)
    is_before = register.place <= await bus.end(streams.REGISTER, partition=owner.shard)
    if not is_before or not await remembers.same_register(bus, owner.shard):
        await remembers.check_stream(bus, Trail.open(owner.trail, owner.origin), owner.shard)
    if is_before:
        with suppress(VersionRefusedError):
            adopter.restore()
    return adopter.inputs()


def _adopter(register: Register, owner: Owner) -> Adopter:
    return Adopter(register, pinned=partial(pinned, owner.home))


async def restored(register: Register, bus: Bus, owner: Owner, shard: Shard) -> Adopter:
    """Bring the cache of the register up to the end of its stream, and put in force what it says.

    Raises FencedError if another owns the shard by now, with the cache as it was, or takes the cache over meanwhile.
    """
    place, end = await register.take_over(shard.now), await bus.end(streams.REGISTER, partition=owner.shard)
    if place > end:
        # The cache knows more than the stream: it belongs to another past.
        register.forget()
        place = 0
    while place < end:
        found = await bus.read(streams.REGISTER, place, partition=owner.shard)
        if not found:
            break
        place = found[-1].offset + 1
        register.restore([(record.key, record.value) for record in found], place)
    register.rebuilt()
    adopter = _adopter(register, owner)
    adopter.restore()
    register.check_ours()  # on one emptied meanwhile there are other inputs: the shard would be taken once more
    return adopter
