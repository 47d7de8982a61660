"""`valise policy list`: the rules as sentences, with owner, basis, place and cases; what rests on an agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import click

from broker import codec
from broker.errors import ConfigurationError
from broker.notice import Leaf
from broker.owner import register_of
from broker.trail import Trail
from cli import answer
from cli.auditor.opened import opened
from cli.auditor.shards import shard_of, trails
from cli.home import member_home
from cli.officer import in_force
from cli.officer.history import standing_notices
from cli.officer.rewritten import rule_changes
from cli.officer.sets import open_set
from cli.operator_home import OperatorHome, operator_folder, operator_home
from cli.options import Everywhere, bureau, everywhere
from cli.progress import progress

if TYPE_CHECKING:
    from broker.directory import Agreement, Directory
    from broker.rules import PolicySet, Read
    from cli.officer.in_force import Basis

ALL = 1 << 62
"""No limit."""
RESTING = frozenset({("principal", "agreements"), ("notice", "agreements"), ("notice", "lawful")})
"""What a rule asks about if it may rest on an agreement."""


@click.command("list")
@click.argument("name", metavar="[DIR|DIGEST]", required=False)
@click.option("--agreement", help="List what rests on this agreement.")
@click.option("--versions", "history", is_flag=True, help="List the versions that were adopted, to go back to one.")
@bureau
@everywhere
def list_rules(
    given: Everywhere, name: str | None, agreement: str | None, bureau: str | None, *, history: bool
) -> None:
    """Read the rules in force, or those of a folder or an earlier version, as sentences."""
    if history:
        _versions(given)
        return
    if name and Path(name).is_dir():
        _rules(given, open_set(name, None), f"in {name}")
        return
    home = operator_home(given.home) if _is_operators(given) and not bureau else None
    if home:
        basis, versions = in_force.at_operator(home), home.versions
    else:
        member = member_home(given.home, bureau)
        basis, versions = in_force.at_member(member), member.versions
    if agreement:
        _agreement(given, basis, agreement, _registers(home) if home else None)
        return
    if name:
        _rules(given, open_set(name, versions), "of an earlier version")
        return
    _rules(given, basis.policies, "in force", in_force.by_shard(home) if home else {})


def _registers(home: OperatorHome) -> list[Path]:
    """Name the caches of the shards that ever ran."""
    return [register_of(home.folder, shard_of(each)) for each in trails(home.folder) if Trail.open(each).size]


def _is_operators(given: Everywhere) -> bool:
    """Whether the home named is the operator's, or holds it."""
    folder = operator_folder(given.home)
    return (folder / "settings.toml").is_file() and (
        folder == given.home or not (given.home / "settings.toml").is_file()
    )


# Rules


def _rules(
    given: Everywhere, policies: PolicySet, how: str, shards: Mapping[int, bytes] = MappingProxyType({})
) -> None:
    """Show the rules of a set; `shards` are those in which one is in force, with its digest."""
    from broker.proofread import reached_by  # noqa: PLC0415
    from broker.rules import read_rules  # noqa: PLC0415 -- cedarpy is slow to import

    read, cases = read_rules(policies), reached_by(policies)
    value = [
        {
            "id": each.rule.id,
            "effect": each.rule.effect,
            "sentence": each.rule.sentence,
            "owner": each.rule.owner,
            "basis": each.rule.basis,
            "file": each.rule.file,
            "line": each.rule.line,
            "cases": cases.get(each.rule.id, []),
        }
        for each in read
    ]
    if given.as_json:
        of_shards = {str(shard): digest.hex() for shard, digest in shards.items()}
        answer.show("", {"digest": policies.digest.hex(), "shards": of_shards, "rules": value}, as_json=True)
        return
    answer.say(f"{len(read)} rules {how}, version {policies.digest.hex()[:16]}")
    for shard, digest in shards.items():
        if digest != policies.digest:
            then = given.again(f"valise policy list {digest.hex()[:16]}")
            answer.say(f"shard {shard} has another version in force, {digest.hex()[:16]}: {then}")
    for rule in value:
        answer.say("\n".join(["", *_in_words(rule)]))
    answer.say("")
    answer.say(given.again("valise policy check"))


def _in_words(rule: dict[str, Any]) -> list[str]:
    cases: list[str] = rule["cases"]
    some = "; ".join(cases[:3]) + (f"; and {len(cases) - 3} more" if len(cases) > 3 else "")
    return [
        f"{rule['id']} ({rule['effect']})  {rule['sentence']}",
        f"  owner  {rule['owner']}",
        f"  basis  {rule['basis']}",
        f"  place  {rule['file']}:{rule['line']}",
        f"  cases  {len(cases)}: {some}" if cases else "  cases  none reaches it",
    ]


# Versions


def _versions(given: Everywhere) -> None:
    home = operator_home(given.home)
    # A shard that never ran has no records yet.
    shards = [shard_of(each) for each in trails(home.folder) if Trail.open(each).size]
    rows = [row for shard in shards for row in _adopted(given.home, home, shard)]
    newest = {row["shard"]: row["digest"][:16] for row in rows}
    where = next(iter(newest.values()), "none")
    if len(set(newest.values())) > 1:
        where = ", ".join(f"{digest} in shard {shard}" for shard, digest in newest.items())
    answer.show(
        f"{answer.count(len(rows), 'time')} a policy set was adopted; in force: {where}",
        rows,
        as_json=given.as_json,
        table=answer.Table(
            ("version", "since", "shard", "leaf", "changes"),
            [
                (
                    row["digest"][:16],
                    answer.when(row["since"]),
                    str(row["shard"]),
                    str(row["leaf"]),
                    "\n".join(row["changes"]),
                )
                for row in rows
            ],
        ),
        then=given.again("valise policy activate DIGEST"),
    )


def _adopted(folder: Path, home: OperatorHome, shard: int) -> Iterator[dict[str, Any]]:
    """Give each time that a shard adopted a policy set, and what that changed in it."""
    with opened(folder, shard) as kept:
        leaves = sorted(kept.index.search([["outcome:adopted"], ["outcome:policies"]], 0, kept.trail.size, ALL).leaves)
        adopted = [(number, codec.decode(Leaf, kept.trail.entry(number))) for number in leaves]
    before = None
    for number, leaf in adopted:
        policies = in_force.policy_set(home.versions, leaf.policies)
        changes: list[str] = list(rule_changes(before, policies)) if before else []
        digest = policies.digest.hex()
        yield {"digest": digest, "shard": shard, "leaf": number, "since": leaf.now, "changes": changes}
        before = policies


# Agreements


def _agreement(given: Everywhere, basis: Basis, name: str, registers: Sequence[Path] | None) -> None:
    from broker.rules import read_rules  # noqa: PLC0415
    from broker.wording import attributes_of  # noqa: PLC0415

    found = basis.directory.agreements.get(name)
    if found is None:
        message = f"there is no agreement {name}: there are {', '.join(sorted(basis.directory.agreements))}"
        raise ConfigurationError(message)
    rules = [each for each in read_rules(basis.policies) if attributes_of(each.condition) & RESTING]
    only, also = _transfers(basis.directory, name)
    notices = _naming(registers, name)
    value = {
        "agreement": name, "title": found.title, "basis": found.basis, "status": found.status,
        "members": sorted(found.members), "rules": [each.rule.id for each in rules],
        "transfers_only": [f"{a}>{b}" for a, b in only], "transfers_also": [f"{a}>{b}" for a, b in also],
        "notices_in_force": notices,
    }  # fmt: skip
    if given.as_json:
        answer.show("", value, as_json=True)
        return
    for line in _told(found, rules, only, also, notices):
        answer.say(line)
    answer.say(given.again("valise policy list"))


def _transfers(directory: Directory, name: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Give the pairs whose transfers rest on this agreement alone, and those that have another basis, too."""
    mine = {(each.source, each.target) for each in directory.transfers if each.agreement == name}
    others = {
        (each.source, each.target)
        for each in directory.transfers
        if each.agreement != name and (each.agreement is None or directory.agreements[each.agreement].active)
    }
    return sorted(mine - others), sorted(mine & others)


def _naming(registers: Sequence[Path] | None, name: str) -> dict[str, int] | None:
    """Count by issuer the notices in force whose audience names an agreement; None where this home cannot know."""
    if registers is None:
        return None
    from broker.notice import Envelope, Routing  # noqa: PLC0415

    count: Counter[str] = Counter()
    say = progress("looked at", "notices in force")
    for done, ((issuer, _), standing) in enumerate(chain.from_iterable(map(standing_notices, registers))):
        say(done, 0)
        if standing.envelope:
            first = codec.decode_compartments(codec.decode(Envelope, standing.envelope).compartments)[0]
            if first.opened and name in codec.decode(Routing, first.opened.data).audience.agreements:
                count[issuer] += 1
    return dict(sorted(count.items()))


def _told(
    found: Agreement,
    rules: Sequence[Read],
    only: Sequence[tuple[str, str]],
    also: Sequence[tuple[str, str]],
    notices: dict[str, int] | None,
) -> list[str]:
    total = "unknown here" if notices is None else f"{sum(notices.values()):,}"
    lines = [
        f"{found.id} is {found.status}: {len(only)} transfers rest on it alone; notices in force that name it: {total}",
        f"  title    {found.title}",
        f"  basis    {found.basis}",
        f"  members  {', '.join(sorted(found.members))}",
    ]
    lines += [f"  rule     {each.rule.id}: {each.rule.sentence}" for each in rules]
    if only:
        lines.append(f"  would fall with it   {', '.join(f'{a} to {b}' for a, b in only)}")
    if also:
        lines.append(f"  have another basis   {len(also)} pairs")
    lines += [f"  in force  {issuer}: {count:,}" for issuer, count in (notices or {}).items()]
    return lines
