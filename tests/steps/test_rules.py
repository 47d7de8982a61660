"""A policy set is loaded as a whole or refused as a whole, and its compiled form answers as Cedar does."""

import json
import random
from functools import cache
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker import cases, likeness, masks
from broker.cases import World
from broker.directory import NO_ANNEX, Annex, Directory
from broker.errors import VersionRefusedError
from broker.facts import Facts, facts_of
from broker.members import canonical, parse
from broker.notice import CONFIDENTIALITIES, PURPOSES
from broker.rules import ACTIONS, SCHEMA, PolicySet, Reference, Rules, read_rules

PACKAGED = PolicySet.packaged()
MEMBERS = ("AT", "DE", "GE", "LV", "RU")
WORLD = World(
    bureaus={f"{member}/{name}": ["criminal-investigation"] for member in MEMBERS for name in ("ncb", "analysis")},
    agreements={"project-millennium": ["AT", "GE", "RU"]},
)
CASES = """
[world.bureaus]
"AT/ncb" = ["criminal-investigation"]
"GE/ncb" = ["criminal-investigation"]
[[case]]
name = "one"
notice = { issuer = "AT/ncb", everyone = true }
"""
SOME = CASES + 'receive = ["GE/ncb"]\n'
NOBODY = CASES + "receive = []\n"
HEAD = '// It says something.\n@id("one") @owner("o") @basis("b")\n'
EVERYTHING = HEAD + "permit (principal, action, resource);\n"


def policies(text: str, tests: str = SOME, **more: str) -> PolicySet:
    return PolicySet.of({SCHEMA: PACKAGED.files[SCHEMA], "one.cedar": text, "cases/one.toml": tests, **more})


def world() -> tuple[Directory, Annex]:
    return cases.world_of(WORLD)


def load(policy_set: PolicySet) -> Rules:
    return Rules.load(policy_set, *world())


@cache
def packaged() -> Rules:
    return load(PACKAGED)


def facts(directory: Directory, **fields: object) -> Facts:
    written = cases.WrittenNotice.model_validate({"issuer": "AT/ncb", "everyone": True, **fields})
    return facts_of(*cases.notice_of(written, "cases"), directory, NO_ANNEX, cases.NOW, released=written.released)


# Equal to Cedar


def random_world(chance: random.Random) -> World:
    names = [f"M{place}" for place in range(chance.randint(1, 5))]
    bureaus = {
        f"{name}/b{place}": chance.sample(PURPOSES, chance.randint(0, len(PURPOSES)))
        for name in names
        for place in range(chance.randint(1, 3))
    }

    def circles(prefix: str) -> dict[str, list[str]]:
        return {
            f"{prefix}{i}": chance.sample(names, chance.randint(1, len(names))) for i in range(chance.randint(0, 2))
        }

    return World(
        bureaus=bureaus,
        suspended=chance.sample(names[1:], chance.randint(0, len(names) - 1) // 2),
        agreements=circles("open"),
        suspended_agreements=circles("shut"),
        transfers=[f"{a}>{b}" for a in names for b in names if a != b and chance.random() < 0.7],
        clearances={each: chance.choice(CONFIDENTIALITIES) for each in bureaus if chance.random() < 0.5},
    )


READ = read_rules(PACKAGED)


@settings(max_examples=80)
@given(st.randoms(use_true_random=False))
def test_the_compiled_form_answers_as_cedar_for_the_same_reasons(chance: random.Random) -> None:
    directory, annex = cases.world_of(random_world(chance))
    asked = [(bureau, action) for bureau in directory.bureaus_in(directory.everyone) for action in ACTIONS]
    reference = Reference(PACKAGED, directory, annex)
    likeness.compare(Rules(READ, directory, annex), reference, directory, likeness.made_up(chance, directory), asked)


SUBSET = [
    'principal == Bureau::"GE/ncb"',
    "principal != resource.issuer",
    "resource.issuer == principal",
    'principal in Member::"GE"',
    "principal in resource.owner",
    "principal in resource.issuer",
    'principal in [Member::"GE", Member::"AT"]',
    "principal in resource.sources",
    "principal.member == resource.owner",
    'principal.member == Member::"GE"',
    "resource.sources.contains(principal.member)",
    '["criminal-analysis", "sanctions"].contains(resource.purpose)',
    'principal.mandates.containsAny(["sanctions", "criminal-investigation"])',
    'principal.mandates.containsAll(["criminal-investigation"])',
    "principal.agreements.isEmpty()",
    "principal.agreements == resource.agreements",
    "resource.agreements.isEmpty() || !resource.named.isEmpty()",
    "resource.lawful.contains(principal)",
    "!resource.lawful.contains(principal) && resource.derogation",
    "resource.exercise",
    "!resource.exercise && (resource.everyone || resource.addressed.contains(principal))",
    "resource.everyone && resource.exercise && resource.corrects",
    "resource.everyone || resource.exercise || resource.corrects",
    "resource.exercise == true",
    "context.now < resource.retain_until && context.now <= resource.review_due",
    "context.now > 5",
    "true",
    "false || principal.mandates.isEmpty()",
    'resource.urgency == "flash" || principal.member == Member::"AT"',
    "!(principal in resource.owner)",
    '"victim" == "victim"',
]  # fmt: skip


HEADS = [
    "permit (principal, action, resource)",
    'permit (principal is Bureau in Member::"GE", action in [Action::"see", Action::"receive"], resource is Notice)',
    'permit (principal == Bureau::"GE/ncb", action in Action::"see", resource)',
]


@pytest.mark.parametrize("condition", SUBSET)
def test_every_construct_of_the_subset_answers_as_cedar_does(condition: str) -> None:
    directory, annex = world()
    chance = random.Random(condition)
    for head in HEADS:
        tried = policies(f"{HEAD}{head} when {{ {condition} }};")
        compiled, reference = masks_of(tried, directory, annex), Reference(tried, directory, annex)
        for _ in range(4):
            notice = likeness.made_up(chance, directory)
            asked = [(bureau, action) for bureau in directory.ids for action in ("receive", "review", "see_source")]
            likeness.compare(compiled, reference, directory, notice, asked)


def masks_of(policy_set: PolicySet, directory: Directory, annex: Annex) -> Rules:
    return Rules(read_rules(policy_set), directory, annex)


@pytest.mark.parametrize(
    "other",
    [
        EVERYTHING.replace(";", " unless { resource.denied.contains(principal) };"),
        EVERYTHING.replace(";", " when { principal.mandates.contains(resource.purpose) };"),
        EVERYTHING.replace("action,", 'action == Action::"receive",'),
        EVERYTHING.replace("one", "two"),
        EVERYTHING + HEAD.replace("one", "two") + "forbid (principal, action, resource) when { resource.exercise };",
    ],
)
def test_a_compiled_form_that_differs_from_cedar_is_found(other: str) -> None:
    directory, annex = world()
    compiled = masks_of(policies(EVERYTHING), directory, annex)
    with pytest.raises(VersionRefusedError, match="the compiled form and Cedar differ"):
        likeness.check(compiled, Reference(policies(other), directory, annex), directory, b"a seed")


# Loading


def test_the_packaged_set_loads_and_reads_back_the_same() -> None:
    assert PolicySet.parse(PACKAGED.content) == PACKAGED
    assert PACKAGED.digest == sha256(PACKAGED.content).digest()
    assert packaged().digest == PACKAGED.digest


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b'{"files":1}', b'{"files":{"a":1}}', b'{"files": {}}', PACKAGED.content + b" "]
)
def test_a_set_that_is_not_canonical_is_refused(content: bytes) -> None:
    with pytest.raises(VersionRefusedError):
        PolicySet.parse(content)


def when(condition: str, effect: str = "permit") -> str:
    return f"{HEAD}{effect} (principal, action, resource) when {{ {condition} }};"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (EVERYTHING + "\n\npermit (principal, action) ;", r"one\.cedar:6: "),
        (EVERYTHING + HEAD.replace("one", "two") + "permit (principal, action, resource)", r"one\.cedar:4: "),
        (EVERYTHING + when("resource.colour == 1").replace("one", "two"), r"one\.cedar:4: .*colour"),
        (EVERYTHING + EVERYTHING, r"one\.cedar:4: @id one is given twice"),
        (EVERYTHING.replace('@id("one")', ""), r"one\.cedar:1: the rule has no @id"),
        (EVERYTHING.replace('@owner("o")', '@owner(" ")'), r"one\.cedar:1: the rule has no @owner"),
        (EVERYTHING.replace('@basis("b")', ""), r"one\.cedar:1: the rule has no @basis"),
        (EVERYTHING.replace("// It says something.", ""), r"one\.cedar:2: no comment says"),
        (
            EVERYTHING.replace("principal,", "principal == ?principal,"),
            r"one\.cedar:1: this is something else than a plain rule",
        ),
        (when('resource.kind like "p*"'), r"one\.cedar:1: Like has no compiled form"),
        (when("resource has kind"), r"one\.cedar:1: HasAttr has no compiled form"),
        (when("context.now + 1 > 5"), r"one\.cedar:1: add has no compiled form"),
        (when("context.now * 2 > resource.retain_until", "forbid"), r"mul has no compiled form"),
        (when("-context.now > 5"), r"neg has no compiled form"),
        (when("if resource.exercise then true else false"), r"IfThenElse has no compiled form"),
        (when("principal is Bureau"), r"Is has no compiled form"),
        (when("resource.issuer.member == resource.owner"), r"GetAttr has no compiled form"),
        (when("resource.audience.containsAll(resource.named)"), r"of a notice's bureaus only"),
        (when('resource.audience.contains(Bureau::"GE/ncb")'), r"of a notice's bureaus only"),
        (when("resource.owner in resource.owner"), r"only the principal can be asked"),
        (when("[principal.member].contains(resource.owner)"), r"GetAttr has no compiled form"),
        (when("(resource.kind == resource.minor) == resource.exercise"), r"eq inside a comparison"),
        (when('resource == Notice::"n"'), r"Var has no compiled form"),
        (EVERYTHING.replace("resource)", 'resource == Notice::"n")'), r"for one notice only"),
        (when('action == Action::"receive"'), r"Var has no compiled form"),
        (when('principal.mandates.contains(Member::"AT")'), r"one\.cedar:1: "),
        (when("resource.kind == resource.owner"), r"one\.cedar:1: "),
        (when("context.today == 1"), r"one\.cedar:1: .*today"),
    ],
)
def test_a_rule_that_cannot_be_taken_exactly_is_refused_with_file_line_and_reason(text: str, reason: str) -> None:
    with pytest.raises(VersionRefusedError, match=reason):
        load(policies(text))


def test_a_policy_file_without_cases_is_refused() -> None:
    with pytest.raises(VersionRefusedError, match=r"one\.cedar has no cases: cases/one\.toml is missing"):
        load(PolicySet.of({SCHEMA: PACKAGED.files[SCHEMA], "one.cedar": EVERYTHING}))


def test_semicolons_in_strings_and_comments_end_no_rule() -> None:
    text = '// First; second.\n@id("a;b\\";") @owner("o") @basis("b")\npermit (principal, action, resource); // a; b\n'
    rules = load(policies(text))
    assert [(each.id, each.line, each.sentence) for each in rules.rules] == [('a;b";', 1, "First; second.")]


@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        (NOBODY, r"cases/one\.toml:5: case 'one': receive should be \[\] and is \['GE/ncb'\]"),
        (SOME + "see.identity = []\n", r"see\.identity should be \[\]"),
        ("", r"cases/one\.toml:1: .*world"),
        (SOME.replace('"GE/ncb"]', '"XX/ncb"]'), r"cases/one\.toml:5: case 'one': there is no bureau 'XX/ncb'"),
        (SOME.replace("everyone", "anyone"), r"cases/one\.toml:5: .*anyone"),
        (SOME.replace('"GE/ncb" =', '"ge/ncb" ='), r"a case's world"),
        ("[[", r"cases/one\.toml"),
    ],
)
def test_a_set_whose_cases_fail_is_refused_whole(tests: str, reason: str) -> None:
    with pytest.raises(VersionRefusedError, match=f"(?s){reason}"):
        load(policies(EVERYTHING, tests))


def test_a_rule_that_no_case_of_its_file_meets_is_refused() -> None:
    idle = HEAD.replace("one", "two") + "forbid (principal, action, resource) when { resource.exercise };"
    with pytest.raises(VersionRefusedError, match=r"one\.cedar:4: no case of cases/one\.toml meets rule two"):
        load(policies(EVERYTHING + idle))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("  exercise: Bool,\n", ""),
        ("  exercise: Bool,\n", "  exercise: Long,\n"),
        ("  exercise: Bool,\n", "  exercise: Bool,\n  colour: String,\n"),
        ("  mandates: Set<String>,\n", ""),
        ("entity Member;", "entity Member { name: String };"),
        ("entity Member;", "entity Member"),
    ],
)
def test_a_schema_that_does_not_declare_the_facts_there_are_is_refused(old: str, new: str) -> None:
    schema = PACKAGED.files[SCHEMA]
    assert old in schema
    with pytest.raises(VersionRefusedError, match=r"schema\.cedarschema"):
        load(PolicySet.of({**policies(EVERYTHING).files, SCHEMA: schema.replace(old, new)}))
    with pytest.raises(VersionRefusedError, match=r"schema\.cedarschema is missing"):
        load(PolicySet.of({"one.cedar": EVERYTHING, "cases/one.toml": SOME}))


# Judging


def test_an_unknown_kind_is_for_nobody_and_an_unknown_compartment_for_nobody() -> None:
    directory, _ = world()
    rules = load(policies(EVERYTHING))
    assert rules.judge(facts(directory, kind="rumour")).receive == 0
    assert "routing" not in rules.judge(facts(directory)).see
    assert rules.judge(facts(directory)).receive == directory.everyone


def test_silence_means_no_and_forbid_beats_permit() -> None:
    directory, _ = world()
    ban = HEAD.replace("one", "two") + 'forbid (principal in Member::"GE", action, resource);'
    read = masks_of(policies(EVERYTHING + ban), directory, NO_ANNEX)
    assert read.judge(facts(directory)).receive == directory.everyone & ~directory.mask(["GE"])
    only_see = EVERYTHING.replace("action,", 'action == Action::"see_identity",')
    silent = masks_of(policies(only_see), directory, NO_ANNEX).judge(facts(directory))
    assert silent.receive == 0
    assert silent.see["identity"] == directory.everyone
    assert silent.see["warnings"] == 0


def test_hits_name_the_rules_and_for_whom_they_were_met() -> None:
    directory, _ = world()
    hits = {each.rule: each.bureaus for each in packaged().judge(facts(directory, deny=["RU", "GE/ncb"])).hits}
    assert hits["owner-denial"] == directory.mask(["RU", "GE/ncb"])
    assert hits["mandate-receive"] == directory.everyone
    assert "owner-audience" not in hits


def test_an_explanation_names_what_permits_forbids_and_withholds() -> None:
    directory, _ = world()
    rules = packaged()
    index = directory.bureaus["GE/ncb"].index
    free = rules.explain(facts(directory, to=["GE"], everyone=False, minor="yes"), index)
    assert free.receives
    assert [each.id for each in free.permits] == ["mandate-receive"]
    assert "warnings" in free.sees
    assert [each.id for each in free.withheld["identity"]] == ["minor-identity"]
    barred = rules.explain(facts(directory, deny=["GE"], confidentiality="secret"), index)
    assert not barred.receives
    assert [each.id for each in barred.forbids] == ["owner-denial", "clearance"]
    unmandated = rules.explain(facts(directory, purpose="sanctions"), index)
    assert [each.id for each in unmandated.unmet] == ["mandate-receive"]


def test_a_memo_never_grows_past_its_bound() -> None:
    directory, annex = world()
    test = masks.Apply("contains", (masks.Attribute("principal", "mandates"), masks.Attribute("notice", "purpose")))
    function = masks.Compiler(masks.subjects(directory, annex)).function(test)
    for place in range(masks.MEMO_LIMIT + 10):
        assert function(facts(directory, purpose=f"p{place}")) == 0
    table = next(cell.cell_contents for cell in function.__closure__ or () if isinstance(cell.cell_contents, dict))
    assert len(table) == 10
    assert function(facts(directory)) == directory.everyone


def test_who_does_not_know_the_annex_gets_both_extremes_beside() -> None:
    directory, _ = world()
    committed = parse_with_annex(directory)
    rules = Rules.load(PACKAGED, committed, None)
    lowest, highest = rules.extremes
    secret = facts(committed, confidentiality="secret")
    assert lowest.judge(secret).receive == 0
    assert highest.judge(secret).receive == committed.everyone
    assert packaged().extremes == ()
    assert Rules.load(PACKAGED, directory, None).extremes == ()


def parse_with_annex(directory: Directory) -> Directory:
    written = json.loads(canonical(cases._directory(WORLD)))
    return parse(json.dumps({**written, "annex": directory.digest.hex()}).encode())
