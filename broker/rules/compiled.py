"""A policy set compiled for one directory: says of a notice who may receive and see it, and why."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from broker import cases, likeness
from broker.cases import Ran
from broker.directory import NO_ANNEX, Annex, Directory
from broker.facts import Facts
from broker.likeness import Answer
from broker.masks import Compiler, OutsideSubsetError, literals, subjects
from broker.notice import CONFIDENTIALITIES, KINDS, RuleHit
from broker.quick import quick
from broker.rules.actions import ACTIONS, RECEIVE, REVIEW, SEE
from broker.rules.policy_set import PolicySet, refused
from broker.rules.read import Read, Rule, read_rules
from broker.rules.reference import Reference

COMPARED = 100
"""How many cases of a set are put to Cedar, too, when it is loaded."""


KEPT = 256
"""How many hits of one rule are kept, for most notices repeat them."""


@quick
@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rules say of one notice, as masks of bureaus; compartments of other kinds are not listed."""

    receive: int
    see: Mapping[str, int]
    hits: tuple[RuleHit, ...]
    review: int = 0
    """Who may release it: a notice that anybody may review is held."""


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
class _Plan:
    """What to evaluate for one kind: rules once each, then actions by the rules that speak of them."""

    evaluated: tuple[tuple[int, Callable[[Facts], int], Callable[[int], RuleHit]], ...]
    barring: tuple[int, ...]
    """Forbids that speak of every action of the kind, so that they are joined once."""
    receive: tuple[tuple[int, ...], tuple[int, ...]]
    see: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[str, ...]], ...]
    """Permits and other forbids, and the compartments about which they speak."""
    review: tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class _Explained:
    """What was found out about the last notice that was explained: the bureaus for which each rule is met."""

    facts: Facts
    met: tuple[int, ...]
    verdict: Verdict
    by_rules: dict[tuple[int, ...], Explanation]


class Rules:
    """A compiled policy set for one directory and annex; `judge` is pure but for its bounded memos."""

    def __init__(self, rules: tuple[Read, ...], directory: Directory, annex: Annex) -> None:
        compiler = Compiler(subjects(directory, annex))
        self.rules = tuple(each.rule for each in rules)
        self.digest = b""
        self.annex = annex
        self.extremes: tuple[Rules, ...] = ()
        """The same rules under the lowest and the highest clearances, where the annex is not known here."""
        self.literals = literals(each.condition for each in rules)
        self._actions = tuple(each.actions for each in rules)
        self._functions = tuple(_compile(compiler, each) for each in rules)
        self._hits = tuple(lru_cache(KEPT)(partial(RuleHit, rule.id)) for rule in self.rules)
        self._speaking = {action: self._speaking_of(action) for action in ACTIONS}
        self._plans = {kind: self._plan(names) for kind, names in KINDS.items()}
        self._explained: _Explained | None = None

    @classmethod
    def load(cls, policies: PolicySet, directory: Directory, annex: Annex | None) -> Rules:
        """Load a set as one transaction. `annex` None: not known here. Raises VersionRefusedError."""
        found, rules = cls._compiled(policies, directory, annex or NO_ANNEX)
        ran = cases.run(policies.files, policies.policy_files, lambda world, more: cls(found, world, more).judge)
        for each in rules.rules:
            if each.id not in ran[each.file].met:
                what = f"no case of {cases.file_of(each.file)} meets rule {each.id}: write one in which it decides"
                raise refused(each.file, each.line, what)
        cls._compare(policies, found, tuple(ran.values()))
        likeness.check(rules, Reference(policies, directory, annex or NO_ANNEX), directory, policies.digest)
        if annex is None and directory.annex is not None:
            rules.extremes = tuple(cls(found, directory, _all_cleared(directory, level)) for level in _ENDS)
        return rules

    @classmethod
    def unproven(cls, policies: PolicySet, directory: Directory, annex: Annex) -> Rules:
        """Compile a set whose cases may not hold yet: to see its effect, not to decide. Raises VersionRefusedError."""
        _, rules = cls._compiled(policies, directory, annex)
        likeness.check(rules, Reference(policies, directory, annex), directory, policies.digest)
        return rules

    @classmethod
    def _compiled(cls, policies: PolicySet, directory: Directory, annex: Annex) -> tuple[tuple[Read, ...], Rules]:
        found = read_rules(policies)
        _check_names(found, directory)
        rules = cls(found, directory, annex)
        rules.digest = policies.digest
        return found, rules

    @classmethod
    def _compare(cls, policies: PolicySet, rules: tuple[Read, ...], ran: tuple[Ran, ...]) -> None:
        """Put cases to Cedar, too: all of them, or of a great many a sample that the set's digest chooses."""
        chance = random.Random(policies.digest)  # noqa: S311 - which cases, no secret
        every = [(place, facts) for place, each in enumerate(ran) for facts in each.facts]
        chosen = chance.sample(every, min(len(every), COMPARED))
        for place, each in enumerate(ran):
            mine = [facts for at, facts in chosen if at == place]
            if mine:
                reference = Reference(policies, each.directory, each.annex)
                likeness.hold(cls(rules, each.directory, each.annex), reference, each.directory, mine, chance)

    def judge(self, facts: Facts) -> Verdict:
        """Say who may receive a notice and who may see which of its compartments. An unknown kind: nobody."""
        plan = self._plans.get(facts.kind)
        if plan is None:
            return Verdict(0, {}, ())
        masks = [0] * len(self._functions)
        hits = []
        for place, function, hit in plan.evaluated:
            mask = function(facts)
            if mask:
                masks[place] = mask
                hits.append(hit(mask))
        free = -1
        for place in plan.barring:
            free &= ~masks[place]
        see: dict[str, int] = {}
        for permits, forbids, names in plan.see:
            allowed = free & _allowed(masks, permits, forbids)
            for name in names:
                see[name] = allowed
        review = _allowed(masks, *plan.review)
        return Verdict(free & _allowed(masks, *plan.receive), see, tuple(hits), review)

    def explain(self, facts: Facts, index: int) -> Explanation:
        """Say why, for one bureau. Quick for one notice and bureau after bureau; for people."""
        kept = self._explained
        if kept is None or kept.facts is not facts:
            met = tuple(each(facts) for each in self._functions)
            self._explained = kept = _Explained(facts, met, self.judge(facts), {})
        # Bureaus for which the same rules are met have the same explanation.
        alike = tuple([mask >> index & 1 for mask in kept.met])
        found = kept.by_rules.get(alike)
        if found is None:
            found = kept.by_rules[alike] = self._explanation(kept, index)
        return found

    def _explanation(self, kept: _Explained, index: int) -> Explanation:
        met, verdict = kept.met, kept.verdict
        permits, forbids = self._speaking[RECEIVE]
        names = KINDS.get(kept.facts.kind, ())
        return Explanation(
            receives=bool(verdict.receive >> index & 1),
            permits=self._named(permits, met, index),
            forbids=self._named(forbids, met, index),
            unmet=tuple(self.rules[place] for place in permits if not met[place] >> index & 1),
            sees=tuple(name for name in names if verdict.see[name] >> index & 1),
            withheld={
                name: self._named(self._speaking[SEE[name]][1], met, index)
                for name in names
                if not verdict.see[name] >> index & 1
            },
        )

    def answer(self, facts: Facts, index: int, action: str) -> Answer:
        """Answer one request as Cedar does: the decision, and the rules that made it."""
        permits, forbids = (
            {place for place in each if self._functions[place](facts) >> index & 1} for each in self._speaking[action]
        )
        deciding = forbids or permits
        return Answer(bool(permits) and not forbids, frozenset(self.rules[place].id for place in deciding))

    def _named(self, places: Iterable[int], met: Sequence[int], index: int) -> tuple[Rule, ...]:
        return tuple(self.rules[place] for place in places if met[place] >> index & 1)

    def _speaking_of(self, action: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Give the permits and the forbids that speak of an action."""
        speaking = [place for place, actions in enumerate(self._actions) if action in actions]
        permits = tuple(place for place in speaking if self.rules[place].effect == "permit")
        return permits, tuple(place for place in speaking if self.rules[place].effect == "forbid")

    def _plan(self, names: tuple[str, ...]) -> _Plan:
        actions = [RECEIVE, *(SEE[name] for name in names)]
        barring = set(self._speaking[RECEIVE][1]).intersection(*(self._speaking[each][1] for each in actions))

        def rest(action: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
            permits, forbids = self._speaking[action]
            return permits, tuple(place for place in forbids if place not in barring)

        groups: dict[tuple[tuple[int, ...], tuple[int, ...]], list[str]] = {}
        for name in names:
            groups.setdefault(rest(SEE[name]), []).append(name)
        return _Plan(
            tuple(
                (place, self._functions[place], self._hits[place])
                for place, spoken_of in enumerate(self._actions)
                if not spoken_of.isdisjoint((*actions, REVIEW))
            ),
            tuple(sorted(barring)),
            rest(RECEIVE),
            tuple((permits, forbids, tuple(group)) for (permits, forbids), group in groups.items()),
            self._speaking[REVIEW],
        )


_ENDS = (CONFIDENTIALITIES[0], CONFIDENTIALITIES[-1])


def _all_cleared(directory: Directory, level: str) -> Annex:
    return Annex(None, dict.fromkeys(directory.bureaus, level), frozenset())


def _check_names(rules: tuple[Read, ...], directory: Directory) -> None:
    for each in rules:
        for name in sorted(each.names):
            if not directory.names(name):
                what = f"the directory lists no {name}: correct the name, or add it to the directory first"
                raise refused(each.rule.file, each.rule.line, what)


def _compile(compiler: Compiler, each: Read) -> Callable[[Facts], int]:
    try:
        return compiler.function(each.condition)
    except OutsideSubsetError as error:
        raise refused(each.rule.file, each.rule.line, f"{error} (outside the compiled subset)") from error


def _allowed(masks: list[int], permits: tuple[int, ...], forbids: tuple[int, ...]) -> int:
    allowed = 0
    for place in permits:
        allowed |= masks[place]
    for place in forbids:
        allowed &= ~masks[place]
    return allowed
