"""Holds compiled rules against Cedar on requests that a seed makes up.

Both must give the same answer for the same reasons: the decision, and the ids of the rules that made it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

from broker.errors import VersionRefusedError
from broker.facts import NO_LIMIT, Facts
from broker.notice import (
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
    from broker.members import Directory

NOTICES, REQUESTS = 50, 8
"""How many notices a load makes up, and how many requests on each."""
NOW = 1_000_000


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
    def see(self) -> Any:
        """Compartment → who may see it."""

    @property
    def hits(self) -> tuple[RuleHit, ...]:
        """Which rules were met, for whom."""


class Compiled(Protocol):
    """The rules as masks."""

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
    bureaus = directory.bureaus_in(directory.everyone)
    if not bureaus:
        return
    chance = random.Random(seed)  # noqa: S311 - made-up requests, no secret
    for _ in range(NOTICES):
        facts = made_up(chance, directory)
        actions = ("receive", "review", *(f"see_{name}" for name in KINDS[facts.kind]))
        asked = [(chance.choice(bureaus), chance.choice(actions)) for _ in range(REQUESTS)]
        compare(compiled, cedar, directory, facts, asked)


def compare(compiled: Compiled, cedar: Cedar, directory: Directory, facts: Facts, asked: list[tuple[str, str]]) -> None:
    """Compare on these requests. Raises VersionRefusedError naming the rules at the first difference."""
    verdict = compiled.judge(facts)
    for (bureau, action), right in zip(asked, cedar.answers(facts, asked), strict=True):
        index = directory.bureaus[bureau].index
        ours = compiled.answer(facts, index, action)
        judged = _judged(verdict, action, index)
        if ours != right or judged not in (None, right.allowed):
            named = ", ".join(sorted(ours.rules ^ right.rules)) or "the plan"
            raise VersionRefusedError(
                f"policies: the compiled form and Cedar differ on {action} of {facts.kind}: {named}"
            )


def _judged(verdict: Judged, action: str, index: int) -> bool | None:
    if action == "receive":
        return bool(verdict.receive >> index & 1)
    name = action.removeprefix("see_")
    return bool(verdict.see[name] >> index & 1) if name in verdict.see else None


def made_up(chance: random.Random, directory: Directory) -> Facts:
    """Make up a notice to which nothing is against, then change a few of its facts."""
    facts = _harmless(chance, directory)
    changes = _changes(chance, directory)
    names = chance.sample(sorted(changes), chance.randrange(6))
    return replace(facts, **{name: changes[name]() for name in names})


def _harmless(chance: random.Random, directory: Directory) -> Facts:
    bureau = directory.bureaus[chance.choice(directory.bureaus_in(directory.everyone))]
    return Facts(
        now=NOW,
        kind=chance.choice(sorted(KINDS)),
        issuer=bureau.id,
        owner=bureau.member,
        purpose=chance.choice(PURPOSES),
        confidentiality="restricted",
        urgency="routine",
        handling=frozenset(),
        exercise=False,
        corrects=False,
        retain_until=NO_LIMIT,
        review_due=NO_LIMIT,
        everyone=True,
        audience=directory.everyone,
        denied=0,
        addressed=0,
        named=0,
        agreements=frozenset(),
        origins_known=True,
        sources=frozenset({bureau.member}),
        consented=directory.everyone,
        subject_categories=frozenset(),
        minor="no",
        special_categories=frozenset(),
        protected_from=0,
    )


def _changes(chance: random.Random, directory: Directory) -> dict[str, Callable[[], Any]]:
    def some(values: Sequence[str]) -> frozenset[str]:
        return frozenset(chance.sample(values, chance.randint(0, min(3, len(values)))))

    def mask() -> int:
        return chance.choice((0, chance.getrandbits(len(directory.by_index)), -1)) & directory.everyone

    def day() -> int:
        return chance.choice((0, NOW - 1, NOW, NOW + 1, NO_LIMIT))

    def flag() -> bool:
        return chance.random() < 0.5

    masks = ("audience", "denied", "addressed", "named", "consented", "protected_from")
    return {
        "confidentiality": lambda: chance.choice(CONFIDENTIALITIES),
        "urgency": lambda: chance.choice(URGENCIES),
        "handling": lambda: some(HANDLING_CODES),
        "exercise": flag,
        "corrects": flag,
        "retain_until": day,
        "review_due": day,
        "everyone": flag,
        "agreements": lambda: some(sorted(directory.agreements)),
        "origins_known": flag,
        "sources": lambda: some(sorted(directory.members)),
        "subject_categories": lambda: some(SUBJECT_CATEGORIES),
        "minor": lambda: chance.choice(MINOR),
        "special_categories": lambda: some(SPECIAL_CATEGORIES),
        **dict.fromkeys(masks, mask),
    }
