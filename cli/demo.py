"""`valise demo`: the whole way on invented data, in a folder that it names."""

from __future__ import annotations

import asyncio
import shlex
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from broker.report import Report
from cli import answer, exits, seed
from cli.happened import Happened, chapters, example, happened, why_not
from cli.invented.sites import invent
from cli.options import Everywhere, everywhere
from cli.play import desks, play
from cli.stage import Stage, running, set_up, stop_kafka, verified

STEPS = 10
EXPLAINED = "GE"
"""Whose notice is told as an example."""
TOLD = 8
"""Lines of a list before the rest is counted."""
Step = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a demo leaves behind."""

    stage: Stage
    happened: Happened
    trail: Report
    notice: str
    reader: str
    story: list[dict[str, Any]]
    seconds: float


@click.command()
@click.option("--bus", type=click.Choice(["sqlite", "kafka"]), default="sqlite", show_default=True)
@click.option(
    "--stop-kafka", "stop", is_flag=True, help="Stop the Kafka node at the end; it is left running otherwise."
)
@everywhere
def demo(given: Everywhere, bus: str, stop: bool) -> None:
    """Play a federation of 28 members with invented persons: publish, decide, deliver, verify, correct, withdraw."""
    home = _home(given)
    with _progress() as step:
        outcome = asyncio.run(_demo(home, bus, step))
    if stop and bus == "kafka":
        stop_kafka(outcome.stage)
    if given.as_json:
        answer.show("", _value(outcome), as_json=True)
    else:
        _tell(outcome, kafka="" if bus == "sqlite" else "stopped" if stop else "running")
    if outcome.trail.wrong:
        raise click.exceptions.Exit(exits.VERIFICATION_FAILED)


def _home(given: Everywhere) -> Path:
    """Take the folder that was named, or else the first of `home`, `home-2` … that is free."""
    if given.named:
        return given.home
    names = (given.home if number == 1 else Path(f"{given.home}-{number}") for number in range(1, 1000))
    return next(each for each in names if not each.exists())


async def _demo(home: Path, bus: str, step: Step) -> Outcome:
    begin = time.monotonic()
    federation = seed.seed()
    step("28 members make their homes and keys")
    stage = await set_up(home, federation, bus, federation.order.bureaus, step)
    sites = invent(home / "national-systems")
    step("the broker starts")
    async with running(stage):
        await play(stage, sites, step)
    step("the auditor verifies the trail")
    trail = verified(stage)
    async with desks(stage) as opened:
        told = happened(stage, opened, sites)
        story = example(opened[EXPLAINED])
    reader = next((each.bureau for each in story.reached if each.at("read") is None), story.reached[0].bureau)
    return Outcome(stage, told, trail, story.id, reader, chapters(stage, story.id), round(time.monotonic() - begin, 1))


@contextmanager
def _progress() -> Iterator[Step]:
    """Show where we are, on a terminal only."""
    if not sys.stderr.isatty():
        yield lambda _: None
        return
    from rich.console import Console  # noqa: PLC0415 -- only for people
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=STEPS + 1)

        def step(text: str) -> None:
            bar.update(task, description=text, advance=1)

        yield step


# Telling


def _value(outcome: Outcome) -> dict[str, Any]:
    told = outcome.happened
    return {
        "members": len(told.members),
        "bureaus": len(outcome.stage.federation.order.bureaus),
        "notices": told.notices,
        "kinds": dict(told.kinds.most_common()),
        "deliveries": told.deliveries,
        "rejected": told.leaves["rejected"],
        "held": told.waiting,
        "released": told.leaves["released"],
        "refused_in_review": told.leaves["not-released"],
        "rejected_by_code": dict(told.rejected.most_common()),
        "withheld": dict(told.withheld.most_common()),
        "kept_from": dict(told.kept_from.most_common()),
        "leaves": dict(told.leaves.most_common()),
        "by_member": {name: asdict(each) for name, each in told.members.items()},
        "trail_size": outcome.trail.size,
        "trail_verified": not outcome.trail.wrong and outcome.trail.compared,
        "explained": outcome.notice,
        "seconds": outcome.seconds,
        "home": str(outcome.stage.home),
        "next": _commands(outcome),
    }


def _tell(outcome: Outcome, *, kafka: str) -> None:
    told, trail = outcome.happened, outcome.trail
    rows = [
        (name, str(each.published), str(each.delivered), str(each.received), str(each.read))
        for name, each in sorted(told.members.items())
    ]
    answer.show(
        f"{len(told.members)} members published {told.notices:,} notices; their bureaus received {told.deliveries:,} "
        f"deliveries, verified each and signed for it ({outcome.seconds} s)",
        {},
        as_json=False,
        table=answer.Table(("member", "published", "went to", "received", "read"), rows),
    )
    for line in (*_counts(told), "", *_explained(outcome.story), "", *_verified(trail), ""):
        answer.say(line)
    answer.say("Try next:")
    for command in _commands(outcome):
        answer.say(f"  {command}")
    if kafka:
        answer.say(
            f"Kafka is {kafka}: {_valise()} kafka {'down' if kafka == 'running' else 'up'} --home {_shown(outcome)}"
        )
    answer.say(f"To publish yourself, start the broker again: {_valise()} broker up --home {_shown(outcome)}")


def _counts(told: Happened) -> Iterator[str]:
    yield ""
    yield "kinds       " + _some(told.kinds)
    yield f"rejected    {told.leaves['rejected']}, each on record with its code: " + _some(told.rejected)
    yield (
        f"reviewed    {told.leaves['held']} were held for review: {told.leaves['released']} released, "
        f"{told.leaves['not-released']} refused, {told.waiting} still wait"
    )
    yield "kept from   " + _some(told.kept_from) + "  (bureaus that wanted a notice and may not have it)"
    yield "withheld    " + _some(told.withheld) + "  (compartments of notices that a bureau did get)"
    yield "on record   " + _some(told.leaves)


def _some(counts: Counter[str]) -> str:
    most = counts.most_common()
    said = [f"{count:,} {name}" for name, count in most[:TOLD]]
    rest = sum(count for _, count in most[TOLD:])
    return ", ".join(said + ([f"{rest:,} other"] if rest else [])) or "nothing"


def _explained(story: list[dict[str, Any]]) -> Iterator[str]:
    """Tell one notice: who got what, who not and why, and what became of it."""
    first = next(each for each in story if "notice" in each)
    routing, terms = first["routing"], first["terms"]
    named = "everyone" if routing["everyone"] else ", ".join([*routing["agreements"], *routing["to"]])
    yield f"One notice explained: {first['notice']}, {first['notice_kind']} of {first['issuer']}, leaf {first['leaf']}"
    yield f"  for         {named}; never for {', '.join(routing['deny']) or 'nobody'}"
    recipients = first["recipients"]
    for each in recipients[:TOLD]:
        yield f"  to          {each['bureau']}: {', '.join(name for name in each['shown'] if name != 'routing')}"
    if len(recipients) > TOLD:
        yield f"              and {len(recipients) - TOLD} more"
    wanted = set(terms["audience"]) & set(terms["reached"])
    if denied := wanted & set(terms["denied"]):
        yield f"  not to      {_names(denied)}: denied by the issuer, who alone knows"
    for reason, kept in why_not(first, wanted - set(terms["denied"])).items():
        yield f"  not to      {_names(kept)}: {reason}"
    acts = Counter(each["receipt"]["act"] for each in story if "receipt" in each)
    yield f"  answers     {_some(acts)}, each signed by the bureau and on record"


def _names(bureaus: set[str]) -> str:
    most = sorted(bureaus)
    return ", ".join(most[:TOLD]) + (f" and {len(most) - TOLD} more" if len(most) > TOLD else "")


def _verified(trail: Report) -> Iterator[str]:
    if trail.wrong:
        yield f"THE TRAIL DOES NOT HOLD: {trail.findings[0].place}: {trail.findings[0].what}"
    else:
        yield (
            f"The trail is good: {trail.size:,} leaves, compared with {trail.heads:,} heads and {trail.deliveries:,} "
            "deliveries that the collectors kept"
        )


def _commands(outcome: Outcome) -> list[str]:
    """Give three commands that work as they are printed, one after the other."""
    valise, home = _valise(), _shown(outcome)
    return [
        f"{valise} read {outcome.notice} --case DEMO-1 --bureau {outcome.reader} --home {home}",
        f"{valise} audit show {outcome.notice} --home {home}",
        f"{valise} audit verify {shlex.quote(str(outcome.stage.home / 'operator' / 'trail'))}",
    ]


def _shown(outcome: Outcome) -> str:
    return shlex.quote(str(outcome.stage.home))


def _valise() -> str:
    """Name this program so that a shell finds it."""
    ours, found = Path(sys.executable).parent / "valise", shutil.which("valise")
    if found and Path(found).resolve() == ours.resolve():
        return "valise"
    if not ours.is_file():
        return f"{shlex.quote(sys.executable)} -m cli.main"
    here = Path.cwd()
    return shlex.quote(str(ours.relative_to(here) if ours.is_relative_to(here) else ours))
