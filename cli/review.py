"""`valise review`: what waits for a reviewing bureau's word, and giving it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import click

from adapters import review as reviewing
from broker.errors import ConfigurationError
from broker.notice import REFUSE, RELEASE
from cli import answer, exits
from cli.home import MemberHome, clock, member_home
from cli.inbox import LISTED, collect
from cli.options import Everywhere, Group, bureau, confirm, everywhere
from cli.publish import WAIT, NoSuchNoticeError, finish, send

if TYPE_CHECKING:
    from adapters.inbox import Line

HOUR_MS = 3_600_000


@click.group(cls=Group)
def review() -> None:
    """Decide on notices that are held until a reviewing bureau releases them."""


@review.command("list")
@click.option(
    "--limit",
    type=click.IntRange(1),
    help=f"How many of those that wait to list, the oldest. Default: {LISTED}, with --json all.",
)
@bureau
@everywhere
def list_(given: Everywhere, bureau: str | None, limit: int | None) -> None:
    """List what waits for this bureau's word, the oldest first."""
    home = member_home(given.home, bureau)
    collected = asyncio.run(collect(home))
    waiting, now = _waiting(home), clock()
    lines = waiting[: limit or (None if given.as_json else LISTED)]
    oldest = f", the oldest for {(now - lines[0].taken_at) / HOUR_MS:.1f} h" if lines else ""
    if left_off := len(waiting) - len(lines):
        oldest += f"; the oldest {len(lines):,} are listed, `--limit {len(waiting)}` lists all"
    answer.show(
        f"{answer.count(len(waiting), 'notice waits', 'notices wait')} for {home.bureau}{oldest}",
        {
            "bureau": home.bureau, "waiting": [_value(each, now) for each in lines],
            "left_off": left_off, "refused": collected.refused, "stale": collected.stale,
        },
        as_json=given.as_json,
        table=answer.Table(
            ("notice", "from", "kind", "topics", "urgency", "opened", "came"),
            [
                (
                    each.id, each.issuer, each.kind, ", ".join(each.topics), each.urgency,
                    "yes" if each.state == "read" else "no", answer.when(each.taken_at),
                )
                for each in lines
            ],
        ),
        then=given.again(_next(home, lines)),
    )  # fmt: skip
    exits.end(collected.code)


@review.command()
@click.argument("notice", metavar="ID")
@click.option("--terms", help="Words to its issuer, without personal data.")
@WAIT
@bureau
@everywhere
def release(given: Everywhere, notice: str, terms: str | None, bureau: str | None, wait: float) -> None:
    """Let a held notice go: it is decided anew and goes to whom the rules then let it go."""
    _decide(given, member_home(given.home, bureau), notice, (RELEASE, terms), wait)


@review.command()
@click.argument("notice", metavar="ID")
@click.option("--reason", required=True, help="Why, to its issuer, in neutral words without personal data.")
@WAIT
@bureau
@everywhere
def refuse(given: Everywhere, notice: str, reason: str, bureau: str | None, wait: float) -> None:
    """End a held notice: it reaches nobody."""
    _decide(given, member_home(given.home, bureau), notice, (REFUSE, reason), wait)


def _decide(given: Everywhere, home: MemberHome, notice: str, word: tuple[str, str | None], wait: float) -> None:
    collected = asyncio.run(collect(home))
    verdict, words = word
    with home.inbox() as box:
        line = box.find(notice)
        opened = box.open(line.number) if line else None
    if line is None:
        raise NoSuchNoticeError
    if all(each.notice_id != line.notice_id for each in _waiting(home)) or opened is None:
        message = f"{line.id} does not wait for {home.bureau}, or no longer: see `valise review list`"
        raise ConfigurationError(message)
    if line.state != "read":
        message = f"nobody here has opened it: valise read {line.id} --case REF --bureau {home.bureau}"
        raise ConfigurationError(message)
    if not given.yes:
        confirm(f"{verdict} {line.kind} {line.id} of {line.issuer}. Go on?")
    draft = reviewing.decision(opened.header, home.bureau, verdict, words)
    finish(given, home, asyncio.run(send(home, lambda outbox: outbox.publish([draft]), wait)))
    exits.end(collected.code_of_act)


def _waiting(home: MemberHome) -> list[Line]:
    with home.inbox() as box, home.outbox() as outbox:
        return reviewing.waiting(box, outbox.database)


def _value(line: Line, now: int) -> dict[str, Any]:
    return {
        "notice": line.id,
        "issuer": line.issuer,
        "kind": line.kind,
        "topics": list(line.topics),
        "urgency": line.urgency,
        "opened": line.state == "read",
        "leaf": line.leaf_number,
        "taken_at": line.taken_at,
        "age_ms": now - line.taken_at,
    }


def _next(home: MemberHome, lines: list[Line]) -> str:
    first = next(iter(lines), None)
    if first is None:
        return f"valise inbox --bureau {home.bureau}"
    if first.state == "read":
        return f"valise review release {first.id} --bureau {home.bureau}"
    return f"valise read {first.id} --case REF --bureau {home.bureau}"
