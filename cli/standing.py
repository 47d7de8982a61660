"""How the broker stands: size and age of the trail, what is in it, what waits, who was last heard of when."""

from __future__ import annotations

import uuid
from collections.abc import Collection, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker import codec, notes, remembers, streams
from broker.bus import Bus, Record
from broker.distribute import GROUP
from broker.errors import ConfigurationError, ForbiddenStreamError, OffsetGoneError, UnavailableError
from broker.notice import DecisionRecord, Header, Leaf
from broker.owner import register_of
from broker.records import Records
from broker.register import Register
from broker.streams import ROUTER
from broker.trail import Trail
from cli import answer, disks, ending, key_use, witnessing
from cli.disks import Disk
from cli.ending import Ending
from cli.home import clock
from cli.operator_home import OperatorHome
from cli.operator_streams import differences, gone
from cli.tally import Progress, counted
from cli.witnessing import WitnessedUpTo

if TYPE_CHECKING:
    from broker.topics import Difference

LATE_MS = 20 * streams.DAY_MS
"""What waits for longer is red: the nodes drop it after 30 days, taken or not."""


@dataclass(frozen=True, slots=True)
class HeldNotice:
    """A notice that waits: its leaf, since when (ms), by whom it can be reviewed; `late`: the alarm rings.

    `reviewers` are those who were given it and still review: nobody else can, and a later directory gives it to nobody.
    """

    notice: str
    leaf: int
    since: int
    reviewers: list[str]
    late: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """Times in ms. `waiting`: records by stream that the broker has not taken up; None if the bus does not answer."""

    federation: str
    bus: str
    size: int
    head_at: int | None
    head_age_ms: int | None
    """Below 0 where the log is ahead of this machine's clock: no later leaf can be dated before its last one."""
    kinds: dict[str, int]
    waiting: dict[str, int] | None
    late: dict[str, int]
    """When the oldest of these came (ms), by stream, where that is so long ago that retention may take it."""
    lost: list[str]
    """STREAM:OFFSET of what was to be taken next, and is no longer there."""
    differs: list[Difference]
    """What of Kafka's topics, and of who may use them, is not as the table of streams says."""
    last_seen: dict[str, int | None]
    old_keys: list[str] | None
    """Bureaus that still sign with a key although a newer one of theirs is in force; None: the register is emptied."""
    expired: list[str]
    """Roles of the signed directory that have expired: red, and no reason to stop."""
    held: list[HeldNotice]
    """Notices that wait for their review, the oldest first."""
    witnessed: WitnessedUpTo | None
    """How witnesses stand by the log; None where none is named."""
    disks: list[Disk]
    """Those that the home, its bus file and its own nodes lie on."""
    ending: list[Ending]
    """Certificates that end soon, or have: the operator's, its own nodes', and those that members should have anew."""


async def standing(home: OperatorHome, progress: Progress = lambda _done, _size: None) -> Standing:
    """Look at a broker's home and its bus. Changes nothing but the tally (tally.py); the broker may run meanwhile.

    `progress` is told how many leaves were looked at, and of how many: first the leaves that the tally has not counted,
    then what they commit to, then, where a key is old, what was signed in the last week.
    """
    owner = home.owner()
    trail = Trail.open(home.folder / "trail", owner.origin)
    at = codec.decode(Leaf, trail.entry(trail.size - 1)).now if trail.size else None
    tally = counted(home.folder, trail, progress)
    differs = _differs(home)
    waiting = None if differs is None else await _waiting(home, gone(differs))
    return Standing(
        federation=home.settings.federation,
        bus=home.settings.bus,
        size=trail.size,
        head_at=at,
        head_age_ms=None if at is None else clock() - at,
        kinds=dict(tally.kinds.most_common()),
        waiting=waiting.records if waiting else None,
        late=waiting.late if waiting else {},
        lost=waiting.lost if waiting else [],
        differs=differs or [],
        last_seen={each: tally.seen.get(each) for each in home.world().members},
        old_keys=_old_keys(home, progress),
        expired=home.versions.overdue(),
        held=held(home, tally.undecided),
        witnessed=witnessing.standing(trail, notes.vkey(owner.origin, owner.key.public.raw), owner.witnesses, clock()),
        disks=disks.of_home(home.folder, home.settings),
        ending=ending_of(home),
    )


def ending_of(home: OperatorHome) -> list[Ending]:
    """Tell of certificates that end soon, or have; where what tells of them is damaged, that is said beside."""
    found = list[Ending]()
    for look in (ending.of_operator, ending.of_members):
        try:
            found += look(home, clock())
        except (ConfigurationError, OSError) as error:  # all else is told
            answer.aside(answer.one_line(str(error)))
    return found


def held(home: OperatorHome, undecided: Mapping[int, int]) -> list[HeldNotice]:
    """Tell of the held notices that nothing has decided, ended or replaced, in all leaves, what did not expire."""
    found: list[HeldNotice] = []
    limit, now = int(home.settings.review_alarm_h * 3_600_000), clock()
    path = home.folder / "records.db"
    if not undecided or not path.is_file():
        return found
    directory = home.versions.newest()
    with closing(Records.to_read(path)) as records:
        for place, since in undecided.items():
            kept = records.get(place)
            if kept is None:
                continue
            decision = codec.decode(DecisionRecord, kept[1])
            header = codec.decode(Header, decision.header)
            if header.expires is None or header.expires > now:
                named = [each.bureau for each in decision.rows if directory.reviews(each.bureau)]
                notice = str(uuid.UUID(bytes=header.notice_id))
                found.append(HeldNotice(notice, place, since, named, now - since >= limit))
    return found


def _old_keys(home: OperatorHome, progress: Progress) -> list[str] | None:
    if home.versions.newest_if_any() is None:
        return []
    try:
        return key_use.lagging(home, progress)
    except UnavailableError:
        return None


@dataclass(frozen=True, slots=True)
class _Waiting:
    records: dict[str, int] = field(default_factory=dict)
    late: dict[str, int] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)


async def _waiting(home: OperatorHome, lacking: Collection[str]) -> _Waiting | None:
    """See what waits in the streams that are there: of one that is gone no node would answer, until the time is up."""
    world, group, waiting, unplaced = home.world(), str(home.settings.shard), _Waiting(), set[str]()
    taken = _taken(home, world.inputs())  # first: of what stands in the register there was a place by then
    try:
        async with home.bus(ROUTER, world) as bus:
            for name in [each for each in world.inputs() if each not in lacking]:
                place = await bus.place(group, name)
                behind = await bus.end(name) - place
                if behind > 0:
                    await _look(bus, name, place, behind, waiting)
                elif behind < 0:
                    waiting.lost.append(f"{name}:{place}")
                if not place and not await bus.has_place(group, name):
                    unplaced.add(name)
            if streams.ROUTED not in lacking:
                await _unsent(bus, home.settings.shard, waiting, has_sent=streams.ROUTED in taken)
    except (UnavailableError, ForbiddenStreamError):
        return None
    waiting.lost.extend(f"{name}:0" for name in remembers.lost_with_places(unplaced, taken))
    return waiting


def _taken(home: OperatorHome, inputs: Iterable[str]) -> set[str]:
    """Name the inputs of which something was taken, and `routed` if something was sent: nothing, as far as unknown."""
    try:
        with closing(Register.to_read(register_of(home.folder, home.settings.shard))) as register:
            sent = {streams.ROUTED} if remembers.has_sent(register) else set[str]()
            return sent | remembers.taken_of(inputs, register)
    except UnavailableError:
        return set()


def _differs(home: OperatorHome) -> list[Difference] | None:
    """Compare the topics. None: the bus does not answer."""
    try:
        return differences(home)
    except UnavailableError:
        return None


async def _unsent(bus: Bus, shard: int, waiting: _Waiting, *, has_sent: bool = False) -> None:
    """See what is on record and has not left yet; the mark of a commit, which Kafka counts, is none of it."""
    place = await bus.place(GROUP, streams.ROUTED, partition=shard)
    # What was sent may be shown a moment later.
    lost = place > await bus.written(streams.ROUTED, partition=shard)
    end, records = await bus.end(streams.ROUTED, partition=shard), list[Record]()
    try:
        if place < end:
            records = await bus.read(streams.ROUTED, place, limit=1, partition=shard)
    except OffsetGoneError as error:
        lost = not place + 1 == error.start == end
    if place == end == 0 and has_sent:  # made again, and nothing was sent since
        lost = not await bus.has_place(GROUP, streams.ROUTED, partition=shard)
    if lost:
        waiting.lost.append(f"{streams.ROUTED}:{place}")
    if records:
        waiting.records[streams.ROUTED] = end - place
    if records and records[0].at < clock() - LATE_MS:
        waiting.late[streams.ROUTED] = records[0].at


async def _look(bus: Bus, name: str, place: int, behind: int, waiting: _Waiting) -> None:
    """See how many records wait and how old the next one is, if it is there at all."""
    try:
        records = await bus.read(name, place, limit=1)
    except OffsetGoneError:
        waiting.records[name] = behind
        waiting.lost.append(f"{name}:{place}")
        return
    if records and records[0].at < clock() - LATE_MS:
        waiting.late[name] = records[0].at
    if name == streams.VERSIONS:  # few, but a restored bus leaves room before their end: nothing is there
        behind = await _count(bus, name, place)
    if behind:
        waiting.records[name] = behind


async def _count(bus: Bus, name: str, place: int) -> int:
    count = 0
    while records := await bus.read(name, place):
        count, place = count + len(records), records[-1].offset + 1
    return count
