"""Breaks the compiler in many places, one at a time, and demands that the comparison with Cedar notices each.

A mutant is a piece of source replaced by another. The files of the compiler are loaded from their changed text into
modules of their own; nothing that is in force is touched. Cedar's answers are asked for once.
"""

from __future__ import annotations

import builtins
import random
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from broker import masks
from broker.directory import Annex, Directory
from broker.errors import VersionRefusedError
from broker.facts import Facts
from broker.likeness import Answer
from broker.notice import KINDS
from broker.rules import RECEIVE, REVIEW, SEE, PolicySet, Reference
from tests.policy import invented
from tests.policy.invented import Author
from tests.policy.test_exact import OUTSIDE, when

ROOT = Path(masks.__file__).parent.parent
FILES = {
    "broker.masks": "broker/masks.py",
    "broker.rules.conditions": "broker/rules/conditions.py",
    "broker.rules.statements": "broker/rules/statements.py",
    "broker.rules.read": "broker/rules/read.py",
    "broker.rules.compiled": "broker/rules/compiled.py",
}
"""What is compiled anew for each mutant, for one imports the other."""
WIDE = (0,) * 16 + (1,) * 8 + (2,) * 8
"""Scenes with many permits: how deep their conditions are. Single questions tell the most."""
RULES, MIXED, OWN, NOTICES = 16, 24, 4, 2
"""Permits of a wide scene; scenes with rules of all sorts; scenes with our own set; notices of each scene."""
MASKS, CONDITIONS, READ, COMPILED = (FILES[f"broker.{each}"] for each in (
    "masks", "rules.conditions", "rules.read", "rules.compiled",
))  # fmt: skip

MUTANTS: list[tuple[str, str, str]] = [
    # what holds for which bureaus
    (MASKS, "if bureau is not None and directory.is_active(bureau.member)", "if bureau is not None"),
    (MASKS, "1 << bureau.index,", "1 << bureau.index + 1,"),
    (MASKS, "if each.active and bureau.member in each.members", "if bureau.member in each.members"),
    (MASKS, '"cleared_for": annex.cleared_for(bureau.id)', '"cleared_for": frozenset({annex.clearance(bureau.id)})'),
    # conditions
    (MASKS, "return lambda facts: everyone if holds(facts) else 0", "return lambda facts: everyone"),
    (MASKS, "return Fixed(self._everyone if expression.value else 0)", "return Fixed(self._everyone)"),
    (MASKS, "return Plain(lambda facts: get(facts) is True)", "return Plain(lambda facts: get(facts) is not None)"),
    (MASKS, "return Fixed(everyone & ~condition.mask)", "return Fixed(~condition.mask)"),
    (MASKS, "return Fixed(everyone & ~condition.mask)", "return condition"),
    (MASKS, "return Plain(lambda facts: not holds(facts))", "return condition"),
    (MASKS, "return Joined(lambda facts: everyone & ~mask(facts))", "return Joined(lambda facts: ~mask(facts))"),
    (MASKS, "return Joined(lambda facts: everyone & ~mask(facts))", "return condition"),
    (MASKS, "fixed = everyone if both else 0", "fixed = everyone"),
    (MASKS, "fixed = fixed & part.mask if both else fixed | part.mask", "fixed = fixed | part.mask"),
    (MASKS, "fixed = fixed & part.mask if both else fixed | part.mask", "fixed = fixed & part.mask"),
    (MASKS, "if fixed == (everyone if both else 0):", "if True:"),
    (MASKS, "if not plain and len(joined) == 1:", "if len(joined) == 1:"),
    (MASKS, "if not plain and len(joined) == 1:", "if not plain:"),
    (MASKS, "_every(plain) if both else _any(plain)", "_every(plain)"),
    (MASKS, "_every(plain) if both else _any(plain)", "_any(plain)"),
    (MASKS, "return lambda facts: first(facts) and second(facts)", "return lambda facts: first(facts)"),
    (MASKS, "return lambda facts: first(facts) or second(facts)", "return lambda facts: second(facts)"),
    (MASKS, "return lambda facts: all(test(facts) for test in tests)", "return tests[0]"),
    (MASKS, "return lambda facts: any(test(facts) for test in tests)", "return tests[-1]"),
    (
        MASKS,
        "            if not holds(facts):\n                return 0\n",
        "            if not holds(facts):\n                break\n",
    ),
    (MASKS, "            found &= part(facts)", "            found = part(facts)"),
    (MASKS, "            found |= part(facts)", "            found = part(facts)"),
    (
        MASKS,
        "            if holds(facts):\n                return everyone\n",
        "            if holds(facts):\n                return fixed\n",
    ),
    (MASKS, "negated=not negated)", "negated=negated)"),
    (MASKS, 'op = expression.op if not negated else "or" if expression.op == "and" else "and"', "op = expression.op"),
    (
        MASKS,
        "if isinstance(expression, Apply) and expression.op == op else (expression,)",
        "if isinstance(expression, Apply) else (expression,)",
    ),
    # questions
    (MASKS, "return Joined(lambda facts: get(facts) & everyone)", "return Joined(lambda facts: everyone)"),
    (MASKS, "return Joined(lambda facts: get(facts) & everyone)", "return Joined(get)"),
    (MASKS, "return Plain(lambda facts: not get(facts))", "return Plain(lambda facts: bool(get(facts)))"),
    (MASKS, 'turned = _side(left) == "notice"', "turned = False"),
    (MASKS, "if (test(key, value) if turned else test(value, key))", "if test(value, key)"),
    (MASKS, "found = table.get(key)", "found = table.get(None, next(iter(table.values()), None))"),
    (
        MASKS,
        "return lambda facts: test(left(facts), right(facts))",
        "return lambda facts: test(right(facts), left(facts))",
    ),
    (MASKS, "return _id(left) == _id(right)", "return left == right"),
    (MASKS, "return _id(item) in container", "return item in container"),
    (MASKS, 'return subject.id in groups or subject.attributes["member"] in groups', "return subject.id in groups"),
    (
        MASKS,
        'return subject.id in groups or subject.attributes["member"] in groups',
        'return subject.attributes["member"] in groups',
    ),
    (
        MASKS,
        "groups = group if isinstance(group, frozenset) else {_id(group)}",
        "groups = group if isinstance(group, frozenset) else {group}",
    ),
    (MASKS, '"not_eq": lambda left, right: not _equal(left, right)', '"not_eq": _equal'),
    (MASKS, '"less": operator.lt', '"less": operator.le'),
    (MASKS, '"less_eq": operator.le', '"less_eq": operator.lt'),
    (MASKS, '"greater": operator.gt', '"greater": operator.ge'),
    (MASKS, '"greater_eq": operator.ge', '"greater_eq": operator.gt'),
    (MASKS, '"contains_all": operator.ge', '"contains_all": operator.gt'),
    (MASKS, '"contains_all": operator.ge', '"contains_all": operator.le'),
    (MASKS, '"contains_any": lambda left, right: not left.isdisjoint(right)', '"contains_any": operator.ge'),
    (MASKS, '"is_empty": operator.not_', '"is_empty": bool'),
    (MASKS, '"not_eq": operator.ne', '"not_eq": operator.eq'),
    (
        CONDITIONS,
        'case pst.UnaryOp("not" | "is_empty" as op, arg):',
        "case pst.UnaryOp(_, arg):\n            op = 'not'",
    ),
    # heads and clauses
    (CONDITIONS, 'else Apply("not", (found,))', "else found"),
    (CONDITIONS, 'return Apply("and", tuple(parts))', 'return Apply("or", tuple(parts))'),
    (CONDITIONS, 'yield Apply("eq", (Principal(), _entity(scope.entity)))', "yield from ()"),
    (CONDITIONS, "isinstance(scope, pst.ScopeIn | pst.ScopeIsIn):", "isinstance(scope, pst.ScopeIn):"),
    (CONDITIONS, "isinstance(scope, pst.ScopeIn | pst.ScopeIsIn):", "isinstance(scope, pst.ScopeIsIn):"),
    (READ, "        actions = frozenset(ACTIONS)\n", '        actions = frozenset({"receive"})\n'),
    (READ, "actions = frozenset({scope.entity.id}) & frozenset(ACTIONS)", "actions = frozenset(ACTIONS)"),
    (READ, "action in Action::", "action == Action::"),
    # joining the rules
    (COMPILED, "        allowed |= masks[place]", "        allowed = masks[place]"),
    (COMPILED, "        allowed &= ~masks[place]", "        allowed ^= masks[place]"),
    (COMPILED, "            free &= ~masks[place]", "            free = ~masks[place]"),
    (COMPILED, "allowed = free & _allowed(masks, permits, forbids)", "allowed = _allowed(masks, permits, forbids)"),
    (COMPILED, "free & _allowed(masks, *plan.receive)", "_allowed(masks, *plan.receive)"),
    (COMPILED, "review = _allowed(masks, *plan.review)", "review = 0"),
    (COMPILED, "review = _allowed(masks, *plan.review)", "review = masks[plan.review[0][0]] if plan.review[0] else 0"),
    (COMPILED, "                hits.append(hit(mask))", "                hits.append(hit(mask & -mask))"),
    (COMPILED, ".intersection(*(self._speaking[each][1] for each in actions))", ""),
    (COMPILED, "if place not in barring)", "if place in barring)"),
    (COMPILED, "if not spoken_of.isdisjoint((*actions, REVIEW))", "if RECEIVE in spoken_of"),
    (COMPILED, 'if self.rules[place].effect == "forbid")', "if self.rules[place].effect)"),
    (COMPILED, "deciding = forbids or permits", "deciding = permits or forbids"),
    (COMPILED, "alike = tuple([mask >> index & 1 for mask in kept.met])", "alike = ()"),
    (COMPILED, "if kept is None or kept.facts is not facts:", "if kept is None:"),
    (
        COMPILED,
        "unmet=tuple(self.rules[place] for place in permits if not met",
        "unmet=tuple(self.rules[place] for place in permits if met",
    ),
    (
        COMPILED,
        "self._named(self._speaking[SEE[name]][1], met, index)",
        "self._named(self._speaking[RECEIVE][1], met, index)",
    ),
    (COMPILED, "return Verdict(0, {}, ())", "plan = self._plans['person']"),
]

LENIENT: list[tuple[str, str, str]] = [
    (MASKS, 'if expression.op == "in" and not isinstance(expression.operands[0], Principal):', "if False:"),
    (MASKS, "if not any(_is_bureau_set(each) for each in expression.operands):", "if True:"),
    (CONDITIONS, "if template.resource not in (pst.ScopeAny(), pst.ScopeIs(_NOTICE)):", "if False:"),
    (CONDITIONS, 'if entity.type == _MEMBER and "/" not in entity.id:', "if True:"),
    (CONDITIONS, "if not _fits(op, kinds):", "if False:"),
    (READ, "for error in cedarpy.validate_policies(text, schema).errors:", "for error in ():"),
    (READ, "if parsed.templates or len(parsed.static_policies) != 1:", "if False:"),
]
"""Mutants that take what must be refused."""


NARROW = "\n".join(
    f"{invented.head(f'r{place}')}{rule}"
    for place, rule in enumerate(
        (
            "permit (principal, action, resource);",
            'forbid (principal, action == Action::"receive", resource);',
            'forbid (principal, action in [Action::"see_identity", Action::"see_summary"], resource);',
        )
    )
)
"""Forbids that speak of one action each: what one forbids is open to the other."""


FLAGS = "\n".join(
    f"{invented.head(f'r{place}')}permit (principal, action, resource) when {{ {sign.join(names)} }};"
    for place, (sign, names) in enumerate(
        (sign, names)
        for sign in (" && ", " || ")
        for size in (2, 3)
        for names in permutations(("resource.exercise", "resource.everyone", "resource.corrects"), size)
    )
)
"""What is plain, joined by two and by three, in every order."""


MASKED = "\n".join(
    f"{invented.head(name)}permit (principal, action, resource) when {{ resource.{name}.contains(principal) }};"
    for name in sorted(masks.BUREAU_SETS)
)
"""Sets of bureaus, in federations of which a member is suspended."""
HEADED = "\n".join(
    f"{invented.head(f'r{place}')}permit ({rule}) unless {{ false }};"
    for place, rule in enumerate(
        (
            'principal == Bureau::"M0/b0", action, resource',
            'principal in Bureau::"M0/b0", action, resource is Notice',
            'principal in Member::"M0", action, resource',
            'principal is Bureau in Member::"M0", action, resource',
            'principal, action == Action::"see_identity", resource',
            'principal, action in Action::"see", resource',
            'principal, action in [Action::"see_identity", Action::"review"], resource',
        )
    )
)
DIRECTED = {"narrow": NARROW, "flags": FLAGS, "masks": MASKED, "heads": HEADED}
"""Scenes for what chance seldom hits upon, in federations of several bureaus of which a member is suspended."""


class MutantNotFoundError(Exception):
    """The text that a mutant replaces is not in the source any more: write the mutant anew."""


@dataclass(frozen=True)
class Scene:
    """A federation, a set of rules, a few notices, and everything that Cedar answers."""

    policies: PolicySet
    directory: Directory
    annex: Annex
    notices: tuple[Facts, ...]
    answers: tuple[Mapping[tuple[str, str], Answer], ...]


@cache
def scenes() -> tuple[Scene, ...]:
    """Make up the scenes, and ask Cedar."""
    kinds: list[int | str] = [
        "narrow",
        *["flags"] * 4,
        *["masks"] * 4,
        *["heads"] * 2,
        *WIDE,
        *["mixed"] * MIXED,
        *["own"] * OWN,
    ]
    return tuple(_scene(random.Random(f"mutants {place}"), kind) for place, kind in enumerate(kinds))


def _scene(chance: random.Random, kind: int | str) -> Scene:
    directory, annex = invented.world(chance)
    while kind in DIRECTED and (all(map(directory.is_active, directory.members)) or len(directory.bureaus) < 4):
        directory, annex = invented.world(chance)
    if kind == "own":
        policies = invented.PACKAGED
    elif kind in DIRECTED:
        policies = invented.policies(DIRECTED[str(kind)])
    elif isinstance(kind, int):
        policies = invented.policies(Author(chance, directory, kind).permits(RULES))
    else:
        policies = invented.policies(Author(chance, directory).rules())
    literals = masks.literals(each.condition for each in loaded({})["broker.rules.read"].read_rules(policies))
    notices = tuple(invented.notice(chance, directory, literals) for _ in range(NOTICES))
    reference = Reference(policies, directory, annex)
    return Scene(policies, directory, annex, notices, tuple(_answers(reference, directory, each) for each in notices))


def _answers(reference: Reference, directory: Directory, facts: Facts) -> dict[tuple[str, str], Answer]:
    actions = (RECEIVE, REVIEW, *(SEE[name] for name in KINDS[facts.kind]))
    asked = [(bureau, action) for bureau in directory.bureaus_in(directory.everyone) for action in actions]
    return dict(zip(asked, reference.answers(facts, asked), strict=True))


def loaded(changed: Mapping[str, tuple[str, str]]) -> dict[str, ModuleType]:
    """Load the compiler with pieces of its source replaced. Raises MutantNotFoundError."""
    made: dict[str, ModuleType] = {}
    real = builtins.__import__

    def importing(name: str, *rest: Any) -> Any:
        return made[name] if name in made else real(name, *rest)

    for name, file in FILES.items():
        source = (ROOT / file).read_text(encoding="utf-8")
        old, new = changed.get(file, ("", ""))
        if source.count(old) != 1 and old:
            message = f"{file} holds {source.count(old)} times: {old}"
            raise MutantNotFoundError(message)
        # It bears the name of the real one, where dataclasses look up what their annotations say.
        module = ModuleType(name)
        vars(module)["__builtins__"] = {**vars(builtins), "__import__": importing}
        exec(compile(source.replace(old, new) if old else source, f"mutant of {file}", "exec"), vars(module))
        made[name] = module
    return made


def differences(modules: Mapping[str, ModuleType]) -> Iterator[str]:
    """Say where this compiler answers otherwise than Cedar."""
    read_rules, rules_class = modules["broker.rules.read"].read_rules, modules["broker.rules.compiled"].Rules
    for number, scene in enumerate(scenes()):
        rules = rules_class(read_rules(scene.policies), scene.directory, scene.annex)
        for facts, answers in zip(scene.notices, scene.answers, strict=True):
            yield from (f"scene {number}: {each}" for each in _differing(rules, facts, answers, scene.directory))


def taken(modules: Mapping[str, ModuleType]) -> Iterator[str]:
    """Say which texts this compiler takes although they have no compiled form."""
    read_rules, rules_class = modules["broker.rules.read"].read_rules, modules["broker.rules.compiled"].Rules
    directory, annex = scenes()[0].directory, scenes()[0].annex
    refusals = (VersionRefusedError, modules["broker.masks"].OutsideSubsetError)
    for text in (*(when(condition) for condition, _ in OUTSIDE), *HEADS):
        try:
            rules_class(read_rules(invented.policies(text)), directory, annex)
        except refusals:
            continue
        yield text


HEADS = tuple(
    f"{invented.head('one')}{each}"
    for each in (
        'permit (principal, action, resource == Notice::"n");',
        "permit (principal == ?principal, action, resource);",
        'permit (principal, action, resource) when { principal in Member::"M0/b0" };',
    )
)


def _differing(
    rules: Any, facts: Facts, answers: Mapping[tuple[str, str], Answer], directory: Directory
) -> Iterator[str]:
    verdict = rules.judge(facts)
    yield from ("nobody" for mask in (verdict.receive, *verdict.see.values()) if mask & ~directory.everyone)
    for (bureau, action), right in answers.items():
        index = directory.bureaus[bureau].index
        if rules.answer(facts, index, action) != right:
            yield f"answer {bureau} {action}"
        name = action.removeprefix("see_")
        if action in (RECEIVE, REVIEW):
            mask = verdict.receive if action == RECEIVE else verdict.review
            yield from (f"judge {bureau} {action}" for _ in range(mask >> index & 1 != right.allowed))
            met = {each.rule for each in verdict.hits if each.bureaus >> index & 1}
            yield from (f"hits {bureau} {each}" for each in right.rules - met)
        if name in verdict.see and verdict.see[name] >> index & 1 != right.allowed:
            yield f"judge {bureau} {action}"
    for bureau in directory.bureaus_in(directory.everyone):
        yield from _explained_otherwise(rules, facts, answers, bureau, directory.bureaus[bureau].index)
    yield from ("unknown kind" for _ in range(rules.judge(_of_no_kind(facts)).receive != 0))


def _of_no_kind(facts: Facts) -> Facts:
    return type(facts)(**{name: getattr(facts, name) for name in facts.__dataclass_fields__} | {"kind": "rumour"})


def _explained_otherwise(
    rules: Any, facts: Facts, answers: Mapping[tuple[str, str], Answer], bureau: str, index: int
) -> Iterator[str]:
    found, right = rules.explain(facts, index), answers[bureau, RECEIVE]
    deciding = {each.id for each in found.forbids or found.permits}
    if found.receives != right.allowed or deciding != right.rules:
        yield f"explain {bureau}"
    if {each.id for each in found.unmet} & {each.id for each in found.permits}:
        yield f"explain unmet {bureau}"
    for name in KINDS[facts.kind]:
        see = answers[bureau, SEE[name]]
        if (name in found.sees) != see.allowed:
            yield f"explain {bureau} {name}"
        if not see.allowed and {each.id for each in found.withheld[name]} != see.rules:
            yield f"explain withheld {bureau} {name}"


def test_the_compiler_as_it_is_differs_nowhere() -> None:
    assert list(differences(loaded({}))) == []
    assert list(taken(loaded({}))) == []


@pytest.mark.parametrize(("file", "old", "new"), MUTANTS, ids=[f"{new}" for _, _, new in MUTANTS])
def test_a_broken_compiler_is_noticed(file: str, old: str, new: str) -> None:
    assert _noticed(differences, loaded({file: (old, new)}))


@pytest.mark.parametrize(("file", "old", "new"), LENIENT)
def test_a_compiler_that_takes_too_much_is_noticed(file: str, old: str, new: str) -> None:
    assert _noticed(taken, loaded({file: (old, new)}))


def _noticed(noticing: Callable[[Mapping[str, ModuleType]], Iterator[str]], modules: Mapping[str, ModuleType]) -> bool:
    """Say whether anything is found; a compiler that breaks down over it is noticed as well."""
    try:
        return any(noticing(modules))
    except (VersionRefusedError, TypeError, KeyError, AttributeError, modules["broker.masks"].OutsideSubsetError):
        return True


def test_a_mutant_whose_text_is_gone_fails() -> None:
    with pytest.raises(MutantNotFoundError, match=r"broker/masks\.py holds 0 times: what was never there"):
        loaded({MASKS: ("what was never there", "")})
    with pytest.raises(MutantNotFoundError, match=r"broker/masks\.py holds \d+ times: return"):
        loaded({MASKS: ("return", "")})


def test_there_are_more_than_twenty_places() -> None:
    assert len({(file, old) for file, old, _ in [*MUTANTS, *LENIENT]}) > 40
