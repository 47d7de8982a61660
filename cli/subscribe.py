"""`valise subscribe`: say which topics a bureau wants, and see which it has."""

from __future__ import annotations

import asyncio
import re
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from broker import codec, streams
from broker.notice import SUBSCRIPTION_TYPE, Subscription
from cli import answer, exits
from cli.home import MemberHome, clock, if_it_answers, member_home
from cli.options import Everywhere, bureau, everywhere

if TYPE_CHECKING:
    from adapters.subscriptions import Subscribed

_PATTERN = re.compile(r"\*|[a-z0-9-]+(\.[a-z0-9-]+)*(\.\*)?")


@click.command()
@click.argument("patterns", nargs=-1)
@click.option("--none", "nothing", is_flag=True, help="Subscribe to nothing.")
@click.option("--list", "listing", is_flag=True, help="Change nothing: list what is in force, and what waits to be.")
@bureau
@everywhere
def subscribe(given: Everywhere, patterns: tuple[str, ...], nothing: bool, listing: bool, bureau: str | None) -> None:
    """Subscribe a bureau to topics, in place of what it had: `a.b` that one, `a.*` all below a, `*` everything."""
    if bool(patterns) + nothing + listing != 1:
        many = bool(patterns) or nothing or listing
        message = "name patterns, --none or --list, one of them" if many else "name at least one pattern, or --none"
        raise click.UsageError(message + ("" if many else "; --list says what is in force"))
    wrong = [each for each in patterns if not _PATTERN.fullmatch(each)]
    if wrong:
        message = f"not a pattern: {', '.join(wrong)}; write a.b for that topic, a.* for all below a, * for everything"
        raise click.UsageError(message)
    home = member_home(given.home, bureau)
    if listing:
        _list(given, home)
        return
    asyncio.run(send(home, patterns))
    answer.show(
        f"{home.bureau} subscribes to {', '.join(patterns) or 'nothing'}, once the broker has taken that in",
        {"bureau": home.bureau, "patterns": list(patterns)},
        as_json=given.as_json,
        then=given.again(f"valise subscribe --list --bureau {home.bureau}"),
    )


async def send(home: MemberHome, patterns: tuple[str, ...]) -> None:
    """Sign a subscription and put it on the member's stream."""
    from adapters import subscriptions  # noqa: PLC0415 -- with what reads outcomes, which no other command need load

    async with home.bus() as bus:
        await home.versions.follow(bus)
        with home.outbox() as outbox:
            statement = subscription(home, patterns)
            subscriptions.keep(outbox.database, statement)
            await bus.append(streams.notices(home.member), [(b"", statement)])
            subscriptions.mark_sent(outbox.database, statement, clock())


def subscription(home: MemberHome, patterns: tuple[str, ...]) -> bytes:
    """Sign a subscription; the time is its number, so that a later one replaces it."""
    now = clock()
    payload = codec.encode(Subscription(home.settings.federation, home.bureau, now, patterns, now))
    return codec.encode(home.signer().statement(SUBSCRIPTION_TYPE, payload))


def _list(given: Everywhere, home: MemberHome) -> None:
    from adapters import subscriptions  # noqa: PLC0415

    answered = asyncio.run(if_it_answers(_learn(home), "this is what was known before"))
    with home.outbox() as outbox:
        found = subscriptions.of(outbox.database, home.bureau)
    answer.show(
        f"{home.bureau} {_first(found)}",
        _value(home, found) | {"stale": not answered},
        as_json=given.as_json,
        table=answer.Table(("topics", "state", "since"), _rows(found)),
        then=given.again(f"valise inbox --bureau {home.bureau} --follow"),
    )
    exits.end(exits.DONE if answered else exits.UNAVAILABLE)


async def _learn(home: MemberHome) -> None:
    async with home.bus() as bus:
        await home.versions.follow(bus)
        with home.outbox() as outbox:
            await home.learn(bus, outbox)


def _first(found: Subscribed) -> str:
    adopted, signed = found.adopted, found.signed
    if adopted is None:
        said = "has no subscription on record, as far as is known here"
    else:
        said = f"subscribes to {', '.join(adopted.patterns) or 'nothing'}, by leaf {adopted.leaf_number}"
    if signed is None:
        return said
    what = ", ".join(signed.patterns) or "nothing"
    if signed.code:
        return f"{said}; what was signed after it ({what}) was rejected: {signed.code}; subscribe again"
    if signed.sent_at is None:
        return f"{said}; what was signed after it ({what}) may never have been sent: subscribe again"
    return f"{said}; what was sent after it ({what}) waits for the broker, which may be behind or not running"


def _rows(found: Subscribed) -> list[tuple[str, str, str]]:
    """List each pattern that is in force or signed: a later subscription takes the place of the one before, whole."""
    adopted, signed = found.adopted, found.signed
    now = adopted.patterns if adopted else ()
    since = answer.when(adopted.since if adopted else None)
    if signed is None or signed.code:
        return [(each, "in force", since) for each in now]
    ends = [(each, "in force" if each in signed.patterns else "in force, and to end", since) for each in now]
    waits = [(each, "waits", answer.when(signed.signed_at)) for each in signed.patterns if each not in now]
    return ends + waits


def _value(home: MemberHome, found: Subscribed) -> dict[str, Any]:
    """`patterns` None: no subscription is known to be on record."""
    adopted, signed = found.adopted, found.signed
    return {
        "bureau": home.bureau,
        "patterns": list(adopted.patterns) if adopted else None,
        "leaf": adopted.leaf_number if adopted else None,
        "since": adopted.since if adopted else None,
        "waiting": None if signed is None or signed.code else asdict(signed),
        "rejected": asdict(signed) if signed and signed.code else None,
    }
