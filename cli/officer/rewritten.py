"""Says which rules come, go and change from one policy set to another, in the rules' own sentences."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from broker.errors import VersionRefusedError

if TYPE_CHECKING:
    from adapters.versions import Versions
    from broker.rules import PolicySet, Read


def rule_changes(old: PolicySet, new: PolicySet) -> Iterator[str]:
    """Say it rule by rule. Raises VersionRefusedError for a set that cannot be read."""
    from broker.rules import read_rules  # noqa: PLC0415 -- cedarpy is slow to import

    before, after = ({each.rule.id: each for each in read_rules(policies)} for policies in (old, new))
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            yield f"- {name}: {before[name].rule.sentence}"
        elif name not in before:
            yield f"+ {name}: {after[name].rule.sentence}"
        elif _says(before[name]) != _says(after[name]):
            yield f"~ {name}: {_otherwise(before[name], after[name])}"
    if dict(old.files) != dict(new.files) and _all(before) == _all(after):
        yield "no rule changes; its files do (words, cases or schema)"


def _otherwise(before: Read, after: Read) -> str:
    """Tell both sentences, or that the words stayed and the rule did not."""
    said, rule = after.rule.sentence, after.rule
    if said != before.rule.sentence:
        return f"{said} Before: {before.rule.sentence}"
    return f"{said} The words are the same, the rule is another: {rule.file}:{rule.line}"


def _says(read: Read) -> tuple[object, ...]:
    return read.rule.effect, read.actions, read.condition


def _all(read: dict[str, Read]) -> dict[str, tuple[object, ...]]:
    return {name: _says(each) for name, each in read.items()}


def told_to_signers(drafted: str, versions: Versions) -> list[str]:
    """Say what a drafted set changes in the newest one that is known here, or why it could not be in force."""
    from broker.rules import PolicySet  # noqa: PLC0415

    try:
        new = PolicySet.parse(drafted.encode())
        newest = versions.named_newest("policies")
        old = versions.content(newest) if newest else None
        known = PolicySet.parse(old) if old else None
        lines = list(rule_changes(known, new)) if known else _every(new)
    except VersionRefusedError as error:
        return [f"it cannot be put in force: {error}"]
    first = f"version {new.digest.hex()[:16]}, {_against(newest, known)}:"
    return [first, *(f"  {each}" for each in lines or ["nothing changes"])]


def _against(newest: bytes | None, known: PolicySet | None) -> str:
    if newest is None:
        return "no version is known here"
    if known is None:
        lost = f"{newest.hex()[:16]} came last, and is missing or damaged here"
        return f"{lost}: `valise directory status` takes it from the bus once more. Not what changes, but all rules"
    return f"beside the version {newest.hex()[:16]} that is known here"


def _every(policies: PolicySet) -> list[str]:
    from broker.rules import read_rules  # noqa: PLC0415

    return [f"+ {each.rule.id}: {each.rule.sentence}" for each in read_rules(policies)]
