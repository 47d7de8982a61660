"""Says what no policy set may do, however it was signed: let in whom the issuer kept out, or get in the way of an end.

Withdrawals and restrictions do not pass the policy at all (`decide` sends them to every holder); audience and deny
list are terms of their own. What is refused here would only pretend otherwise, or bite on the day that one of these
terms is lost. Proven from the text of the rules, for every notice and bureau, in three-valued logic: what a rule asks
besides is unknown.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from broker import likeness
from broker.errors import VersionRefusedError
from broker.masks import Apply, Attribute, Constant, Expression, Principal
from broker.notice import APPROVAL, KINDS, TO_HOLDERS
from broker.rules import RECEIVE, SEE, Read, Rule, Rules, Verdict
from broker.rules.policy_set import refused
from broker.wording import attributes_of

if TYPE_CHECKING:
    from broker.directory import Directory
    from broker.facts import Facts

SHIELDED = (RECEIVE, *SEE.values())
"""Actions that must be forbidden outside the audience."""
TRIALS = 300
"""Notices made up to see whether corrections fare worse than what they correct."""
UNASKED = TO_HOLDERS | {APPROVAL}
"""Kinds of which no rule is asked."""
KIND = Attribute("notice", "kind")
OF_CORRECTIONS = frozenset({("notice", "corrects"), ("notice", "holders")})
"""What a rule asks that sets a correction apart from a first version."""
Known = Callable[[Expression], bool | None]
"""What is known of a part of a condition; None: it depends."""


def check(rules: Rules, read: Sequence[Read], directory: Directory) -> None:
    """Refuse a set that must not be in force. Raises VersionRefusedError with file, line and what to do."""
    for fact, value, meant in (("audience", False, "is not in the audience"), ("denied", True, "is on the deny list")):
        _check_shield(read, fact, value=value, meant=meant)
    for each in read:
        _check_ends(each)
    _check_corrections(rules, read, directory)


def truth(expression: Expression, known: Known) -> bool | None:
    """Evaluate a condition of which only parts are known; None where the answer depends on the rest."""
    found = known(expression)
    if found is not None:
        return found
    if isinstance(expression, Constant) and isinstance(expression.value, bool):
        return expression.value
    if isinstance(expression, Apply) and expression.op in ("and", "or", "not"):
        parts = [truth(each, known) for each in expression.operands]
        if expression.op == "not":
            return None if parts[0] is None else not parts[0]
        stops = expression.op == "or"
        return stops if stops in parts else None if None in parts else not stops
    return None


# Nobody outside the audience


def _check_shield(read: Sequence[Read], fact: str, *, value: bool, meant: str) -> None:
    """Demand forbids that hold for every bureau outside, whatever else the notice is."""
    asked = Apply("contains", (Attribute("notice", fact), Principal()))

    def known(expression: Expression) -> bool | None:
        return value if expression == asked else None

    shielded = {
        action
        for each in read
        if each.rule.effect == "forbid" and truth(each.condition, known) is True
        for action in each.actions
    }
    open_ = [action for action in SHIELDED if action not in shielded]
    if open_:
        named = ", ".join(open_[:3]) + (f" and {len(open_) - 3} more" if len(open_) > 3 else "")
        not_ = "" if value else "!"
        message = (
            f"policies: no rule forbids {named} to every bureau that {meant}, without any further "
            f"condition: add forbid … when {{ {not_}resource.{fact}.contains(principal) }}"
        )
        raise VersionRefusedError(message)


# Withdrawals


def _check_ends(rule: Read) -> None:
    """Refuse a forbid that is made for what asks no rule: withdrawals and restrictions above all."""
    if rule.rule.effect != "forbid" or ("notice", "kind") not in attributes_of(rule.condition):
        return
    meant = {kind for kind in KINDS if truth(rule.condition, _of_kind(kind)) is not False}
    if meant and meant <= UNASKED:
        raise refused(
            rule.rule.file, rule.rule.line,
            f"rule {rule.rule.id} is made to stop {' and '.join(sorted(meant))} notices, which reach every holder, "
            "or whose notice was reviewed, whatever the policy says: take it out",
        )  # fmt: skip


def _of_kind(kind: str) -> Known:
    def known(expression: Expression) -> bool | None:
        if not isinstance(expression, Apply) or KIND not in expression.operands:
            return None
        others = [each for each in expression.operands if each != KIND]
        value = others[0].value if len(others) == 1 and isinstance(others[0], Constant) else None
        if isinstance(value, str) and expression.op in ("eq", "not_eq"):
            return (value == kind) is (expression.op == "eq")
        if isinstance(value, frozenset) and expression.op == "contains":
            return kind in value
        return None

    return known


# Corrections


def _check_corrections(rules: Rules, read: Sequence[Read], directory: Directory) -> None:
    """Refuse a set under which a correction reaches fewer bureaus than the same notice as a first version."""
    asking = [each for each in read if not OF_CORRECTIONS.isdisjoint(attributes_of(each.condition))]
    if not asking or not directory.bureaus_in(directory.everyone):
        return
    chance = random.Random(rules.digest)  # noqa: S311 - made-up notices, no secret
    for _ in range(TRIALS):
        facts = likeness.made_up(chance, directory)
        first = rules.judge(replace(facts, corrects=False, holders=0))
        for each in _corrections(facts, directory):
            later = rules.judge(each)
            if lost := first.receive & ~later.receive:
                raise _fewer(_hurting(asking, lost, first, later).rule)


def _fewer(rule: Rule) -> VersionRefusedError:
    return refused(
        rule.file, rule.line,
        f"rule {rule.id} lets a correction reach fewer bureaus than what it corrects, so that they would go on with "
        "the wrong version: take `corrects` and `holders` out of it",
    )  # fmt: skip


def _corrections(facts: Facts, directory: Directory) -> Iterator[Facts]:
    """Give a notice as a correction: of what nobody holds, all hold, or who happens to."""
    for holders in (0, facts.holders, directory.everyone):
        yield replace(facts, corrects=True, holders=holders)


def _hurting(asking: Sequence[Read], lost: int, first: Verdict, later: Verdict) -> Read:
    """Find the rule that forbids the correction to those who lose it, or permitted them the first version only."""
    for effect, verdict in (("forbid", later), ("permit", first)):
        met = {each.rule for each in verdict.hits if each.bureaus & lost}
        for read in asking:
            if read.rule.effect == effect and read.rule.id in met:
                return read
    return asking[0]
