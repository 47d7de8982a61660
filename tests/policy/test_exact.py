"""The compiled form answers as Cedar does, for the same reasons: random sets, random federations, random notices."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import likeness, masks
from broker.directory import Directory
from broker.errors import VersionRefusedError
from broker.facts import NO_LIMIT, Facts
from broker.likeness import Answer
from broker.masks import Apply, Attribute, Expression
from broker.notice import KINDS
from broker.rules import ACTIONS, RECEIVE, SCHEMA, SEE, Explanation, PolicySet, Reference, Rules, read_rules
from tests.policy import invented
from tests.policy.invented import PACKAGED, Author

CHANCES = st.integers(0, 1 << 64).map(random.Random)
"""Seeds: Hypothesis names the one that fails, and loses no time with making it smaller."""
NOTICES = 2
OWN = read_rules(PACKAGED)


def everything(directory: Directory) -> list[tuple[str, str]]:
    """Every action of every bureau that is a principal."""
    return [(bureau, action) for bureau in directory.bureaus_in(directory.everyone) for action in ACTIONS]


def compare(rules: Rules, reference: Reference, directory: Directory, facts: Facts) -> list[Answer]:
    """Compare all answers, twice, for the second time comes out of memos; give Cedar's."""
    asked = everything(directory)
    for _ in range(2):
        likeness.compare(rules, reference, directory, facts, asked)
    verdict = rules.judge(facts)
    for mask in (verdict.receive, *verdict.see.values(), *(each.bureaus for each in verdict.hits)):
        assert mask & ~directory.everyone == 0
    return reference.answers(facts, asked)


@settings(max_examples=200)
@given(CHANCES)
def test_a_random_set_answers_as_cedar_for_every_bureau_and_action(chance: random.Random) -> None:
    directory, annex = invented.world(chance)
    policies = invented.policies(Author(chance, directory).rules())
    rules = Rules(read_rules(policies), directory, annex)
    reference = Reference(policies, directory, annex)
    for _ in range(NOTICES):
        compare(rules, reference, directory, invented.notice(chance, directory, rules.literals))


@settings(max_examples=40)
@given(CHANCES)
def test_our_own_set_answers_as_cedar_for_every_bureau_and_action(chance: random.Random) -> None:
    directory, annex = invented.world(chance)
    rules = Rules(OWN, directory, annex)
    compare(rules, Reference(PACKAGED, directory, annex), directory, invented.notice(chance, directory, rules.literals))


@settings(max_examples=40)
@given(CHANCES)
def test_an_explanation_names_the_rules_that_cedar_names(chance: random.Random) -> None:
    directory, annex = invented.world(chance)
    policies = invented.policies(Author(chance, directory).rules())
    rules = Rules(read_rules(policies), directory, annex)
    facts = invented.notice(chance, directory, rules.literals)
    asked = everything(directory)
    right = dict(zip(asked, Reference(policies, directory, annex).answers(facts, asked), strict=True))
    for bureau in directory.bureaus_in(directory.everyone):
        found = rules.explain(facts, directory.bureaus[bureau].index)
        assert explained(found, facts) == {
            RECEIVE: right[bureau, RECEIVE],
            **{name: right[bureau, SEE[name]].allowed for name in KINDS[facts.kind]},
            **{
                f"withheld {name}": right[bureau, SEE[name]].rules
                for name in KINDS[facts.kind]
                if not right[bureau, SEE[name]].allowed
            },
        }
        assert {each.id for each in found.unmet} == {
            each.rule.id for each in read_rules(policies) if each.rule.effect == "permit" and RECEIVE in each.actions
        } - {each.id for each in found.permits}


def explained(found: Explanation, facts: Facts) -> dict[str, object]:
    """What an explanation says, in the shape of Cedar's answers."""
    deciding = found.forbids or found.permits
    return {
        RECEIVE: Answer(found.receives, frozenset(each.id for each in deciding)),
        **{name: name in found.sees for name in KINDS[facts.kind]},
        **{f"withheld {name}": frozenset(each.id for each in rules) for name, rules in found.withheld.items()},
    }


# What cannot be evaluated


FAILS = invented.head("fails") + "{effect} (principal, {action}, resource) when {{ {condition} }};\n"
OVERFLOWS = f"context.now + {NO_LIMIT} > 0 || context.now * {NO_LIMIT} > 0 || true"
"""Cedar cannot evaluate this at any `now` above 1; the validator sees nothing wrong with it."""


@settings(max_examples=40)
@given(CHANCES, st.sampled_from(["permit", "forbid"]))
def test_a_rule_that_errors_denies_what_it_speaks_of_and_nothing_else(chance: random.Random, effect: str) -> None:
    directory, annex = invented.world(chance)
    sound = invented.policies(Author(chance, directory).rules())
    failing = FAILS.format(effect=effect, action='action in Action::"see"', condition=OVERFLOWS)
    unsound = invented.policies(f"{failing}{sound.files['one.cedar']}")
    facts, asked = likeness.made_up(chance, directory), everything(directory)
    before = Reference(sound, directory, annex).answers(facts, asked)
    after = Reference(unsound, directory, annex).answers(facts, asked)
    for (_, action), was, now in zip(asked, before, after, strict=True):
        assert now.allowed == (was.allowed and action not in SEE.values())


@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_a_rule_that_errors_for_some_notice_never_gets_as_far(effect: str) -> None:
    failing = FAILS.format(effect=effect, action="action", condition=OVERFLOWS)
    with pytest.raises(VersionRefusedError, match=r"one\.cedar:1: add has no compiled form: it can overflow"):
        read_rules(invented.policies(failing))


# What is outside the compiled subset


TWO = f"{invented.head('first')}permit (principal, action, resource);\n\n{invented.head('one')}"
"""A sound rule, and what stands above a second, which begins on line 5."""


def when(condition: str) -> str:
    return f"{TWO}permit (principal, action, resource)\nwhen {{ {condition} }};"


OUTSIDE = [
    ('resource.kind like "p*"', r"Like has no compiled form: name the values"),
    ("resource has kind", r"HasAttr has no compiled form: every attribute .* always there"),
    ("context.now + 1 > 5", r"add has no compiled form: it can overflow"),
    ("context.now - 1 > 5", r"sub has no compiled form: it can overflow"),
    ("context.now * 2 > resource.retain_until", r"mul has no compiled form: it can overflow"),
    ("-context.now > 5", r"neg has no compiled form: it can overflow"),
    ("if resource.exercise then true else false", r"IfThenElse has no compiled form: write \(a && b\)"),
    ("principal is Bureau", r"Is has no compiled form: the principal is always a Bureau"),
    ('principal is Bureau in Member::"M0"', r"Is has no compiled form"),
    ("resource.issuer.member == resource.owner", r"GetAttr has no compiled form: only principal, resource and context"),
    ("principal.member in principal.member", r"only the principal can be asked what it is in"),
    ("resource.audience.containsAll(resource.named)", r"of a notice's bureaus only contains\(principal\)"),
    ("resource.audience == resource.named", r"of a notice's bureaus only contains\(principal\)"),
    ("resource.audience.contains(resource.issuer)", r"of a notice's bureaus only contains\(principal\)"),
    ('resource.audience.contains(Bureau::"M0/b0")', r"of a notice's bureaus only contains\(principal\)"),
    ("principal in resource.audience", r"of a notice's bureaus only contains\(principal\)"),
    ("[principal.member].contains(resource.owner)", r"GetAttr has no compiled form"),
    ("[principal, resource.issuer].contains(principal)", r"Var has no compiled form"),
    ("[[1], [2]].contains([1])", r"a set of sets has no compiled form"),
    ("(resource.kind == resource.minor) == resource.exercise", r"eq inside a comparison has no compiled form"),
    ("[resource.exercise].contains(true)", r"GetAttr has no compiled form"),
    ('resource == Notice::"n"', r"Var has no compiled form: ask for an attribute of it"),
    ('action == Action::"receive"', r"Var has no compiled form: .*name actions in the rule's head"),
    ("context == {now: 1}", r"Var has no compiled form"),
    ("{now: 1} == {now: 1}", r"Record has no compiled form: compare each field"),
    ('decimal("1.0").lessThan(decimal("2.0"))', r"decimal_less_than has no compiled form: facts are strings"),
    ('decimal("1.0") == decimal("1.0")', r"decimal has no compiled form: facts are strings"),
    ('ip("10.0.0.1").isIpv4()', r"is_ipv4 has no compiled form"),
    ('ip("10.0.0.1").isInRange(ip("10.0.0.0/8"))', r"is_in_range has no compiled form"),
    ('datetime("2026-01-01") == datetime("2026-01-01")', r"datetime has no compiled form"),
    ('duration("1d").toHours() > 5', r"to_hours has no compiled form"),
    ("context.now > 9223372036854775808", r"integer literal `9223372036854775808` is too large: correct the rule"),
    ('principal == Nobody::"x"', r"unrecognized entity type `Nobody`: correct the rule"),
    ("resource.colour == 1", r"attribute `colour` on entity type `Notice` not found: correct the rule"),
    ("context.today == 1", r"attribute `today` .*not found"),
    ("principal.mandates.contains(1)", r".*correct the rule, or declare it"),
    ("resource.kind == resource.owner", r".*correct the rule, or declare it"),
    ("resource.exercise == 1", r".*correct the rule, or declare it"),
    ("[1, true].contains(resource.exercise)", r".*correct the rule, or declare it"),
    ("[].contains(resource.kind)", r".*correct the rule, or declare it"),
    ("resource.kind", r".*correct the rule, or declare it"),
    ("1", r".*correct the rule, or declare it"),
    # Cedar does not look at what a constant keeps it from, or answers before it looks
    ("false && resource.kind < 3", r"less takes no String and Long: ask of a fact what its type"),
    ("resource.exercise || !(true || resource.retain_until < resource.kind)", r"less takes no Long and String"),
    ('principal == Member::"M0" && principal.mandates >= 3', r"greater_eq takes no Set<String> and Long"),
    ('false && resource.kind.containsAny(["a"])', r"contains_any takes no String and Set<String>"),
    ("false && resource.areas.containsAll([1])", r"contains_all takes no Set<String> and Set<Long>"),
    ('false && [1, "a"].contains(1)', r"contains takes no Set<Long or String> and Long"),
    ("false && resource.kind.isEmpty()", r"is_empty takes no String"),
    ("false && principal in [1]", r"in takes no Bureau and Set<Long>"),
    ("false && !resource.kind", r"not takes no String"),
    ("true || resource.kind", r"or takes no Bool and String"),
    ("1 == true", r"eq takes no Long and Bool"),
    ('Member::"M0" == "M0"', r"eq takes no Member and String"),
    ('Member::"A/B" == resource.owner', r'Member::"A/B" has no compiled form: a member is Member::"AT"'),
    ('Bureau::"AT" == resource.issuer', r'Bureau::"AT" has no compiled form: a member is'),
]


@pytest.mark.parametrize(("condition", "reason"), OUTSIDE, ids=[each for each, _ in OUTSIDE])
def test_what_is_outside_the_subset_is_refused_with_file_line_and_reason(condition: str, reason: str) -> None:
    directory, annex = invented.world(random.Random(condition))
    with pytest.raises(VersionRefusedError, match=rf"policies: one\.cedar:5: {reason}"):
        Rules(read_rules(invented.policies(when(condition))), directory, annex)


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        (
            "permit (principal == ?principal, action, resource);",
            r"this is something else than a plain rule: write a template",
        ),
        (
            "permit (principal in ?principal, action, resource);",
            r"this is something else than a plain rule: write a template",
        ),
        ('permit (principal, action, resource == Notice::"n");', r"a rule for one notice only"),
        ('permit (principal, action, resource in Notice::"n");', r"a rule for one notice only"),
        ("permit (principal is Member, action, resource);", r""),
        ('permit (principal, action == Action::"fly", resource);', r"unrecognized action `Action::\"fly\"`: correct"),
        ('permit (principal, action in [Action::"see", Action::"fly"], resource);', r"unrecognized action"),
        ('permit (principal in Group::"g", action, resource);', r"unrecognized entity type `Group`"),
        ("permit (principal, action);", r".*correct the rule that begins here"),
        ("permit (principal, action, resource) when { true }", r".*correct the rule that begins here"),
        ("allow (principal, action, resource);", r".*correct the rule that begins here"),
    ],
)
def test_a_head_outside_the_subset_is_refused_with_file_line_and_reason(rule: str, reason: str) -> None:
    with pytest.raises(VersionRefusedError, match=rf"policies: one\.cedar:5: {reason}"):
        read_rules(invented.policies(TWO + rule))


# Groups of actions


BEFORE = PolicySet.of(
    {
        **PACKAGED.files,
        SCHEMA: PACKAGED.files[SCHEMA].replace("  holders: Set<Bureau>,\n", ""),
        "12-agreement.cedar": PACKAGED.files["12-agreement.cedar"].replace(
            "unless { resource.holders.contains(principal) };", ";"
        ),
        "cases/12-agreement.toml": PACKAGED.files["cases/12-agreement.toml"].partition("[[case]]")[0]
        + '[[case]]\nname = "n"\nnotice = { issuer = "AT/ncb", agreements = ["old-circle"] }\nreceive = []\n',
    }
)
"""A set as it was in force before rules could ask who holds what a correction corrects."""


def test_a_set_of_before_a_fact_came_goes_on_as_it_was() -> None:
    chance = random.Random(4)
    directory, annex = invented.world(chance)
    rules, reference = Rules.load(BEFORE, directory, annex), Reference(BEFORE, directory, annex)
    asked = [(bureau, "receive") for bureau in directory.bureaus_in(directory.everyone)]
    for _ in range(20):
        likeness.compare(rules, reference, directory, invented.notice(chance, directory, rules.literals), asked)


GROUPED = PACKAGED.files[SCHEMA].replace("action see;", "action see, personal;\naction whereabouts in [personal];")


def test_a_group_of_actions_reaches_what_cedar_says_it_reaches() -> None:
    assert "  in [see] appliesTo" in GROUPED
    schema = GROUPED.replace("see_location, ", "", 1).replace(
        "action\n", "action see_location in [see, whereabouts] appliesTo "
        "{ principal: Bureau, resource: Notice, context: { now: Long } };\naction\n", 1,
    )  # fmt: skip
    rule = 'forbid (principal, action in [Action::"personal", Action::"receive"], resource);'
    text = f"{invented.head('all')}permit (principal, action, resource);\n{invented.head('group')}{rule}"
    policies = PolicySet.of({SCHEMA: schema, "one.cedar": text})
    assert read_rules(policies)[1].actions == {"see_location", "receive"}
    chance = random.Random(1)
    directory, annex = invented.world(chance)
    rules = Rules(read_rules(policies), directory, annex)
    compare(rules, Reference(policies, directory, annex), directory, likeness.made_up(chance, directory))


# The generator


def test_the_inventions_cover_the_whole_subset_and_are_not_one_sided() -> None:
    ops, names, answers = Counter[str](), set[str](), Counter[bool]()
    for seed in range(150):
        chance = random.Random(seed)
        directory, annex = invented.world(chance)
        policies = invented.policies(Author(chance, directory).rules())
        read = read_rules(policies)
        for each in read:
            for part in parts(each.condition):
                if isinstance(part, Apply):
                    ops[part.op] += 1
                if isinstance(part, Attribute):
                    names.add(f"{part.of}.{part.name}")
        if seed % 3 == 0:
            asked = everything(directory)
            found = Reference(policies, directory, annex).answers(invented.notice(chance, directory), asked)
            answers.update(each.allowed for each in found)
    assert set(ops) == {*masks._OPERATORS, "and", "or", "not"}
    assert names == {f"notice.{each}" for each in likeness.TYPES} | {f"principal.{each}" for each in masks.PRINCIPAL}
    assert min(answers[True], answers[False]) > sum(answers.values()) // 5


def parts(expression: Expression) -> Iterator[Expression]:
    """An expression and everything in it."""
    yield expression
    if isinstance(expression, Apply):
        for each in expression.operands:
            yield from parts(each)


def test_every_attribute_of_a_bureau_is_known_to_the_generator() -> None:
    assert set(invented.PRINCIPAL) == masks.PRINCIPAL
