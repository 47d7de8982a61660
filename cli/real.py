"""Runs the UN and OFAC lists from end to end and accounts for every entry and every field.

Source → adapter → outbox → broker and trail → collectors → receipts → issuer. Then the same lists again, of which
nothing may be published, and then a copy with one entry changed and one taken out in each, of which only that may be.
"""

from __future__ import annotations

import asyncio
import csv
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from adapters.adapter import Draft, Rejected, Source, SourceReport
from adapters.changes import Guard, changes
from adapters.kinds import kinds
from adapters.ofac import END_OF_FILE, EURASIAN, OfacSource
from adapters.outbox import Outbox, Published, Refusal, Result
from adapters.trace import trace
from adapters.un import UnSource
from broker.errors import ConfigurationError
from cli import answer, exits, seed, subscribe
from cli.options import Everywhere, everywhere
from cli.stage import Stage, running, set_up, settled, verified

COLLECTORS: dict[str, tuple[str, ...]] = {"CH/ncb": ("sanctions.*",), "GE/organised-crime": (EURASIAN,)}
"""Who receives, and the topics that it subscribes to: everything, and the thieves-in-law part."""
WHOLE, PART = COLLECTORS
TOLD_TO = Guard(accept_rejects=True, accept_withdrawals=True)
"""Every rejected entry is named in the report and every withdrawal expected: nothing slips through here."""


@dataclass(frozen=True, slots=True)
class Feed:
    """One list: who publishes it, where it lies, how many entries a plain look at it counts."""

    name: str
    bureau: str
    path: Path
    source: Callable[[], Source]
    entries: Callable[[Path], int]
    change: Callable[[Path, Collection[str]], None]
    """Takes the last entry that was published out, and gives another name to the first."""


@dataclass(slots=True)
class Ran:
    """One run of one list."""

    entries: int
    results: Counter[str]
    report: SourceReport
    drafts: dict[str, Draft]


@dataclass(slots=True)
class Findings:
    """What is not as it should be; empty is good."""

    wrong: list[str] = field(default_factory=list)

    def expect(self, what: str, found: object, expected: object) -> None:
        """Note a difference."""
        if found != expected:
            self.wrong.append(f"{what}: {found}, not {expected}")


@click.command()
@click.option("--data", required=True, type=click.Path(exists=True, file_okay=False, path_type=Path), help="un, ofac.")
@everywhere
def real(given: Everywhere, data: Path) -> None:
    """Run the UN and OFAC lists in DATA/un and DATA/ofac from end to end; exit code 1 if anything is lost."""
    with tempfile.TemporaryDirectory(prefix="valise-real-") as scratch:
        # Real persons: what is left behind after the check is the report, unless a home was asked for.
        home = given.home if given.named else Path(scratch) / "home"
        value = asyncio.run(run(home, feeds(data), Path(scratch)))
    if given.as_json:
        answer.show("", value, as_json=True)
    else:
        for line in _lines(value):
            answer.say(line)
    if value["wrong"]:
        raise click.exceptions.Exit(exits.FAILED)


def feeds(data: Path) -> list[Feed]:
    """Find the lists in a folder: one `un/*.xml` (or `un.xml`) and `ofac/*.csv`. Raises ConfigurationError."""
    lists = sorted([*data.glob("un/*.xml"), *data.glob("un.xml")])
    if not lists or not list(data.glob("ofac/*sdn*.csv")):
        message = f"{data} holds no un/*.xml and ofac/*sdn*.csv"
        raise ConfigurationError(message)
    if len(lists) > 1:
        message = f"{data} holds several lists of the UN ({', '.join(each.name for each in lists)}): leave one there"
        raise ConfigurationError(message)
    today = datetime.now(UTC).date()
    return [
        Feed("un", "INTERPOL/un-notices", lists[0], lambda: UnSource(today), _count_un, _change_un),
        Feed("ofac", "US/ncb", data / "ofac", lambda: OfacSource(today), _count_ofac, _change_ofac),
    ]


async def run(home: Path, lists: list[Feed], scratch: Path) -> dict[str, Any]:
    """Do all of it and say how it went, as plain values."""
    begin, found = time.monotonic(), Findings()
    bureaus = [*(feed.bureau for feed in lists), *COLLECTORS]
    stage = await set_up(home, seed.seed(), "sqlite", bureaus, _say)
    async with running(stage):
        for bureau, patterns in COLLECTORS.items():
            await subscribe.send(stage.member(bureau), patterns)
        await settled(stage)
        first = {feed.name: await _publish(stage, feed, feed.path) for feed in lists}
        received = await _deliver(stage, lists)
        withheld = {feed.name: _account(stage, feed, first[feed.name], found) for feed in lists}
        _account_for_receivers(first, received, found)
        again = {feed.name: await _publish(stage, feed, feed.path) for feed in lists}
        changed = {
            feed.name: await _publish(stage, feed, _changed(feed, scratch, first[feed.name].drafts)) for feed in lists
        }
        after = await _deliver(stage, lists)
        _account_for_changes(lists, again, changed, after, found)
    trail = _verify(stage, found)
    return {
        "lists": {feed.name: _told(first[feed.name], withheld[feed.name]) for feed in lists},
        "received": {bureau: len(states) for bureau, states in received.items()},
        "second_run": {name: dict(ran.results) for name, ran in again.items()},
        "changed_run": {name: dict(ran.results) for name, ran in changed.items()},
        "trail": trail,
        "seconds": round(time.monotonic() - begin, 1),
        "wrong": found.wrong,
    }


def _say(text: str) -> None:
    if sys.stderr.isatty():
        answer.aside(text)


# The way


async def _publish(stage: Stage, feed: Feed, path: Path) -> Ran:
    """Run one adapter over the whole list."""
    _say(f"{feed.name}: reading, signing")
    source, home = feed.source(), stage.member(feed.bureau)
    drafts: dict[str, Draft] = {}

    def read() -> Iterator[Draft | Rejected]:
        for made in source.drafts(path):
            if isinstance(made, Draft):
                drafts[made.record] = made
            yield made

    async with home.bus() as bus:
        await home.versions.follow(bus)
        with home.outbox() as outbox:
            before, of = outbox.published(feed.name), kinds(outbox.database, feed.name)
            found = changes(before, read(), TOLD_TO, of, source.report)
            results = outbox.apply(found, feed.name, previous=before, dated=source.report.dated)
            await outbox.flush(bus, home.settings.shard)
            return Ran(feed.entries(path), Counter(_kind(each) for each in results), source.report, drafts)


def _kind(result: Result) -> str:
    if isinstance(result, Refusal):
        return f"refused: {result.code}"
    if not isinstance(result, Published):
        return "unchanged"
    if result.kind == "withdrawal":
        return "withdrawal"
    return "new" if result.version == 1 else "correction"


async def _deliver(stage: Stage, lists: list[Feed]) -> dict[str, dict[str, str]]:
    """Wait for the broker, collect and answer, let the issuers learn; give record → state by collector."""
    _say("deciding, sealing, collecting")
    await settled(stage, limit=600)
    received = {}
    for bureau in COLLECTORS:
        home = stage.member(bureau)
        async with home.inbox_bus() as bus:
            with home.inbox() as box:
                await home.collector(bus, box).drain()
                received[bureau] = {each.record: each.state for each in box.lines() if each.kind != "withdrawal"}
                if box.journal.alarms():
                    message = f"{bureau} raised {box.journal.alarms()[0]}"
                    raise ConfigurationError(message)
    await settled(stage, limit=600)
    for feed in lists:
        home = stage.member(feed.bureau)
        async with home.bus() as bus:
            with home.outbox() as outbox:
                await home.outcomes(bus, outbox).drain()
    return received


# The account


def _account(stage: Stage, feed: Feed, ran: Ran, found: Findings) -> Counter[str]:
    """Follow every entry of a list to the collector's signed receipt; count what policy withheld on the way."""
    rejected = len(ran.report.rejected)
    found.expect(f"{feed.name}: drafts and rejected entries", len(ran.drafts) + rejected, ran.entries)
    found.expect(f"{feed.name}: entries rejected without a reason", sum(not x.reason for x in ran.report.rejected), 0)
    found.expect(f"{feed.name}: published", ran.results["new"], len(ran.drafts))
    withheld: Counter[str] = Counter()
    silent = 0
    with stage.member(feed.bureau).outbox() as outbox:
        for record, draft in ran.drafts.items():
            reached = _reached(outbox, record)
            silent += "received" not in reached
            withheld.update(f"{draft.kind}.{name}" for name in draft.compartments.keys() - reached.keys())
    found.expect(f"{feed.name}: entries without {WHOLE}'s signed receipt", silent, 0)
    return withheld


def _reached(outbox: Outbox, record: str) -> dict[str, bool]:
    """Name what the collector of the whole was shown of a record, and `received` if it has signed that."""
    published = outbox.newest_of(record)
    story = trace(outbox.database, published.notice_id) if published else None
    there = next((each for each in story.reached if each.bureau == WHOLE), None) if story else None
    if there is None:
        return {}
    return dict.fromkeys((*there.shown, *(each.act for each in there.answers)), True)


def _account_for_receivers(first: dict[str, Ran], received: dict[str, dict[str, str]], found: Findings) -> None:
    drafts = {record: draft for ran in first.values() for record, draft in ran.drafts.items()}
    eurasian = {record for record, draft in drafts.items() if EURASIAN in draft.topics}
    found.expect(f"records at {WHOLE} that were not published, or the reverse", received[WHOLE].keys() ^ drafts, set())
    found.expect(f"records at {PART} beside the Eurasian part, or missing", received[PART].keys() ^ eurasian, set())


def _account_for_changes(
    lists: list[Feed], again: dict[str, Ran], changed: dict[str, Ran], after: dict[str, dict[str, str]], found: Findings
) -> None:
    for feed in lists:
        same, other = again[feed.name], changed[feed.name]
        found.expect(f"{feed.name}, the same again", dict(same.results), {"unchanged": len(same.drafts)})
        expected = {"correction": 1, "withdrawal": 1, "unchanged": len(same.drafts) - 2}
        found.expect(f"{feed.name}, a changed copy", dict(other.results), expected)
        gone = (same.drafts.keys() - other.drafts.keys()).pop()
        found.expect(f"{feed.name}: what {WHOLE} holds of the withdrawn entry", after[WHOLE].get(gone), "erased")


def _verify(stage: Stage, found: Findings) -> dict[str, Any]:
    report = verified(stage)
    found.expect("findings in the trail", [asdict(each) for each in report.findings], [])
    found.expect("whether the trail was compared with what collectors kept", report.compared, True)
    return {
        "size": report.size, "verified": not report.wrong, "heads": report.heads, "deliveries": report.deliveries,
    }  # fmt: skip


# Changed copies


def _changed(feed: Feed, scratch: Path, published: Collection[str]) -> Path:
    copy = scratch / "changed" / feed.path.name
    copy.parent.mkdir(parents=True, exist_ok=True)
    if feed.path.is_dir():
        shutil.copytree(feed.path, copy, copy_function=shutil.copyfile)
    else:
        shutil.copyfile(feed.path, copy)
    feed.change(copy, published)
    return copy


_UN_ENTRY = re.compile(r"<(INDIVIDUAL|ENTITY)>.*?</\1>", re.DOTALL)


def _count_un(path: Path) -> int:
    return len(_UN_ENTRY.findall(path.read_text(encoding="utf-8-sig")))


def _change_un(path: Path, published: Collection[str]) -> None:
    text = path.read_text(encoding="utf-8-sig")
    found = [each for each in _UN_ENTRY.finditer(text) if _un_record(each[0]) in published]
    first, last = found[0], found[-1]
    renamed = first[0].replace("</FIRST_NAME>", " of another name</FIRST_NAME>", 1)
    path.write_text(
        text[: first.start()] + renamed + text[first.end() : last.start()] + text[last.end() :], encoding="utf-8"
    )


def _un_record(entry: str) -> str:
    return "un-" + entry.partition("<DATAID>")[2].partition("</DATAID>")[0]


def _sdn(path: Path) -> list[Path]:
    return sorted(path.glob("*sdn*.csv"), key=lambda file: ("thieves" in file.name, file.name))


def _rows(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        return [row for row in csv.reader(lines) if row and row[0].strip().isdecimal()]


def _count_ofac(path: Path) -> int:
    return len({row[0] for file in _sdn(path) for row in _rows(file)})


def _change_ofac(path: Path, published: Collection[str]) -> None:
    """Change the main list; what is taken out must not stand in its thieves-in-law part."""
    main, *parts = _sdn(path)
    kept = {row[0] for part in parts for row in _rows(part)}
    rows = _rows(main)
    there = [place for place, row in enumerate(rows) if f"ofac-{row[0].strip()}" in published and row[0] not in kept]
    rows[there[0]][1] += " of another name"
    del rows[there[-1]]
    with main.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([*rows, END_OF_FILE])


# Telling


def _told(ran: Ran, withheld: Counter[str]) -> dict[str, Any]:
    return {
        "entries": ran.entries,
        "published": dict(ran.results),
        "withheld": dict(sorted(withheld.items())),
        "fields": ran.report.as_json(),
        "table": ran.report.table(),
    }


def _lines(value: dict[str, Any]) -> Iterator[str]:
    wrong = value["wrong"]
    yield f"{len(wrong)} things are wrong" if wrong else "Every entry arrived, and every field is accounted for"
    for name, told in value["lists"].items():
        yield f"\n{name}: {told['entries']:,} entries, {told['published'].get('new', 0):,} notices"
        yield told["table"]
        for compartment, count in told["withheld"].items():
            yield f"withheld by policy from {WHOLE}: {compartment} of {count:,} notices"
    yield ""
    for bureau, count in value["received"].items():
        yield f"{bureau} received {count:,} records, checked each and signed for it"
    for name in value["lists"]:
        yield f"{name}: the same list again published {_some(value['second_run'][name])}"
        yield f"{name}: a copy with one entry changed and one taken out published {_some(value['changed_run'][name])}"
    trail = value["trail"]
    yield (
        f"the trail of {trail['size']:,} leaves {'is good' if trail['verified'] else 'DOES NOT HOLD'}, compared with "
        f"{trail['heads']:,} heads and {trail['deliveries']:,} deliveries; {value['seconds']} s in all"
    )
    yield from (f"WRONG: {each}" for each in wrong)


def _some(results: dict[str, int]) -> str:
    said = [f"{count:,} {kind}" for kind, count in results.items() if kind != "unchanged"]
    return ", ".join(said) or "nothing"


if __name__ == "__main__":
    from cli.main import main

    main(["real", *sys.argv[1:]])
