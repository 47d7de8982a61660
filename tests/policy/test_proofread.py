"""What a careful colleague finds in a policy set, each with file, line and what to do."""

from __future__ import annotations

from broker.proofread import Finding, proofread, reached_by
from broker.rules import PolicySet
from tests.policy.remembered import PACKAGED, with_rule, without

CASES = """[tricky]
one = "something"

[world.bureaus]
"AT/ncb" = ["criminal-investigation"]
"GE/ncb" = ["criminal-investigation"]

[[case]]
name = "n"
tricky = ["one"]
notice = { issuer = "AT/ncb", everyone = true }
receive = ["GE/ncb"]
"""
HEAD = '// A rule.\n@id("more") @owner("o") @basis("b")\n'


def found(policies: PolicySet, file: str = "") -> list[tuple[str, int, str]]:
    report = proofread(policies, None, None)
    return [(each.file, each.line, each.code) for each in report.findings if not file or file in each.file]


def one(policies: PolicySet, code: str) -> Finding:
    (finding,) = (each for each in proofread(policies, None, None).findings if each.code == code)
    return finding


def test_in_the_packaged_set_there_is_no_finding() -> None:
    report = proofread(PACKAGED, None, None)
    assert report.findings == []
    assert report.trials > report.cases > report.rules


def test_every_broken_file_is_named_not_only_the_first() -> None:
    broken = {"01-owner.cedar": "forbid (principal", "07-origin.cedar": "permit (principal, action, resource);"}
    report = proofread(PolicySet.of({**PACKAGED.files, **broken}), None, None)
    assert {each.file for each in report.findings if each.code == "broken"} == set(broken)
    assert all(each.todo for each in report.findings)


def test_a_case_that_does_not_hold_is_named_with_its_line() -> None:
    cases = CASES.replace('receive = ["GE/ncb"]', "receive = []")
    rule = f"{HEAD}permit (principal, action, resource) when {{ resource.exercise }};"
    assert ("cases/90-more.toml", 8, "broken") in found(with_rule(rule, cases))


def test_every_case_that_does_not_hold_is_named_not_only_the_first_of_its_file() -> None:
    wrong = CASES.replace('receive = ["GE/ncb"]', "receive = []")
    more = wrong + '\n[[case]]\nname = "m"\nnotice = { issuer = "AT/ncb", to = ["GE"] }\nreceive = []\n'
    rule = f"{HEAD}permit (principal, action, resource) when {{ resource.exercise }};"
    lines = [
        line for file, line, code in found(with_rule(rule, more)) if (file, code) == ("cases/90-more.toml", "broken")
    ]
    assert lines == [8, 14]


def test_a_rule_on_review_only_that_is_never_met_or_adds_nothing_is_named() -> None:
    head = f'{HEAD}permit (principal, action == Action::"review", resource)'
    never = f"{head} when {{ resource.exercise && !resource.exercise }};"
    assert ("90-more.cedar", 1, "unreachable") in found(with_rule(never, CASES))
    covered = f'{head} when {{ resource.areas.contains("wanted") && !resource.released }};'
    cases = CASES.replace("everyone = true", 'everyone = true, topics = ["wanted.red"]').replace(
        '"GE/ncb"]\n', "]\n", 1
    )
    finding = one(with_rule(covered, cases.replace('receive = ["GE/ncb"]', "receive = []")), "shadowed")
    assert finding.what == "rule more never changes an answer: wanted-or-warning-review always decides the same"


def test_a_permit_that_a_forbid_always_beats_says_so() -> None:
    head = f'{HEAD}permit (principal, action == Action::"receive", resource)'
    beaten = f"{head} when {{ resource.denied.contains(principal) }};"
    cases = CASES.replace("everyone = true", 'everyone = true, deny = ["GE"]').replace(
        'receive = ["GE/ncb"]', "receive = []"
    )
    finding = one(with_rule(beaten, cases), "shadowed")
    assert finding.what == "rule more never changes an answer: a forbid always beats it"


def test_a_name_counts_as_known_if_any_case_speaks_of_it_where_no_directory_is_at_hand() -> None:
    rule = f'{HEAD}forbid (principal in Member::"ZZ", action in [Action::"receive", Action::"see"], resource);'
    cases = CASES.replace('"GE/ncb"', '"ZZ/ncb"').replace('receive = ["ZZ/ncb"]', "receive = []")
    assert found(with_rule(rule, cases)) == []
    finding = one(with_rule(rule, CASES), "unknown-name")
    assert (finding.file, finding.line) == ("90-more.cedar", 1)
    assert finding.what == "rule more names ZZ, which the directory does not list"


def test_a_slip_of_the_pen_in_a_case_is_named_with_its_line_and_the_word() -> None:
    rule = f"{HEAD}permit (principal, action, resource) when {{ resource.exercise }};"
    finding = next(
        each
        for each in proofread(with_rule(rule, CASES.replace("receive =", "recieve =")), None, None).findings
        if each.file == "cases/90-more.toml"
    )
    assert finding.line == 8
    assert "case.0.receive: Field required; case.0.recieve: Extra inputs are not permitted" in finding.what
    cut = next(
        each
        for each in proofread(with_rule(rule, CASES + "more = ["), None, None).findings
        if each.file == "cases/90-more.toml"
    )
    assert cut.line == 13
    assert (cut.what[:16], cut.todo) == ("this is no TOML,", "correct what stands there")


def test_a_rule_that_no_case_reaches_is_named() -> None:
    rule = f"{HEAD}forbid (principal, action, resource) when {{ resource.exercise }};"
    finding = one(with_rule(rule, CASES), "no-case")
    assert (finding.file, finding.line) == ("90-more.cedar", 1)
    assert finding.what == "no case of cases/90-more.toml meets rule more"


def test_a_file_without_cases_is_named() -> None:
    files = {**PACKAGED.files, "90-more.cedar": f"{HEAD}forbid (principal, action, resource);"}
    assert ("90-more.cedar", 1, "no-case") in found(PolicySet.of(files))


def test_a_rule_that_can_never_be_met_is_named() -> None:
    rule = f"{HEAD}forbid (principal, action, resource) when {{ resource.exercise && !resource.exercise }};"
    assert ("90-more.cedar", 1, "unreachable") in found(with_rule(rule, CASES))


def test_a_word_that_is_never_said_is_named_with_those_that_are() -> None:
    rule = f'{HEAD}forbid (principal, action, resource) when {{ resource.purpose == "curiosity" }};'
    finding = one(with_rule(rule, CASES), "never-said")
    assert finding.what == "rule more asks whether purpose is 'curiosity', which it never is"
    assert "criminal-investigation" in finding.todo
    many = f'{HEAD}forbid (principal, action, resource) when {{ ["no", "maybe"].contains(resource.minor) }};'
    assert "'maybe'" in one(with_rule(many, CASES), "never-said").what


def test_a_rule_that_another_always_covers_is_named_with_the_other_and_so_is_the_other() -> None:
    spoken_of = 'action in [Action::"receive", Action::"see"]'
    rule = f"{HEAD}forbid (principal, {spoken_of}, resource) unless {{ resource.audience.contains(principal) }};"
    both = [each.what for each in proofread(with_rule(rule, CASES), None, None).findings if each.code == "shadowed"]
    assert both == [
        "rule owner-audience never changes an answer: more always decides the same",
        "rule more never changes an answer: owner-audience always decides the same",
    ]


def test_a_permit_that_adds_nothing_is_named() -> None:
    rule = (
        f'{HEAD}permit (principal, action == Action::"receive", resource) '
        'when { principal.mandates.contains(resource.purpose) && resource.urgency == "flash" };'
    )
    cases = CASES.replace("everyone = true", 'everyone = true, urgency = "flash"')
    finding = one(with_rule(rule, cases), "shadowed")
    assert finding.what == "rule more never changes an answer: mandate-receive always decides the same"


def test_tricky_points_must_be_covered_and_tags_must_be_points() -> None:
    rule = f'{HEAD}forbid (principal, action, resource) when {{ resource.confidentiality == "open" }};'
    uncovered = CASES.replace('one = "something"', 'one = "something"\ntwo = "harder"')
    assert ("cases/90-more.toml", 3, "tricky-uncovered") in found(with_rule(rule, uncovered))
    unknown = CASES.replace('tricky = ["one"]', 'tricky = ["one", "three"]')
    assert ("cases/90-more.toml", 10, "tricky-unknown") in found(with_rule(rule, unknown))
    unsaid = CASES.replace('[tricky]\none = "something"\n', "").replace('tricky = ["one"]\n', "")
    assert ("cases/90-more.toml", 1, "tricky-unsaid") in found(with_rule(rule, unsaid))


def test_it_is_told_which_cases_cover_each_tricky_point() -> None:
    covered = proofread(PACKAGED, None, None).covered
    assert len(covered) == 13
    assert covered["cases/02-mandate.toml"]["border-desk"] == ("a border desk is no analysis unit",)
    assert all(names for points in covered.values() for names in points.values())


def test_a_set_that_must_not_be_in_force_is_named() -> None:
    assert "unbounded" in {code for _, _, code in found(without("01-owner"))}


def test_each_rule_is_listed_with_the_cases_that_reach_it() -> None:
    reached = reached_by(PACKAGED)
    assert "cases/07-origin.toml: unknown origin: nobody" in reached["origin-unknown"]
    assert all(reached.values())
