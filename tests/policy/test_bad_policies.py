"""A bad policy set is refused whole, with file, line, the reason and what to do; the old one stays in force."""

from __future__ import annotations

import contextlib
import random
import re
import time
from pathlib import Path

import pytest

from broker import codec, members
from broker.adopt import Adopter
from broker.bus import Record
from broker.directory import NO_ANNEX
from broker.errors import VersionRefusedError
from broker.notice import Version
from broker.register import Register
from broker.rules import SCHEMA, PolicySet, Rules, read_rules
from broker.rules.read import check_cuts
from broker.rules.statements import statements
from tests import federation as world
from tests.making import NOW
from tests.policy.invented import PACKAGED

DIRECTORY = members.parse(members.canonical(world.directory()))
SOUND = PACKAGED.files["01-owner.cedar"]
CASES = """[world.bureaus]
"AT/ncb" = ["criminal-investigation"]
"GE/ncb" = ["criminal-investigation"]

[[case]]
name = "one"
notice = { issuer = "AT/ncb", everyone = true }
receive = ["GE/ncb"]

[[case]]
name = "two"
notice = { issuer = "AT/ncb", everyone = true, exercise = true }
receive = ["GE/ncb"]
"""
FIRST = """// Everybody receives everything.
@id("first")
@owner("o")
@basis("b")
permit (principal, action, resource);

"""
"""A sound rule of six lines: what comes after it begins on line 7."""
SECOND = """// It says something.
@id("second")
@owner("o")
@basis("b")
"""
BAN = f"{SECOND}forbid (principal, action, resource) when {{ resource.denied.contains(principal) }};\n"


def one(text: str, tests: str = CASES, schema: str = PACKAGED.files[SCHEMA]) -> PolicySet:
    """A set of one file of rules."""
    return PolicySet.of({SCHEMA: schema, "one.cedar": text, "cases/one.toml": tests})


def second(rule: str) -> PolicySet:
    """A set whose second rule, from line 7 on, is this one."""
    return one(f"{FIRST}{SECOND}{rule}\n")


def only_when(condition: str) -> PolicySet:
    return second(f"permit (principal, action, resource) when {{ {condition} }};")


def schema(old: str, new: str) -> PolicySet:
    """A sound set under a schema that was changed."""
    text = PACKAGED.files[SCHEMA]
    assert old in text
    return one(FIRST, schema=text.replace(old, new, 1))


def tried(old: str, new: str) -> PolicySet:
    """A sound set whose cases were changed."""
    assert old in CASES
    return one(FIRST, CASES.replace(old, new, 1))


MANY = "".join(
    f"{SECOND.replace('second', f'r{place}')}permit (principal, action, resource);\n" for place in range(10_000)
)
GROUP = "action see;"
FOREIGN = """
namespace Other {
  action fly appliesTo { principal: Bureau, resource: Notice, context: { now: Long } };
}
"""
INDICES = '["a"]' * 50_000

BAD: list[tuple[str, PolicySet, str]] = [
    ("does not parse", second("permit (principal, action);"), r"one\.cedar:7: .*: correct the rule that begins here"),
    ("no end", second("permit (principal, action, resource)"), r"one\.cedar:7: .*: correct the rule that begins here"),
    (
        "a rule behind a comment",
        one(FIRST.rstrip() + " // end\r" + BAN.replace("\n", "\r")),
        r"one\.cedar:5: a carriage return stands here: end each line by a line feed alone",
    ),
    ("lines of Windows", one(FIRST.replace("\n", "\r\n")), r"one\.cedar:1: a carriage return stands here"),
    ("a schema's", schema("entity Member;", "entity Member; //\r"), r"schema\.cedarschema:\d+: a carriage return"),
    ("no rule at all", one("// Nothing.\n"), r"there is no rule, so nobody would receive anything: add a file"),
    (
        "unknown bureau",
        only_when('principal == Bureau::"XX/ncb"'),
        r"one\.cedar:7: the directory lists no XX/ncb: corr",
    ),
    (
        "unknown member",
        only_when('principal in Member::"XX"'),
        r"one\.cedar:7: the directory lists no XX: correct the n",
    ),
    (
        "unknown type",
        only_when('principal == Office::"x"'),
        r"one\.cedar:7: unrecognized entity type `Office`: correct",
    ),
    ("unknown action", second('permit (principal, action == Action::"fly", resource);'), r"one\.cedar:7: .*: correct"),
    (
        "unknown fact",
        only_when("resource.colour == 1"),
        r"one\.cedar:7: attribute `colour` .* not found: correct the ru",
    ),
    ("a literal overflows", only_when("context.now > 9223372036854775808"), r"one\.cedar:7: .* is too large: correct"),
    ("a sum overflows", only_when("context.now + 9223372036854775807 > 0"), r"one\.cedar:7: add .* compare two facts"),
    (
        "errors for some notice",
        only_when("context.now * resource.review_due > 5"),
        r"one\.cedar:7: mul .* can overflow",
    ),
    ("forbid errors", second("forbid (principal, action, resource) when { -context.now > 0 };"), r"one\.cedar:7: neg "),
    (
        "two of one id",
        one(FIRST + FIRST),
        r"one\.cedar:7: @id first is given twice, first at one\.cedar:1: name one ot",
    ),
    (
        "no id",
        one(FIRST + BAN.replace('@id("second")\n', "")),
        r"one\.cedar:7: the rule has no @id: write @id\(\"…\"\)",
    ),
    ("no owner", one(FIRST + BAN.replace('"o"', '" "')), r"one\.cedar:7: the rule has no @owner: write @owner"),
    ("no basis", one(FIRST + BAN.replace('@basis("b")\n', "")), r"one\.cedar:7: the rule has no @basis: write @basis"),
    (
        "no sentence",
        one(FIRST + BAN.replace("// It says something.\n", "")),
        r"one\.cedar:7: no comment says in a plain",
    ),
    ("a comment too far off", one(FIRST + BAN.replace("thing.\n", "thing.\n\n")), r"one\.cedar:9: no comment says"),
    ("an id is given twice in one rule", one(FIRST.replace('@owner("o")', '@id("x")')), r"one\.cedar:1: .*: correct"),
    (
        "no cases",
        PolicySet.of({SCHEMA: PACKAGED.files[SCHEMA], "one.cedar": FIRST}),
        r"one\.cedar:1: .* has no cases: ca",
    ),
    (
        "a rule without a case",
        one(FIRST + BAN),
        r"one\.cedar:7: no case of cases/one\.toml meets rule second: write on",
    ),
    (
        "cases of nothing",
        PolicySet.of({**one(FIRST).files, "cases/a.toml": CASES}),
        r"cases/a\.toml:1: .*no policy file",
    ),
    (
        "10,000 rules",
        one(MANY),
        r"one\.cedar:5001: more than 1000 rules in the set: say in one rule what holds for many",
    ),
    ("a group in itself", schema(GROUP, "action see in [see];"), r"schema\.cedarschema:\d+: cycle in action hierarchy"),
    (
        "a cyclic group",
        schema(GROUP, "action see in [look];\naction look in [see];"),
        r"cedarschema:\d+: cycle in .*corr",
    ),
    (
        "an action of somebody else",
        PolicySet.of(
            {
                SCHEMA: PACKAGED.files[SCHEMA] + FOREIGN,
                "one.cedar": f'{FIRST}{SECOND}permit (principal, action == Other::Action::"fly", resource);',
                "cases/one.toml": CASES,
            }
        ),
        r"one\.cedar:7: Other::Action::\"fly\" is none of the broker's actions: they are Action::",
    ),
    (
        "no such action",
        schema("action receive, review", "action receive"),
        r"cedarschema:1: .*`.*review.*must declare r",
    ),
    (
        "another context",
        schema("{ now: Long } };", "{ now: Long, who: String } };"),
        r"cedarschema:1: .*must declare rece",
    ),
    (
        "the schema does not parse",
        schema("entity Member;", "entity Member"),
        r"cedarschema:\d+: .*: correct the schema",
    ),
    (
        "a fact less",
        schema("  exercise: Bool,\n", ""),
        r"schema\.cedarschema does not declare the facts that there are",
    ),
    ("no schema", PolicySet.of({"one.cedar": FIRST}), r"schema\.cedarschema is missing: every set carries"),
    (
        "a case fails",
        tried('exercise = true }\nreceive = ["GE/ncb"]', "exercise = true }\nreceive = []"),
        r"cases/one\.toml:10: case 'two': receive should be \[\] and is \['GE/ncb'\]: correct the case, or the rule",
    ),
    (
        "a case names nobody",
        tried('{ issuer = "AT/ncb", everyone = true, e', '{ issuer = "AT/cnb", e'),
        r"cases/one\.toml:10: .*anyone|cases/one\.toml:10: ",
    ),
    (
        "a slip in a case",
        tried("exercise = true", "exersise = true"),
        r"cases/one\.toml:10: case\.1\.notice\.exersise",
    ),
    ("no TOML", tried("[[case]]", "[[case]"), r"cases/one\.toml:5: this is no TOML, .*: correct what stands there"),
    (
        "a deep TOML",
        one(FIRST, f"a = {'[' * 100_000}"),
        r"cases/one\.toml:1: this is no TOML, .*: correct what stands there",
    ),
    (
        "no such clearance",
        one(FIRST, CASES.replace("[world.b", '[world.clearances]\n"GE/ncb" = "cosmic"\n[world.b', 1)),
        r"cases/one\.toml:1: world\.clearances\.GE/ncb",
    ),
    ("a number past all bounds", tried("exercise = true", f"retain_until = {1 << 70}"), r"cases/one\.toml:10: "),
    # Cedar's reader ends the process over these.
    (
        "brackets",
        only_when(f"{'(' * 5_000}true{')' * 5_000}"),
        r"one\.cedar:7: brackets are nested more than 30 deep: wr",
    ),
    ("open brackets", only_when("(" * 100_000), r"one\.cedar:7: brackets are nested more than 30 deep: write it flat"),
    ("sets", only_when(f"{'[' * 5_000}1{']' * 5_000} == 1"), r"one\.cedar:7: brackets are nested more than 30 deep"),
    (
        "records",
        only_when(f"{'{a:' * 5_000}1{'}' * 5_000} == 1"),
        r"one\.cedar:7: brackets are nested more than 30 deep",
    ),
    (
        "a long chain",
        only_when(f"{'true && ' * 50_000}true"),
        r"one\.cedar:7: the rule has more than 250 brackets, dots",
    ),
    (
        "many ors",
        only_when(f"{'true||' * 50_000}true"),
        r"one\.cedar:7: the rule has more than 250 brackets, dots and ",
    ),
    (
        "many dots",
        only_when(f"resource{'.a' * 50_000} == 1"),
        r"one\.cedar:7: the rule has more than 250 brackets, dots",
    ),
    ("many indices", only_when(f"resource{INDICES} == 1"), r"one\.cedar:7: the rule has more than 250 brackets"),
    ("many calls", only_when(f"resource{'.isEmpty()' * 50_000}"), r"one\.cedar:7: the rule has more than 250 brackets"),
    (
        "many sums",
        only_when(f"1{'+1' * 50_000} == 1"),
        r"one\.cedar:7: the rule has more than 250 brackets, dots and op",
    ),
    (
        "many products",
        only_when(f"1{'*1' * 50_000} == 1"),
        r"one\.cedar:7: the rule has more than 250 brackets, dots and",
    ),
    (
        "many minuses",
        only_when(f"1{'-1' * 50_000} == 1"),
        r"one\.cedar:7: the rule has more than 250 brackets, dots and",
    ),
    (
        "many ifs",
        only_when(f"{'if true then true else ' * 50_000}true"),
        r"one\.cedar:7: the rule has more than 250 brac",
    ),
    (
        "many nots",
        only_when(f"{'!' * 50_000}true"),
        r"one\.cedar:7: the rule has more than 250 brackets, dots and oper",
    ),
    ("a deep chain", only_when(f"{'true && ' * 120}true"), r"one\.cedar:7: .*nesting exceeds .*100 levels: correct"),
    (
        "a deep type",
        schema("mandates: Set<String>", f"mandates: {'Set<' * 5_000}String{'>' * 5_000}"),
        r"schema\.cedarschema:\d+: brackets are nested more than 30 deep: write it flat",
    ),
    (
        "a deep record",
        schema("mandates: Set<String>", f"mandates: {'{a:' * 5_000}String{'}' * 5_000}"),
        r"schema\.cedarschema:\d+: brackets are nested more than 30 deep: write it flat",
    ),
]


SCRAPS = (
    *'()[]{}";!.-\\\0é\ud7ff',
    *("//", "\n", "&&", "||", "==", " in ", "when", "unless", "forbid", "permit", "principal", "resource", "action"),
    *(
        '@id("x")',
        'Action::"see"',
        "?principal",
        "9" * 30,
        "like",
        "has",
        "is",
        "if",
        "true",
        "[[case]]",
        "= ",
        "[world]",
    ),
)


@pytest.mark.parametrize(("policies", "reason"), [each[1:] for each in BAD], ids=[each[0] for each in BAD])
def test_it_is_refused_with_file_line_reason_and_what_to_do(policies: PolicySet, reason: str) -> None:
    started = time.process_time()
    with pytest.raises(VersionRefusedError, match=f"(?s)policies: .*{reason}") as refused:
        Rules.load(policies, DIRECTORY, NO_ANNEX)
    assert time.process_time() - started < 5
    assert len(str(refused.value)) < 1000


def test_a_rule_that_only_cedar_would_see_is_refused() -> None:
    hidden = FIRST.rstrip() + " // end\r" + BAN.replace("\n", "\r")
    assert [each.line for each in statements("one.cedar", hidden)] == [1]
    with pytest.raises(VersionRefusedError, match="a carriage return stands here"):
        read_rules(one(hidden))
    # Whatever else Cedar may read otherwise than we cut: the number of rules tells.
    with pytest.raises(VersionRefusedError, match="Cedar reads 2 rules in this file, of which 1 were cut"):
        check_cuts("one.cedar", hidden, 1)


@pytest.mark.parametrize("seed", range(120))
def test_whatever_is_changed_in_our_own_set_it_loads_or_is_refused(seed: int) -> None:
    """Nothing else escapes, of whatever kind: Cedar's reader may even panic, which is no Exception."""
    chance = random.Random(f"changed {seed}")
    name = chance.choice(sorted(PACKAGED.files))
    text = PACKAGED.files[name]
    for _ in range(chance.randint(1, 3)):
        begin = chance.randrange(len(text) + 1)
        end = min(len(text), begin + chance.choice((0, 0, 1, 3, 10, 40)))
        text = text[:begin] + chance.choice((*SCRAPS, "")) + text[end:]
    with contextlib.suppress(VersionRefusedError):
        assert Rules.load(PolicySet.of({**PACKAGED.files, name: text}), DIRECTORY, NO_ANNEX).rules


def test_the_sound_sets_that_the_bad_ones_are_made_of_load() -> None:
    assert [each.id for each in Rules.load(one(FIRST), DIRECTORY, NO_ANNEX).rules] == ["first"]
    denied = CASES.replace('true, exercise = true }\nreceive = ["GE/ncb"]', 'true, deny = ["GE"] }\nreceive = []')
    assert [each.line for each in Rules.load(one(FIRST + BAN, denied), DIRECTORY, NO_ANNEX).rules] == [1, 7]
    assert Rules.load(PACKAGED, DIRECTORY, NO_ANNEX).digest == PACKAGED.digest


def test_as_many_rules_as_the_limit_allows_load_and_one_more_does_not() -> None:
    rules = re.split(r"(?<=;\n)", MANY)
    assert len(Rules.load(one("".join(rules[:1000])), DIRECTORY, NO_ANNEX).rules) == 1000
    with pytest.raises(VersionRefusedError, match="more than 1000 rules"):
        Rules.load(one("".join(rules[:1001])), DIRECTORY, NO_ANNEX)


def test_what_stands_on_the_line_of_another_rules_end_is_no_sentence_of_the_next() -> None:
    text = FIRST.replace(";\n\n", "; // the end\n\n// File by file.\n\n") + BAN
    denied = CASES.replace('true, exercise = true }\nreceive = ["GE/ncb"]', 'true, deny = ["GE"] }\nreceive = []')
    assert [each.sentence for each in Rules.load(one(text, denied), DIRECTORY, NO_ANNEX).rules] == [
        "Everybody receives everything.",
        "It says something.",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"files":{"one.cedar":"\\ud800"}}',
        b'{"files":' + b"[" * 100_000,
        PACKAGED.content.replace(b'{"files"', b'{"more":1,"files"'),
    ],
    ids=["empty", "a list", "half a character", "a deep list", "more than files"],
)
def test_bytes_that_are_no_set_are_refused(content: bytes) -> None:
    with pytest.raises(VersionRefusedError):
        PolicySet.parse(content)


# In force


def record(kind: str, content: bytes) -> Record:
    return Record("versions", 0, 0, NOW, b"", codec.encode(Version(kind, content)))


def test_the_old_set_stays_in_force_whatever_comes(tmp_path: Path) -> None:
    adopter = Adopter(Register(tmp_path / "register.db"))
    for kind, content in (("directory", members.canonical(world.directory())), ("policies", PACKAGED.content)):
        adopter.adopt(adopter.try_out(record(kind, content)))
    assert adopter.view is not None
    in_force = adopter.view.rules
    for name, policies, _ in BAD:
        refused = adopter.try_out(record("policies", policies.content))
        assert refused.versions is None, name
        assert refused.ruling.kind == "version-refused"
        assert not adopter.adopt(refused)
        assert adopter.view.rules is in_force
    assert in_force.digest == PACKAGED.digest
