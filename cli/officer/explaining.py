"""`valise policy explain`: for every bureau allow or deny, by which rule, on which facts, and what would change it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import click

from adapters.inbox import Line
from broker import codec, notice
from broker.errors import ConfigurationError
from broker.notice import Leaf
from broker.recorded import Recorded, remember
from cli import answer
from cli.auditor.opened import opened_about
from cli.home import MemberHome, member_home
from cli.officer import accounts, in_force
from cli.officer.history import decided, undecided
from cli.officer.in_force import Basis
from cli.operator_home import operator_folder, operator_home
from cli.options import Everywhere, everywhere
from cli.publish import NoSuchNoticeError

if TYPE_CHECKING:
    from broker.explain import Account
    from broker.welcome import Welcome

HELD = "held"


@click.command()
@click.argument("notice_name", metavar="NOTICE")
@click.option("--bureau", help="Tell of this bureau only; at a member's home also the bureau that asks.")
@everywhere
def explain(given: Everywhere, notice_name: str, bureau: str | None) -> None:
    """Explain who received NOTICE, a notice id or (for operators) a leaf number, and why the others did not.

    At the operator's home from the decision on record; at a member's home (--home HOME/members/AT) an issuer sees its
    own notices' explanation, a recipient why it got a notice itself, and nothing about others.
    """
    if (operator_folder(given.home) / "settings.toml").is_file() and not _is_members(given):
        home = operator_home(given.home)
        found = _at_operator(given.home, notice_name)
        _show(given, found, _explained(found, in_force.of_leaf(home.versions, found.leaf)), bureau)
        return
    _at_member(given, notice_name, bureau)


def _is_members(given: Everywhere) -> bool:
    """Whether the home named is one party's, and that party no operator."""
    return (given.home / "settings.toml").is_file() and not (given.home / "log.key").is_file()


# At the operator's


def _at_operator(home: Path, name: str) -> Recorded:
    with opened_about(home, name) as kept:
        found = decided(kept.trail, kept.records, kept.index, name)
        instead = "" if found else undecided(kept.trail, kept.index, name)
    if found is not None:
        return found
    if instead:
        message = f"no rule was asked about it: {instead}; `valise audit show {name}` tells the story"
        raise ConfigurationError(message)
    raise NoSuchNoticeError


def _explained(found: Recorded, basis: Basis) -> tuple[Account, ...]:
    from broker.explain import accounts as tell  # noqa: PLC0415 -- cedarpy is slow to import
    from broker.explain import of_record  # noqa: PLC0415
    from broker.rules import read_rules  # noqa: PLC0415

    return tell(of_record(found, basis.directory, basis.annex, read_rules(basis.policies)))


def _show(given: Everywhere, found: Recorded, told: Sequence[Account], bureau: str | None) -> None:
    chosen = [each for each in told if bureau in (None, each.bureau)]
    if not chosen:
        message = f"--bureau: the directory in force then knew no bureau {bureau}"
        raise click.UsageError(message)
    first = f"{accounts.headline(told)}: {found.header.kind} of {found.header.issuer}, {found.leaf.kind}"
    when = f"decided {answer.when(found.leaf.now)} in leaf {found.leaf_number}"
    then = _hints(given, found)[-1]
    answer.show(
        f"{first}, {when}" if bureau is None else f"{bureau}: {'yes' if chosen[0].receives else 'no'}, {when}",
        _value(found, chosen),
        as_json=given.as_json,
        table=accounts.table(chosen) if bureau is None else None,
        then="" if bureau else "\n".join(["", *accounts.legend(chosen), "", *_hints(given, found)]),
    )
    if bureau and not given.as_json:
        for line in accounts.lines(chosen[0]):
            answer.say(line)
        answer.say(then)


def _hints(given: Everywhere, found: Recorded) -> tuple[str, ...]:
    name = notice_id(found)
    full = given.again(f"valise policy explain {name} --bureau BUREAU")
    last = f"valise trace {name}" if _is_members(given) else f"valise audit show {name} --redecide"
    return f"facts, and what would have to change: {full}", given.again(last)


def _value(found: Recorded, told: Sequence[Account]) -> dict[str, Any]:
    return {
        "notice": notice_id(found),
        "issuer": found.header.issuer,
        "kind": found.header.kind,
        "state": found.leaf.kind,
        "leaf": found.leaf_number,
        "now": found.leaf.now,
        "directory": found.leaf.directory.hex(),
        "policies": found.leaf.policies.hex(),
        "bureaus": [accounts.value(each) for each in told],
    }


def notice_id(found: Recorded) -> str:
    """Write the notice id as people do."""
    return str(UUID(bytes=found.header.notice_id))


# At a member's


def _at_member(given: Everywhere, name: str, bureau: str | None) -> None:
    home = member_home(given.home, None if _is_members(given) else bureau)
    own = _own(home, name)
    if own is not None:
        _show(given, own, _explained(own, in_force.at_member(home, own.leaf)), bureau)
        return
    acting = home.of(bureau) if bureau and bureau.startswith(f"{home.member}/") else home
    if bureau not in (None, acting.bureau):
        raise NoSuchNoticeError
    _why_we(given, acting, name)


def _own(home: MemberHome, name: str) -> Recorded | None:
    """Find the decision on a notice of ours, which came with its outcome; None if it is not ours."""
    with home.outbox() as outbox:
        sent = outbox.find(name)
        if sent is None:
            return None
        row = outbox.database.execute(
            "SELECT o.leaf_number, o.leaf, o.decision_salt, o.decision FROM outcomes AS o JOIN envelopes AS e"
            " ON e.leaf_number = o.leaf_number WHERE e.notice_id = ?",
            (sent.notice_id,),
        ).fetchone()
    found = remember(int(row[0]), bytes(row[1]), bytes(row[2]), bytes(row[3])) if row and row[3] else None
    if found is None:
        message = "there is no decision on it here yet: `valise trace` fetches it, and says if it was rejected"
        raise ConfigurationError(message)
    return found


def _why_we(given: Everywhere, home: MemberHome, name: str) -> None:
    from broker.rules import read_rules  # noqa: PLC0415
    from broker.welcome import welcome  # noqa: PLC0415

    with home.inbox() as inbox:
        line = inbox.find(name)
        if line is None:
            raise NoSuchNoticeError
        body = inbox.open(line.number)
        row = inbox.database.execute(
            "SELECT leaf, row FROM deliveries WHERE delivery_number = ?", (line.number,)
        ).fetchone()
    leaf = codec.decode(Leaf, bytes(row[0]))
    basis = in_force.at_member(home, leaf)
    shown = codec.decode(notice.Row, bytes(row[1])).shown
    told = welcome(
        body.header if body else None, shown, home.bureau, basis.directory, read_rules(basis.policies),
        to_review=leaf.kind == HELD,
    )  # fmt: skip
    _show_welcome(given, home, line, leaf, told)


def _show_welcome(given: Everywhere, home: MemberHome, line: Line, leaf: Leaf, told: Welcome) -> None:
    at = answer.when(leaf.now)
    answer.show(
        f"{home.bureau} received {line.kind} {line.id} of {line.issuer}, decided {at} in leaf {line.leaf_number}",
        {
            "notice": line.id, "issuer": line.issuer, "bureau": home.bureau, "leaf": line.leaf_number, "now": leaf.now,
            "policies": leaf.policies.hex(), "rules": list(told.rules), "facts": list(told.facts),
            "shown": list(told.shown),
        },
        as_json=given.as_json,
    )  # fmt: skip
    if given.as_json:
        return
    for said in told.lines:
        answer.say(f"  {said}")
    answer.say(given.again(f"valise read {line.id} --case REF --bureau {home.bureau}"))
