"""`valise policy compare`: replays history under another set; who would gain, who would lose, by member and rule."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from broker import codec
from broker.errors import VersionRefusedError
from broker.index import leaf_at
from broker.notice import Envelope, Standing
from broker.owner import register_of
from cli import answer, exits
from cli.auditor.opened import opened
from cli.home import clock
from cli.officer import in_force
from cli.officer.history import decisions, patterns_before, recorded, releases, standing_notices
from cli.officer.sets import open_set
from cli.operator_home import OperatorHome, operator_home
from cli.options import Everywhere, everywhere
from cli.progress import progress

if TYPE_CHECKING:
    from broker.compare import Comparison, Past, Side
    from broker.decide import Subscriptions
    from broker.directory import Directory
    from broker.recorded import Recorded
    from broker.rules import PolicySet
    from cli.auditor.opened import Opened
    from cli.officer.in_force import Basis

UNITS = {"h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
LOSES, GAINS = "loses", "gains"
SHOWN = 40
"""Lines of the table; --json has all."""


@click.command()
@click.argument("new")
@click.option("--since", default="90d", show_default=True, help="How far back: 12h, 90d, 4w, or `all`.")
@everywhere
def compare(given: Everywhere, new: str, since: str) -> None:
    """Replay decisions under NEW, a folder or a version's digest, beside the set in force: who gains, who loses.

    All that was decided since then is replayed, and every notice in force however old. A draft is compared even if its
    cases do not hold yet; why it could not be activated is told beside. A shard that has another set in force is named
    and left out (exit 6): beside that one others would gain and lose.
    """
    begin, home = _begin(since), operator_home(given.home)
    basis, other = in_force.at_operator(home), open_set(new, home.versions)
    rules, refused = _fresh(basis, other)
    shards, own = in_force.by_shard(home), home.settings.shard
    # Its own shard may have adopted another set since: the basis is of one of its leaves all the same.
    left_out = {shard: digest for shard, digest in shards.items() if shard != own and digest != basis.policies.digest}
    with ExitStack() as stack:
        kept = {
            shard: stack.enter_context(opened(given.home, shard)) for shard in shards.keys() - left_out.keys() or {own}
        }
        found = _compare(home, kept, basis, rules, begin)
    told = {
        **_value(found, basis, other, since),
        "refused": refused or None,
        "left_out": {str(shard): digest.hex() for shard, digest in left_out.items()},
    }
    answer.show(
        "\n".join([_first(found, since), *_left_out(left_out)]),
        told,
        as_json=given.as_json,
        table=answer.Table(
            ("member", "gains or loses", "what", "by rule", "notices", "in force", "bureaus"),
            list(_rows(found))[:SHOWN],
        ),
        then=f"it cannot be activated: {refused}\n{given.again(f'valise policy check {shlex.quote(new)}')}"
        if refused
        else given.again(f"valise policy activate {shlex.quote(new)}"),
    )
    exits.end(exits.PARTLY if left_out else exits.DONE)


def _left_out(shards: Mapping[int, bytes]) -> Iterator[str]:
    for shard, digest in shards.items():
        yield f"shard {shard} is left out: it has another version in force, {digest.hex()[:16]}"


def _begin(since: str) -> int:
    if since == "all":
        return 0
    found = re.fullmatch(r"(\d{1,6})([hdw])", since)
    if found is None:
        message = "--since is a number of hours, days or weeks (12h, 90d, 4w), or all"
        raise click.UsageError(message)
    return clock() - int(found[1]) * UNITS[found[2]]


def _fresh(basis: Basis, other: PolicySet) -> tuple[Side, str]:
    """Compile the other set; say why it could not be in force, if so. Raises VersionRefusedError."""
    from broker import bounds  # noqa: PLC0415 -- cedarpy is slow to import
    from broker.compare import Side  # noqa: PLC0415
    from broker.rules import Rules, read_rules  # noqa: PLC0415

    annex = in_force.known_annex(basis)
    fresh = Side(Rules.unproven(other, basis.directory, annex), read_rules(other))
    try:
        bounds.check(fresh.rules, fresh.read, basis.directory)
        Rules.load(other, basis.directory, annex)
    except VersionRefusedError as error:
        return fresh, str(error)
    return fresh, ""


def _compare(home: OperatorHome, kept: Mapping[int, Opened], basis: Basis, fresh: Side, begin: int) -> Comparison:
    from broker.compare import Side, compare  # noqa: PLC0415 -- cedarpy is slow to import
    from broker.rules import Rules, read_rules  # noqa: PLC0415

    read = read_rules(basis.policies)
    old = Side(Rules(read, basis.directory, in_force.known_annex(basis)), read)
    histories = (
        _history(register_of(home.folder, shard), each, basis.directory, begin) for shard, each in sorted(kept.items())
    )
    return compare(chain.from_iterable(histories), old, fresh, basis.directory)


@dataclass(frozen=True, slots=True)
class _Stands:
    """What a comparison needs of a notice in force; its body it does not."""

    leaf_number: int
    present: int | None


def _history(register: Path, kept: Opened, directory: Directory, begin: int) -> Iterator[Past]:
    """Give what is in force from before `begin`, then all that was decided since; of what was released the release."""
    if not kept.trail.size:
        return
    notices, say = dict[tuple[str, bytes], _Stands](), progress("looked at", "notices in force")
    for named, kept_of_it in standing_notices(register):
        notices[named] = _Stands(kept_of_it.leaf_number, _present(kept_of_it))
        say(len(notices), 0)
    first = leaf_at(kept.trail, begin)
    released = releases(kept.trail, kept.index)
    subscriptions = _subscriptions(kept, directory)
    for standing in notices.values():
        last = released.get(standing.leaf_number, standing.leaf_number)
        found = recorded(kept.trail, kept.records, last) if last < first else None
        if found is not None:
            yield _past(found, standing, subscriptions)
    for each in decisions(kept.trail, kept.records, first, progress("replayed")):
        if each.leaf_number in released:
            continue
        now = notices.get((each.header.issuer, each.header.notice_id))
        stands = now is not None and each.leaf_number == released.get(now.leaf_number, now.leaf_number)
        yield _past(each, now if stands else None, subscriptions)


def _subscriptions(kept: Opened, directory: Directory) -> Subscriptions:
    """Give today's: what was held has no reach on record."""
    from broker.decide import Subscriptions  # noqa: PLC0415

    return Subscriptions.of(directory, patterns_before(kept.trail, kept.records, kept.index, kept.trail.size))


def _past(found: Recorded, stands: _Stands | None, subscriptions: Subscriptions) -> Past:
    from broker.compare import Past  # noqa: PLC0415

    present = stands.present if stands else None
    if present is None:
        present = 0
        for shown in found.shown.values():
            present |= shown
    return Past(found, stands is not None, present, subscriptions.mask(found.header.topics))


def _present(standing: Standing) -> int | None:
    """Give the mask of the compartments that a notice in force has; None where its body is not here."""
    if not standing.envelope:
        return None
    parts = codec.decode_compartments(codec.decode(Envelope, standing.envelope).compartments)
    return sum(1 << place for place, each in enumerate(parts) if each.opened is not None)


# Telling


def _first(found: Comparison, since: str) -> str:
    span = "ever" if since == "all" else f"in the last {since}"
    seen = f"{found.decisions:,} decisions replayed ({span}, and all in force), {found.in_force:,} of them in force"
    if not found.changed:
        return f"nothing would change: {seen}"
    return (
        f"{found.changed:,} notices would come out otherwise, {found.changed_in_force:,} of them in force: "
        f"{_members(found, LOSES)}, {_members(found, GAINS)}; {seen}"
    )


def _members(found: Comparison, which: str) -> str:
    count = len({member for way, member, _, _ in found.lines if way == which})
    return f"1 member {which}" if count == 1 else f"{count} members {which.removesuffix('s')}"


def _rows(found: Comparison) -> Iterator[tuple[str, ...]]:
    order = sorted(found.lines.items(), key=lambda item: (item[0][0] != LOSES, -item[1].notices, item[0]))
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
