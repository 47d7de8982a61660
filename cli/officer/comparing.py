"""`valise policy compare`: replays history under another set; who would gain, who would lose, by member and rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from broker import codec
from broker.index import leaf_at
from broker.notice import Envelope, Standing
from cli import answer
from cli.auditor.opened import opened
from cli.auditor.progress import progress
from cli.home import clock
from cli.officer import in_force
from cli.officer.history import decisions, recorded, standing_notices
from cli.officer.sets import open_set
from cli.operator_home import OperatorHome, operator_home
from cli.options import Everywhere, everywhere

if TYPE_CHECKING:
    from broker.compare import Comparison, Past
    from broker.recorded import Recorded
    from broker.rules import PolicySet
    from cli.auditor.opened import Opened
    from cli.officer.in_force import Basis

UNITS = {"h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
SHOWN = 40
"""Lines of the table; --json has all."""


@click.command()
@click.argument("new")
@click.option("--since", default="90d", show_default=True, help="How far back: 12h, 90d, 4w, or `all`.")
@everywhere
def compare(given: Everywhere, new: str, since: str) -> None:
    """Replay decisions under NEW, a folder or a version's digest, beside the set in force: who gains, who loses.

    All that was decided since then is replayed, and every notice in force however old.
    """
    begin, home = _begin(since), operator_home(given.home)
    basis, other = in_force.at_operator(home), open_set(new, home.versions)
    with opened(given.home) as kept:
        found = _compare(home, kept, basis, other, begin)
    answer.show(
        _first(found, since),
        _value(found, basis, other, since),
        as_json=given.as_json,
        table=answer.Table(
            ("member", "gains or loses", "what", "by rule", "notices", "in force", "bureaus"),
            list(_rows(found))[:SHOWN],
        ),
        then=given.again(f"valise policy activate {new}"),
    )


def _begin(since: str) -> int:
    if since == "all":
        return 0
    found = re.fullmatch(r"(\d{1,6})([hdw])", since)
    if found is None:
        message = "--since is a number of hours, days or weeks (12h, 90d, 4w), or all"
        raise click.UsageError(message)
    return clock() - int(found[1]) * UNITS[found[2]]


def _compare(home: OperatorHome, kept: Opened, basis: Basis, other: PolicySet, begin: int) -> Comparison:
    from broker.compare import Side, compare  # noqa: PLC0415 -- cedarpy is slow to import
    from broker.rules import Rules, read_rules  # noqa: PLC0415

    annex = in_force.known_annex(basis)
    fresh = Side(Rules.load(other, basis.directory, annex), read_rules(other))
    read = read_rules(basis.policies)
    old = Side(Rules(read, basis.directory, annex), read)
    return compare(_history(home, kept, begin), old, fresh, basis.directory)


def _history(home: OperatorHome, kept: Opened, begin: int) -> Iterator[Past]:
    """Give what is in force from before `begin`, then all that was decided since."""
    notices = standing_notices(home.folder / "register.db")
    first = leaf_at(kept.trail, begin) if kept.trail.size else 0
    for standing in notices.values():
        if standing.leaf_number < first:
            found = recorded(kept.trail, kept.records, standing.leaf_number)
            if found is not None:
                yield _past(found, standing)
    for each in decisions(kept.trail, kept.records, first, progress("replayed")):
        now = notices.get((each.header.issuer, each.header.notice_id))
        yield _past(each, now if now and now.leaf_number == each.leaf_number else None)


def _past(found: Recorded, standing: Standing | None) -> Past:
    from broker.compare import Past  # noqa: PLC0415

    present = 0
    for shown in found.shown.values():
        present |= shown
    if standing is not None and standing.envelope:
        parts = codec.decode_compartments(codec.decode(Envelope, standing.envelope).compartments)
        present = sum(1 << place for place, each in enumerate(parts) if each.opened is not None)
    return Past(found, standing is not None, present)


# Telling


def _first(found: Comparison, since: str) -> str:
    span = "ever" if since == "all" else f"in the last {since}"
    seen = f"{found.decisions:,} decisions replayed ({span}, and all in force), {found.in_force:,} of them in force"
    if not found.changed:
        return f"nothing would change: {seen}"
    return (
        f"{found.changed:,} notices would come out otherwise, {found.changed_in_force:,} of them in force: "
        f"{_count(found, 'loses')} members lose, {_count(found, 'gains')} gain; {seen}"
    )


def _count(found: Comparison, which: str) -> int:
    return len({member for way, member, _, _ in found.lines if way == which})


def _rows(found: Comparison) -> Iterator[tuple[str, ...]]:
    order = sorted(found.lines.items(), key=lambda item: (item[0][0] != "loses", -item[1].notices, item[0]))
    for (which, member, rule, what), line in order:
        names = ", ".join(sorted(line.bureaus))
        yield member, which, what, rule, f"{line.notices:,}", f"{line.in_force:,}", names


def _value(found: Comparison, basis: Basis, other: PolicySet, since: str) -> dict[str, Any]:
    return {
        "old": basis.policies.digest.hex(),
        "new": other.digest.hex(),
        "since": since,
        "decisions": found.decisions,
        "in_force": found.in_force,
        "changed": found.changed,
        "changed_in_force": found.changed_in_force,
        "lines": [
            {
                "member": member,
                "way": which,
                "what": what,
                "rule": rule,
                "notices": line.notices,
                "in_force": line.in_force,
                "bureaus": sorted(line.bureaus),
            }
            for (which, member, rule, what), line in sorted(found.lines.items())
        ],
    }
