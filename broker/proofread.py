"""Reads a policy set as a careful colleague would: what is broken, what never matters, what nobody has tried.

Goes on after the first finding where it can, so that a lawyer sees all of them at once. That a rule never matters is
found by trial, on the cases and on seeded notices; that a word can never be said is found in the text.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker import bounds, cases, likeness
from broker.directory import NO_ANNEX
from broker.errors import VersionRefusedError
from broker.facts import Facts
from broker.few import few
from broker.masks import Apply, Attribute, Constant, Expression
from broker.notice import (
    CONFIDENTIALITIES,
    HANDLING_CODES,
    KINDS,
    MINOR,
    PURPOSES,
    SPECIAL_CATEGORIES,
    SUBJECT_CATEGORIES,
    URGENCIES,
)
from broker.rules import RECEIVE, REVIEW, SCHEMA, SEE, PolicySet, Read, Rules, read_rules

if TYPE_CHECKING:
    from broker.cases import CaseFile, Ran
    from broker.directory import Annex, Directory
    from broker.rules import Rule

TRIALS = 400
"""Notices made up in each world of cases."""
_PLACE = re.compile(r"policies: (?P<file>[^:]+):(?P<line>\d+): (?P<what>.*)", re.DOTALL)
_WORDS: Mapping[str, Sequence[str]] = {
    "kind": tuple(KINDS),
    "purpose": PURPOSES,
    "confidentiality": CONFIDENTIALITIES,
    "urgency": URGENCIES,
    "handling": HANDLING_CODES,
    "subject_categories": SUBJECT_CATEGORIES,
    "special_categories": SPECIAL_CATEGORIES,
    "minor": MINOR,
    "mandates": PURPOSES,
    "cleared_for": CONFIDENTIALITIES,
}
"""Facts with a vocabulary: another word is never said of a notice or a bureau."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to mend.

    `code`: broken, never-said, unknown-name, unreachable, shadowed, no-case, unbounded or one of tricky.
    """

    file: str
    line: int
    code: str
    what: str
    todo: str


@dataclass(slots=True)
class Report:
    """What was found, and how much was tried."""

    findings: list[Finding] = field(default_factory=list)
    rules: int = 0
    cases: int = 0
    trials: int = 0
    covered: dict[str, dict[str, tuple[str, ...]]] = field(default_factory=dict)
    """File of cases → tricky point → the cases that are about it."""


def proofread(policies: PolicySet, directory: Directory | None, annex: Annex | None) -> Report:
    """Check a set; `directory` and `annex` are those in force where there are any, beside the worlds of the cases."""
    report = Report()
    read = _read(policies, report)
    report.rules = len(read)
    written = _written(policies, report)
    report.cases = sum(len(each.case) for each in written.values())
    report.findings += _tricky(policies, written)
    report.covered = {cases.file_of(name): _covered(file) for name, file in written.items()}
    if read:
        ran = _run(policies, read, report)
        report.findings += [finding for each in read for finding in _never_said(each)]
        if len(ran) == len(policies.policy_files):
            # Where cases do not hold yet, a trial without them would accuse rules that are good.
            report.findings += _matter(policies, read, ran, report)
        _whole(policies, read, report, directory or _everybody(written), annex)
    report.findings.sort(key=lambda each: (each.file, each.line, each.code))
    return report


def reached_by(policies: PolicySet) -> dict[str, list[str]]:
    """Give for each rule the cases that meet it, as `file: name`. A file that does not hold gives none."""
    report, met = Report(), dict[str, list[str]]()
    read = _read(policies, report)
    written = _written(policies, report)
    for name, ran in _run(policies, read, report).items():
        judge = Rules(read, ran.directory, ran.annex).judge
        for case, facts in zip(written[name].case, ran.facts, strict=True):
            for hit in judge(facts).hits:
                met.setdefault(hit.rule, []).append(f"{cases.file_of(name)}: {case.name}")
    return met


# Reading


def _read(policies: PolicySet, report: Report) -> tuple[Read, ...]:
    try:
        return read_rules(policies)
    except VersionRefusedError as error:
        alone = list(_alone(policies))
        report.findings += alone or [_finding(error, "broken")]
        return ()


def _alone(policies: PolicySet) -> Iterator[Finding]:
    """Read each file by itself, so that what is wrong in one does not hide what is wrong in the next."""
    schema = {SCHEMA: policies.files[SCHEMA]} if SCHEMA in policies.files else {}
    seen: set[Finding] = set()
    for name in policies.policy_files:
        try:
            read_rules(PolicySet.of({**schema, name: policies.files[name]}))
        except VersionRefusedError as error:
            found = _finding(error, "broken")
            if found not in seen:
                seen.add(found)
                yield found


def _finding(error: VersionRefusedError, code: str, file: str = "", line: int = 0) -> Finding:
    """Take a refusal apart: place, what is wrong, and after the last colon what to do."""
    text = str(error)
    placed = _PLACE.fullmatch(text)
    if placed:
        file, line, text = placed["file"], int(placed["line"]), placed["what"]
    what, colon, todo = text.removeprefix("policies: ").rpartition(": ")
    if not colon:
        what, todo = todo, "correct it and check again"
    return Finding(file or "the set", line, code, what, todo)


# Cases


def _written(policies: PolicySet, report: Report) -> dict[str, CaseFile]:
    found = {}
    for name in policies.policy_files:
        place = cases.file_of(name)
        if place not in policies.files:
            report.findings.append(
                Finding(
                    name, 1, "no-case", f"it has no cases: {place} is missing", "write one case for each of its rules"
                )
            )
            continue
        try:
            found[name] = cases.read(place, policies.files[place])
        except VersionRefusedError as error:
            report.findings.append(_finding(error, "broken", place))
    return found


def _run(policies: PolicySet, read: tuple[Read, ...], report: Report) -> dict[str, Ran]:
    """Run the cases file by file; each that fails is a finding. A file with such a case is not given."""
    found: dict[str, Ran] = {}
    for name in policies.policy_files:
        place = cases.file_of(name)
        if place not in policies.files:
            continue
        try:
            ran, wrong = cases.run_file(name, policies.files[place], lambda world, more: Rules(read, world, more).judge)
        except VersionRefusedError as error:
            wrong = [error]
        if not wrong:
            found[name] = ran
        told = (_finding(each, "broken", place) for each in wrong)
        report.findings += [each for each in told if each not in report.findings]
    return found


def _tricky(policies: PolicySet, written: Mapping[str, CaseFile]) -> Iterator[Finding]:
    """Hold the points that a file of cases says are tricky against the cases that are tagged with them."""
    for name, file in written.items():
        place = cases.file_of(name)
        text = policies.files[place]
        tags = {tag for case in file.case for tag in case.tricky}
        if not file.tricky:
            todo = 'say under [tricky], point by point, what is tricky about its rules: name = "in words"'
            yield Finding(place, 1, "tricky-unsaid", "it does not say what is tricky about its rules", todo)
        for point in sorted(file.tricky.keys() - tags):
            what = f"no case covers the tricky point {point}: {file.tricky[point]}"
            todo = f'write a case with tricky = ["{point}"]'
            yield Finding(place, _line(text, point), "tricky-uncovered", what, todo)
        for tag in sorted(tags - file.tricky.keys()):
            what, todo = f"{tag} is no tricky point of this file", "add it under [tricky], or correct the tag"
            yield Finding(place, _line(text, tag), "tricky-unknown", what, todo)


def _covered(file: CaseFile) -> dict[str, tuple[str, ...]]:
    return {point: tuple(each.name for each in file.case if point in each.tricky) for point in file.tricky}


def _line(text: str, word: str) -> int:
    whole = re.compile(rf"(?<![\w-]){re.escape(word)}(?![\w-])")
    return next((number for number, line in enumerate(text.splitlines(), 1) if whole.search(line)), 1)


# Words that are never said


def _never_said(rule: Read) -> Iterator[Finding]:
    for name, word in sorted(set(_strange(rule.condition))):
        what = f"rule {rule.rule.id} asks whether {name} is {word!r}, which it never is"
        todo = f"use one of: {', '.join(_WORDS[name])}"
        yield Finding(rule.rule.file, rule.rule.line, "never-said", what, todo)


def _strange(expression: Expression) -> Iterator[tuple[str, str]]:
    if not isinstance(expression, Apply):
        return
    names = [each.name for each in expression.operands if isinstance(each, Attribute) and each.name in _WORDS]
    for each in expression.operands:
        if names and isinstance(each, Constant):
            values = each.value if isinstance(each.value, frozenset) else {each.value}
            yield from ((name, str(value)) for name in names for value in values if value not in _WORDS[name])
        yield from _strange(each)


# Rules that never matter


def _matter(policies: PolicySet, read: tuple[Read, ...], ran: Mapping[str, Ran], report: Report) -> Iterator[Finding]:
    trial = _Trial(read)
    chance = random.Random(policies.digest)  # noqa: S311 - made-up notices, no secret
    for each in ran.values():
        rules = Rules(read, each.directory, each.annex)
        made = (likeness.made_up(chance, each.directory, rules.literals) for _ in range(TRIALS))
        for facts in (*each.facts, *(made if each.directory.everyone else ())):
            report.trials += 1
            trial.take(rules, facts)
    own = {rule for name, each in ran.items() for rule in each.met if _file(read, rule) == name}
    for rule in read:
        yield from _of_rule(rule, trial, own)


def _file(read: Sequence[Read], rule: str) -> str:
    return next((each.rule.file for each in read if each.rule.id == rule), "")


def _of_rule(rule: Read, trial: _Trial, own: set[str]) -> Iterator[Finding]:
    said = rule.rule
    if said.id not in trial.met:
        what = f"rule {said.id} is met by no bureau and no notice that was tried"
        todo = "correct its condition, or take it out"
        yield Finding(said.file, said.line, "unreachable", what, todo)
    elif said.id not in trial.matter:
        others = trial.beside.get(said.id) or set()
        what = f"rule {said.id} never changes an answer: {_why_never(said, others, trial)}"
        yield Finding(said.file, said.line, "shadowed", what, "take it out, or make it differ from them")
    if said.id not in own:
        what = f"no case of {cases.file_of(said.file)} meets rule {said.id}"
        yield Finding(said.file, said.line, "no-case", what, "write one in which it decides")


def _why_never(rule: Rule, others: set[str], trial: _Trial) -> str:
    if others:
        return f"{few(sorted(others), 3, 'or one of')} always decides the same"
    if rule.id in trial.beside:
        return "others always decide the same"
    return "a forbid always beats it" if rule.effect == "permit" else "nobody else permits what it forbids"


class _Trial:
    """Sees which rules are met, and which ever make a difference: the answer would be another without them."""

    ACTIONS = frozenset({RECEIVE, REVIEW, *SEE.values()})

    def __init__(self, read: Sequence[Read]) -> None:
        speaking = {
            action: tuple(
                tuple(each.rule.id for each in read if action in each.actions and each.rule.effect == effect)
                for effect in ("permit", "forbid")
            )
            for action in self.ACTIONS
        }
        # Actions of which the same rules speak have the same answer: one of them is enough.
        self._groups = {
            kind: {speaking[action] for action in (RECEIVE, REVIEW, *(SEE[name] for name in names))}
            for kind, names in KINDS.items()
        }
        self.met: set[str] = set()
        self.matter: set[str] = set()
        self.beside: dict[str, set[str]] = {}
        """For a rule that made no difference yet: the rules that were met wherever it was."""

    def take(self, rules: Rules, facts: Facts) -> None:
        """Take one notice into account."""
        hits = {each.rule: each.bureaus for each in rules.judge(facts).hits}
        self.met |= hits.keys()
        for group in self._groups[facts.kind]:
            permits, forbids = ([rule for rule in ids if rule in hits] for ids in group)
            self._weigh(permits, hits, self._either(forbids, hits))
            self._weigh(forbids, hits, ~self._either(permits, hits))

    @staticmethod
    def _either(ids: Sequence[str], hits: Mapping[str, int]) -> int:
        mask = 0
        for rule in ids:
            mask |= hits[rule]
        return mask

    def _weigh(self, ids: Sequence[str], hits: Mapping[str, int], without: int) -> None:
        """Among rules of one effect: which is the only one to be met for some bureau that is not in `without`."""
        once = twice = 0
        for rule in ids:
            twice |= once & hits[rule]
            once |= hits[rule]
        for rule in ids:
            mine = hits[rule] & ~without
            if mine & ~twice:
                self.matter.add(rule)
            elif mine and rule not in self.matter:
                left = self.beside.get(rule, ids)
                self.beside[rule] = {
                    other for other in left if other != rule and other in hits and not mine & ~hits[other]
                }


# The whole set


def _unknown_names(rule: Read, world: Directory) -> Iterator[Finding]:
    for name in sorted(each for each in rule.names if not world.names(each)):
        what = f"rule {rule.rule.id} names {name}, which the directory does not list"
        yield Finding(rule.rule.file, rule.rule.line, "unknown-name", what, "correct the name, or add it there first")


def _everybody(written: Mapping[str, CaseFile]) -> Directory | None:
    """Make a directory of all bureaus that cases speak of: it stands for the one in force where that is not at hand."""
    bureaus = {name: mandates for file in written.values() for name, mandates in file.world.bureaus.items()}
    try:
        return cases.world_of(cases.World(bureaus=bureaus))[0]
    except VersionRefusedError:
        return None  # a world that is none is a finding of its own


def _whole(
    policies: PolicySet, read: tuple[Read, ...], report: Report, world: Directory | None, annex: Annex | None
) -> None:
    """Check the bounds of every set, and last load it as the broker would: what is left then has no finding here."""
    if world is None:
        return
    report.findings += [finding for each in read for finding in _unknown_names(each, world)]
    try:
        bounds.check(Rules(read, world, annex or NO_ANNEX), read, world)
    except VersionRefusedError as error:
        report.findings.append(_finding(error, "unbounded"))
    if not report.findings:
        try:
            Rules.load(policies, world, annex or NO_ANNEX)
        except VersionRefusedError as error:
            report.findings.append(_finding(error, "broken"))
