"""Reads the files of a policy set into rules that can be compiled; whatever cannot be taken exactly is refused."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import cedarpy
from cedarpy import pst

from broker.errors import VersionRefusedError
from broker.masks import CONTEXT, Expression, OutsideSubsetError
from broker.rules.actions import ACTIONS
from broker.rules.conditions import condition, named
from broker.rules.policy_set import SCHEMA, PolicySet, refused
from broker.rules.statements import Statement, check_depth, statements

_ACTION = pst.EntityType("Action")
LIMIT = 1_000
"""Rules of one set: every notice asks each of them, and a person must be able to read them all."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule in words: what it says, who answers for it, on what basis, and where it stands."""

    id: str
    effect: str
    owner: str
    basis: str
    sentence: str
    file: str
    line: int


@dataclass(frozen=True, slots=True)
class Read:
    """A rule as read: for which actions, under which condition, and which members and bureaus it names."""

    rule: Rule
    actions: frozenset[str]
    condition: Expression
    names: frozenset[str] = frozenset()


def read_rules(policies: PolicySet) -> tuple[Read, ...]:
    """Read a set. Raises VersionRefusedError with file, line, reason and what to do."""
    schema = read_schema(policies)
    for name in policies.policy_files:
        _check_lines(name, policies.files[name])
    cut = {name: tuple(statements(name, policies.files[name])) for name in policies.policy_files}
    _count(cut)
    parsed = [(name, each) for name, found in cut.items() for each in _parse_file(name, found)]
    for name, found in cut.items():
        check_cuts(name, policies.files[name], len(found))
        _validate(name, found, schema)
    reach = _reach((template for _, (_, template) in parsed), schema)
    rules = tuple(_rule(name, statement, template, reach) for name, (statement, template) in parsed)
    _check_ids(rules)
    return rules


def read_schema(policies: PolicySet) -> cedarpy.Schema:
    """Read the schema of a set. Raises VersionRefusedError."""
    if SCHEMA not in policies.files:
        raise VersionRefusedError(f"policies: {SCHEMA} is missing: every set carries what its rules speak of")
    text = policies.files[SCHEMA]
    _check_lines(SCHEMA, text)
    check_depth(SCHEMA, text)
    try:
        return cedarpy.Schema.from_str(text)
    except ValueError as error:
        raise refused(SCHEMA, _line_of(text, str(error)), f"{error}: correct the schema") from error


def _check_lines(name: str, text: str) -> None:
    """Refuse a carriage return: Cedar ends a comment there, we and every editor go on. Raises VersionRefusedError."""
    before, found, _ = text.partition("\r")
    if found:
        raise refused(name, 1 + before.count("\n"), "a carriage return stands here: end each line by a line feed alone")


def check_cuts(name: str, text: str, count: int) -> None:
    """Check that Cedar finds in a whole file as many rules as were cut from it: one more would be in no mask.

    Raises VersionRefusedError. Call it once each cut was read: Cedar must not meet what is nested too deep.
    """
    try:
        whole = cedarpy.policies_to_pst(text)
    except ValueError as error:
        raise refused(name, 1, f"{error}: correct the file") from error
    found = len(whole.static_policies) + len(whole.templates)
    if found != count:
        raise refused(name, 1, f"Cedar reads {found} rules in this file, of which {count} were cut: write them plainly")


def _line_of(text: str, message: str) -> int:
    """Find the first line that holds the last thing that a message quotes; Cedar itself tells no place."""
    for quoted in reversed(message.split("`")[1::2]):
        name = quoted.split('"')[1] if '"' in quoted else quoted
        for number, line in enumerate(text.splitlines(), start=1):
            if name and name in line.partition("//")[0]:
                return number
    return 1


def _count(cut: dict[str, tuple[Statement, ...]]) -> None:
    count = 0
    for name, found in cut.items():
        count += len(found)
        if count > LIMIT:
            line = found[LIMIT - count].line
            raise refused(name, line, f"more than {LIMIT} rules in the set: say in one rule what holds for many")
    if not count:
        raise VersionRefusedError("policies: there is no rule, so nobody would receive anything: add a file *.cedar")


def _parse_file(name: str, found: tuple[Statement, ...]) -> Iterator[tuple[Statement, pst.Template]]:
    for each in found:
        parsed = _parse(name, each)
        if parsed.templates or len(parsed.static_policies) != 1:
            raise refused(name, each.line, "this is something else than a plain rule: write a template out")
        yield each, parsed.static_policies["policy0"]


def _parse(name: str, statement: Statement) -> pst.PolicySet:
    try:
        return cedarpy.policies_to_pst(statement.text)
    except ValueError as error:
        raise refused(name, statement.line, f"{error}: correct the rule that begins here") from error


def _validate(name: str, found: tuple[Statement, ...], schema: cedarpy.Schema) -> None:
    """Hold a file against the schema; validated statement by statement, for Cedar names only a place in the text."""
    text = "\n".join(each.text for each in found)
    for error in cedarpy.validate_policies(text, schema).errors:
        place = error.policy_id.removeprefix("policy")
        line = found[int(place)].line if place.isdecimal() else 1
        reason = error.error.removeprefix(f"for policy `{error.policy_id}`, ")
        raise refused(name, line, f"{reason}: correct the rule, or declare it in {SCHEMA}")


def _reach(templates: Iterable[pst.Template], schema: cedarpy.Schema) -> dict[str, frozenset[str]]:
    """Ask Cedar which of our actions are in each action or group that the heads of rules name."""
    names = sorted({each.id for template in templates for each in _named_in(template.action)})
    text = "\n".join(
        f'@id("{place}") permit (principal, action in Action::{json.dumps(name, ensure_ascii=False)}, resource);'
        for place, name in enumerate(names)
    )
    try:
        results = _ask_all(text, schema)
    except ValueError as error:
        raise refused(SCHEMA, 1, f"{error}: the schema must declare every action of the broker") from error
    found: dict[str, set[str]] = {name: set() for name in names}
    for action, result in zip(ACTIONS, results, strict=True):
        if result.diagnostics.errors:
            reason = str(result.diagnostics.errors[0])
            raise refused(SCHEMA, 1, f"{reason}: the schema must declare {action} for a Bureau, a Notice and `now`")
        for place in result.diagnostics.id_annotations_by_reason.values():
            found[names[int(place)]].add(action)
    return {name: frozenset(actions) for name, actions in found.items()}


def _ask_all(text: str, schema: cedarpy.Schema) -> list[cedarpy.AuthzResult]:
    requests = [
        {
            "principal": {"type": "Bureau", "id": ""},
            "action": {"type": "Action", "id": action},
            "resource": {"type": "Notice", "id": ""},
            "context": dict.fromkeys(CONTEXT, 0),
        }
        for action in ACTIONS
    ]
    entities = cedarpy.Entities.from_json_str("[]", schema)
    return cedarpy.is_authorized_batch(requests, cedarpy.PolicySet.from_str(text), entities, schema)


def _named_in(scope: pst.ActionConstraint) -> tuple[pst.EntityUid, ...]:
    if isinstance(scope, pst.ScopeAny):
        return ()
    return (scope.entity,) if isinstance(scope, pst.ActionEq) else scope.entities


def _rule(name: str, statement: Statement, template: pst.Template, reach: dict[str, frozenset[str]]) -> Read:
    rule = _in_words(name, statement, template)
    scope = template.action
    for each in _named_in(scope):
        if each.type != _ACTION:
            raise refused(name, statement.line, f'{each} is none of the broker\'s actions: they are Action::"…"')
    if isinstance(scope, pst.ScopeAny):
        actions = frozenset(ACTIONS)
    elif isinstance(scope, pst.ActionEq):
        actions = frozenset({scope.entity.id}) & frozenset(ACTIONS)
    else:
        actions = frozenset[str]().union(*(reach[each.id] for each in scope.entities))
    try:
        return Read(rule, actions, condition(template), named(template))
    except OutsideSubsetError as error:
        raise refused(name, statement.line, f"{error} (outside the compiled subset)") from error


def _in_words(file: str, statement: Statement, template: pst.Template) -> Rule:
    notes, line = template.annotations, statement.line
    for name, meaning in (("id", "a name"), ("owner", "who answers for it"), ("basis", "its legal basis in words")):
        if not notes.get(name, "").strip():
            raise refused(file, line, f'the rule has no @{name}: write @{name}("…"), {meaning}, above it')
    if not statement.sentence:
        raise refused(file, line, "no comment says in a plain sentence what the rule does: write // … above it")
    return Rule(notes["id"], template.effect, notes["owner"], notes["basis"], statement.sentence, file, line)


def _check_ids(rules: tuple[Read, ...]) -> None:
    seen: dict[str, Rule] = {}
    for each in rules:
        rule = each.rule
        if rule.id in seen:
            first = seen[rule.id]
            place = f"{first.file}:{first.line}"
            raise refused(rule.file, rule.line, f"@id {rule.id} is given twice, first at {place}: name one otherwise")
        seen[rule.id] = rule
