"""What no policy set may do: let in whom the issuer kept out, or get in the way of an end; proven, not tried."""

from __future__ import annotations

import json
import random

import pytest

from broker import bounds, likeness
from broker.bounds import UNASKED
from broker.decide import decide
from broker.errors import VersionRefusedError
from broker.notice import KINDS, Holder
from broker.rules import PolicySet
from tests.policy.remembered import NOW, PACKAGED, Place, with_rule, without

CASES = '[world.bureaus]\n"AT/ncb" = []\n[[case]]\nname = "n"\nnotice = { issuer = "AT/ncb" }\nreceive = []\n'
HEAD = '// A rule.\n@id("more") @owner("o") @basis("b")\n'


def check(policies: PolicySet) -> None:
    place = Place(policies)
    bounds.check(place.rules, place.read, place.directory)


def owner(text: str) -> PolicySet:
    """The packaged set with another file on the owner's terms."""
    return PolicySet.of({**PACKAGED.files, "01-owner.cedar": text})


SHIELD = "forbid (principal, action, resource)"
AUDIENCE = (
    f'// Audience.\n@id("a") @owner("o") @basis("b")\n{SHIELD} unless {{ resource.audience.contains(principal) }};\n'
)
DENIAL = f'// Denial.\n@id("d") @owner("o") @basis("b")\n{SHIELD} when {{ resource.denied.contains(principal) }};\n'


def test_the_packaged_set_keeps_the_bounds() -> None:
    check(PACKAGED)


def test_other_words_for_the_same_are_understood() -> None:
    check(owner(AUDIENCE + DENIAL))
    check(owner(AUDIENCE.replace("unless { ", "when { !") + DENIAL))
    both = "!resource.audience.contains(principal) || resource.denied.contains(principal) || resource.exercise"
    check(owner(f"{HEAD}{SHIELD} when {{ {both} }};"))


def test_what_keeps_the_bounds_lets_nobody_in_on_any_notice_that_a_seed_makes_up() -> None:
    wide = f'{HEAD}permit (principal, action in [Action::"receive", Action::"see"], resource);'
    for policies in (PACKAGED, with_rule(wide, CASES), owner(AUDIENCE + DENIAL)):
        place = Place(policies)
        bounds.check(place.rules, place.read, place.directory)
        chance = random.Random(8)
        for _ in range(200):
            facts = likeness.made_up(chance, place.directory, place.rules.literals)
            verdict = place.rules.judge(facts)
            for mask in (verdict.receive, *verdict.see.values()):
                assert not mask & (~facts.audience | facts.denied)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{HEAD}permit (principal, action, resource);", "is not in the audience"),
        (AUDIENCE, "is on the deny list"),
        (DENIAL, "is not in the audience"),
        (AUDIENCE.replace("};", "|| resource.exercise };") + DENIAL, "is not in the audience"),
        (AUDIENCE + DENIAL.replace("};", '&& resource.kind == "person" };'), "is on the deny list"),
        (AUDIENCE.replace("action,", 'action == Action::"receive",') + DENIAL, "forbids see_"),
        (AUDIENCE.replace("principal, action", 'principal in Member::"RU", action') + DENIAL, "is not in the audience"),
    ],
)  # fmt: skip
def test_a_set_that_could_let_in_whom_the_issuer_kept_out_is_refused(text: str, said: str) -> None:
    with pytest.raises(VersionRefusedError, match=said):
        check(owner(text))


@pytest.mark.parametrize(
    "condition",
    [
        'when { resource.kind == "withdrawal" }',
        'when { ["withdrawal", "restriction"].contains(resource.kind) && resource.minor == "yes" }',
        'when { resource.kind == "restriction" } unless { resource.exercise }',
        f"unless {{ {json.dumps(sorted(set(KINDS) - UNASKED))}.contains(resource.kind) }}",
        'when { resource.kind == "approval" }',
    ],
)
def test_a_rule_that_is_made_to_stop_withdrawals_is_refused_with_its_place(condition: str) -> None:
    rule = f"{HEAD}forbid (principal, action, resource) {condition};"
    with pytest.raises(VersionRefusedError, match=r"90-more\.cedar:1: rule more is made to stop .*take it out"):
        check(with_rule(rule, CASES))


def test_a_rule_on_other_kinds_is_none_on_withdrawals() -> None:
    check(with_rule(f'{HEAD}forbid (principal, action, resource) when {{ resource.kind == "network" }};', CASES))
    check(with_rule(f'{HEAD}forbid (principal, action, resource) when {{ resource.kind != "person" }};', CASES))


def test_a_rule_that_stops_corrections_is_refused() -> None:
    rule = f"{HEAD}forbid (principal, action, resource) when {{ resource.corrects }};"
    with pytest.raises(VersionRefusedError, match=r"90-more\.cedar:1: rule more lets a correction reach fewer"):
        check(with_rule(rule, CASES))


@pytest.mark.parametrize(
    ("rule", "condition"),
    [
        ("forbid", "when { resource.holders.contains(principal) }"),
        ("forbid", "when { resource.corrects && !resource.holders.contains(principal) }"),
    ],
)
def test_a_rule_that_keeps_corrections_from_some_is_refused(rule: str, condition: str) -> None:
    with pytest.raises(VersionRefusedError, match=r"90-more\.cedar:1: rule more lets a correction reach fewer"):
        check(with_rule(f"{HEAD}{rule} (principal, action, resource) {condition};", CASES))


def test_a_permit_that_first_versions_alone_have_is_refused() -> None:
    text = PACKAGED.files["02-mandate.cedar"]
    bent = text.replace("(resource.purpose) }", "(resource.purpose) && !resource.corrects }")
    with pytest.raises(VersionRefusedError, match=r"rule mandate-receive lets a correction reach fewer"):
        check(PolicySet.of({**PACKAGED.files, "02-mandate.cedar": bent}))


def test_corrections_may_reach_further() -> None:
    rule = f"{HEAD}permit (principal, action, resource) when {{ resource.corrects }};"
    check(with_rule(rule, CASES))


@pytest.mark.parametrize("kind", ["withdrawal", "restriction"])
def test_under_a_set_that_forbids_everything_an_end_still_reaches_every_holder(kind: str) -> None:
    place = Place(with_rule(f"{HEAD}forbid (principal, action, resource);", CASES))
    check(place.policies)
    holders = tuple(Holder(index, (1,)) for index in range(1, 7))
    made = place.notice(kind=kind, relation=f"{kind[:8]}s")
    assert {each.index for each in decide(made, place.view, NOW, holders).recipients} == set(range(1, 7))
    assert decide(place.notice(everyone=True), place.view, NOW).recipients == ()


def test_a_set_without_the_rules_of_the_owner_is_refused() -> None:
    with pytest.raises(VersionRefusedError, match="add forbid"):
        check(without("01-owner"))
