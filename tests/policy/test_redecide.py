"""A decision repeated from its record with Cedar itself gives the same answer; a record that was bent does not."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from broker import codec
from broker.errors import TrailError
from broker.explain import accounts, of_record
from broker.notice import DecisionRecord, Header, Holder, Leaf, RuleHit, Terms
from broker.recorded import Recorded, remember
from broker.redecide import Difference, Grounds, Repetition, redecide
from broker.signing import decision_digest
from cli.officer import repeating
from tests.policy.remembered import EVERYBODY, NAMES, NOW, SALT, WORLD, Place

DAY = 86_400_000
PLACE = Place()


def again(recorded: Recorded, place: Place = PLACE) -> Repetition:
    return redecide(recorded, Grounds(place.directory, place.annex, place.policies, place.patterns))


def bent(recorded: Recorded, **changes: object) -> Recorded:
    """The record with something else in it; its digest is another matter (`audit verify`)."""
    return replace(recorded, record=replace(recorded.record, **changes))  # type: ignore[arg-type]  # fields by name


def differences(recorded: Recorded) -> set[tuple[str, str]]:
    return {(each.bureau, each.what) for each in again(recorded).differences}


def test_repeated_it_gives_the_same_answer() -> None:
    chance = random.Random(5)
    for _ in range(12):
        made = PLACE.notice(
            to=chance.sample(NAMES, 2),
            agreements=chance.sample(["project-millennium", "old-circle"], 1),
            deny=chance.sample(NAMES, 1),
            minor=chance.choice(["yes", "no", "unknown"]),
            kind=chance.choice(["person", "network", "report"]),
            confidentiality=chance.choice(["restricted", "secret", "confidential"]),
            urgency=chance.choice(["routine", "flash"]),
            origins=[["US", ["GE"]]] if chance.random() < 0.3 else [],
        )
        found = again(PLACE.decided(made, NOW))
        assert found.differences == ()
        assert found.asked > 7


def test_it_is_judged_at_the_now_of_its_leaf_however_late_it_is_repeated() -> None:
    made = PLACE.notice(everyone=True, retain_until=NOW + 1, review_due=NOW + 1)
    before, after = PLACE.decided(made, NOW), PLACE.decided(made, NOW + 1)
    assert [bool(each.record.rows) for each in (before, after)] == [True, False]
    assert again(before).same
    assert again(after).same
    assert not again(replace(before, leaf=replace(before.leaf, now=NOW + 365 * DAY))).same


def test_it_is_repeated_with_the_versions_that_the_leaf_names_not_with_those_of_today() -> None:
    recorded = PLACE.decided(PLACE.notice(agreements=["project-millennium"]))
    suspended = {"agreements": {}, "suspended_agreements": {"project-millennium": ["AT", "GE", "RU"]}}
    today = Place(world=PLACE.world.model_copy(update=suspended))
    assert again(recorded).same
    assert not again(recorded, today).same


ALLOWED = PLACE.decided(PLACE.notice(everyone=True, minor="yes", to=["GE/ncb"]))


def test_a_recipient_more_or_less_is_noticed() -> None:
    record = ALLOWED.record
    assert differences(bent(ALLOWED, rows=record.rows[:-1])) == {("US/ncb", "receives")}
    first = replace(record.rows[0], index=0, bureau="AT/ncb")
    assert ("AT/ncb", "receives") in differences(bent(ALLOWED, rows=(first, *record.rows)))


def test_each_term_is_compared() -> None:
    terms, bit = ALLOWED.terms, 1 << PLACE.directory.bureaus["LV/ncb"].index
    for name, what in (
        ("allowed", "allowed by policy"), ("audience", "in the audience"), ("denied", "denied by the issuer"),
        ("reached", "addressed or subscribed"),
    ):  # fmt: skip
        masks = {each: getattr(terms, each) for each in ("allowed", "audience", "denied", "reached")}
        changed = Terms(**{**masks, name: masks[name] ^ bit})
        assert differences(bent(ALLOWED, terms=changed)) == {("LV/ncb", what)}


def test_what_each_was_shown_is_compared() -> None:
    rows = ALLOWED.record.rows
    seeing = next(each for each in rows if each.bureau == "LV/ncb")
    with_identity = tuple(replace(each, shown=each.shown | 2) if each is seeing else each for each in rows)
    assert differences(bent(ALLOWED, rows=with_identity)) == {("LV/ncb", "sees identity")}
    named = next(each for each in rows if each.bureau == "GE/ncb")
    blind = tuple(replace(each, shown=each.shown & ~4) if each is named else each for each in rows)
    assert differences(bent(ALLOWED, rows=blind)) == {("GE/ncb", "sees warnings")}


def test_what_each_was_shown_under_a_grant_is_compared() -> None:
    grants = [["GE/ncb", ["warnings"], NOW + DAY], ["RU/ncb", ["identity"], NOW]]
    recorded = PLACE.decided(PLACE.notice(to=["LV/ncb"], handling=["H2"], grants=grants))
    assert again(recorded).same
    more = tuple(replace(each, shown=each.shown | 2) for each in recorded.record.rows)
    assert differences(bent(recorded, rows=more)) == {("GE/ncb", "sees identity")}


def test_which_rules_said_so_is_compared() -> None:
    rules = ALLOWED.record.rules
    invented = (*rules, RuleHit("protected-person", 2))
    assert differences(bent(ALLOWED, rules=invented)) == {("AT/border", "rule protected-person is met")}
    silent = tuple(each for each in rules if each.rule != "minor-identity")
    assert ("LV/ncb", "rule minor-identity is met") in differences(bent(ALLOWED, rules=silent))


def test_a_subscription_that_was_not_on_record_by_then_is_noticed() -> None:
    recorded = PLACE.decided(PLACE.notice(everyone=True))
    fewer = {name: patterns for name, patterns in EVERYBODY.items() if name != "RU/ncb"}
    found = redecide(recorded, Grounds(PLACE.directory, PLACE.annex, PLACE.policies, fewer))
    assert found.differences[0] == Difference("RU/ncb", "addressed or subscribed", "yes", "no")


def test_a_withdrawal_asks_no_rule() -> None:
    made = PLACE.notice(kind="withdrawal", relation="withdraws")
    found = again(PLACE.decided(made, holders=(Holder(2, (1,)),)))
    assert (found.how, found.asked, found.same) == ("by-holders", 0, True)


CORRECTION = PLACE.notice(agreements=["old-circle"], corrects=True)
HELD_BY = (Holder(2, (1,)), Holder(5, (1,)))
"""GE/ncb, which is of the suspended circle, and RU/ncb, which is not."""


def test_a_correction_under_a_suspended_agreement_is_repeated_with_the_holders_on_record() -> None:
    recorded = PLACE.decided(CORRECTION, holders=HELD_BY)
    assert [each.bureau for each in recorded.record.rows] == ["GE/ncb"]
    assert again(recorded).same
    assert {each.bureau for each in again(bent(recorded, holders=0)).differences} == {"GE/ncb"}
    added = again(bent(recorded, holders=0b10100))
    assert Difference("LV/ncb", "receives", "no", "yes") in added.differences


def test_it_is_repeated_for_holders_who_have_unsubscribed_since() -> None:
    quiet = Place(patterns={})
    recorded = quiet.decided(CORRECTION, holders=HELD_BY)
    assert [each.bureau for each in recorded.record.rows] == ["GE/ncb"]
    assert again(recorded, quiet).same


def test_a_correction_is_repeated_for_holders_under_an_agreement_in_force_too() -> None:
    quiet = Place(patterns={})
    made = quiet.notice(everyone=True, corrects=True)
    recorded = quiet.decided(made, holders=HELD_BY)
    assert [each.bureau for each in recorded.record.rows] == ["GE/ncb", "RU/ncb"]
    assert again(recorded, quiet).same
    silent = bent(recorded, rows=recorded.record.rows[:1])
    assert again(silent, quiet).differences == (Difference("RU/ncb", "receives", "no", "yes"),)
    told = accounts(of_record(recorded, quiet.directory, quiet.annex, quiet.read))
    assert [each.sentence.endswith("It holds what this notice corrects.") for each in told if each.receives] == [
        True
    ] * 2


def test_a_correction_that_was_recorded_before_holders_were_is_repeated_without() -> None:
    recorded = PLACE.decided(CORRECTION)
    assert recorded.record.rows == ()
    assert again(bent(recorded, holders=None)).same


REVIEWED = Place(world=WORLD.model_copy(update={"reviewers": ["US/ncb", "RU/ncb", "AT/border"]}))
WANTED: dict[str, Any] = {"everyone": True, "topics": ["wanted.red"], "present": ("identity", "source")}


def test_what_was_held_is_repeated_with_its_reviewers_and_what_they_were_shown() -> None:
    recorded = REVIEWED.decided(REVIEWED.notice(deny=["RU"], minor="yes", **WANTED))
    assert (recorded.leaf.kind, [each.bureau for each in recorded.record.rows]) == ("held", ["US/ncb"])
    found = again(recorded, REVIEWED)
    assert (found.how, found.same) == ("by-review", True)
    assert found.asked > 7


def test_what_was_released_is_repeated_as_released() -> None:
    recorded = REVIEWED.decided(REVIEWED.notice(**WANTED), releases=3)
    assert {each.bureau for each in recorded.record.rows} == set(NAMES) - {"AT/ncb"}
    assert (again(recorded, REVIEWED).how, again(recorded, REVIEWED).same) == ("by-policy", True)


def test_the_release_of_a_correction_goes_to_holders_of_a_suspended_circle_and_not_to_those_who_reviewed_it() -> None:
    made = REVIEWED.notice(agreements=["old-circle"], corrects=True, topics=["wanted.red"])
    held = REVIEWED.decided(made, holders=HELD_BY)
    assert (held.leaf.kind, held.record.holders, again(held, REVIEWED).same) == ("held", 0b100100, True)
    assert {each.bureau for each in held.record.rows} == {"US/ncb", "RU/ncb"}
    # RU/ncb has the version before as well, AT/border that alone.
    given, before = (Holder(6, (9,)),), (Holder(1, (1,)), Holder(2, (1,)), Holder(5, (1, 9)))
    released = REVIEWED.decided(made, holders=before, releases=7, reviewers=given)
    assert [(each.bureau, each.replaces) for each in released.record.rows] == [("AT/border", (1,)), ("GE/ncb", (1,))]
    assert (released.record.holders, again(released, REVIEWED).same) == (0b100110, True)
    assert "holders-not-reached" in released.record.warnings


def test_what_was_routed_though_it_waits_and_held_though_nothing_holds_it_is_noticed() -> None:
    held = REVIEWED.decided(REVIEWED.notice(**WANTED))
    routed = replace(held, leaf=replace(held.leaf, kind="routed"))
    assert [each.what for each in again(routed, REVIEWED).differences] == ["is held for review"]
    free = REVIEWED.decided(REVIEWED.notice(everyone=True))
    kept = replace(free, leaf=replace(free.leaf, kind="held"))
    assert Difference("AT/ncb", "is held for review", "yes", "no") in again(kept, REVIEWED).differences


def test_a_reviewer_more_or_a_source_shown_to_one_is_noticed() -> None:
    held = REVIEWED.decided(REVIEWED.notice(**WANTED))
    first, *others = held.record.rows
    assert again(bent(held, rows=(first,)), REVIEWED).differences[0].what == "receives"
    own = replace(first, index=1, bureau="AT/border")
    assert ("AT/border", "receives", "yes", "no") in {
        (each.bureau, each.what, each.recorded, each.repeated)
        for each in again(bent(held, rows=(own, first, *others)), REVIEWED).differences
    }
    names = [each.name for each in codec.decode(Header, held.record.header).compartments]
    seeing = replace(first, shown=first.shown | 1 << names.index("source"))
    assert "sees source" in {each.what for each in again(bent(held, rows=(seeing, *others)), REVIEWED).differences}


def test_an_approval_goes_to_the_bureau_whose_notice_was_reviewed_and_asks_no_rule() -> None:
    recorded = REVIEWED.decided(REVIEWED.notice(issuer="US/ncb", kind="approval", relation="approves", purpose="none"))
    found = again(recorded, REVIEWED)
    assert ([each.bureau for each in recorded.record.rows], found.how, found.asked) == (["AT/ncb"], "by-reviewed", 0)
    assert found.same
    assert again(bent(recorded, rows=()), REVIEWED).differences[0].what == "receives"


def test_a_record_that_is_not_the_leafs_is_refused() -> None:
    leaf, salt, record = PLACE.entry(PLACE.notice(everyone=True))
    with pytest.raises(TrailError, match="leaf 3 is not the one"):
        remember(3, leaf, salt, record + b"x")
    assert salt == SALT


@pytest.mark.parametrize(
    "change",
    [{"routing": b""}, {"header": b"", "routing": b""}, {"routing": SALT + b"another"}, "other"],
    ids=["no-routing", "nothing", "anothers-routing", "anothers-header"],
)
def test_a_decision_on_another_notice_than_the_leafs_is_refused(change: dict[str, Any] | str) -> None:
    """The leaf commits to a record that the operator made up: who was let in stands on AT's words, or on none."""
    data, salt, record = PLACE.entry(PLACE.notice(everyone=True))
    leaf, decision = codec.decode(Leaf, data), codec.decode(DecisionRecord, record)
    if isinstance(change, str):
        other = codec.decode(DecisionRecord, PLACE.entry(PLACE.notice(to=("RU/ncb",)))[2])
        change = {"header": other.header, "routing": other.routing}
    false = codec.encode(replace(decision, **change))
    committed = codec.encode(replace(leaf, decision=decision_digest(salt, false)))
    with pytest.raises(TrailError, match="leaf 3 is not about the notice of that leaf"):
        remember(3, committed, salt, false)


def test_a_different_answer_is_told_by_bureau_and_term() -> None:
    found = bent(ALLOWED, rows=ALLOWED.record.rows[:-1])
    said = list(repeating.lines([repeating.Repeated(found, again(found))]))
    assert said[0].startswith("decided again: DIFFERENT (")
    assert said[-1] == "      US/ncb: receives: no on record, yes when repeated"
    (value,) = repeating.value([repeating.Repeated(found, again(found))])
    assert (value["same"], value["differences"][0]["bureau"]) == (False, "US/ncb")
