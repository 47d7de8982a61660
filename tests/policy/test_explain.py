"""Every bureau's account: which terms and rules are in the way, on which facts, and that mending them is enough."""

from __future__ import annotations

import json
import random
from typing import Any

from broker import cases
from broker.decide import Subscriptions, View, decide
from broker.directory import Directory
from broker.explain import Account, accounts, of_prospect, of_record
from broker.members import canonical, parse
from broker.notice import Holder, Verified
from broker.rules import Rules
from broker.welcome import welcome
from tests.policy.remembered import NAMES, NOW, PACKAGED, WORLD, Place

PLACE = Place(patterns={"GE/ncb": ("case",)})


def told(made: Verified, place: Place = PLACE) -> dict[str, Account]:
    ground = of_prospect(made, made.present, place.view, place.read, NOW, place.annex)
    return {each.bureau: each for each in accounts(ground)}


def terms(account: Account) -> list[tuple[str, str]]:
    return [(each.term, each.code) for each in account.obstacles]


def test_every_term_that_is_in_the_way_is_named_not_only_the_first() -> None:
    found = told(PLACE.notice(to=["LV"], deny=["RU"], confidentiality="secret", purpose="sanctions"))
    assert terms(found["RU/ncb"]) == [
        ("deny", "denied-by-you"), ("audience", "not-in-audience"), ("policy", "clearance"),
        ("policy", "mandate-receive"), ("reach", "no-subscription"),
    ]  # fmt: skip
    assert terms(found["LV/ncb"]) == [("policy", "clearance"), ("policy", "mandate-receive")]
    assert terms(found["AT/ncb"]) == [("issuer", "issuer")]


def test_the_first_obstacle_gives_the_code_and_the_sentence() -> None:
    found = told(PLACE.notice(everyone=True, confidentiality="confidential"))["LV/ncb"]
    assert (found.receives, found.code) == (False, "clearance")
    assert found.sentence.startswith("Nothing goes to a bureau whose clearance")
    assert found.rules == ("clearance",)


def test_a_deny_says_on_which_facts_and_what_would_have_to_change() -> None:
    (first, *_) = told(PLACE.notice(to=["LV"], purpose="sanctions"))["LV/ncb"].obstacles
    assert first.facts == ("LV/ncb has a mandate for criminal-investigation", "its purpose is sanctions")
    assert first.change.startswith("the directory would have to give LV/ncb a mandate for sanctions, or ")
    assert first.change.endswith("would have to change rule mandate-receive (02-mandate.cedar:1)")


def test_a_receiver_is_told_by_which_rule_and_how_it_was_reached() -> None:
    found = told(PLACE.notice(to=["US"], agreements=["project-millennium"], minor="yes"))
    assert found["US/ncb"].rules == ("mandate-receive",)
    assert found["US/ncb"].sentence.endswith("It is addressed.")
    assert found["GE/ncb"].sentence.endswith("It has subscribed to one of the topics.")
    assert found["GE/ncb"].withheld["identity"] == ("minor-identity",)
    assert "identity" not in found["GE/ncb"].shown


def test_a_suspended_agreement_is_told_apart_from_an_audience_of_others() -> None:
    found = told(PLACE.notice(agreements=["old-circle"]))
    assert terms(found["LV/ncb"])[:2] == [("policy", "agreement-in-force"), ("audience", "not-in-audience")]
    assert "in force again" in found["LV/ncb"].obstacles[1].change
    assert "name an agreement of RU (project-millennium)" in found["RU/ncb"].obstacles[0].change


def test_a_correction_under_a_suspended_agreement_is_told_to_flow_to_who_holds_what_it_corrects() -> None:
    made = PLACE.notice(agreements=["old-circle"], corrects=True)
    recorded = PLACE.decided(made, holders=(Holder(2, (1,)),))
    told_of = accounts(of_record(recorded, PLACE.directory, PLACE.annex, PLACE.read))
    found = {each.bureau: each for each in told_of}
    assert (found["GE/ncb"].receives, found["GE/ncb"].rules) == (True, ("mandate-receive",))
    assert found["GE/ncb"].sentence.endswith("although the agreement is suspended.")
    again = accounts(of_prospect(made, made.present, PLACE.view, PLACE.read, NOW, PLACE.annex, 1 << 2))
    assert {each.bureau for each in again if each.receives} == {"GE/ncb"}
    assert not any(each.receives for each in told(made).values())
    first, second, *_ = found["LV/ncb"].obstacles
    assert (first.code, second.code) == ("agreement-in-force", "not-in-audience")
    assert "LV/ncb is not among those that hold what it corrects" in first.facts


def test_a_suspended_bureau_is_told_apart() -> None:
    place = Place(world=WORLD.model_copy(update={"suspended": ["RU"]}))
    found = told(place.notice(to=["RU"]), place)["RU/ncb"]
    assert terms(found) == [("suspended", "suspended")]
    assert found.obstacles[0].change == "the directory would have to make RU active again"


def test_under_a_grant_it_is_told_what_the_grant_names_and_what_it_keeps_back() -> None:
    grants = [["GE/ncb", ["warnings", "source"], NOW + 1], ["GE/ncb", ["location"], NOW + 1]]
    made = PLACE.notice(to=["LV/ncb", "US/ncb"], handling=["H2"], grants=[*grants, ["US/ncb", ["warnings"], NOW + 1]])
    recorded = accounts(of_record(PLACE.decided(made), PLACE.directory, PLACE.annex, PLACE.read))
    for found in (told(made), {each.bureau: each for each in recorded}):
        assert (found["GE/ncb"].shown, found["LV/ncb"].withheld) == (("warnings", "location"), {})
        assert found["GE/ncb"].withheld["identity"] == ("not-granted",)
        assert found["GE/ncb"].withheld["source"] == ("source-named",)
        assert found["US/ncb"].shown == found["LV/ncb"].shown


def random_notice(chance: random.Random) -> Verified:
    return PLACE.notice(
        to=chance.sample(NAMES, 2),
        agreements=chance.sample(["project-millennium", "old-circle"], 1),
        deny=chance.sample(NAMES, 1),
        minor=chance.choice(["yes", "no"]),
        confidentiality=chance.choice(["restricted", "secret", "confidential"]),
        present=tuple(chance.sample(["identity", "warnings", "narrative", "source"], 2)),
    )


def test_what_is_told_is_what_is_decided() -> None:
    chance = random.Random(3)
    for _ in range(60):
        made = random_notice(chance)
        place = PLACE.subscribed({name: ("case",) for name in NAMES if chance.random() < 0.5})
        lines = {each.bureau: each.shown for each in decide(made, place.view, NOW).recipients}
        names = [each.name for each in made.header.compartments]
        for each in told(made, place).values():
            assert each.receives == (each.bureau in lines) == (not each.obstacles)
            shown = {name for bit, name in enumerate(names) if lines.get(each.bureau, 0) >> bit & 1}
            assert set(each.shown) == shown


def test_the_record_of_a_decision_tells_the_same_as_the_prospect_did() -> None:
    chance = random.Random(4)
    for _ in range(40):
        made = random_notice(chance)
        later = accounts(of_record(PLACE.decided(made), PLACE.directory, PLACE.annex, PLACE.read))
        for each in later:
            before = told(made)[each.bureau]
            assert (each.receives, each.code, each.rules, each.obstacles) == (
                before.receives, before.code, before.rules, before.obstacles,
            )  # fmt: skip
            assert set(each.shown) == set(before.shown)


# Held


REVIEWED = Place(
    patterns=dict.fromkeys(("GE/ncb", "LV/ncb"), ("wanted.*",)),
    world=WORLD.model_copy(update={"reviewers": ["US/ncb", "RU/ncb", "AT/border"]}),
)


def held(**fields: Any) -> Verified:
    return REVIEWED.notice(everyone=True, topics=["wanted.red"], present=("identity", "source"), **fields)


def test_of_what_is_held_it_is_told_who_reviews_it_and_that_others_wait_for_its_release() -> None:
    found = told(held(deny=["RU"]), REVIEWED)
    assert {each.bureau for each in found.values() if each.receives} == {"US/ncb"}
    assert all(each.held for each in found.values())
    assert found["US/ncb"].rules == ("wanted-or-warning-review",)
    assert (found["US/ncb"].shown, found["US/ncb"].withheld) == (("identity",), {"source": ("held",)})
    assert terms(found["LV/ncb"]) == [("policy", "wanted-or-warning")]
    assert found["LV/ncb"].obstacles[0].change.startswith("a reviewing bureau would have to release it, or ")
    assert terms(found["RU/ncb"])[0] == ("deny", "denied-by-you")
    assert terms(found["AT/border"])[0] == ("issuer", "own-member")


def test_what_is_told_of_what_is_held_is_what_is_decided() -> None:
    for made in (held(), held(deny=["US"]), held(protected_from=["RU"]), held(handling=["H2"]), held(issuer="US/ncb")):
        given = {each.bureau for each in decide(made, REVIEWED.view, NOW).recipients}
        recorded = accounts(of_record(REVIEWED.decided(made), REVIEWED.directory, REVIEWED.annex, REVIEWED.read))
        for each in (*told(made, REVIEWED).values(), *recorded):
            assert each.receives == (each.bureau in given) == (not each.obstacles)


def test_of_what_is_held_the_record_names_no_want_of_a_subscription_for_none_was_asked() -> None:
    recorded = accounts(of_record(REVIEWED.decided(held()), REVIEWED.directory, REVIEWED.annex, REVIEWED.read))
    assert "no-subscription" not in {one.code for each in recorded for one in each.obstacles}
    assert ("reach", "no-subscription") in terms(told(held(), REVIEWED)["GE/analysis"])


def test_released_it_is_told_like_any_other() -> None:
    recorded = REVIEWED.decided(held(), releases=3)
    found = {
        each.bureau: each for each in accounts(of_record(recorded, REVIEWED.directory, REVIEWED.annex, REVIEWED.read))
    }
    assert found["LV/ncb"].receives
    assert found["LV/ncb"].rules == ("mandate-receive",)
    assert not found["LV/ncb"].held


def test_a_reviewing_bureau_learns_that_it_reviews_by_which_rule_and_nothing_of_the_routing() -> None:
    made = held(deny=["RU"], subject_categories=["witness"])
    (row,) = REVIEWED.decided(made).record.rows
    got = welcome(made.header, row.shown, "US/ncb", REVIEWED.directory, REVIEWED.read, to_review=True)
    assert got.rules == ("wanted-or-warning-review",)
    assert got.facts[0].startswith("US/ncb is a reviewing bureau")
    secret = REVIEWED.notice(everyone=True, special_categories=["military"])
    assert welcome(secret.header, 0, "US/ncb", REVIEWED.directory, REVIEWED.read, to_review=True).rules == ()
    for hidden in ("RU", "witness", "deny"):
        assert hidden not in " ".join(got.lines)


def test_an_approval_is_told_as_what_it_is() -> None:
    made = REVIEWED.notice(issuer="US/ncb", kind="approval", relation="approves", purpose="none")
    recorded = REVIEWED.decided(made)
    found = {
        each.bureau: each for each in accounts(of_record(recorded, REVIEWED.directory, REVIEWED.annex, REVIEWED.read))
    }
    assert found["AT/ncb"].sentence == "It is told what a reviewing bureau said of its notice."
    assert terms(found["GE/ncb"]) == [("audience", "not-reviewed")]


def test_a_withdrawal_is_told_by_who_held_what_it_ends() -> None:
    made = PLACE.notice(kind="withdrawal", relation="withdraws", purpose="sanctions")
    recorded = PLACE.decided(made, holders=(Holder(5, (3,)),))
    found = {each.bureau: each for each in accounts(of_record(recorded, PLACE.directory, PLACE.annex, PLACE.read))}
    assert found["RU/ncb"].receives
    assert "whatever the policy says" in found["RU/ncb"].sentence
    assert terms(found["GE/ncb"]) == [("audience", "no-holder")]


def test_what_asks_no_rule_is_foretold_as_it_is_decided() -> None:
    holders = (Holder(5, (3,)), Holder(2, (1,)))
    for kind, relation, held in (
        ("withdrawal", "withdraws", holders),
        ("restriction", "restricts", holders),
        ("approval", "approves", ()),
    ):
        made = PLACE.notice(issuer="US/ncb", kind=kind, relation=relation, purpose="sanctions")
        recorded = accounts(of_record(PLACE.decided(made, holders=held), PLACE.directory, PLACE.annex, PLACE.read))
        mask = sum(1 << each.index for each in held)
        foretold = accounts(of_prospect(made, made.present, PLACE.view, PLACE.read, NOW, None, mask))
        assert [each[:8] for each in foretold] == [each[:8] for each in recorded]
        assert any(each.receives for each in foretold)
        assert [each for each in foretold if each.withheld or each.doubts] == []


# What a party may not know


def with_annex(directory: Directory) -> Directory:
    written = json.loads(canonical(cases._directory(WORLD)))
    return parse(json.dumps({**written, "annex": directory.digest.hex()}).encode())


def test_where_the_annex_is_unknown_it_is_said_which_rule_it_could_still_change_and_no_clearance_is_told() -> None:
    directory = with_annex(PLACE.directory)
    view = View(directory, Rules.load(PACKAGED, directory, None), Subscriptions.unknown(directory))
    made = PLACE.notice(to=["GE/ncb"], confidentiality="confidential")
    found = {each.bureau: each for each in accounts(of_prospect(made, made.present, view, PLACE.read, NOW, None))}
    assert found["GE/ncb"].doubts == ("the annex, which you may not know, could still change it (rule clearance)",)
    assert "what GE/ncb is cleared for stands in the annex" in found["GE/ncb"].facts
    assert found["LV/ncb"].doubts == ()


def test_where_the_annex_is_unknown_it_is_said_that_supervision_could_hold_what_would_else_go_out() -> None:
    directory = with_annex(PLACE.directory)
    view = View(directory, Rules.load(PACKAGED, directory, None), Subscriptions.unknown(directory))
    made = PLACE.notice(to=["LV/ncb"])
    found = {each.bureau: each for each in accounts(of_prospect(made, made.present, view, PLACE.read, NOW, None))}
    assert found["LV/ncb"].receives
    *_, doubt = found["LV/ncb"].doubts
    assert doubt.endswith("a reviewing bureau gets it first (rule supervised-sender)")
    known = {
        each.bureau: each
        for each in accounts(of_prospect(made, made.present, PLACE.view, PLACE.read, NOW, PLACE.annex))
    }
    assert known["LV/ncb"].doubts == ()


def test_without_the_subscriptions_of_others_the_answer_is_if() -> None:
    view = View(PLACE.directory, PLACE.rules, Subscriptions.unknown(PLACE.directory))
    made = PLACE.notice(agreements=["project-millennium"])
    found = {
        each.bureau: each for each in accounts(of_prospect(made, made.present, view, PLACE.read, NOW, PLACE.annex))
    }
    assert terms(found["GE/ncb"]) == [("reach", "if-subscribed")]
    assert found["GE/ncb"].doubts == ("you cannot know to which topics it has subscribed",)


def test_a_recipient_learns_why_it_got_a_notice_and_nothing_of_its_routing() -> None:
    made = PLACE.notice(to=["GE/ncb", "LV"], deny=["RU"], protected_from=["RU"], subject_categories=["witness"])
    (row,) = (each for each in PLACE.decided(made).record.rows if each.bureau == "GE/ncb")
    got = welcome(made.header, row.shown, "GE/ncb", PLACE.directory, PLACE.read)
    assert got.rules == ("mandate-receive",)
    assert "GE/ncb has a mandate for its purpose, criminal-investigation" in got.facts
    said = " ".join(got.lines)
    for secret in ("RU", "LV", "witness", "deny", "protect"):
        assert secret not in said


def test_a_recipient_that_has_erased_it_is_still_told_by_which_rule() -> None:
    got = welcome(None, 0, "GE/ncb", PLACE.directory, PLACE.read)
    assert (got.rules, got.facts, got.shown) == (("mandate-receive",), (), ())
