"""`valise subscribe`: say which topics a bureau wants."""

from __future__ import annotations

import asyncio
import re

import click

from broker import codec, streams
from broker.notice import SUBSCRIPTION_TYPE, Subscription
from cli import answer
from cli.home import MemberHome, clock, member_home
from cli.options import Everywhere, bureau, everywhere

_PATTERN = re.compile(r"\*|[a-z0-9-]+(\.[a-z0-9-]+)*(\.\*)?")


@click.command()
@click.argument("patterns", nargs=-1)
@click.option("--none", "nothing", is_flag=True, help="Subscribe to nothing.")
@bureau
@everywhere
def subscribe(given: Everywhere, patterns: tuple[str, ...], nothing: bool, bureau: str | None) -> None:
    """Subscribe a bureau to topics, in place of what it had: `a.b` that one, `a.*` all below a, `*` everything."""
    if bool(patterns) == nothing:
        message = "name patterns or --none, not both" if nothing else "name at least one pattern, or --none"
        raise click.UsageError(message)
    wrong = [each for each in patterns if not _PATTERN.fullmatch(each)]
    if wrong:
        message = f"not a pattern: {', '.join(wrong)}; write a.b for that topic, a.* for all below a, * for everything"
        raise click.UsageError(message)
    home = member_home(given.home, bureau)
    asyncio.run(send(home, patterns))
    answer.show(
        f"{home.bureau} subscribes to {', '.join(patterns) or 'nothing'}",
        {"bureau": home.bureau, "patterns": list(patterns)},
        as_json=given.as_json,
        then=given.again(f"valise inbox --bureau {home.bureau} --follow"),
    )


async def send(home: MemberHome, patterns: tuple[str, ...]) -> None:
    """Sign a subscription and put it on the member's stream."""
    async with home.bus() as bus:
        await bus.append(streams.notices(home.member), [(b"", subscription(home, patterns))])


def subscription(home: MemberHome, patterns: tuple[str, ...]) -> bytes:
    """Sign a subscription; the time is its number, so that a later one replaces it."""
    now = clock()
    payload = codec.encode(Subscription(home.settings.federation, home.bureau, now, patterns, now))
    return codec.encode(home.signer().statement(SUBSCRIPTION_TYPE, payload))
