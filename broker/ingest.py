"""Takes in everything that the trail records: verify → decide → record, one step after the other.

While one step is committed the next is judged and the one after checked ahead, in a second process; what was checked
ahead is checked again if a key or version changed in between. A step that fails to commit leaves nothing, nor do those
that build on it: the shard is owned again and the same records come again.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import structlog

from broker import crash, streams
from broker.checker import WORTH, Checker, Found
from broker.errors import CouldNotBeJudgedError, NoticeRejectedError
from broker.handover import Committed, Handover, at_once
from broker.judge import Checked, Judge, Ruling, refused
from broker.notice import Verified
from broker.quick import quick
from broker.register import notice_key
from broker.step import Done, InForce, Random, Step
from broker.threads import to_the_end
from broker.trial import judge_alone
from broker.verify import Keys, check

if TYPE_CHECKING:
    from broker.adopt import Adopter, Adoption
    from broker.bus import Bus, Record, Shard
    from broker.given import Givens
    from broker.marker import Marker
    from broker.merkle import Frontier
    from broker.owner import Pace
    from broker.register import Register

log = structlog.get_logger()
TAKE_WAIT_S = 0.5
BREATH = 32
"""Records judged before the loop may turn to something else."""
UNHURRIED, BUSY, PRESSED = 1, 2, 3
"""Batches under way at once: without a backlog, where one is forming, and with one."""
T = TypeVar("T")


@quick
@dataclass(frozen=True, slots=True)
class Ahead:
    """A record checked ahead; `epoch` tells which keys it was checked against."""

    record: Record
    now: int
    checked: Checked | Adoption | Found
    epoch: int

    def raised(self) -> Ahead:
        """Give the same with the value that was found, no longer as it came from the other process."""
        found = self.checked
        return Ahead(self.record, self.now, found.value(), self.epoch) if isinstance(found, Found) else self

    def entry(self) -> tuple[str, ...]:
        """Name the entry of the register that judging it will ask for, if it is a notice."""
        header = self.checked.header if isinstance(self.checked, Verified) else None
        return (notice_key(header.issuer, header.notice_id),) if header else ()


@dataclass(frozen=True, slots=True)
class Parts:
    """What ingest works with."""

    bus: Bus
    shard: Shard
    register: Register
    judge: Judge | None
    givens: Givens
    adopter: Adopter
    marker: Marker
    checker: Checker
    random: Random
    pace: Pace


class Ingest:
    """The one writer of a shard, from `take` to `commit`; hands committed steps on through `out`."""

    def __init__(self, parts: Parts, frontier: Frontier, now: int, out: Handover) -> None:
        self._bus, self._shard, self._register = parts.bus, parts.shard, parts.register
        self._judge, self._givens, self._adopter = parts.judge, parts.givens, parts.adopter
        self._marker, self._checker = parts.marker, parts.checker
        self._random, self._pace = parts.random, parts.pace
        self._frontier, self._now, self._out = frontier, now, out
        self._ahead_now, self._epoch = now, 0
        view = self._adopter.view
        self._keys = Keys(view.directory, self._adopter.revoked()) if view else None
        self.inputs_changed = False

    async def resume(self) -> None:
        """Record the start, at the bus's present time: a backlog is judged when it is taken up (DESIGN §6)."""
        now = max(await self._shard.now(), self._now)
        self._ahead_now = now
        step = self._step()
        step.apply(None, Ruling("resumed"), now)
        await self._commit(self._closed(step), last=False)

    async def run(self) -> None:
        """Work until a new directory changes the inputs; raises UnavailableError, FencedError."""
        checked: asyncio.Queue[list[Ahead]] = asyncio.Queue(1)
        async with asyncio.TaskGroup() as tasks:
            ahead = tasks.create_task(self._check_ahead(checked))
            committing: asyncio.Task[None] | None = None
            while not self.inputs_changed:
                groups = list(_groups(await checked.get()))
                for place, group in enumerate(groups, 1):
                    done = await self._applied(group)
                    # The step before may still be on its way: this one builds on it, and falls with it.
                    if committing:
                        await committing
                    committing = tasks.create_task(self._commit(done, last=place == len(groups)))
            if committing:
                await committing
            ahead.cancel()

    async def _check_ahead(self, checked: asyncio.Queue[list[Ahead]]) -> None:
        clock, most = asyncio.get_running_loop().time, UNHURRIED
        while True:
            await self._out.enter(most)
            started = clock()
            taken = await self._shard.take(limit := self._limit(), TAKE_WAIT_S)
            if any(record.stream == streams.VERSIONS for record in taken):
                await self._adopter.fetch_annexes(self._bus)
            if taken:
                await checked.put(await to_the_end(self._check_all, taken, hurry=self._checker.hurry))
                most = _most(len(taken), limit)
                # A full batch that many bureaus cut short is followed at once: receipts, which go to nobody, wait.
                pause = 0.0 if len(taken) == limit < self._pace.limit else self._pace.pause_s
                await asyncio.sleep(max(0.0, started + pause - clock()))
            else:
                self._out.leave()

    def _limit(self) -> int:
        bureaus = len(self._keys.directory.bureaus) if self._keys else 1
        return at_once(self._pace.limit, bureaus)

    def _check_all(self, taken: Sequence[Record]) -> list[Ahead]:
        nows = [self._clock_of(record) for record in taken]
        epoch, found = self._epoch, self._checked_apart(taken, nows)
        return [
            Ahead(record, now, good, epoch) if good else self._check(record, now)
            for record, now, good in zip(taken, nows, found, strict=True)
        ]

    def _checked_apart(self, taken: Sequence[Record], nows: Sequence[int]) -> Sequence[Found | None]:
        """Have a batch checked by the second process, where that is worth it and nothing in it is suspected."""
        keys = self._keys
        plain = all(each.value is not None and each.stream != streams.VERSIONS for each in taken)
        if keys and plain and len(taken) >= WORTH and not self._marker.doubts(taken) and self._checker.ready():
            return self._checker.check(taken, nows, keys)
        return [None] * len(taken)

    def _clock_of(self, record: Record) -> int:
        self._ahead_now = max(self._ahead_now, record.at)
        return self._ahead_now

    def _check(self, record: Record, now: int) -> Ahead:
        epoch, keys = self._epoch, self._keys
        if record.stream == streams.VERSIONS or keys is None:
            return Ahead(record, now, self._adopter.try_out(record), epoch)
        self._marker.try_out(record, self._trial(now), self._pace.trial_s)
        with self._marker.around(record, 0):
            return Ahead(record, now, _judged(lambda: self._checked(record, now, keys)), epoch)

    def _trial(self, now: int) -> Callable[[Record], None]:
        kept = [self._register.get(f"version/{kind}") or b"" for kind in ("directory", "policies")]
        return partial(judge_alone, kept[0], kept[1], now)

    def _checked(self, record: Record, now: int, keys: Keys) -> Checked:
        self._marker.check(record)
        return check(record, now, keys)

    async def _applied(self, group: Sequence[Ahead]) -> Done:
        """Judge the records of one step and close it."""
        step = self._step()
        for begin in range(0, len(group), BREATH):
            part = [each.raised() for each in group[begin : begin + BREATH]]
            self._register.look_up([key for each in part for key in each.entry()])
            for ahead in part:
                self._take_in(step, ahead)
            await asyncio.sleep(0)  # what is on its way to and from the bus goes on meanwhile
        return self._closed(step)

    def _closed(self, step: Step) -> Done:
        done = step.done()
        self._now = done.head.now
        return done

    def _take_in(self, step: Step, ahead: Ahead) -> None:
        if ahead.epoch != self._epoch:
            ahead = self._check(ahead.record, ahead.now)
        checked = ahead.checked.value() if isinstance(ahead.checked, Found) else ahead.checked
        if not isinstance(checked, Checked):
            self._adopt(step, ahead.record, checked, ahead.now)
            return
        ruling = self._ruled(ahead.record, checked, ahead.now)
        step.apply(ahead.record, ruling, ahead.now)
        if ruling.then:
            step.apply(None, ruling.then, ahead.now)
        self._take_effect(ruling)

    def _ruled(self, record: Record, checked: Checked, now: int) -> Ruling:
        judge = self._judge
        if judge is None:
            return refused(CouldNotBeJudgedError("there are no policies in force"))
        with self._marker.around(record, 1):
            ruling = _judged(lambda: judge.rule(record, checked, now))
        return judge.rule(record, ruling, now) if isinstance(ruling, NoticeRejectedError) else ruling

    def _take_effect(self, ruling: Ruling) -> None:
        """Let a subscription or a revocation hold for the next record of the same step already."""
        if ruling.view is not None and self._judge is not None:
            self._judge.view = self._adopter.view = ruling.view
        if ruling.kind == "revoked" and self._keys is not None:
            self._keys = Keys(self._keys.directory, self._adopter.revoked())
            self._epoch += 1

    def _adopt(self, step: Step, record: Record, adoption: Adoption, now: int) -> None:
        step.in_force = self._in_force(adoption)
        step.apply(record, adoption.ruling, now)
        self.inputs_changed = self._adopter.adopt(adoption)
        if self._adopter.view:
            if self._judge is not None:
                self._judge.view = self._adopter.view
            self._keys = Keys(self._adopter.view.directory, self._adopter.revoked())
        self._epoch += 1

    def _in_force(self, adoption: Adoption | None = None) -> InForce:
        return self._adopter.in_force(adoption)

    def _step(self) -> Step:
        return Step(self._register, self._frontier, self._random, self._in_force(), self._now)

    async def _commit(self, done: Done, *, last: bool) -> None:
        crash.here("ingest.before-commit")
        # After all that the step read, and after the step before was settled: judged on a cache that was emptied
        # meanwhile it would give delivery numbers twice and know no holders.
        self._register.check_ours()
        offsets = await self._shard.commit(done.taken, done.writes)
        crash.here("ingest.committed")
        if streams.REGISTER in offsets:
            self._register.settle(done.changes, offsets[streams.REGISTER] + 1)
        crash.here("ingest.settled")
        self._givens.keep(done.given)
        done.forget_writes()
        log.debug("step.committed", leaves=len(done.entries), size=done.head.size)
        await self._out.put(Committed(done, offsets.get(streams.ROUTED, -1) + 1, last))


def _most(taken: int, limit: int) -> int:
    """Say how many batches may be under way after one of this size."""
    if taken == limit:
        return PRESSED
    # One at a time leaves bus, disk and the second core idle by turns: from a quarter on, that is missed.
    return BUSY if 4 * taken >= limit else UNHURRIED


def _judged(act: Callable[[], T]) -> T | NoticeRejectedError:
    """Judge one record: what its bytes or a bug of ours do to us stops that record only (STYLE 14)."""
    try:
        return act()
    except NoticeRejectedError as error:
        return error
    except Exception as error:  # noqa: BLE001 - a bug of ours stops this record, not the loop
        # The text of an error may hold what the record held: only its class and place are written down.
        place = traceback.extract_tb(error.__traceback__)[-1]
        log.critical(
            "record.could-not-be-judged", alarm=True, error=type(error).__name__, at=f"{place.name}:{place.lineno}"
        )
        return CouldNotBeJudgedError()


def _groups(batch: list[Ahead]) -> Iterator[list[Ahead]]:
    """Give a version a step of its own, before any waiting notice (DESIGN §6)."""
    group: list[Ahead] = []
    for ahead in batch:
        if isinstance(ahead.checked, Checked | Found):
            group.append(ahead)
            continue
        if group:
            yield group
            group = []
        yield [ahead]
    if group:
        yield group
