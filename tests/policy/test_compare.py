"""Two sets side by side on the same history: who loses, who gains, by which rule, how many of it in force."""

from __future__ import annotations

from collections.abc import Sequence

from broker.compare import Comparison, Line, Past, Side, compare
from broker.notice import Holder, Verified
from broker.rules import PolicySet
from tests.policy.remembered import PACKAGED, WORLD, Place, with_rule, without

PLACE = Place()
CASES = '[world.bureaus]\n"AT/ncb" = []\n[[case]]\nname = "n"\nnotice = { issuer = "AT/ncb" }\nreceive = []\n'
HEAD = '// A rule.\n@id("more") @owner("o") @basis("b")\n'


def side(policies: PolicySet) -> Side:
    place = Place(policies)
    return Side(place.rules, place.read)


def past(made: Verified, *, in_force: bool = True, holders: tuple[Holder, ...] = ()) -> Past:
    return Past(PLACE.decided(made, holders=holders), in_force, made.present)


def compared(history: Sequence[Past], policies: PolicySet) -> Comparison:
    return compare(history, side(PLACE.policies), side(policies), PLACE.directory)


# Corrections


def test_a_set_that_keeps_corrections_from_those_of_a_suspended_circle_is_a_loss_to_who_holds_them() -> None:
    text = PACKAGED.files["12-agreement.cedar"].replace("unless { resource.holders.contains(principal) };", ";")
    deaf = PolicySet.of({**PACKAGED.files, "12-agreement.cedar": text})
    made = PLACE.notice(agreements=["old-circle"], corrects=True)
    history = [past(made, holders=(Holder(2, (1,)), Holder(5, (1,))))]
    assert compared(history, PACKAGED).lines == {}
    assert compared(history, deaf).lines[("loses", "GE", "agreement-in-force", "receive")] == Line(1, 1, {"GE/ncb"})
    assert {member for _, member, _, _ in compared(history, deaf).lines} == {"GE"}


def test_to_whom_corrections_go_on_under_an_agreement_that_was_suspended_since_is_worked_out_today() -> None:
    then = {"agreements": {"old-circle": ["AT", "GE", "LV"]}, "suspended_agreements": {}}
    before = Place(world=WORLD.model_copy(update=then), patterns={})
    made = before.notice(agreements=["old-circle"], corrects=True)
    recorded = before.decided(made, holders=(Holder(2, (1,)),))
    assert [each.bureau for each in recorded.record.rows] == ["GE/ncb"]
    text = PACKAGED.files["12-agreement.cedar"].replace("unless { resource.holders.contains(principal) };", ";")
    deaf = PolicySet.of({**PACKAGED.files, "12-agreement.cedar": text})
    found = compared([Past(recorded, True, made.present)], deaf)
    assert found.lines[("loses", "GE", "agreement-in-force", "receive")] == Line(1, 1, {"GE/ncb"})


def test_a_compartment_that_a_grant_keeps_back_is_neither_gained_nor_lost() -> None:
    made = PLACE.notice(minor="yes", handling=["H2"], grants=[["GE/ncb", ["warnings"], 2_000_000]])
    assert compared([past(made)], without("10-vulnerable")).lines == {}


# What was held or released


REVIEWED = Place(world=WORLD.model_copy(update={"reviewers": ["US/ncb"]}))


def reviewed(policies: PolicySet, *history: Past) -> Comparison:
    old, new = (Place(each, REVIEWED.world) for each in (REVIEWED.policies, policies))
    return compare(history, Side(old.rules, old.read), Side(new.rules, new.read), REVIEWED.directory)


def test_what_waits_would_go_out_under_a_set_that_does_not_hold_it() -> None:
    made = REVIEWED.notice(to=["LV"], topics=["wanted.red"])
    found = reviewed(without("08-review"), Past(REVIEWED.decided(made), True, made.present))
    assert found.lines == {
        ("gains", "LV", "wanted-or-warning", "receive"): Line(1, 1, {"LV/ncb"}),
        ("loses", "US", "wanted-or-warning-review", "review"): Line(1, 1, {"US/ncb"}),
    }


def test_of_what_waits_those_who_have_subscribed_by_now_are_reached() -> None:
    made = REVIEWED.notice(everyone=True, topics=["wanted.red"])
    mask = REVIEWED.directory.mask(["RU"])
    found = reviewed(without("08-review"), Past(REVIEWED.decided(made), True, made.present, mask))
    assert {member for way, member, _, _ in found.lines if way == "gains"} == {"RU"}


def test_what_was_released_is_compared_as_released() -> None:
    made = REVIEWED.notice(to=["LV"], topics=["wanted.red"])
    history = Past(REVIEWED.decided(made, releases=3), True, made.present)
    assert reviewed(without("08-review"), history).lines == {}
    nothing = with_rule(f"{HEAD}forbid (principal, action, resource);", CASES)
    assert reviewed(nothing, history).lines == {("loses", "LV", "more", "receive"): Line(1, 1, {"LV/ncb"})}


def test_a_set_that_would_hold_what_went_out_is_a_loss_and_work_for_the_reviewers() -> None:
    more = (
        f'{HEAD}forbid (principal, action in [Action::"receive", Action::"see"], resource) '
        "unless { resource.released };\n"
        '// And goes to review.\n@id("hold") @owner("o") @basis("b")\n'
        'permit (principal, action == Action::"review", resource) when { !resource.released };'
    )
    made = REVIEWED.notice(to=["LV"])
    found = reviewed(with_rule(more, CASES), Past(REVIEWED.decided(made), True, made.present))
    assert found.lines == {
        ("loses", "LV", "more", "receive"): Line(1, 1, {"LV/ncb"}),
        ("gains", "US", "hold", "review"): Line(1, 1, {"US/ncb"}),
    }


def test_an_approval_is_the_same_under_every_set() -> None:
    made = REVIEWED.notice(issuer="US/ncb", kind="approval", relation="approves", purpose="none")
    nothing = with_rule(f"{HEAD}forbid (principal, action, resource);", CASES)
    assert reviewed(nothing, Past(REVIEWED.decided(made), True, made.present)).changed == 0


# Everything else


def test_the_same_set_changes_nothing() -> None:
    found = compared([past(PLACE.notice(everyone=True)), past(PLACE.notice(to=["RU"]))], PLACE.policies)
    assert (found.decisions, found.in_force, found.changed, found.lines) == (2, 2, 0, {})


def test_a_new_forbid_is_a_loss_by_that_rule_counted_once_a_notice_for_each_member() -> None:
    other = with_rule(f'{HEAD}forbid (principal in Member::"GE", action, resource);', CASES)
    history = [past(PLACE.notice(everyone=True)), past(PLACE.notice(everyone=True), in_force=False)]
    found = compared([*history, past(PLACE.notice(to=["LV"]))], other)
    assert found.lines == {("loses", "GE", "more", "receive"): Line(2, 1, {"GE/ncb", "GE/analysis"})}
    assert (found.changed, found.changed_in_force) == (2, 1)


def test_a_forbid_that_falls_is_a_gain_by_that_rule() -> None:
    found = compared([past(PLACE.notice(everyone=True, confidentiality="secret"))], without("20-clearance"))
    assert {key for key in found.lines if key[1] == "LV"} == {("gains", "LV", "clearance", "receive")}


def test_a_permit_that_falls_is_a_loss_by_that_permit_and_a_new_one_a_gain() -> None:
    found = compared([past(PLACE.notice(to=["LV"]))], without("02-mandate"))
    assert found.lines == {("loses", "LV", "mandate-receive", "receive"): Line(1, 1, {"LV/ncb"})}
    wider = with_rule(f'{HEAD}permit (principal, action == Action::"receive", resource);', CASES)
    gained = compared([past(PLACE.notice(to=["LV"], purpose="sanctions"))], wider)
    assert set(gained.lines) == {("gains", "LV", "more", "receive")}


def test_compartments_are_told_apart_and_only_where_they_carry_something() -> None:
    history = [past(PLACE.notice(to=["LV"], minor="yes", present=("identity", "warnings")))]
    found = compared(history, without("10-vulnerable"))
    assert found.lines == {("gains", "LV", "minor-identity", "identity"): Line(1, 1, {"LV/ncb"})}


def test_what_the_issuer_keeps_from_a_bureau_no_set_gives_it() -> None:
    history = [past(PLACE.notice(to=["LV"], deny=["LV"])), past(PLACE.notice(to=["GE"]))]
    assert compared(history, without("01-owner")).lines == {}


def test_a_withdrawal_is_the_same_under_every_set() -> None:
    made = PLACE.notice(kind="withdrawal", relation="withdraws")
    nothing = with_rule(f"{HEAD}forbid (principal, action, resource);", CASES)
    assert compared([past(made, holders=(Holder(2, (1,)),))], nothing).changed == 0
