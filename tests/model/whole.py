"""Plays a story through a whole broker on a bus: records written as members write them, and what came read as they do.

The bus stamps records with a time of its own, so the story is given back with the times at which it was judged.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path

from broker import codec, distribute, members, streams
from broker.bus import Bus, Record
from broker.examine import examine
from broker.members import WrittenAnnex, WrittenDirectory, WrittenLog
from broker.notice import DecisionRecord, Delivery, Entry, Envelope, Header, Leaf, Recipient, Row, Shared, Version
from broker.notice import Outcome as Told
from broker.owner import Owner
from broker.recheck import Grounds, recheck
from broker.records import Records
from broker.register import CLOCK_KEY, Register
from broker.streams import World
from broker.trail import Trail
from tests import federation as world
from tests.model.played import POLICIES, grounds_of, written
from tests.model.story import Act, Ask, Change, Confirm, Federation, Line, Outcome, Publish, Restart, Story
from tests.policy.oracle import member

Open = Callable[[str], AbstractAsyncContextManager[Bus]]
"""Opens the bus in the name of a principal."""
OWN = ("adopted", "version-refused", "resumed")
"""Leaves of the broker's own, of which a story says nothing."""
PATIENCE_S = 60
NOBODYS = 1_000_000
"""Stands for a leaf that there is not."""


def streams_of(story: Story) -> World:
    """Name who takes part at any time; no bureau has a certificate of its own."""
    later = [act.federation for _, act in story.acts if isinstance(act, Change)]
    bureaus = tuple(dict.fromkeys(bureau for each in (story.federation, *later) for bureau in each.world.bureaus))
    return World(tuple(sorted({member(each) for each in bureaus})), bureaus)


@dataclass(frozen=True)
class Took:
    """A leaf as it stands in the trail, with what was decided."""

    number: int
    leaf: Leaf
    record: DecisionRecord

    @property
    def place(self) -> tuple[str, int]:
        """Where on the bus it came from."""
        return self.record.stream, self.record.offset


@dataclass
class Whole:
    """A broker that runs, the members that write to it, and the trail as far as it was read."""

    folder: Path
    buses: Mapping[str, Bus]
    clock: Callable[[], int]
    bureaus: tuple[str, ...]
    place: int = 0
    found: list[Took] = field(default_factory=list)
    mine: list[int] = field(default_factory=list)
    """Leaf numbers of what the story tells, in order: its leaves count from 0."""
    version: int = 0
    places: dict[str, int] = field(default_factory=dict)
    lines: dict[tuple[int, str], Line] = field(default_factory=dict)
    told: dict[int, set[str]] = field(default_factory=dict)
    """Who learned of a leaf."""
    grounds: dict[bytes, Grounds] = field(default_factory=dict)
    """Digest of each directory that was written → what was decided on."""

    async def happen(self, acts: Sequence[Act]) -> list[tuple[Act, list[Took]]]:
        """Let acts happen at once; give them in the order in which they were taken in, with the leaves of each."""
        written = {await self.write(act): act for act in acts}
        done = list[tuple[Act, list[Took]]]()
        for each in await self.taken(set(written)):
            if each.place in written:
                done.append((written[each.place], []))
            if each.place in written or each.record.header:  # what followed from it has a leaf without a record
                done[-1][1].append(each)
                self.mine += [each.number] if each.leaf.kind not in OWN else []
        return done

    async def write(self, act: Act) -> tuple[str, int]:
        """Put what an act writes on its stream; give its place."""
        at = self.clock()
        if isinstance(act, Change):
            return await self.write_directory(act.federation)
        if isinstance(act, Publish):
            stream, value = streams.notices(member(act.notice.issuer)), codec.encode(act.notice.envelope)
        elif isinstance(act, Confirm):
            items = tuple(each._replace(leaf=self.number(each.leaf)) for each in act.items)
            stream, value = streams.receipts(member(act.bureau)), replace(act, items=items).statement(at)
        elif isinstance(act, Ask):
            leaves = tuple(map(self.number, act.leaves))
            return await self.append(streams.AUDITOR, streams.ASKS, replace(act, leaves=leaves).statement(at))
        else:
            assert not isinstance(act, Restart)
            stream, value = streams.notices(member(act.bureau)), act.statement(at)
        return await self.append(streams.adapter(streams.member_of(stream)), stream, value)

    async def write_directory(self, federation: Federation) -> tuple[str, int]:
        """Write a version of the directory, after its annex."""
        self.version += 1
        scope = federation.world
        annex = members.canonical(WrittenAnnex(clearances=scope.clearances, supervision=tuple(scope.supervision)))
        directory = members.canonical(committed(federation, self.version, annex))
        self.grounds[sha256(directory).digest()] = grounds_of(directory, federation)
        await self.append(streams.OPERATOR, streams.ANNEXES, codec.encode(Version("annex", annex)))
        return await self.append(streams.OPERATOR, streams.VERSIONS, codec.encode(Version("directory", directory)))

    async def append(self, principal: str, stream: str, value: bytes) -> tuple[str, int]:
        return stream, await self.buses[principal].append(stream, [(b"", value)])

    async def taken(self, places: set[tuple[str, int]]) -> list[Took]:
        """Return once what lies at these places is on record and was sent; give the leaves that are new."""
        before = len(self.found)
        async with asyncio.timeout(PATIENCE_S):
            while not places <= {each.place for each in self.found[before:]}:
                await self.read_on()
        await self.gone_out()
        return self.found[before:]

    async def gone_out(self) -> None:
        """Return once all that is on record was sent, and was read by those who got it."""
        router = self.buses[streams.ROUTER]
        last = [each.offset async for each in self.rest(router, streams.ROUTED)]
        async with asyncio.timeout(PATIENCE_S):
            while last and await router.place(distribute.GROUP, streams.ROUTED) <= last[-1]:
                await router.read(streams.TRAIL, await router.end(streams.TRAIL), wait=0.02)
        leaves = {each.number: each.leaf for each in self.found}
        erased = {(each.bureau, number) for took in self.found for each in took.record.rows for number in each.erases}
        for took in self.found:  # gone from the inbox, perhaps before it was read
            names = (
                [each.name for each in codec.decode(Header, took.record.header).compartments]
                if took.record.rows
                else []
            )
            for row in took.record.rows:
                if (row.bureau, row.delivery_number) in erased:
                    self.lines.setdefault((took.number, row.bureau), on_record(row, names))
        for name, bus in self.members():
            async for each in self.rest(bus, streams.outcomes(name)):
                self.told.setdefault(codec.decode(Told, each.value or b"").leaf_number, set()).add(name)
            for bureau in (each for each in self.bureaus if member(each) == name):
                async for each in self.rest(bus, streams.inbox(bureau)):
                    delivery = codec.decode(Delivery, each.value or b"")
                    assert delivery.bureau == bureau, "a delivery of another"
                    self.lines[delivery.leaf_number, bureau] = line(delivery, leaves[delivery.leaf_number].now)

    def members(self) -> Iterator[tuple[str, Bus]]:
        for principal, bus in self.buses.items():
            if principal.endswith(".adapter"):
                yield principal.removesuffix(".adapter").upper(), bus

    async def rest(self, bus: Bus, stream: str) -> AsyncIterator[Record]:
        """Read what a stream has beyond what was read."""
        while records := await bus.read(stream, self.places.get(stream, 0)):
            for each in records:
                yield each
            self.places[stream] = records[-1].offset + 1

    async def read_on(self) -> None:
        """Read the trail as far as steps are whole."""
        records = await self.buses[streams.ROUTER].read(streams.TRAIL, self.place, wait=0.05)
        whole = [place for place, each in enumerate(records) if each.key == b"head"]
        for each in records[: whole[-1] + 1 if whole else 0]:
            self.place = each.offset + 1
            if each.key == b"entry":
                entry = codec.decode(Entry, each.value or b"")
                record = codec.decode(DecisionRecord, entry.decision)
                self.found.append(Took(entry.leaf_number, codec.decode(Leaf, entry.leaf), record))

    def number(self, leaf: int) -> int:
        """Give the number in the trail of a leaf of the story."""
        return self.mine[leaf] if 0 <= leaf < len(self.mine) else NOBODYS


def committed(federation: Federation, version: int, annex: bytes) -> WrittenDirectory:
    logs = (WrittenLog(shard=0, vkey=str(world.LOG)),)
    return written(federation, version).model_copy(update={"annex": sha256(annex).hexdigest(), "logs": logs})


async def lived(
    story: Story,
    folder: Path,
    open_bus: Open,
    clock: Callable[[], int],
    wind: Callable[[int], None] = lambda _: None,
    *,
    hurried: bool = False,
) -> tuple[Story, list[tuple[Outcome, ...]]]:
    """Play a story. `wind` sets the bus's clock, where that can be set.

    `hurried`: nobody waits for what comes of an act, but where the next one speaks of that.
    """
    acts, came = list[tuple[int, Act]](), list[list[Took]]()
    scope = streams_of(story)
    async with opened(scope, open_bus) as buses:
        whole = Whole(folder, buses, clock, scope.bureaus)
        async with world.running(folder, buses[streams.ROUTER], clock):
            await begin(whole, story.federation)
        owner, written = world.owner(folder, clock), list[Record]()
        register = owner.register
        for number, part in enumerate(between_restarts(story)):
            if number % 2:  # an owner on another machine has the bus only
                leave_behind(register)
            async with world.running(folder, buses[streams.ROUTER], clock):
                for group in grouped(part) if hurried else [[each] for each in part]:
                    wind(group[-1][0])
                    for act, took in await whole.happen([act for _, act in group]):
                        acts.append((took[0].leaf.now, act))
                        came.append([] if isinstance(act, Change) else took)
            written += [each async for each in whole.rest(buses[streams.ROUTER], streams.REGISTER)]
            check_register(register, written)
        check_trail(owner, whole)
    return Story(story.federation, tuple(acts)), [tuple(outcomes(each, whole)) for each in came]


def leave_behind(register: Path) -> None:
    for file in register.parent.glob(f"{register.name}*"):
        file.unlink()


def between_restarts(story: Story) -> list[list[tuple[int, Act]]]:
    """Cut a story where the broker is started anew."""
    parts = [list[tuple[int, Act]]()]
    for at, act in story.acts:
        if isinstance(act, Restart):
            parts.append([])
        else:
            parts[-1].append((at, act))
    return parts


def grouped(part: list[tuple[int, Act]]) -> Iterator[list[tuple[int, Act]]]:
    """Join what may be on its way at once: nobody reviews, answers or looks before he was sent something."""
    group = list[tuple[int, Act]]()
    for at, act in part:
        waits = isinstance(act, Confirm | Ask) or (isinstance(act, Publish) and act.notice.kind == "approval")
        if waits and group:
            yield group
            group = []
        group.append((at, act))
        if waits:
            yield group
            group = []
    if group:
        yield group


async def begin(whole: Whole, federation: Federation) -> None:
    policies = codec.encode(Version("policies", POLICIES.content))
    first = await whole.write_directory(federation)
    await whole.taken({first, await whole.append(streams.OPERATOR, streams.VERSIONS, policies)})
    async with asyncio.timeout(PATIENCE_S):
        while [each.leaf.kind for each in whole.found].count(
            "resumed"
        ) < 2:  # members' streams are taken in from now on
            await whole.read_on()
    assert {each.leaf.kind for each in whole.found} == {"adopted", "resumed"}, whole.found


@asynccontextmanager
async def opened(scope: World, open_bus: Open) -> AsyncIterator[Mapping[str, Bus]]:
    """Open the bus for everybody."""
    principals = (streams.ROUTER, streams.OPERATOR, streams.AUDITOR, *map(streams.adapter, scope.members))
    async with AsyncExitStack() as stack:
        yield {each: await stack.enter_async_context(open_bus(each)) for each in principals}


# ---- what came ---------------------------------------------------------------------------------------------------


def line(delivery: Delivery, now: int) -> Line:
    """Read what one bureau was handed. What ended between its leaf and its leaving may come with nothing opened."""
    row, shared = codec.decode(Row, delivery.row), codec.decode(Shared, delivery.shared)
    envelope = codec.decode(Envelope, shared.envelope)
    parts = codec.decode_compartments(envelope.compartments)
    shown = frozenset(each.name for each in parts if each.opened is not None)
    said = frozenset(each.name for place, each in enumerate(parts) if row.shown >> place & 1)
    ends = codec.decode(Header, envelope.header).shown_until
    if not shown and ends is not None and now < ends:
        shown = said
    return Line(row.delivery_number, shown, tuple(sorted(delivery.replaces)), tuple(sorted(delivery.erases)))


def on_record(row: Recipient, names: Sequence[str]) -> Line:
    shown = frozenset(name for place, name in enumerate(names) if row.shown >> place & 1)
    return Line(row.delivery_number, shown, tuple(sorted(row.replaces)), tuple(sorted(row.erases)))


def outcomes(took: list[Took], whole: Whole) -> Iterator[Outcome]:
    """Say what came of an act, with leaves counted as the story counts them."""
    for each in took:
        leaf = each.leaf
        about = whole.mine.index(leaf.about) if leaf.about in whole.mine else None
        tell = tuple(sorted(whole.told.get(each.number, ())))
        lines = {bureau: found for (number, bureau), found in whole.lines.items() if number == each.number}
        codes = frozenset([leaf.code] if leaf.code else [])
        warnings = frozenset(each.record.warnings)
        yield Outcome(leaf.kind, tell, codes, about, warnings, lines, each.record.detail)


def check_register(path: Path, records: list[Record]) -> None:
    """Hold the register that the broker has kept against one that is rebuilt from the bus."""
    rebuilt = {each.key.decode(): each.value for each in records if each.key != CLOCK_KEY}
    kept = Register.to_read(path)
    try:
        entries = dict(kept._db.execute("SELECT key, value FROM entry"))
    finally:
        kept.close()
    assert entries == {key: value for key, value in rebuilt.items() if value is not None}, "another register"


def check_trail(owner: Owner, whole: Whole) -> None:
    """Examine the files of an honest broker as `audit verify --policy` does, and find nothing wrong."""
    assert examine(owner.trail, world.LOG).findings == []

    def grounds(leaf: Leaf) -> Grounds | None:
        return whole.grounds.get(leaf.directory) if leaf.policies == POLICIES.digest else None

    with closing(Records.to_read(owner.records)) as records:
        found = recheck(Trail.open(owner.trail), records, grounds, {})
    assert (found.findings, found.others, found.unsigned) == ([], {}, {})
