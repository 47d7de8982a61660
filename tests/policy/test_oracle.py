"""An oracle that knows the words of the rules and nothing of our code agrees with what is decided."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import islice

import pytest

from broker.decide import decide
from broker.notice import Holder
from tests.policy import tricky
from tests.policy.misread import MISREAD, Misread
from tests.policy.oracle import RULES, Answer, Oracle
from tests.policy.remembered import NOW, Place
from tests.policy.tricky import Author

WORLDS, NOTICES = 60, 120
FEWEST = 2
"""How many notices must tell a wrong answer from the right one."""
Holders = Mapping[str, tuple[int, ...]]
RELATIONS = {"withdrawal": "withdraws", "restriction": "restricts"}


@dataclass(frozen=True)
class Tried:
    """One notice in one federation, and what was decided."""

    oracle: Oracle
    decided: Answer


@cache
def tried() -> tuple[Tried, ...]:
    """Everything that is tried, always the same; what is held also as it is decided anew when it is released."""
    found = []
    for seed in range(WORLDS):
        chance = random.Random(seed)
        world = tricky.world(chance)
        author, place = Author(chance, world), Place(world=world, patterns=tricky.patterns(chance, world))
        for _ in range(NOTICES):
            made = author.tricky()
            oracle = Oracle(world, made.notice, place.patterns, made.present, NOW, holders=made.holders)
            found.append(Tried(oracle, decided(place, oracle)))
            if found[-1].decided.held:
                holders, given = reviewed(found[-1])
                approved = made.notice.model_copy(update={"released": True})
                released = replace(oracle, notice=approved, holders=holders, given=given)
                found.append(Tried(released, decided(place, released)))
    return tuple(found)


def reviewed(held: Tried) -> tuple[Holders, Holders]:
    """Who holds what at the release of what was held, and who was only given it itself, by their 9th delivery."""
    had, shown = held.oracle.holders, held.decided.shown
    holders = {each: (*numbers, 9) if each in shown else numbers for each, numbers in had.items()}
    return holders, {each: (9,) for each in shown if each not in had}


def decided(place: Place, asked: Oracle) -> Answer:
    """What our code decides."""
    notice = asked.notice
    fields = notice.model_dump(exclude={"released"}, exclude_defaults=True) | {"issuer": notice.issuer}
    made = place.notice(present=tuple(asked.present), relation=RELATIONS.get(notice.kind, ""), **fields)
    holders, given = (
        tuple(Holder(place.directory.bureaus[each].index, numbers) for each, numbers in found.items())
        for found in (asked.holders, asked.given)
    )
    decision = decide(made, place.view, asked.now, holders, released=notice.released, reviewers=given)
    slots = made.header.compartments
    shown = {
        each.bureau: frozenset(slot.name for at, slot in enumerate(slots) if each.shown >> at & 1)
        for each in decision.recipients
    }
    return Answer(
        held=decision.state == "held",
        shown=shown,
        replaces={each.bureau: each.replaces for each in decision.recipients if each.replaces},
        erases={each.bureau: each.erases for each in decision.recipients if each.erases},
        warnings=frozenset(decision.warnings),
    )


def test_the_oracle_agrees_over_random_worlds() -> None:
    for each in tried():
        asked = each.oracle
        assert asked.answer() == each.decided, f"\n{asked.world!r}\n{asked.notice!r}\n{sorted(asked.present)}"


@pytest.mark.parametrize("rule", RULES)
def test_without_any_one_rule_it_would_not(rule: str) -> None:
    assert told_apart(lambda asked: replace(asked, without=frozenset(rule.split()))) >= FEWEST


@pytest.mark.parametrize("misread", MISREAD, ids=lambda each: each.__name__)
def test_with_a_tricky_point_misread_it_would_not(misread: type[Misread]) -> None:
    assert told_apart(misread.of) >= FEWEST


def told_apart(other: Callable[[Oracle], Oracle]) -> int:
    """Count the notices of which the other oracle says what was not decided, up to as many as are needed."""
    different = (each for each in tried() if other(each.oracle).answer() != each.decided)
    return sum(1 for _ in islice(different, FEWEST))


def test_what_is_tried_is_not_one_sided() -> None:
    found = Counter("held" if each.decided.held else "somebody" if each.decided.shown else "nobody" for each in tried())
    assert min(found["held"], found["somebody"], found["nobody"]) > len(tried()) // 20
