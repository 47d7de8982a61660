"""`valise inbox` and `valise read`: what has been delivered to a bureau, checked before it is shown."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from time import monotonic
from typing import Any

import click

from adapters.collect import PAGE_OBJECTS, Collector
from adapters.inbox import Inbox, Line, Opened
from broker.errors import ConfigurationError, UnavailableError, ValiseError
from broker.notice import H3
from broker.quick import seek_cycles_rarely
from cli import answer, exits, in_doubt, in_words, sections
from cli.home import MemberHome, if_it_answers, member_home
from cli.named import whole_id
from cli.options import Everywhere, bureau, everywhere
from cli.progress import progress
from cli.publish import NoSuchNoticeError, troubled

CASE_LIMIT = 200
"""characters of a case reference"""
FOLLOW_WAIT_S = 2.0
LISTED = 100
"""Notices that are listed for people unless they say otherwise."""
OPEN_S = 60.0
"""How long who follows an inbox keeps the bus open at least."""
_TITLES = ("number", "notice", "from", "kind", "topics", "urgency", "state", "taken", "record")


@click.command()
@click.option("--follow", is_flag=True, help="Go on, and print what comes as it comes.")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"How many of the notices that are here to list, the newest. Default: {LISTED}, with --json all.",
)
@bureau
@everywhere
def inbox(given: Everywhere, bureau: str | None, follow: bool, limit: int | None) -> None:
    """Take in what has come for a bureau, check all of it, and list it."""
    home = member_home(given.home, bureau)
    limit = limit or (None if given.as_json else LISTED)
    if follow:
        asyncio.run(_follow(given, home, limit))
        return
    collected = asyncio.run(collect(home))
    doubted = in_doubt.about(home)
    with home.inbox() as box:
        _list(given, home, box, doubted, collected, limit)
    exits.end(collected.code)


def _list(
    given: Everywhere,
    home: MemberHome,
    box: Inbox,
    doubted: Mapping[bytes, str],
    collected: Collected,
    limit: int | None,
) -> None:
    count, new = box.count()
    lines = list(box.lines(box.before_newest(limit) if limit else 0))
    alarms = box.journal.alarms()
    answer.show(
        f"{answer.count(count, 'notice')} for {home.bureau}, {new} of them new{troubled(alarms)}"
        + _not_all(count, len(lines))
        + (f"; {len(doubted)} IN DOUBT: see `valise key revoked`" if doubted else ""),
        {
            "bureau": home.bureau,
            "notices": [_value(each) for each in lines],
            "missing": box.missing(),
            "in_doubt": {str(uuid.UUID(bytes=each)): said for each, said in doubted.items()},
            "alarms": [asdict(each) for each in alarms],
            "refused": collected.refused,
            "stale": collected.stale,
        },
        as_json=given.as_json,
        table=answer.Table(_TITLES, [_cells(each) for each in lines]),
        then=given.again(f"valise read {lines[-1].id if lines else 'ID'} --case REF --bureau {home.bureau}"),
    )


def _not_all(count: int, listed: int) -> str:
    """Say that a list is not all that is here; nothing if it is."""
    return f"; the newest {listed} are listed, `--limit {count}` lists all" if count > listed else ""


def _why(error: UnavailableError) -> str:
    return f" ({error})" if str(error) else ""


@dataclass(slots=True)
class Collected:
    """How taking in went. `refused`: deliveries that failed a check now; `stale`: the bus does not answer."""

    refused: int = 0
    stale: bool = False

    @property
    def code(self) -> int:
        """The exit code that says so."""
        stale = exits.UNAVAILABLE if self.stale else exits.DONE
        return exits.VERIFICATION_FAILED if self.refused else stale

    @property
    def code_of_act(self) -> int:
        """The exit code where something was done besides, which the bus has answered since."""
        return exits.VERIFICATION_FAILED if self.refused else exits.DONE


async def collect(home: MemberHome) -> Collected:
    """Take in what has come, as far as the bus answers; say on stderr what of it does not hold."""
    found = Collected()

    async def drain() -> None:
        async with home.inbox_bus() as bus:
            with home.inbox() as box:
                await _drain(home.collector(bus, box), found)

    found.stale = not await if_it_answers(drain(), "this is what came before")
    return found


async def _drain(collector: Collector, found: Collected) -> None:
    found.refused = (await collector.drain(progress("taken in", "deliveries"))).refused
    if found.refused:
        answer.aside(
            f"{answer.count(found.refused, 'delivery does', 'deliveries do')} not hold and can be opened by nobody: "
            "see the alarms of `valise inbox`"
        )


async def _follow(given: Everywhere, home: MemberHome, limit: int | None = None) -> None:
    """Print deliveries as they come, until interrupted; a bus that does not answer is asked again.

    First, of what is here already, the newest `limit`. It ends, too, once nobody reads any more.
    """
    if not given.as_json:
        _stream(f"following the inbox of {home.bureau}; Ctrl-C ends it")
    seek_cycles_rarely(PAGE_OBJECTS)
    seen, rung = None if limit else 0, 0
    while True:
        try:
            async with home.inbox_bus() as bus:
                with home.inbox() as box:
                    collector, opened = home.collector(bus, box), monotonic()
                    if seen is None:
                        seen = _begin(given, box, limit or 0)
                    # Opened anew where nothing comes: only then is it known which receipts were rejected for their key.
                    while monotonic() - opened < OPEN_S or (await collector.round()).records:
                        for line in box.lines(after=seen):
                            seen = max(seen, line.number)
                            _print(given, line)
                        rung = _ring(box, rung)
                        if not (await collector.round(FOLLOW_WAIT_S)).records:
                            if home.versions.newest_digest("directory") is None:  # lost or damaged meanwhile
                                await home.versions.follow(bus)
                            collector = home.collector(bus, box)  # with the key that is in force by now
        except UnavailableError as error:
            answer.aside(f"nothing can be taken in now{_why(error)}; trying again")
            await asyncio.sleep(FOLLOW_WAIT_S)


def _begin(given: Everywhere, box: Inbox, limit: int) -> int:
    """Give the number after which what is here already is printed, and say to people where that is not all."""
    count, _ = box.count()
    if count > limit and not given.as_json:
        _stream(f"{answer.count(count, 'notice')} here already{_not_all(count, limit)}")
    return box.before_newest(limit)


def _ring(box: Inbox, after: int) -> int:
    """Tell the alarms that are new, apart from what the lines say; return how many there are."""
    alarms = box.journal.alarms()
    for each in alarms[after:]:
        answer.aside(f"ALARM {each.code} ({answer.one_line(each.about)}), {answer.when(each.at)}")
    return len(alarms)


def _print(given: Everywhere, line: Line) -> None:
    _stream(answer.in_json(_value(line)) if given.as_json else answer.one_line("  ".join(_cells(line))))


def _stream(text: str) -> None:
    """Print one of the lines that come for ever, as long as somebody reads them."""
    if not answer.say(text):
        exits.end(exits.UNREAD)


def _cells(line: Line) -> tuple[str, ...]:
    return (
        str(line.number), line.id, line.issuer, line.kind, ", ".join(line.topics), line.urgency, line.state,
        answer.when(line.taken_at), line.record,
    )  # fmt: skip


def _value(line: Line) -> dict[str, Any]:
    return {
        "number": line.number,
        "notice": line.id,
        "issuer": line.issuer,
        "record": line.record,
        "version": line.version,
        "kind": line.kind,
        "topics": list(line.topics),
        "urgency": line.urgency,
        "state": line.state,
        "leaf": line.leaf_number,
        "taken_at": line.taken_at,
    }


def _case(_context: click.Context, _option: click.Parameter, given: str) -> str:
    """Take a case reference that a person can find again."""
    case = given.strip()
    if not case or len(case) > CASE_LIMIT or not case.isprintable():
        raise click.BadParameter(f"1 to {CASE_LIMIT} printable characters, one line")
    return case


@click.command()
@click.argument("notice", metavar="ID")
@click.option(
    "--case", required=True, callback=_case, help="Your case reference; only a salted digest of it leaves this machine."
)
@click.option("--accept", is_flag=True, help="Accept the terms of an H3 notice, which are shown before it opens.")
@bureau
@everywhere
def read(given: Everywhere, notice: str, case: str, bureau: str | None, accept: bool) -> None:
    """Open a notice for a case. The issuer is told that it was read, signed before it is shown."""
    home = member_home(given.home, bureau)
    collected = Collected()
    opened = asyncio.run(_read(home, notice, case, collected, accept=accept))
    doubt = in_doubt.about(home).get(opened.line.notice_id)
    header = opened.header
    there = {*opened.body, *opened.unreadable}
    withheld = [slot.name for slot in header.compartments[1:] if slot.name not in there]
    value = {
        **_value(opened.line),
        "header": _header(opened),
        "handling": {code: in_words.HANDLING[code] for code in header.handling if code in in_words.HANDLING},
        "compartments": opened.body,
        "not_shown": withheld,
        "unreadable": list(opened.unreadable),
        "in_doubt": doubt,
    }
    if given.as_json:
        answer.show("", value, as_json=True)
    else:
        for text in ([doubt] if doubt else []) + list(sections.pages(opened, withheld, answer.columns())):
            answer.say(text)
        answer.say(given.again(f"valise inbox --bureau {home.bureau}"))
    exits.end(collected.code or (exits.PARTLY if opened.unreadable else exits.DONE))


class NotAcceptedError(ValiseError):
    """The terms of an H3 notice have not been accepted."""

    code = "not-accepted"


def _check_terms(box: Inbox, line: Line, *, accept: bool) -> None:
    """Show the terms of an H3 notice before it is opened. Raises NotAcceptedError."""
    opened = box.open(line.number)
    if opened and H3 in opened.header.handling and not accept:
        terms = answer.one_line(opened.header.handling_text or in_words.HANDLING[H3])
        message = f"{line.id} is H3. Its terms: {terms}. Add --accept to accept them and open it"
        raise NotAcceptedError(message)


async def _read(home: MemberHome, notice: str, case: str, collected: Collected, *, accept: bool) -> Opened:
    """Take in what has come first: a withdrawal that waits must be obeyed before anything is opened."""
    try:
        async with home.inbox_bus() as bus:
            with home.inbox() as box:
                collector = home.collector(bus, box)
                await _drain(collector, collected)
                line = box.find(notice) or box.find(whole_id(box.database, "deliveries", notice) or notice)
                if line:
                    _check_terms(box, line, accept=accept)
                opened = collector.read(line.number, case) if line else None
                await collector.send()
                # Another process may have taken in its end meanwhile.
                line = box.line(line.number) if line else None
    except UnavailableError as error:
        message = f"nothing can be taken in now{_why(error)}, so nobody knows whether this notice stands: try again"
        raise UnavailableError(message) from error
    if line and line.state == "erased":
        message = f"{line.id} was withdrawn and has been erased here"
        raise ConfigurationError(message)
    if line and opened is None and line.state == "replaced":
        record = answer.one_line(line.record)
        message = f"{line.id} was replaced by a later version of {record}: valise inbox --bureau {home.bureau}"
        raise ConfigurationError(message)
    if opened is None:
        raise NoSuchNoticeError
    return opened


def _header(opened: Opened) -> dict[str, Any]:
    header = asdict(opened.header)
    header.pop("compartments")
    header["notice_id"] = opened.line.id
    return header
