"""A member's outbox or collector as a process of its own, killed where told: `-m tests.faults.member_process`."""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

from adapters.adapter import Draft
from adapters.changes import Guard, changes
from adapters.outbox import Cursor, Outbox
from broker import crash
from broker.notice import Audience
from cli.home import MemberHome, member_home
from schemas import loader

if TYPE_CHECKING:
    from adapters.inbox import Inbox

SOURCE = "register"
WAIT_S = 0.2


def draft(number: int) -> Draft:
    """A person of the national system, the same whenever it is read."""
    return Draft(
        record=f"R-{number}",
        kind="person",
        topics=("sought.red",),
        purpose="criminal-investigation",
        legal_basis="invented",
        audience=Audience(everyone=False, to=("GE/ncb",)),
        compartments={name: loader.example(f"person.{name}") for name in ("identity", "warnings")},
    )


def put(outbox: Outbox, how: str, first: int, last: int) -> None:
    """Take in what the source holds by now, records `first` to `last`, in one of the three ways that a member has."""
    drafts, cursor = [draft(number) for number in range(first, last + 1)], Cursor(SOURCE, str(last))
    if how == "apply":
        before = outbox.published(SOURCE)
        outbox.apply(changes(before, drafts, Guard(accept_withdrawals=True)), SOURCE, cursor, previous=before)
    elif how == "publish":
        outbox.publish(drafts, SOURCE, cursor)
    else:
        for record in outbox.published(SOURCE).keys() - {each.record for each in drafts}:
            outbox.withdraw(record)


async def publish(home: MemberHome, given: argparse.Namespace) -> None:
    """Publish, send, and follow the outcomes until all are told and so many answers have come."""
    async with home.bus() as bus:
        with home.outbox() as outbox:
            put(outbox, given.how, given.first, given.last)
            await outbox.flush(bus, home.settings.shard)
            outcomes = home.outcomes(bus, outbox)
            while _untold(outbox) or _answers(outbox) < given.answers:
                await outcomes.round(WAIT_S)


def _untold(outbox: Outbox) -> int:
    return int(outbox.database.execute("SELECT count(*) FROM envelopes WHERE outcome IS NULL").fetchone()[0])


def _answers(outbox: Outbox) -> int:
    return int(outbox.database.execute("SELECT count(*) FROM answers").fetchone()[0])


async def collect(home: MemberHome, given: argparse.Namespace) -> None:
    """Collect until so many deliveries are kept and every receipt has left."""
    async with home.inbox_bus() as bus:
        with home.inbox() as inbox:
            collector = home.collector(bus, inbox)
            while inbox.last_number() < given.last or _unsent(inbox):
                await collector.round(WAIT_S)


def _unsent(inbox: Inbox) -> int:
    return int(inbox.database.execute("SELECT count(*) FROM receipts WHERE sent = 0").fetchone()[0])


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("home", type=Path)
    parser.add_argument("bureau")
    parser.add_argument("how", choices=("apply", "publish", "withdraw", "collect"))
    parser.add_argument("--first", type=int, default=1, help="the first record that the source still holds")
    parser.add_argument("--last", type=int, required=True, help="the last record, or the last delivery to wait for")
    parser.add_argument("--answers", type=int, default=0)
    parser.add_argument("--crash", default="")
    read = parser.parse_args()
    crash.arm(read.crash)
    job = collect if read.how == "collect" else publish
    asyncio.run(job(member_home(read.home, read.bureau), read))
