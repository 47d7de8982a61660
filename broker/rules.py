"""Policy files: parse, validate, compile, judge, explain; the only door to Cedar.

Cedar is the language and the reference, masks are the fast path. A set is loaded as a whole or refused as a whole, with
file, line and reason: parsed, strictly validated, compiled, its cases run, compared with Cedar on seeded requests. A
construct outside the compiled subset is refused, never approximated; what is left cannot fail while it is evaluated.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from importlib import resources
from types import MappingProxyType

import cedarpy
from cedarpy import pst

from broker import cases, likeness
from broker.errors import VersionRefusedError
from broker.facts import Facts
from broker.likeness import Answer
from broker.masks import (
    BUREAU_SETS,
    CONTEXT,
    NOTICE,
    PRINCIPAL,
    Apply,
    Attribute,
    Compiler,
    Constant,
    Expression,
    OutsideSubsetError,
    Principal,
    Value,
    subjects,
)
from broker.members import NO_ANNEX, Annex, Directory
from broker.notice import CONFIDENTIALITIES, KINDS, RuleHit

SCHEMA = "schema.cedarschema"
RECEIVE, REVIEW = "receive", "review"
SEE = {name: f"see_{name}" for names in KINDS.values() for name in names}
"""Compartment → its action. `routing` has none, so nobody is shown it."""
ACTIONS = (RECEIVE, REVIEW, *SEE.values())
GROUPS = {"see": frozenset(SEE.values())}
_MEMBERS = frozenset({"member", "owner", "sources", "lawful_sources"})
_BUREAUS = BUREAU_SETS | {"issuer"}
_COMPARISONS = frozenset({"eq", "not_eq", "less", "less_eq", "greater", "greater_eq"})
_OPERATORS = _COMPARISONS | {"and", "or", "in", "contains", "contains_all", "contains_any"}


@dataclass(frozen=True, slots=True)
class PolicySet:
    """The files of one version by name: `*.cedar`, the schema, `cases/*.toml`."""

    files: Mapping[str, str]
    content: bytes
    digest: bytes

    @classmethod
    def of(cls, files: Mapping[str, str]) -> PolicySet:
        """Take files by name."""
        content = json.dumps({"files": dict(files)}, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        return cls(MappingProxyType(dict(sorted(files.items()))), content, sha256(content).digest())

    @classmethod
    def parse(cls, content: bytes) -> PolicySet:
        """Read a set as it travels. Raises VersionRefusedError; the digest is that of the bytes as they arrived."""
        try:
            files = json.loads(content)["files"]
            given = {str(name): str(text) for name, text in files.items()}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise VersionRefusedError("policies: this is no policy set") from error
        if cls.of(given).content != content:
            raise VersionRefusedError("policies: not in canonical form")
        return cls.of(given)

    @classmethod
    def packaged(cls) -> PolicySet:
        """Read the set that is installed with the program."""
        folder = resources.files("policies")
        files = {each.name: each.read_text("utf-8") for each in folder.iterdir() if _is_policy(each.name)}
        for each in folder.joinpath("cases").iterdir():
            if each.name.endswith(".toml"):
                files[f"cases/{each.name}"] = each.read_text("utf-8")
        return cls.of(files)

    @property
    def policy_files(self) -> tuple[str, ...]:
        """Names of the files that hold rules."""
        return tuple(name for name in self.files if name.endswith(".cedar"))


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
class Verdict:
    """What the rules say of one notice, as masks of bureaus; compartments of other kinds are not listed."""

    receive: int
    see: Mapping[str, int]
    hits: tuple[RuleHit, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why one bureau may or may not receive a notice and see its compartments, by the rules alone."""

    receives: bool
    permits: tuple[Rule, ...]
    forbids: tuple[Rule, ...]
    unmet: tuple[Rule, ...]
    """Permits that could have let it receive, and did not."""
    sees: tuple[str, ...]
    withheld: Mapping[str, tuple[Rule, ...]]
    """Compartment → the rules that forbid it; empty where nothing permits it."""


@dataclass(frozen=True, slots=True)
class _Read:
    """A rule as read: for which actions, and under which condition."""

    rule: Rule
    actions: frozenset[str]
    condition: Expression


@dataclass(frozen=True, slots=True)
class _Plan:
    """What to evaluate for one kind: rules once each, then actions by the rules that speak of them."""

    evaluated: tuple[tuple[int, str, Callable[[Facts], int]], ...]
    receive: tuple[tuple[int, ...], tuple[int, ...]]
    see: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]], ...]


class Rules:
    """A compiled policy set for one directory and annex; `judge` is pure but for its bounded memos."""

    def __init__(self, read: tuple[_Read, ...], directory: Directory, annex: Annex) -> None:
        bureaus = subjects(directory, annex)
        compiler = Compiler(bureaus)
        self.rules = tuple(each.rule for each in read)
        self.digest = b""
        self.extremes: tuple[Rules, ...] = ()
        """The same rules under the lowest and the highest clearances, where the annex is not known here."""
        self._read = read
        self._functions = tuple(_compile(compiler, each) for each in read)
        self._plans = {kind: self._plan(names) for kind, names in KINDS.items()}

    @classmethod
    def load(cls, policies: PolicySet, directory: Directory, annex: Annex | None) -> Rules:
        """Load a set as one transaction. `annex` None: not known here. Raises VersionRefusedError."""
        read = _read(policies)
        rules = cls(read, directory, annex or NO_ANNEX)
        rules.digest = policies.digest
        used = cases.run(policies.files, policies.policy_files, lambda world, more: cls(read, world, more).judge)
        for each in rules.rules:
            if each.id not in used.get(each.file, frozenset()):
                raise _refused(each.file, each.line, f"no case of {cases.file_of(each.file)} meets rule {each.id}")
        likeness.check(rules, Reference(policies, directory, annex or NO_ANNEX), directory, policies.digest)
        if annex is None and directory.annex is not None:
            rules.extremes = tuple(cls(read, directory, _all_cleared(directory, level)) for level in _ENDS)
        return rules

    def judge(self, facts: Facts) -> Verdict:
        """Say who may receive a notice and who may see which of its compartments. An unknown kind: nobody."""
        plan = self._plans.get(facts.kind)
        if plan is None:
            return Verdict(0, {}, ())
        masks = [0] * len(self._functions)
        hits = []
        for place, rule, function in plan.evaluated:
            mask = function(facts)
            if mask:
                masks[place] = mask
                hits.append(RuleHit(rule, mask))
        see: dict[str, int] = {}
        for permits, forbids, names in plan.see:
            see.update(dict.fromkeys(names, _allowed(masks, permits, forbids)))
        return Verdict(_allowed(masks, *plan.receive), see, tuple(hits))

    def explain(self, facts: Facts, index: int) -> Explanation:
        """Say why, for one bureau. Slower than `judge`; for people."""
        met = {place for place, function in enumerate(self._functions) if function(facts) >> index & 1}
        verdict = self.judge(facts)
        permits, forbids = self._speaking(RECEIVE)
        names = KINDS.get(facts.kind, ())
        return Explanation(
            receives=bool(verdict.receive >> index & 1),
            permits=self._named(place for place in permits if place in met),
            forbids=self._named(place for place in forbids if place in met),
            unmet=self._named(place for place in permits if place not in met),
            sees=tuple(name for name in names if verdict.see[name] >> index & 1),
            withheld={
                name: self._named(place for place in self._speaking(SEE[name])[1] if place in met)
                for name in names
                if not verdict.see[name] >> index & 1
            },
        )

    def answer(self, facts: Facts, index: int, action: str) -> Answer:
        """Answer one request as Cedar does: the decision, and the rules that made it."""
        permits, forbids = (
            {place for place in each if self._met(place, facts, index)} for each in self._speaking(action)
        )
        deciding = forbids or permits
        return Answer(bool(permits) and not forbids, frozenset(self.rules[place].id for place in deciding))

    def _met(self, place: int, facts: Facts, index: int) -> bool:
        return bool(self._functions[place](facts) >> index & 1)

    def _named(self, places: Iterator[int]) -> tuple[Rule, ...]:
        return tuple(self.rules[place] for place in places)

    def _speaking(self, action: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Give the permits and the forbids that speak of an action."""
        speaking = [(place, each.rule.effect) for place, each in enumerate(self._read) if action in each.actions]
        permits = tuple(place for place, effect in speaking if effect == "permit")
        return permits, tuple(place for place, effect in speaking if effect == "forbid")

    def _plan(self, names: tuple[str, ...]) -> _Plan:
        actions = {RECEIVE, *(SEE[name] for name in names)}
        groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
        for name in names:
            groups.setdefault(self._speaking(SEE[name]), []).append(name)
        return _Plan(
            tuple(
                (place, each.rule.id, self._functions[place])
                for place, each in enumerate(self._read)
                if each.actions & actions
            ),
            self._speaking(RECEIVE),
            tuple((permits, forbids, tuple(group)) for (permits, forbids), group in groups.items()),
        )


class Reference:
    """The same set as Cedar itself evaluates it: slow, and what the masks are held against."""

    def __init__(self, policies: PolicySet, directory: Directory, annex: Annex) -> None:
        self._directory = directory
        self._schema = cedarpy.Schema.from_str(policies.files[SCHEMA])
        text = "\n".join(policies.files[name] for name in policies.policy_files)
        self._policies = cedarpy.PolicySet.from_str(text)
        entities = [_entity("Member", each, {}) for each in directory.members]
        for subject in subjects(directory, annex):
            attributes = {name: self._value(name, value) for name, value in subject.attributes.items()}
            parents = [_uid("Member", str(subject.attributes["member"]))]
            entities.append(_entity("Bureau", subject.id, attributes, parents))
        self._entities = _conform(lambda: cedarpy.Entities.from_json_str(json.dumps(entities), self._schema))

    def answers(self, facts: Facts, asked: list[tuple[str, str]]) -> list[Answer]:
        """Answer requests of (bureau, action) on one notice. Any error while evaluating is a deny."""
        attributes = {name: self._value(name, getattr(facts, name)) for name in sorted(NOTICE)}
        added = json.dumps([_entity("Notice", "notice", attributes)])
        entities = _conform(lambda: self._entities.with_added_json_str(added, self._schema))
        context = {name: getattr(facts, name) for name in sorted(CONTEXT)}
        requests = [
            {
                "principal": _uid("Bureau", bureau),
                "action": _uid("Action", action),
                "resource": _uid("Notice", "notice"),
                "context": context,
            }
            for bureau, action in asked
        ]
        results = cedarpy.is_authorized_batch(requests, self._policies, entities, self._schema)
        return [_answer(each) for each in results]

    def _value(self, name: str, value: Value) -> object:
        if name in BUREAU_SETS and isinstance(value, int):
            return [_uid("Bureau", each) for each in self._directory.bureaus_in(value)]
        kind = "Member" if name in _MEMBERS else "Bureau" if name in _BUREAUS else ""
        if isinstance(value, frozenset):
            return [_uid(kind, str(each)) if kind else each for each in sorted(value, key=str)]
        return _uid(kind, str(value)) if kind else value


def _compile(compiler: Compiler, each: _Read) -> Callable[[Facts], int]:
    try:
        return compiler.function(each.condition)
    except OutsideSubsetError as error:
        raise _refused(each.rule.file, each.rule.line, f"{error} (outside the compiled subset)") from error


_ENDS = (CONFIDENTIALITIES[0], CONFIDENTIALITIES[-1])


def _all_cleared(directory: Directory, level: str) -> Annex:
    return Annex(None, dict.fromkeys(directory.bureaus, level), frozenset())


def _allowed(masks: list[int], permits: tuple[int, ...], forbids: tuple[int, ...]) -> int:
    allowed = 0
    for place in permits:
        allowed |= masks[place]
    for place in forbids:
        allowed &= ~masks[place]
    return allowed


def _uid(kind: str, name: str) -> dict[str, str]:
    return {"type": kind, "id": name}


def _entity(
    kind: str, name: str, attributes: Mapping[str, object], parents: list[dict[str, str]] | None = None
) -> dict[str, object]:
    return {"uid": _uid(kind, name), "attrs": dict(attributes), "parents": parents or []}


def _conform(make: Callable[[], cedarpy.Entities]) -> cedarpy.Entities:
    try:
        return make()
    except ValueError as error:
        raise VersionRefusedError(f"policies: {SCHEMA} does not declare the facts that there are: {error}") from error


def _answer(result: cedarpy.AuthzResult) -> Answer:
    found = result.diagnostics
    names = found.id_annotations_by_reason
    return Answer(result.allowed and not found.errors, frozenset(names[each] for each in found.reasons))


# Reading


def _is_policy(name: str) -> bool:
    return name == SCHEMA or name.endswith(".cedar")


def _refused(file: str, line: int, reason: str) -> VersionRefusedError:
    return VersionRefusedError(f"policies: {file}:{line}: {reason}")


def _read(policies: PolicySet) -> tuple[_Read, ...]:
    if SCHEMA not in policies.files:
        raise VersionRefusedError(f"policies: {SCHEMA} is missing")
    try:
        schema = cedarpy.Schema.from_str(policies.files[SCHEMA])
    except ValueError as error:
        raise VersionRefusedError(f"policies: {SCHEMA}: {error}") from error
    read = [each for name in policies.policy_files for each in _read_file(name, policies.files[name], schema)]
    seen: set[str] = set()
    for each in read:
        if each.rule.id in seen:
            raise _refused(each.rule.file, each.rule.line, f"@id {each.rule.id} is given twice")
        seen.add(each.rule.id)
    return tuple(read)


def _read_file(name: str, text: str, schema: cedarpy.Schema) -> Iterator[_Read]:
    statements = list(_statements(text))
    for line, statement in statements:
        _parse(name, line, statement)
    parsed = _parse(name, 1, text)
    if len(parsed.static_policies) != len(statements) or parsed.templates or parsed.template_links:
        raise _refused(name, 1, "holds something else than plain rules")
    for error in cedarpy.validate_policies(text, schema).errors:
        place = error.policy_id.removeprefix("policy")
        raise _refused(name, statements[int(place)][0] if place.isdecimal() else 1, error.error)
    for number, (line, statement) in enumerate(statements):
        template = parsed.static_policies[f"policy{number}"]
        rule = _rule(name, line, statement, template)
        try:
            yield _Read(rule, _actions(template.action), _condition(template))
        except OutsideSubsetError as error:
            raise _refused(name, line, f"{error} (outside the compiled subset)") from error


def _parse(name: str, line: int, text: str) -> pst.PolicySet:
    try:
        return cedarpy.policies_to_pst(text)
    except ValueError as error:
        raise _refused(name, line, str(error)) from error


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Cut a file at the semicolons that end its rules, each with its line; comments and strings are skipped."""
    start, place = 0, 0
    while place < len(text):
        if text.startswith("//", place):
            place = _end_of_line(text, place)
        elif text[place] == '"':
            place = _end_of_string(text, place)
        elif text[place] == ";":
            yield _line(text, start), text[start : place + 1]
            start = place + 1
        place += 1
    if _code(text[start:]):
        yield _line(text, start), text[start:]


def _end_of_line(text: str, place: int) -> int:
    end = text.find("\n", place)
    return len(text) if end < 0 else end


def _end_of_string(text: str, place: int) -> int:
    place += 1
    while place < len(text) and text[place] != '"':
        place += 2 if text[place] == "\\" else 1
    return place


def _line(text: str, start: int) -> int:
    """Count the line on which the first thing after `start` stands."""
    first = start + len(text[start:]) - len(text[start:].lstrip())
    return text.count("\n", 0, first) + 1


def _code(text: str) -> str:
    return "".join(line for line in text.splitlines() if not line.strip().startswith("//")).strip()


def _rule(file: str, line: int, statement: str, template: pst.Template) -> Rule:
    notes = template.annotations
    for name in ("id", "owner", "basis"):
        if not notes.get(name, "").strip():
            raise _refused(file, line, f"the rule has no @{name}")
    comments = []
    for each in statement.strip().splitlines():
        if not each.startswith("//"):
            break
        comments.append(each.removeprefix("//").strip())
    sentence = " ".join(comments)
    if not sentence:
        raise _refused(file, line, "no comment says in a plain sentence what the rule does")
    return Rule(notes["id"], template.effect, notes["owner"], notes["basis"], sentence, file, line)


def _actions(scope: pst.ActionConstraint) -> frozenset[str]:
    if isinstance(scope, pst.ScopeAny):
        return frozenset(ACTIONS)
    if isinstance(scope, pst.ActionEq):
        return frozenset({scope.entity.id}) & frozenset(ACTIONS)
    named = {each.id for each in scope.entities}
    members = (GROUPS[each] for each in named & GROUPS.keys())
    return frozenset(named).union(*members) & frozenset(ACTIONS)


def _condition(template: pst.Template) -> Expression:
    if not isinstance(template.resource, pst.ScopeAny) and template.resource != pst.ScopeIs(pst.EntityType("Notice")):
        raise OutsideSubsetError("a rule for one notice only has no compiled form")
    parts: list[Expression] = list(_scope(template.principal))
    for clause in template.clauses:
        condition = _expression(clause.expr)
        parts.append(condition if isinstance(clause, pst.When) else Apply("not", (condition,)))
    return Apply("and", tuple(parts)) if parts else Constant(True)


def _scope(scope: pst.PrincipalOrResourceConstraint) -> Iterator[Expression]:
    if isinstance(scope, pst.ScopeIs | pst.ScopeIsIn) and scope.entity_type != pst.EntityType("Bureau"):
        raise OutsideSubsetError("a principal is a Bureau")
    if isinstance(scope, pst.ScopeEq):
        yield Apply("eq", (Principal(), _entity_constant(scope.entity)))
    if isinstance(scope, pst.ScopeIn | pst.ScopeIsIn):
        yield Apply("in", (Principal(), _entity_constant(scope.entity)))


def _expression(node: pst.Expr) -> Expression:
    match node:
        case pst.Var("principal"):
            return Principal()
        case pst.GetAttr(pst.Var(variable), name):
            return _attribute(variable, name)
        case pst.UnaryOp("not" | "is_empty" as op, arg):
            return Apply(op, (_expression(arg),))
        case pst.BinaryOp(op, left, right) if op in _OPERATORS:
            return Apply(op, (_expression(left), _expression(right)))
    return _constant(node)


def _constant(node: pst.Expr) -> Constant:
    match node:
        case pst.BoolLit(value) | pst.LongLit(value) | pst.StringLit(value):
            return Constant(value)
        case pst.EntityLit(value):
            return _entity_constant(value)
        case pst.Set(elements):
            return Constant(frozenset(_literal(each) for each in elements))
    raise OutsideSubsetError(f"{getattr(node, 'op', type(node).__name__)} has no compiled form")


def _literal(node: pst.Expr) -> str | int | bool:
    value = _constant(node).value
    if isinstance(value, frozenset):
        raise OutsideSubsetError("a set of sets has no compiled form")
    return value


def _entity_constant(entity: pst.EntityOrSlot) -> Constant:
    if isinstance(entity, pst.EntityUid) and str(entity.type) in ("Member", "Bureau"):
        return Constant(entity.id)
    raise OutsideSubsetError(f"{entity} has no compiled form")


def _attribute(variable: str, name: str) -> Attribute:
    if variable == "principal" and name in PRINCIPAL:
        return Attribute("principal", name)
    if name in {"resource": NOTICE, "context": CONTEXT}.get(variable, frozenset()):
        return Attribute("notice", name)
    raise OutsideSubsetError(f"{variable}.{name} is not among the facts")
