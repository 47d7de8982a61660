"""Plays the first days of a federation: what every party does, step by step, each through its own home."""

from __future__ import annotations

import asyncio
import csv
import sqlite3
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from adapters import review as reviewing
from adapters.adapter import Draft, Pointer
from adapters.changes import Guard, changes
from adapters.collect import Collector
from adapters.inbox import Inbox
from adapters.kinds import kinds
from adapters.outbox import Outbox, Refusal
from adapters.outcomes import Outcomes
from broker import codec, streams
from broker.bus import Bus
from broker.errors import ProofError
from broker.notice import REFUSE, RELEASE, Audience, Envelope
from cli import subscribe
from cli.home import MemberHome
from cli.invented.sites import Site
from cli.stage import Stage, settled

REVIEWER = "INTERPOL/review"
SUBSCRIBED: dict[str, tuple[str, ...]] = {
    "ncb": (
        "wanted.*",
        "missing.*",
        "warning.*",
        "stolen.*",
        "crime.*",
        "organised-crime.*",
        "sanctions.*",
        "request.*",
    ),
    "organised-crime": ("organised-crime.*", "experts.*", "sanctions.*"),
    "analysis": ("organised-crime.*", "experts.*"),
    "border": ("wanted.*", "missing.*", "stolen.*", "warning.*"),
    "review": ("wanted.*", "missing.*", "warning.*"),
    "un-notices": ("sanctions.*",),
}
"""Topics that a bureau of this name wants."""
MISTAKEN = "CZ"
"""Whose adapter is broken in the demo: it sends what no outbox would."""
READERS = ("GE/organised-crime", "DE/analysis", "EUROPOL/analysis", "IT/ncb")
READ_EACH = 3


@dataclass(slots=True)
class Desk:
    """One member's machine while the demo runs: its outbox, its outcomes, a collector for each bureau."""

    home: MemberHome
    bus: Bus
    outbox: Outbox
    outcomes: Outcomes
    collectors: dict[str, tuple[Inbox, Collector]] = field(default_factory=dict)

    async def collect(self) -> int:
        """Take in what has come for every bureau; return how much. Raises ProofError if anything is refused."""
        came = 0
        for bureau, (_, collector) in self.collectors.items():
            taken = await collector.drain()
            if taken.refused:
                message = f"{bureau} refused {taken.refused} deliveries"
                raise ProofError(message)
            came += len(taken.new)
        return came


@asynccontextmanager
async def desks(stage: Stage) -> AsyncIterator[dict[str, Desk]]:
    """Open every member's machine."""
    async with AsyncExitStack() as stack:
        opened = {}
        for member in stage.members:
            bureaus = stage.bureaus_of(member)
            home = stage.member(bureaus[0])
            bus = await stack.enter_async_context(home.bus())
            await home.versions.follow(bus)
            outbox = stack.enter_context(home.outbox())
            desk = Desk(home, bus, outbox, home.outcomes(bus, outbox))
            for bureau in bureaus:
                own = home.of(bureau)
                box = stack.enter_context(own.inbox())
                reader = bus
                if own.inbox_principal() != streams.adapter(member):
                    reader = await stack.enter_async_context(home.bus(own.inbox_principal()))
                desk.collectors[bureau] = (box, own.collector(reader, box))
            opened[member] = desk
        yield opened


async def play(stage: Stage, sites: Sequence[Site], step: Callable[[str], None]) -> None:
    """Do all of it. The broker runs beside us."""
    async with desks(stage) as opened:
        step("every bureau says which topics it wants")
        await _each(_subscribe(desk) for desk in opened.values())
        await settled(stage)
        step("national systems publish through adapters and outboxes")
        await _publish_all(opened, sites)
        await settled(stage)
        step("collectors verify every delivery and sign for it")
        await _collect(opened)
        step("a reviewing bureau releases what was held, and refuses one")
        await _review(opened[REVIEWER.partition("/")[0]])
        await settled(stage)
        await _collect(opened)
        step("corrections, a withdrawal, answers to requests")
        second_day(sites)
        await _publish_all(opened, sites)
        step("a broken adapter sends what it must not")
        await _mislead(opened)
        await settled(stage)
        step("collectors replace, erase, and officers read")
        await _collect(opened)
        await _read(opened)
        await settled(stage)
        step("issuers learn who has received and read")
        await _each(desk.outcomes.drain() for desk in opened.values())


async def _subscribe(desk: Desk) -> None:
    for bureau in desk.collectors:
        wanted = SUBSCRIBED.get(bureau.partition("/")[2], ("*",))
        statement = subscribe.subscription(desk.home.of(bureau), wanted)
        await desk.bus.append(streams.notices(desk.home.member), [(b"", statement)])


async def _publish_all(opened: dict[str, Desk], sites: Iterable[Site]) -> None:
    """Run every adapter; what speaks of a notice that has not come yet waits for the next run."""
    today = datetime.now(UTC).date()
    for site in sites:
        desk = opened[site.member]
        name = f"{site.make}:{site.member}"
        before, of = desk.outbox.published(name), kinds(desk.outbox.database, name)
        drafts = [
            replace(each, bureau=site.bureau) if isinstance(each, Draft) else each
            for each in site.source(today).drafts(site.path)
        ]
        found = changes(before, drafts, Guard(accept_withdrawals=True), of)
        desk.outbox.apply(found, name, previous=before)
        await desk.outbox.flush(desk.bus, desk.home.settings.shard)


async def _collect(opened: dict[str, Desk]) -> None:
    await _each(desk.collect() for desk in opened.values())


async def _each(acts: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Let all members act at once: on Kafka each waits for the nodes most of the time. Raises what failed first."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for act in acts:
                tasks.create_task(act)
    except ExceptionGroup as group:
        raise group.exceptions[0] from group


async def _review(desk: Desk) -> None:
    """Have the reviewing bureau open all that waits, release most, refuse one, and be silent about another."""
    box, collector = desk.collectors[REVIEWER]
    waiting = reviewing.waiting(box, desk.outbox.database)[:-1]
    drafts = []
    for place, line in enumerate(waiting):
        opened = collector.read(line.number, f"review-{line.number}")
        assert opened is not None, line.id
        verdict, words = (REFUSE, "Outside what may be published.") if not place else (RELEASE, None)
        drafts.append(reviewing.decision(opened.header, REVIEWER, verdict, words))
    await collector.send()
    with desk.home.of(REVIEWER).outbox() as outbox:
        results = outbox.publish(drafts)
        assert not any(isinstance(each, Refusal) for each in results), results
        await outbox.flush(desk.bus, desk.home.settings.shard)


async def _read(opened: dict[str, Desk]) -> None:
    """Have some officers open what is new to them, each for a case."""
    for bureau in READERS:
        desk = opened[bureau.partition("/")[0]]
        box, collector = desk.collectors[bureau]
        new = [line for line in box.lines() if line.state == "new" and line.kind != "withdrawal"]
        for line in new[-READ_EACH:]:
            collector.read(line.number, f"demo-{line.number}")
        await collector.send()


# What changes at home


def second_day(sites: Sequence[Site]) -> None:
    """Let two systems change a record, one of them lose another, and a third know its network better."""
    tables = [site for site in sites if site.make == "csv"]
    for site in tables[:2]:
        _edit(site.path / "persons.csv", drop=site is tables[0])
    for site in [each for each in sites if each.make == "database" and each.member == "GE"]:
        with closing(sqlite3.connect(site.path / "cases.db")) as database, database:
            database.execute(
                "UPDATE tie SET certain = 1 WHERE rowid IN (SELECT rowid FROM tie WHERE certain = 0 LIMIT 1)"
            )


def _edit(file: Path, *, drop: bool) -> None:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        reader = csv.DictReader(lines, delimiter=";")
        rows, columns = list(reader), reader.fieldnames or []
    rows[0]["facts"] = "Seen again at the same place."
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, columns, delimiter=";")
        writer.writeheader()
        writer.writerows(rows[1:] if drop else rows)


# What must not be


async def _mislead(opened: dict[str, Desk]) -> None:
    """Put records on the bus that every check of the broker refuses, and one that is only sent twice."""
    desk, other = opened[MISTAKEN], opened["LV"]
    own, foreign = _sent(desk.outbox), _sent(other.outbox)
    whole = codec.encode(own)
    bad = [
        codec.encode(replace(own, signature=bytes(64))),
        codec.encode(foreign),
        codec.encode(replace(own, key_id=bytes(32))),
        whole[:-40],
        whole + b"\0",
        whole + bytes(300 * 1024),
        b"\xc3\x01" + bytes(20),
        whole,
    ]
    await desk.bus.append(streams.notices(MISTAKEN), [(b"", each) for each in bad])
    approval = Draft(
        record="approval-of-what-is-not-held",
        kind="approval",
        action_sought=RELEASE,
        topics=("warning.green",),
        purpose="criminal-investigation",
        legal_basis="Invented",
        audience=Audience(everyone=False, to=("INTERPOL/review",)),
        pointers=(Pointer("", _record(desk.outbox), "approves"),),
        compartments={},
    )
    results = desk.outbox.publish([approval])
    assert not any(isinstance(each, Refusal) for each in results), results
    await desk.outbox.flush(desk.bus, desk.home.settings.shard)


def _sent(outbox: Outbox) -> Envelope:
    row = outbox.database.execute("SELECT * FROM envelopes ORDER BY place LIMIT 1").fetchone()
    return Envelope(bytes(row["header"]), bytes(row["key_id"]), bytes(row["signature"]), bytes(row["compartments"]))


def _record(outbox: Outbox) -> str:
    row = outbox.database.execute("SELECT record FROM records WHERE state = 'live' LIMIT 1").fetchone()
    return str(row[0])
