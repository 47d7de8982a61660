"""The packaged policy set: its cases hold, and none of its rules could be dropped or weakened unnoticed."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from broker import cases, rules
from broker.cases import Case, CaseFile
from broker.errors import VersionRefusedError
from broker.masks import Apply, Expression
from broker.notice import KINDS, ROUTING
from broker.rules import PolicySet, Rules

PACKAGED = PolicySet.packaged()
FILES: dict[str, CaseFile] = {
    name: cases.read(cases.file_of(name), PACKAGED.files[cases.file_of(name)]) for name in PACKAGED.policy_files
}
READ = rules.read_rules(PACKAGED)


@pytest.mark.parametrize(
    ("world", "case"),
    [(each.world, case) for each in FILES.values() for case in each.case],
    ids=[f"{name}: {case.name}" for name, each in FILES.items() for case in each.case],
)
def test_a_case_holds(world: cases.World, case: Case) -> None:
    directory, annex = cases.world_of(world)
    verdict = Rules(READ, directory, annex).judge(cases.case_facts(case, directory, annex))
    assert cases.differences(case, verdict, directory) == []


def _cases_hold(read: tuple[rules.Read, ...]) -> bool:
    try:
        cases.run(PACKAGED.files, PACKAGED.policy_files, lambda world, annex: Rules(read, world, annex).judge)
    except VersionRefusedError:
        return False
    return True


@pytest.mark.parametrize("dropped", READ, ids=lambda each: each.rule.id)
def test_no_rule_can_be_dropped_unnoticed(dropped: rules.Read) -> None:
    assert not _cases_hold(tuple(each for each in READ if each is not dropped))


def _weakened(expression: Expression) -> Iterator[Expression]:
    """Give the condition with one part of an `and` or `or` left out, or one `not` too few, at any depth."""
    if not isinstance(expression, Apply):
        return
    if expression.op == "not":
        yield expression.operands[0]
    for place, each in enumerate(expression.operands):
        before, after = expression.operands[:place], expression.operands[place + 1 :]
        if expression.op in ("and", "or") and before + after:
            yield Apply(expression.op, before + after)
        yield from (Apply(expression.op, (*before, other, *after)) for other in _weakened(each))


@pytest.mark.parametrize("changed", READ, ids=lambda each: each.rule.id)
def test_no_part_of_a_condition_can_be_dropped_unnoticed(changed: rules.Read) -> None:
    unnoticed = [
        weaker
        for weaker in _weakened(changed.condition)
        if _cases_hold(tuple(replace(each, condition=weaker) if each is changed else each for each in READ))
    ]
    assert unnoticed == []


@pytest.mark.parametrize("changed", READ, ids=lambda each: each.rule.id)
def test_no_action_can_be_left_out_of_a_rule_on_single_compartments_unnoticed(changed: rules.Read) -> None:
    if rules.RECEIVE in changed.actions and changed.rule.effect == "forbid":
        return  # those withhold the whole notice: that they forbid `receive` is what counts
    unnoticed = [
        action
        for action in sorted(changed.actions)
        if _cases_hold(
            tuple(replace(each, actions=each.actions - {action}) if each is changed else each for each in READ)
        )
    ]
    assert set(unnoticed) <= {"see_reason"}  # withdrawals and restrictions never ask the policy


def test_every_rule_says_what_it_does_on_what_basis_and_who_answers_for_it() -> None:
    for each in READ:
        assert each.rule.sentence.endswith(".")
        assert each.rule.owner
        assert "rule" in each.rule.basis


def test_every_compartment_of_every_kind_has_its_action_and_routing_has_none() -> None:
    assert set(rules.SEE) == {name for names in KINDS.values() for name in names}
    assert ROUTING not in rules.SEE
    permitted = frozenset().union(*(each.actions for each in READ if each.rule.effect == "permit"))
    assert permitted == set(rules.ACTIONS)


def test_the_set_holds_the_rules_of_the_first_federation() -> None:
    assert [each.rule.id for each in READ] == [
        "owner-audience", "owner-denial", "mandate-receive", "mandate-see", "h1-evidence", "h2-named-or-granted",
        "h3-named", "h3-unreadable", "h3-unreadable-review", "transfer-basis", "origin-unknown", "origin-consent",
        "wanted-or-warning", "wanted-or-warning-review", "supervised-sender", "supervised-sender-review",
        "political-character", "political-character-review", "protected-person",
        "victim-identity", "minor-identity", "minor-associates",
        "vulnerable-in-network", "source-named", "retention-over", "review-overdue", "agreement-in-force", "clearance",
    ]  # fmt: skip
