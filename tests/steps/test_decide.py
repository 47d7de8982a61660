"""Who receives a notice is the meet of four terms, one of them the policy's; holders are told whatever it says."""

import random
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import cases
from broker.cases import World, WrittenNotice
from broker.decide import Subscriptions, View, decide, facts
from broker.notice import (
    KINDS,
    Compartment,
    Decision,
    Envelope,
    Header,
    Holder,
    Opened,
    Reference,
    Routing,
    RuleHit,
    Verified,
)
from broker.rules import SCHEMA, PolicySet, Rules, read_rules

PACKAGED = PolicySet.packaged()
NAMES = ("AT/ncb", "AT/border", "GE/ncb", "GE/analysis", "LV/ncb", "RU/ncb", "US/ncb")
WORLD = World(
    bureaus={name: ["criminal-investigation"] for name in NAMES},
    agreements={"project-millennium": ["AT", "GE", "RU"]},
    suspended_agreements={"old-circle": ["AT", "GE", "LV"]},
)
DIRECTORY, ANNEX = cases.world_of(WORLD)


def of_one_rule(scope: str) -> PolicySet:
    text = f'// All of it.\n@id("all") @owner("o") @basis("b")\npermit ({scope});'
    return PolicySet.of({SCHEMA: PACKAGED.files[SCHEMA], "one.cedar": text})


READ, READ_ALL = read_rules(PACKAGED), read_rules(of_one_rule("principal, action, resource"))
PERMISSIVE = Rules(READ_ALL, DIRECTORY, ANNEX)
RULES = Rules(READ, DIRECTORY, ANNEX)
OPENED = Opened(bytes(32), b"")
ALL = ~0
EVERYBODY = dict.fromkeys(NAMES, ("*",))


def notice(present: int = ALL, **fields: object) -> Verified:
    written = WrittenNotice.model_validate({"issuer": "AT/ncb", **fields})
    header, routing = cases.notice_of(written, DIRECTORY.federation)
    return verified(header, routing, present)


def verified(header: Header, routing: Routing, present: int = ALL) -> Verified:
    listed = present & ((1 << len(header.compartments)) - 1)
    compartments = tuple(
        Compartment(slot.name, OPENED if listed >> i & 1 else None) for i, slot in enumerate(header.compartments)
    )
    envelope = Envelope(b"", bytes(32), bytes(64), b"")
    return Verified(header, bytes(32), routing, OPENED, compartments, listed | 1, envelope)


def about(kind: str, relation: str, present: int = ALL, **fields: object) -> Verified:
    plain = notice(present, kind=kind, **fields)
    reference = Reference("AT/ncb", bytes(16), bytes(32), relation)
    return replace(plain, header=replace(plain.header, references=(reference,)))


def view(rules: Rules = PERMISSIVE, patterns: Mapping[str, tuple[str, ...]] | None = None) -> View:
    return View(DIRECTORY, rules, Subscriptions.of(DIRECTORY, EVERYBODY if patterns is None else patterns))


def received(decision: Decision) -> set[str]:
    return {each.bureau for each in decision.recipients}


def index(bureau: str) -> int:
    return DIRECTORY.bureaus[bureau].index


# The four terms


def test_even_where_all_is_permitted_nobody_outside_the_audience_receives() -> None:
    decision = decide(notice(to=["GE/ncb"]), view(), 0)
    assert decision.terms.allowed == DIRECTORY.everyone
    assert received(decision) == {"GE/ncb"}


def test_even_where_all_is_permitted_the_denied_receive_nothing() -> None:
    assert received(decide(notice(everyone=True, deny=["RU", "GE/ncb"]), view(), 0)) == {
        "AT/border", "GE/analysis", "LV/ncb", "US/ncb",
    }  # fmt: skip
    assert received(decide(notice(to=["RU"], deny=["RU/ncb"]), view(), 0)) == set()


def test_even_where_all_is_permitted_an_empty_audience_is_nobody() -> None:
    decision = decide(notice(), view(), 0)
    assert decision.recipients == ()
    assert decision.warnings == ("reached-nobody",)


def test_within_the_audience_only_the_addressed_the_subscribed_and_all_for_flash_are_reached() -> None:
    some = {"LV/ncb": ("case",)}
    assert received(decide(notice(everyone=True), view(patterns=some), 0)) == {"LV/ncb"}
    assert received(decide(notice(agreements=["project-millennium"]), view(patterns=some), 0)) == set()
    assert received(decide(notice(to=["GE"]), view(patterns={}), 0)) == {"GE/ncb", "GE/analysis"}
    flash = decide(notice(agreements=["project-millennium"], urgency="flash"), view(patterns={}), 0)
    assert received(flash) == {"AT/border", "GE/ncb", "GE/analysis", "RU/ncb"}
    assert received(decide(notice(everyone=True, urgency="urgent"), view(patterns={}), 0)) == set()


def test_a_subscription_opens_no_audience() -> None:
    assert received(decide(notice(to=["LV/ncb"]), view(), 0)) == {"LV/ncb"}


def test_what_the_policy_does_not_allow_is_not_received() -> None:
    assert received(decide(notice(everyone=True, purpose="sanctions"), view(RULES), 0)) == set()
    assert len(received(decide(notice(everyone=True), view(RULES), 0))) == 6


def test_a_suspended_agreement_opens_no_audience_even_where_all_is_permitted() -> None:
    assert received(decide(notice(agreements=["old-circle"]), view(), 0)) == set()
    both = decide(notice(agreements=["old-circle", "project-millennium"], to=["LV/ncb"]), view(), 0)
    assert received(both) == {"AT/border", "GE/ncb", "GE/analysis", "RU/ncb", "LV/ncb"}


def test_the_issuing_bureau_never_receives_its_own_notice_but_others_of_its_member_may() -> None:
    decision = decide(notice(to=["AT"], urgency="flash"), view(), 0)
    assert received(decision) == {"AT/border"}


def test_a_suspended_member_receives_nothing_even_where_all_is_permitted() -> None:
    directory, annex = cases.world_of(WORLD.model_copy(update={"suspended": ["RU"]}))
    now = View(directory, Rules(READ_ALL, directory, annex), Subscriptions.of(directory, EVERYBODY))
    given = notice(to=["RU", "RU/ncb", "LV"], agreements=["project-millennium"], urgency="flash")
    assert "RU/ncb" not in received(decide(given, now, 0))
    assert "RU/ncb" not in received(decide(notice(everyone=True), now, 0))


@settings(max_examples=300)
@given(st.data())
def test_receivers_are_exactly_the_meet_of_the_four_terms(data: st.DataObject) -> None:
    some = st.lists(st.sampled_from([*NAMES, "AT", "GE", "LV", "RU", "US"]), max_size=4)
    everyone = data.draw(st.booleans())
    to, deny = ([] if everyone else data.draw(some)), data.draw(some)
    circles = [] if everyone else data.draw(st.lists(st.sampled_from(["project-millennium", "old-circle"]), max_size=2))
    subscribed = set(data.draw(st.lists(st.sampled_from(NAMES))))
    flash, permissive = data.draw(st.booleans()), data.draw(st.booleans())
    given_notice = notice(
        everyone=everyone, to=to, deny=deny, agreements=circles, urgency="flash" if flash else "routine",
        confidentiality=data.draw(st.sampled_from(["restricted", "secret"])),
    )  # fmt: skip
    rules = PERMISSIVE if permissive else RULES
    decision = decide(given_notice, view(rules, dict.fromkeys(subscribed, ("case",))), 0)
    allowed = DIRECTORY.bureaus_in(rules.judge(facts(given_notice, view(rules), 0)).receive)
    expected = {
        name
        for name in NAMES
        if name in allowed
        and name != "AT/ncb"
        and (everyone or _named(name, to) or ("project-millennium" in circles and name[:2] in ("AT", "GE", "RU")))
        and not _named(name, deny)
        and (_named(name, to) or name in subscribed or flash)
    }
    assert received(decision) == expected
    assert decision.terms.receivers == DIRECTORY.mask(expected)
    assert [each.index for each in decision.recipients] == sorted(each.index for each in decision.recipients)
    assert ("reached-nobody" in decision.warnings) == (not expected)


def _named(name: str, names: list[str]) -> bool:
    return name in names or name.partition("/")[0] in names


# What is shown


def test_shown_is_what_is_permitted_and_present_and_never_routing() -> None:
    lines = decide(notice(to=["GE/ncb", "LV"], minor="yes"), view(RULES), 0).recipients
    shown = {each.bureau: _shown(each.shown) for each in lines}
    assert shown["GE/ncb"] == set(KINDS["person"])
    assert shown["LV/ncb"] == {"warnings", "warrants", "contact"}


def test_an_absent_compartment_is_not_shown() -> None:
    (line,) = decide(notice(0b1011, to=["GE/ncb"]), view(RULES), 0).recipients
    assert _shown(line.shown) == {"identity", "description"}


def test_a_bureau_that_sees_no_compartment_still_receives_the_header() -> None:
    decision = decide(notice(0b11, to=["LV"], minor="yes"), view(RULES), 0)
    assert [(each.bureau, each.shown) for each in decision.recipients] == [("LV/ncb", 0)]
    assert decision.warnings == ()


def test_even_where_all_is_permitted_routing_and_unknown_compartments_are_withheld_from_all() -> None:
    plain = notice(to=["GE/ncb"])
    slots = plain.header.compartments
    renamed = replace(plain.header, compartments=(*slots[:2], replace(slots[2], name="rumours"), *slots[3:]))
    (line,) = decide(verified(renamed, plain.routing), view(), 0).recipients
    assert line.shown & 0b111 == 0b010


def test_warnings_are_shown_wherever_the_identity_is() -> None:
    chance = random.Random(7)
    for _ in range(200):
        made = notice(
            everyone=True,
            minor=chance.choice(["yes", "no", "unknown"]),
            subject_categories=chance.sample(["victim", "witness", "suspect"], chance.randint(0, 3)),
            purpose=chance.choice(["criminal-investigation", "missing-persons"]),
        )
        verdict = RULES.judge(facts(made, view(RULES), 0))
        assert verdict.see["identity"] & ~verdict.see["warnings"] == 0


def _shown(mask: int) -> set[str]:
    names = ("routing", *KINDS["person"])
    return {name for i, name in enumerate(names) if mask >> i & 1}


def test_a_decision_names_the_rules_that_decided() -> None:
    decision = decide(notice(everyone=True, deny=["RU"]), view(RULES), 0)
    assert RuleHit("owner-denial", DIRECTORY.mask(["RU"])) in decision.hits
    assert decision.state == "routed"


# Holders


HOLDERS = (Holder(index("RU/ncb"), (4, 5)), Holder(index("GE/ncb"), (1,)))


@pytest.mark.parametrize("rules", [PERMISSIVE, RULES])
def test_a_withdrawal_reaches_every_holder_and_nobody_else_whatever_the_policy_says(rules: Rules) -> None:
    withdrawal = about(
        "withdrawal", "withdraws", deny=["RU"], everyone=True, purpose="sanctions", retain_until=1, urgency="flash",
        confidentiality="secret",
    )  # fmt: skip
    decision = decide(withdrawal, view(rules), 10, HOLDERS)
    lines = [(each.bureau, each.shown, each.erases, each.replaces) for each in decision.recipients]
    assert lines == [("GE/ncb", 0b10, (1,), ()), ("RU/ncb", 0b10, (4, 5), ())]
    assert decision.terms.receivers == DIRECTORY.mask(["GE/ncb", "RU/ncb"])
    assert decision.warnings == ()


def test_a_withdrawal_reaches_a_holder_whose_member_was_suspended_since() -> None:
    directory, annex = cases.world_of(WORLD.model_copy(update={"suspended": ["RU"]}))
    now = View(directory, Rules(READ, directory, annex), Subscriptions.of(directory, {}))
    withdrawal = about("withdrawal", "withdraws", everyone=True)
    assert received(decide(withdrawal, now, 0, HOLDERS)) == {"GE/ncb", "RU/ncb"}


def test_a_restriction_reaches_the_holders_and_erases_nothing() -> None:
    decision = decide(about("restriction", "restricts", everyone=True), view(RULES), 0, HOLDERS)
    assert [(each.bureau, each.erases, each.replaces) for each in decision.recipients] == [
        ("GE/ncb", (), ()), ("RU/ncb", (), ()),
    ]  # fmt: skip


def test_a_withdrawal_that_nobody_holds_warns() -> None:
    decision = decide(about("withdrawal", "withdraws", everyone=True), view(RULES), 0)
    assert decision.recipients == ()
    assert decision.warnings == ("reached-nobody",)


def test_a_holder_that_the_directory_has_lost_is_named_as_not_reached() -> None:
    lost = decide(about("withdrawal", "withdraws", everyone=True), view(), 0, (*HOLDERS, Holder(99, (1,))))
    assert received(lost) == {"GE/ncb", "RU/ncb"}
    assert lost.warnings == ("holders-not-reached",)


def test_a_withdrawal_shows_what_is_present_but_routing() -> None:
    (line, _) = decide(about("withdrawal", "withdraws", 0b1, everyone=True), view(), 0, HOLDERS).recipients
    assert line.shown == 0


def test_a_correction_goes_to_whom_the_policy_names_and_replaces_what_they_had() -> None:
    correction = about("person", "corrects", to=["GE", "RU"])
    decision = decide(correction, view(RULES), 0, HOLDERS)
    assert {each.bureau: each.replaces for each in decision.recipients} == {
        "GE/ncb": (1,), "GE/analysis": (), "RU/ncb": (4, 5),
    }  # fmt: skip
    assert decision.warnings == ()


def test_a_correction_that_misses_a_holder_warns_its_issuer() -> None:
    decision = decide(about("person", "corrects", to=["GE"]), view(RULES), 0, HOLDERS)
    assert received(decision) == {"GE/ncb", "GE/analysis"}
    assert decision.warnings == ("holders-not-reached",)
    nobody = decide(about("person", "corrects", to=["GE"], deny=["GE"]), view(RULES), 0, HOLDERS)
    assert nobody.warnings == ("holders-not-reached", "reached-nobody")


IN_THE_CIRCLE = (Holder(index("GE/ncb"), (1,)), Holder(index("RU/ncb"), (4, 5)))
"""Of the two holders GE/ncb is of the suspended old-circle."""


@pytest.mark.parametrize("rules", [PERMISSIVE, RULES])
@pytest.mark.parametrize("patterns", [EVERYBODY, {}], ids=["all subscribed", "nobody subscribed"])
def test_under_a_suspended_agreement_a_correction_goes_to_those_of_its_circle_who_hold_what_it_corrects(
    rules: Rules, patterns: Mapping[str, tuple[str, ...]]
) -> None:
    correction = about("person", "corrects", agreements=["old-circle"])
    decision = decide(correction, view(rules, patterns), 0, IN_THE_CIRCLE)
    assert {each.bureau: each.replaces for each in decision.recipients} == {"GE/ncb": (1,)}
    assert decision.holders == DIRECTORY.mask(["GE/ncb", "RU/ncb"])
    assert decision.warnings == ("holders-not-reached",)
    assert decide(correction, view(rules, patterns), 0).recipients == ()


@pytest.mark.parametrize("rules", [PERMISSIVE, RULES])
def test_a_suspended_agreement_carries_no_correction_past_the_issuers_denial_nor_to_another_circle(
    rules: Rules,
) -> None:
    denied = about("person", "corrects", agreements=["old-circle"], deny=["GE"])
    assert decide(denied, view(rules), 0, IN_THE_CIRCLE).recipients == ()
    unnamed = about("person", "corrects", to=["LV/ncb"])
    assert received(decide(unnamed, view(rules), 0, IN_THE_CIRCLE)) == {"LV/ncb"}


@pytest.mark.parametrize("audience", [{"agreements": ["project-millennium"]}, {"everyone": True}])
def test_a_correction_reaches_who_holds_what_it_corrects_subscribed_still_or_not(audience: dict[str, object]) -> None:
    correction = about("person", "corrects", ALL, **audience)
    decision = decide(correction, view(RULES, {}), 0, IN_THE_CIRCLE)
    assert {each.bureau: each.replaces for each in decision.recipients} == {"GE/ncb": (1,), "RU/ncb": (4, 5)}
    assert decision.warnings == ()
    assert decide(correction, view(RULES, {}), 0).recipients == ()
    assert received(decide(correction, view(RULES, {"LV/ncb": ("*",)}), 0, IN_THE_CIRCLE)) >= {"GE/ncb", "RU/ncb"}


@pytest.mark.parametrize("bound", [{"to": ["LV/ncb"]}, {"everyone": True, "deny": ["GE", "RU"]}])
def test_it_reaches_no_holder_outside_the_audience_or_denied(bound: dict[str, object]) -> None:
    decision = decide(about("person", "corrects", ALL, **bound), view(RULES, {}), 0, IN_THE_CIRCLE)
    assert not received(decision) & {"GE/ncb", "RU/ncb"}
    assert "holders-not-reached" in decision.warnings


@pytest.mark.parametrize("relation", ["cites", "answers"])
def test_what_corrects_nothing_goes_to_no_holder_by_a_suspended_agreement(relation: str) -> None:
    decision = decide(about("person", relation, agreements=["old-circle"]), view(), 0, IN_THE_CIRCLE)
    assert (decision.recipients, decision.holders) == ((), None)


def test_a_correction_under_an_agreement_in_force_and_a_suspended_one_reaches_the_one_and_the_others_holders() -> None:
    both = about("person", "corrects", agreements=["old-circle", "project-millennium"])
    decision = decide(both, view(RULES), 0, (Holder(index("LV/ncb"), (2,)),))
    assert {each.bureau: each.replaces for each in decision.recipients} == {
        "AT/border": (), "GE/analysis": (), "GE/ncb": (), "LV/ncb": (2,), "RU/ncb": (),
    }  # fmt: skip


def test_a_bureau_of_a_suspended_member_is_no_holder_for_the_rules() -> None:
    directory, annex = cases.world_of(WORLD.model_copy(update={"suspended": ["GE"]}))
    now = View(directory, Rules(READ, directory, annex), Subscriptions.of(directory, EVERYBODY))
    decision = decide(about("person", "corrects", agreements=["old-circle"]), now, 0, IN_THE_CIRCLE)
    assert (decision.recipients, decision.holders) == ((), directory.mask(["RU/ncb"]))


def test_a_notice_that_corrects_nothing_replaces_nothing() -> None:
    decision = decide(about("person", "cites", to=["GE"]), view(RULES), 0, HOLDERS)
    assert all(each.replaces == () for each in decision.recipients)
    assert decision.warnings == ()


# Review


REVIEWED, _ = cases.world_of(WORLD.model_copy(update={"reviewers": ["AT/border", "GE/ncb", "LV/ncb", "RU/ncb"]}))


def test_even_where_all_may_review_it_waits_with_nobody_it_is_kept_from() -> None:
    """Not with its own member, nor whom it denies, nor whom it protects from."""
    rules = Rules(read_rules(of_one_rule('principal, action == Action::"review", resource')), REVIEWED, ANNEX)
    now = View(REVIEWED, rules, Subscriptions.of(REVIEWED, EVERYBODY))
    assert received(decide(notice(to=["US"]), now, 0)) == {"GE/ncb", "LV/ncb", "RU/ncb"}
    decision = decide(notice(to=["US"], deny=["GE"], protected_from=["RU"]), now, 0)
    assert (decision.state, received(decision)) == ("held", {"LV/ncb"})
    nobody = decide(notice(to=["US"], deny=["GE"], protected_from=["RU", "LV"]), now, 0)
    assert (nobody.state, nobody.recipients, nobody.warnings) == ("held", (), ("no-reviewer",))


def test_what_is_released_replaces_what_its_reviewers_were_given() -> None:
    given = (Holder(index("LV/ncb"), (7,)),)
    decision = decide(notice(to=["LV/ncb", "GE/ncb"]), view(), 0, released=True, reviewers=given)
    assert {each.bureau: each.replaces for each in decision.recipients} == {"LV/ncb": (7,), "GE/ncb": ()}


# Subscriptions


@pytest.mark.parametrize(
    ("pattern", "topic", "reached"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.b.c", False),
        ("a.b", "a", False),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", True),
        ("a.*", "a", False),
        ("a.*", "ab.c", False),
        ("a.b.*", "a.c.d", False),
        ("*", "anything.at.all", True),
        ("a*", "ab", False),
        ("", "a", False),
    ],
)
def test_a_pattern_is_exact_or_all_below_or_everything(pattern: str, topic: str, reached: bool) -> None:
    subscriptions = Subscriptions.of(DIRECTORY, {"LV/ncb": (pattern,), "XX/ncb": ("*",)})
    assert subscriptions.mask([topic, "z"]) == (DIRECTORY.mask(["LV/ncb"]) if reached else 0)


def test_a_changed_subscription_replaces_that_bureaus_and_leaves_the_others() -> None:
    before = Subscriptions.of(DIRECTORY, {"LV/ncb": ("a.*",), "GE/ncb": ("a.*",)})
    after = before.changed("LV/ncb", ("b",))
    assert after.mask(["a.x"]) == DIRECTORY.mask(["GE/ncb"])
    assert after.mask(["b"]) == DIRECTORY.mask(["LV/ncb"])
    assert before.mask(["a.x"]) == DIRECTORY.mask(["GE/ncb", "LV/ncb"])


def test_a_topic_of_many_dots_costs_no_more_than_the_longest_pattern() -> None:
    subscriptions = Subscriptions.of(DIRECTORY, {"LV/ncb": ("a.a.*",)})
    assert len(list(subscriptions._prefixes("a." * 100_000))) == 2
    assert subscriptions.mask(["a." * 100_000]) == DIRECTORY.mask(["LV/ncb"])
