"""Holds compiled rules against Cedar on requests that a seed makes up.

Both must give the same answer for the same reasons: the decision, and the ids of the rules that made it.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

from broker.errors import VersionRefusedError
from broker.facts import NO_LIMIT, Facts
from broker.notice import (
    AREAS,
    CONFIDENTIALITIES,
    HANDLING_CODES,
    KINDS,
    MINOR,
    PURPOSES,
    SPECIAL_CATEGORIES,
    SUBJECT_CATEGORIES,
    URGENCIES,
    RuleHit,
)

if TYPE_CHECKING:
    from broker.directory import Bureau, Directory

NOTICES, REQUESTS = 50, 8
"""How many notices a load makes up, and how many requests on each."""
NOW = 1_000_000
TYPES = {each.name: str(each.type) for each in fields(Facts)}
"""Fact → the type that it is declared with."""
Literals = Mapping[str, frozenset[str | int | bool]]
"""Fact → the values that the rules compare it with."""
NO_LITERALS: Literals = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Answer:
    """A decision and the ids of the rules that made it: the forbids, else the permits."""

    allowed: bool
    rules: frozenset[str]


class Judged(Protocol):
    """What `judge` gives."""

    @property
    def receive(self) -> int:
        """Who may receive."""

    @property
    def review(self) -> int:
        """Who may release it."""

    @property
    def see(self) -> Any:
        """Compartment → who may see it."""

    @property
    def hits(self) -> tuple[RuleHit, ...]:
        """Which rules were met, for whom."""


class Compiled(Protocol):
    """The rules as masks."""

    @property
    def literals(self) -> Literals:
        """What the rules compare facts with."""

    def judge(self, facts: Facts) -> Judged:
        """Judge one notice."""

    def answer(self, facts: Facts, index: int, action: str) -> Answer:
        """Answer one request."""


class Cedar(Protocol):
    """The rules as Cedar evaluates them."""

    def answers(self, facts: Facts, asked: list[tuple[str, str]]) -> list[Answer]:
        """Answer requests of (bureau, action) on one notice."""


def check(compiled: Compiled, cedar: Cedar, directory: Directory, seed: bytes) -> None:
    """Compare on seeded requests. Raises VersionRefusedError naming the rules at the first difference."""
    chance = random.Random(seed)  # noqa: S311 - made-up requests, no secret
    if directory.everyone:
        made = (made_up(chance, directory, compiled.literals) for _ in range(NOTICES))
        hold(compiled, cedar, directory, made, chance)


def hold(
    compiled: Compiled, cedar: Cedar, directory: Directory, notices: Iterable[Facts], chance: random.Random
) -> None:
    """Compare on a few requests on each notice. Raises VersionRefusedError naming the rules at the first difference."""
    bureaus = directory.bureaus_in(directory.everyone)
    for facts in notices:
        actions = ("receive", "review", *(f"see_{name}" for name in KINDS[facts.kind]))
        asked = [(chance.choice(bureaus), chance.choice(actions)) for _ in range(REQUESTS)]
        compare(compiled, cedar, directory, facts, asked)


def compare(compiled: Compiled, cedar: Cedar, directory: Directory, facts: Facts, asked: list[tuple[str, str]]) -> None:
    """Compare on these requests. Raises VersionRefusedError naming the rules at the first difference."""
    verdict = compiled.judge(facts)
    for (bureau, action), right in zip(asked, cedar.answers(facts, asked), strict=True):
        index = directory.bureaus[bureau].index
        ours = compiled.answer(facts, index, action)
        if ours != right or not _judged_so(verdict, action, index, right):
            named = ", ".join(sorted(ours.rules ^ right.rules)) or "the plan"
            raise VersionRefusedError(
                f"policies: the compiled form and Cedar differ on {action} of {facts.kind}: {named}"
            )


def _judged_so(verdict: Judged, action: str, index: int, right: Answer) -> bool:
    """Say whether the verdict allows and names as much; of compartments that the kind does not have it says nothing."""
    name = action.removeprefix("see_")
    masks = {**verdict.see, "receive": verdict.receive, "review": verdict.review}
    if name not in masks:
        return True
    mask = masks[name]
    hit = {each.rule for each in verdict.hits if each.bureaus >> index & 1}
    return bool(mask >> index & 1) == right.allowed and right.rules <= hit


def made_up(chance: random.Random, directory: Directory, literals: Literals = NO_LITERALS) -> Facts:
    """Make up a notice to which nothing is against, then change a few of its facts; `literals` are tried as values."""
    bureau = directory.bureaus[chance.choice(directory.bureaus_in(directory.everyone))]
    facts = Facts(
        **{name: _NEUTRAL.get(kind, frozenset()) for name, kind in TYPES.items()} | _harmless(bureau, directory)
    )
    facts = replace(facts, kind=chance.choice(sorted(KINDS)), purpose=chance.choice(PURPOSES))
    changed = chance.sample(_CHANGED, chance.randrange(6))
    return replace(facts, **{name: _value(chance, directory, name, literals) for name in changed})


def _harmless(bureau: Bureau, directory: Directory) -> dict[str, Any]:
    return {
        "now": NOW,
        "issuer": bureau.id,
        "owner": bureau.member,
        "confidentiality": "restricted",
        "urgency": "routine",
        "minor": "no",
        "retain_until": NO_LIMIT,
        "review_due": NO_LIMIT,
        "everyone": True,
        "audience": directory.everyone,
        "consented": directory.everyone,
        "lawful": directory.everyone,
        "origins_known": True,
        "sources": frozenset({bureau.member}),
    }


_NEUTRAL: dict[str, Any] = {"Mask": 0, "int": 0, "bool": False, "str": ""}
_CHANGED = sorted(TYPES.keys() - {"now", "kind", "issuer", "owner", "purpose"})
_WORDS: dict[str, tuple[str, ...]] = {
    "kind": tuple(sorted(KINDS)),
    "purpose": PURPOSES,
    "confidentiality": CONFIDENTIALITIES,
    "urgency": URGENCIES,
    "handling": HANDLING_CODES,
    "subject_categories": SUBJECT_CATEGORIES,
    "minor": MINOR,
    "special_categories": SPECIAL_CATEGORIES,
    "areas": AREAS,
}
"""The words that a fact may have. Of a fact that is not here the values are those that rules compare it with."""


def _value(chance: random.Random, directory: Directory, name: str, literals: Literals) -> Any:
    """Make up a value by the fact's declared type, so that a new fact needs no line here."""
    kind = TYPES[name]
    if kind == "Mask":
        return chance.choice((0, chance.getrandbits(len(directory.by_index)), -1)) & directory.everyone
    values = (*_usual(name, kind, directory), *sorted(literals.get(name, ()), key=str))
    if kind.startswith("frozenset"):
        return frozenset(chance.sample(values, chance.randint(0, min(3, len(values)))))
    return chance.choice(values)


def _usual(name: str, kind: str, directory: Directory) -> Sequence[str | int | bool]:
    """List what such a fact may be, or what may be in it; at least one value where it is no set."""
    if "MemberId" in kind:
        return sorted(directory.members)
    if "BureauId" in kind:
        return sorted(directory.bureaus)
    if name == "agreements":
        return sorted(directory.agreements)
    if kind == "int":
        return (0, NOW - 1, NOW, NOW + 1, NO_LIMIT)
    return _WORDS.get(name, {"bool": (False, True), "str": ("",)}.get(kind, ()))
