"""`valise publish`, `correct`, `withdraw`: say something to the federation, or see who would hear it."""

from __future__ import annotations

import asyncio
import shlex
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import IO, Any

import click

from adapters.adapter import Draft
from adapters.changes import Unchanged
from adapters.heads import Alarm, Journal
from adapters.outbox import Outbox, Published, Refusal, Result
from adapters.outcomes import Outcomes
from adapters.trace import Story, trace, undecided
from broker.bus import Bus
from broker.errors import InvalidReferenceError, UnavailableError, UnknownKeyError, ValiseError
from cli import answer, drafts, exits, in_words
from cli.home import MemberHome, clock, going_on, if_it_answers, member_home
from cli.options import Everywhere, bureau, confirm, everywhere
from cli.progress import progress

WAIT_S = 5.0
UNDECIDED = "; nothing is decided yet, the broker may be behind or not running: `valise trace` tells later"
REASONS = ("arrested", "surrendered", "died", "mistaken", "expired", "ordered", "no-longer-listed", "other")
"""Why a record is withdrawn, as the schema of `withdrawal.reason` lists it; --text has room for more."""
_FILE = click.argument("file", type=click.File(encoding="utf-8"))
WAIT = click.option("--wait", default=WAIT_S, show_default=True, help="Seconds to wait for the broker's decision.")


class NoSuchNoticeError(ValiseError):
    """There is no such notice here; `more`: what whoever may see all of a trail is told besides."""

    code = "no-such-notice"

    def __init__(self, more: str = "") -> None:
        super().__init__(f"no such notice{more}")


class OthersRecordError(ValiseError):
    """The record of this name is another bureau's."""

    code = "no-such-notice"

    def __init__(self, record: str, bureau: str, others: Sequence[str]) -> None:
        super().__init__(
            f"{bureau} has published no record {record}; there is one of {', '.join(others)}: say --bureau"
        )


class OtherRecordError(drafts.BadFileError):
    """The file is about another record than the one to correct: a person would stand under another's name."""

    def __init__(self, file: IO[str], draft: Draft, record: str, bureau: str) -> None:
        of = f" of {draft.bureau}" if draft.bureau else ""
        super().__init__(
            f"{drafts.name_of(file)} is record {draft.record}{of}, and {record} of {bureau} is to be corrected: "
            "take the file of that record, or publish this one"
        )


@dataclass(frozen=True, slots=True)
class Done:
    """What was published and, as far as it is known, what became of it; `waits`: why some of it has not been sent."""

    results: list[Result]
    stories: dict[bytes, Story]
    alarms: list[Alarm]
    waits: str


@click.command()
@_FILE
@click.option("--dry-run", is_flag=True, help="Say who would receive it, and why not the others; send nothing.")
@click.option("--record", "only", multiple=True, metavar="RECORD", help="With --dry-run: show this draft of FILE.")
@WAIT
@bureau
@everywhere
def publish(
    given: Everywhere, file: IO[str], bureau: str | None, wait: float, dry_run: bool, only: tuple[str, ...]
) -> None:
    """Publish the drafts in FILE (JSON; - for standard input). What did not change is not published again.

    A dry run shows each of ten drafts or fewer, and those that --record names; more it sums up by bureau.
    """
    if only and not dry_run:
        message = "--record chooses what --dry-run shows: all of FILE is published"
        raise click.UsageError(message)
    home = member_home(given.home, bureau)
    read = drafts.load(file)
    if dry_run:
        from cli.officer.trying import try_out  # noqa: PLC0415 -- what is only for trying

        answered = asyncio.run(_follow(home))
        try_out(given, home, read, drafts.name_of(file), only=only, stale=not answered)
        exits.end(exits.DONE if answered else exits.UNAVAILABLE)
        return
    say = progress("signed", "notices")
    finish(given, home, asyncio.run(send(home, lambda outbox: outbox.publish(read, progress=say), wait)))


@click.command()
@click.argument("notice", metavar="ID")
@_FILE
@click.option("--again", is_flag=True, help="Though nothing has changed: a bureau has lost what it had of it.")
@WAIT
@bureau
@everywhere
def correct(given: Everywhere, notice: str, file: IO[str], bureau: str | None, wait: float, *, again: bool) -> None:
    """Publish FILE as the corrected version of a notice or record of ours. What did not change is not sent again."""
    home = member_home(given.home, bureau)
    draft = drafts.load_one(file)

    def job(outbox: Outbox) -> list[Result]:
        found = _own(outbox, home, notice, asked=bureau)
        if found is None:
            raise NoSuchNoticeError
        issuer = outbox.bureau_of(found.notice_id)
        if (draft.record, draft.bureau or issuer) != (found.record, issuer):
            raise OtherRecordError(file, draft, found.record, issuer)
        return [outbox.correct(draft, issuer, again=again)]

    finish(given, home, asyncio.run(send(home, job, wait)))


@click.command()
@click.argument("notice", metavar="ID")
@click.option("--reason", "code", type=click.Choice(REASONS), metavar="REASON", help=f"One of: {', '.join(REASONS)}.")
@click.option("--text", help="Why, in words without personal data: every holder of any version reads it.")
@click.option("--order", is_flag=True, help="As an authority: withdraw another's notice that is in our inbox.")
@WAIT
@bureau
@everywhere
def withdraw(
    given: Everywhere, notice: str, code: str | None, text: str | None, order: bool, bureau: str | None, wait: float
) -> None:
    """Withdraw a notice or record of ours, or by order another's, from everyone who holds it."""
    home = member_home(given.home, bureau)
    if order and (code or text):
        message = "an order gives no reason but 'ordered': leave --reason and --text out"
        raise click.UsageError(message)
    if order:
        from cli.officer.ordering import by_order  # noqa: PLC0415 -- what is only for authorities

        by_order(given, home, notice, wait)
        return
    if not given.yes:
        asyncio.run(_look(home, notice, bureau))
        confirm_withdrawal(notice)
    reason = {"code": code or "other", "text": text} if code or text else None

    def job(outbox: Outbox) -> list[Result]:
        found = _own(outbox, home, notice, asked=bureau)
        if found is None:
            return [_disown(outbox, notice, reason)]
        _check_published(outbox, found)
        return outbox.withdraw(found.record, reason, outbox.bureau_of(found.notice_id))

    finish(given, home, asyncio.run(send(home, job, wait)))


def confirm_withdrawal(notice: str) -> None:
    """Ask whether it is meant."""
    confirm(f"withdraw {notice}: every holder will erase it. Go on?")


async def _look(home: MemberHome, notice: str, bureau: str | None) -> None:
    """See whether there is something to withdraw, before anybody is asked. Raises as withdrawing it would."""
    async with _caught_up(home) as outbox:
        found = _own(outbox, home, notice, asked=bureau)
        if found:
            _check_published(outbox, found)
        elif not outbox.is_foreign(notice):
            raise NoSuchNoticeError


def _check_published(outbox: Outbox, found: Published) -> None:
    """Check that there is something to withdraw. Raises InvalidReferenceError that says what became of the record."""
    bureau = outbox.bureau_of(found.notice_id)
    if outbox.standing(bureau, found.record):
        return
    newest = outbox.newest_of(found.record, bureau) or found
    story = trace(outbox.database, newest.notice_id)
    message = "no such record is published" + (f" any more: {in_words.became(story, clock())}" if story else "")
    raise InvalidReferenceError(message)


def _disown(outbox: Outbox, notice: str, reason: dict[str, str | None] | None) -> Result:
    """Withdraw what is on record as ours but was never published here (`valise key revoked` lists it)."""
    try:
        return outbox.disown(uuid.UUID(notice).bytes, reason)
    except (ValueError, InvalidReferenceError) as error:
        raise NoSuchNoticeError from error


def _own(outbox: Outbox, home: MemberHome, notice: str, *, asked: str | None) -> Published | None:
    """Find a notice of ours to act on; several bureaus may have a record of one name. Raises OthersRecordError."""
    found = outbox.find(notice)
    if found and outbox.is_order(found.notice_id):
        message = f"{notice} is an order: it stands, and no record of ours is meant"
        raise InvalidReferenceError(message)
    # An id means one notice and no other, though another bureau's record be called like it.
    having = outbox.bureaus_with(notice) if found and found.record == notice else []
    if found and having and home.bureau not in having and (asked or len(having) > 1):
        raise OthersRecordError(notice, home.bureau, having)
    return found


async def send(home: MemberHome, job: Callable[[Outbox], list[Result]], wait: float) -> Done:
    """Put it into the outbox, then on the bus, then wait for the outcome; what is in the outbox is not lost."""
    async with _caught_up(home) as outbox:
        results, refused, why = job(outbox), dict[str, Refusal](), ""
        try:
            async with home.bus() as bus:
                await _send(home, bus, outbox, (results, refused), wait)
        except UnavailableError as error:
            answer.aside(f"{error.code}: {error}")
            why = answer.one_line(str(error)) or "the bus does not answer"
        results += _not_followed(outbox, results, refused)
        stories = _stories(outbox, results)
        waits = (why or "it is not sent yet") if _waits(outbox, results, stories) else ""
        return Done(results, stories, Journal(outbox.database).alarms(), waits)


async def _send(
    home: MemberHome, bus: Bus, outbox: Outbox, told: tuple[list[Result], dict[str, Refusal]], wait: float
) -> None:
    """Send what waits until each of the results has its outcome, and what an outcome has queued; no longer than `wait`.

    What follows a withdrawal that told nobody is a result, too; why it could not be made is told by record.
    """
    results, refused = told

    def tell(result: Result) -> None:
        if isinstance(result, Refusal):
            refused[result.record] = result
        else:
            results.append(result)

    outcomes, deadline = home.outcomes(bus, outbox), time.monotonic() + wait
    await home.flush(bus, outbox, tell)
    known = 0
    while known < len(results):
        known = len(results)
        await _await_outcomes(outcomes, outbox, results, deadline)
        await home.flush(bus, outbox, tell)


def _not_followed(outbox: Outbox, results: Sequence[Result], refused: dict[str, Refusal]) -> list[Refusal]:
    """Give what could not be made now to follow a withdrawal of these: a version of its record is still held."""
    ours = {each.notice_id for each in results if isinstance(each, Published)}
    ends = [str(row["record"]) for row in outbox.holding.unfollowed() if bytes(row["notice_id"]) in ours]
    later = f"a version is left with its holders: {in_words.TRIES_AGAIN}"
    return [refused.get(each, Refusal(each, UnavailableError.code, later)) for each in ends]


def _waits(outbox: Outbox, results: Sequence[Result], stories: dict[bytes, Story]) -> bool:
    """Say whether something of this command has not been sent: what it made, or what it found unchanged."""
    unchanged = [each.record for each in results if isinstance(each, Unchanged)]
    return any(story.sent_at is None for story in stories.values()) or outbox.waits_of(unchanged)


async def _await_outcomes(outcomes: Outcomes, outbox: Outbox, results: Sequence[Result], deadline: float) -> None:
    ours = {each.notice_id for each in results if isinstance(each, Published)}
    say = progress("decided", "notices")
    while True:
        left = deadline - time.monotonic()
        await outcomes.round(max(0.0, min(left, 0.5)))
        waits = len(ours & undecided(outbox.database))
        if left <= 0 or not waits:
            return
        say(len(ours) - waits, len(ours))


def _stories(outbox: Outbox, results: Sequence[Result]) -> dict[bytes, Story]:
    found, say = dict[bytes, Story](), progress("told of", "notices")
    for each in results:
        if isinstance(each, Published) and (story := trace(outbox.database, each.notice_id)):
            found[each.notice_id] = story
            say(len(found), len(results))
    return found


def finish(given: Everywhere, home: MemberHome, done: Done) -> None:
    """Tell what became of it; end with the exit code that says so."""
    rows = [_row(each, done) for each in done.results]
    traced = _to_trace(done)
    answer.show(
        _first(rows, done) + troubled(done.alarms),
        {"sent": not done.waits, "notices": rows, "alarms": [asdict(each) for each in done.alarms]},
        as_json=given.as_json,
        table=answer.Table(
            ("record", "version", "notice", "state", "bureaus", "detail"),
            [
                (
                    row["record"],
                    str(row["version"] or "–"),
                    row["notice"] or "–",
                    row["state"],
                    str(row["bureaus"]),
                    row["detail"],
                )
                for row in rows
            ],
        ),
        then=given.again(f"valise trace {traced} --bureau {home.bureau}") if traced else "",
    )
    exits.end(_exit({row["state"] for row in rows}, done))


def _to_trace(done: Done) -> str:
    """Name what can be traced next: a notice that was published, or a record that stands as it is; nothing if none."""
    ids = [each.id for each in done.results if isinstance(each, Published)]
    return next(iter(ids + [shlex.quote(each.record) for each in done.results if isinstance(each, Unchanged)]), "")


def troubled(alarms: Sequence[Alarm]) -> str:
    """Say how many alarms there are, and which is the last; nothing if there are none."""
    if not alarms:
        return ""
    last = alarms[-1]
    return f"; ALARMS: {len(alarms)}, the last one {last.code} ({answer.one_line(last.about)})"


def _row(result: Result, done: Done) -> dict[str, Any]:
    if isinstance(result, Refusal):
        seen = " `valise key list` says what is to be done" if result.code == UnknownKeyError.code else ""
        return _line(result.record, None, None, "refused-here", 0, f"{result.code}: {result.reason}{seen}")
    if not isinstance(result, Published):
        return _line(result.record, None, None, "unchanged", 0, "")
    story = done.stories.get(result.notice_id)
    state = (story and story.outcome) or ("sent" if story and story.sent_at is not None else "waiting")
    detail = ", ".join(filter(None, (story.code, story.detail, *story.warnings))) if story else ""
    return _line(result.record, result.version, result.id, state, len(story.reached) if story else 0, detail)


def _line(
    record: str, version: int | None, notice: str | None, state: str, bureaus: int, detail: str
) -> dict[str, Any]:
    return {
        "record": record, "version": version, "notice": notice, "state": state, "bureaus": bureaus, "detail": detail,
    }  # fmt: skip


def _first(rows: list[dict[str, Any]], done: Done) -> str:
    if done.waits:
        return f"{done.waits}: what was published is kept in the outbox; {in_words.TRIES_AGAIN}"
    return _counted(rows) + (UNDECIDED if any(row["state"] == "sent" for row in rows) else "")


def _counted(rows: list[dict[str, Any]]) -> str:
    if len(rows) == 1:
        row = rows[0]
        reached = f" to {answer.count(row['bureaus'], 'bureau')}" if row["state"] == "routed" else ""
        return f"{row['state']}{reached}" + (f": {answer.one_line(row['detail'])}" if row["detail"] else "")
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["state"]] = counts.get(row["state"], 0) + 1
    return ", ".join(f"{count} {state}" for state, count in sorted(counts.items())) or "nothing to publish"


def _exit(states: set[str], done: Done) -> int:
    if done.waits:
        return exits.UNAVAILABLE
    codes = set(map(exits.of_outcome, states))
    if exits.FAILED in codes and len(codes) > 1:
        return exits.PARTLY
    return next((each for each in (exits.FAILED, exits.UNDECIDED, exits.HELD) if each in codes), exits.DONE)


async def _follow(home: MemberHome) -> bool:
    return await if_it_answers(home.follow(), "going on with the versions known before")


@asynccontextmanager
async def _caught_up(home: MemberHome) -> AsyncIterator[Outbox]:
    """Open the outbox once it has heard what became of its notices and what waits was sent, as far as the bus answers.

    Both come first, as what is to be done may be refused because of them: a withdrawal that is given once more.
    """
    answers = await _follow(home)
    with home.outbox() as outbox:
        if answers:
            with going_on("what became of our notices cannot be taken in now"):
                async with home.bus() as bus:
                    await home.learn(bus, outbox)
        yield outbox
