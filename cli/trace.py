"""`valise trace`: what became of a notice of ours, and who is silent."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Any

import click

from adapters.heads import Alarm, Journal
from adapters.looks import Looked, looks_at
from adapters.outbox import Published
from adapters.trace import Reached, Story
from adapters.trace import trace as tell
from broker.notice import RECEIPT_ACTS
from cli import answer, exits, in_words
from cli.home import MemberHome, clock, if_it_answers, member_home
from cli.named import whole_id
from cli.options import Everywhere, bureau, everywhere
from cli.publish import NoSuchNoticeError, troubled


@click.command()
@click.argument("notice", metavar="ID")
@bureau
@everywhere
def trace(given: Everywhere, notice: str, bureau: str | None) -> None:
    """Tell the story of a notice or record of ours: sent, decided, received, read by whom and when, who is silent."""
    home = member_home(given.home, bureau)
    answered = asyncio.run(if_it_answers(_learn(home), "this is what was known before"))
    story, alarms, looks, newest = _trace(home, notice)
    answer.show(
        "\n".join([in_words.became(story, clock()) + troubled(alarms), *_followed(newest), *map(_looked, looks)]),
        _value(story, alarms)
        | {"newest": newest.id if newest else None, "looks": [asdict(each) for each in looks], "stale": not answered},
        as_json=given.as_json,
        table=_table(story),
        then=given.again(_then(given, story)),
    )
    became = exits.DONE if story.unreviewed else exits.of_outcome(story.outcome or "sent")
    exits.end(became if answered else exits.UNAVAILABLE)


def _then(given: Everywhere, story: Story) -> str:
    """Name what tells more: the trail where the operator's home is at hand, the rules at a member's own.

    Of what is not decided nothing is on record yet: it is traced again.
    """
    if story.outcome is None:
        return f"valise trace {story.id} --bureau {story.bureau}"
    if (given.home / "operator" / "trail").is_dir():
        return f"valise audit show {story.id}"
    return f"valise policy explain {story.id}"


async def _learn(home: MemberHome) -> None:
    async with home.bus() as bus:
        await home.versions.follow(bus)
        with home.outbox() as outbox:
            await home.take_outcomes(bus, outbox)
            await home.try_to_send(bus, outbox)


def _trace(home: MemberHome, notice: str) -> tuple[Story, list[Alarm], list[Looked], Published | None]:
    """Give the story of a notice, and the newest of its record if that is a later one."""
    with home.outbox() as outbox:
        found = outbox.find(notice) or outbox.find(whole_id(outbox.database, "envelopes", notice) or notice)
        story = tell(outbox.database, found.notice_id) if found else None
        if found is None or story is None:
            raise NoSuchNoticeError
        # An order is of another's record, whatever of ours is called so.
        newest = None if outbox.is_order(found.notice_id) else outbox.newest_of(story.record, story.bureau)
        later = newest if newest and newest.record == story.record and newest.version > story.version else None
        return story, Journal(outbox.database).alarms(), looks_at(outbox.database, story.leaf_number), later


def _followed(newest: Published | None) -> list[str]:
    return [f"  the newest of its record: {newest.kind} {newest.id}, version {newest.version}"] if newest else []


def _looked(each: Looked) -> str:
    reason = answer.one_line(each.reason)
    return f"  looked at in clear by {each.by} on {answer.when(each.at)}: {reason} (leaf {each.leaf_number})"


def _table(story: Story) -> answer.Table:
    """List who was reached and what each has answered; an outcome where somebody has told one."""
    acts = [
        each for each in RECEIPT_ACTS if each != "outcome" or any(one.at(each) is not None for one in story.reached)
    ]
    rows = [
        (each.bureau, str(each.delivery_number), ", ".join(each.shown), *(_answered(each, act) for act in acts))
        for each in story.reached
    ]
    return answer.Table(("bureau", "delivery", "shown", *acts), rows)


def _answered(each: Reached, act: str) -> str:
    """Say when a bureau answered with an act, and with which result where that says more: one may keep what it had."""
    results = {one.result for one in each.answers if one.act == act} - {None, act}
    said = ", ".join(one.replace("-", " ") for one in sorted(map(str, results)))
    return answer.when(each.at(act)) + (f", {said}" if said else "")


def _value(story: Story, alarms: list[Alarm]) -> dict[str, Any]:
    return {
        "notice": story.id,
        "record": story.record,
        "version": story.version,
        "kind": story.kind,
        "bureau": story.bureau,
        "made_at": story.made_at,
        "sent_at": story.sent_at,
        "outcome": story.outcome,
        "code": story.code,
        "detail": story.detail,
        "decided_at": story.decided_at,
        "leaf": story.leaf_number,
        "warnings": list(story.warnings),
        "rules": [each.rule for each in story.rules],
        "reached": [
            {
                "bureau": each.bureau,
                "delivery": each.delivery_number,
                "shown": list(each.shown),
                "answers": [{"act": one.act, "result": one.result, "at": one.at} for one in each.answers],
            }
            for each in story.reached
        ],
        "silent": list(story.silent),
        "unreviewed": story.unreviewed,
        "alarms": len(alarms),
        "last_alarm": asdict(alarms[-1]) if alarms else None,
    }
