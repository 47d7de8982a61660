"""An oracle that knows the words of the rules and nothing of our code agrees with what is decided."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from functools import cache

import pytest

from broker.cases import World, WrittenNotice
from broker.decide import decide
from broker.notice import CONFIDENTIALITIES, KINDS, MINOR, PURPOSES, SPECIAL_CATEGORIES, SUBJECT_CATEGORIES
from tests.policy.oracle import RULES, Answer, Oracle
from tests.policy.remembered import NOW, Place

WORLDS, NOTICES = 40, 100
JUDGED = sorted(set(KINDS) - {"withdrawal", "restriction", "approval"})
TOPICS = ("case", "case.red", "wanted.red", "warning", "stolen.car")
LANGUAGES = ("en", "fr", "ka")


@dataclass(frozen=True)
class Tried:
    """One notice in one federation, and what was decided."""

    oracle: Oracle
    decided: Answer


def invented_world(chance: random.Random) -> World:
    """A federation of three to six members."""
    names = [f"M{place}" for place in range(chance.randint(3, 6))]
    bureaus = {
        f"{name}/b{place}": chance.sample(PURPOSES, chance.randint(3, len(PURPOSES)))
        for name in names
        for place in range(chance.randint(1, 2))
    }
    circles = {f"c{place}": chance.sample(names, chance.randint(1, len(names))) for place in range(4)}
    under = [""] * 8 + [f" under c{place}" for place in range(4)]
    pairs = [(a, b) for a in names for b in names if a != b]
    transfers = [
        f"{a}>{b}{way}"
        for a, b in pairs
        if chance.random() < 0.85 and _both(circles, way := chance.choice(under), (a, b))
    ]
    return World(
        bureaus=bureaus,
        suspended=names[-1:] if chance.random() < 0.3 else [],
        agreements={each: circles[each] for each in ("c0", "c1", "c2")},
        suspended_agreements={"c3": circles["c3"]},
        own_terms=["c0", "c3"],
        transfers=transfers,
        clearances={each: chance.choice(CONFIDENTIALITIES) for each in bureaus if chance.random() < 0.5},
        supervision=[names[0]] if chance.random() < 0.2 else [],
        reviewers=chance.sample(sorted(bureaus), chance.randint(0, 2)),
        languages={each: chance.sample(LANGUAGES, chance.randint(1, 2)) for each in bureaus},
    )


def _both(circles: dict[str, list[str]], way: str, pair: tuple[str, str]) -> bool:
    """Both of a pair take part in the agreement that their basis rests on."""
    return not way or set(pair) <= set(circles[way.removeprefix(" under ")])


def invented_notice(chance: random.Random, world: World) -> WrittenNotice:
    """A notice to which little is against, then a few things that are."""
    bureaus, members = sorted(world.bureaus), sorted({each.partition("/")[0] for each in world.bureaus})
    issuer = chance.choice([each for each in bureaus if each.partition("/")[0] not in world.suspended])
    anybody = [*bureaus, *bureaus, *members]
    kind = chance.choice(JUDGED)
    handling = chance.choice((["H0"], ["H0"], [], ["H1"], ["H2"], ["H3"], ["H1", "H2"]))
    made: dict[str, object] = {
        "issuer": issuer, "kind": kind, "handling": handling, "purpose": chance.choice(PURPOSES),
        "confidentiality": chance.choice(("open", "restricted", "restricted", *CONFIDENTIALITIES)),
    }  # fmt: skip
    if chance.random() < 0.35:
        made["everyone"] = True
    else:
        made["to"] = chance.sample(anybody, chance.randint(0, 3))
        made["agreements"] = chance.sample(["c0", "c1", "c2", "c3"], chance.randint(0 if made["to"] else 1, 2))
    if "H2" in handling and chance.random() < 0.6:
        made["grants"] = [
            (chance.choice(bureaus), chance.sample(KINDS[kind], 1), NOW + chance.choice((0, 1))) for _ in range(2)
        ]
    odd: dict[str, object] = {
        "deny": chance.sample(anybody, 1),
        "origins": [
            (chance.choice([*members, *bureaus, "?"]), chance.choice(([], ["everyone"], chance.sample(anybody, 2))))
        ],
        "subject_categories": chance.sample(SUBJECT_CATEGORIES, chance.randint(0, 2)),
        "minor": chance.choice(MINOR),
        "special_categories": chance.sample(SPECIAL_CATEGORIES, 1),
        "protected_from": chance.sample(members, 1),
        "retain_until": NOW + chance.choice((-1, 0, 1)),
        "review_due": NOW + chance.choice((-1, 0, 1)),
        "urgency": chance.choice(("urgent", "flash")),
        "topics": chance.sample(TOPICS, 2),
        "languages": chance.sample(LANGUAGES, chance.randint(0, 2)),
        "derogation": "threat-to-life",
        "corrects": True,
        "purpose": chance.choice(("missing-persons", "extradition")),
        "released": True,
    }
    for name in chance.sample(sorted(odd), chance.choice((0, 1, 1, 2, 3))):
        made[name] = odd[name]
    return WrittenNotice.model_validate(made)


@cache
def tried() -> tuple[Tried, ...]:
    """Everything that is tried, always the same."""
    found = []
    for seed in range(WORLDS):
        chance = random.Random(seed)
        world = invented_world(chance)
        patterns = {
            each: tuple(chance.sample(("*", "case", "case.*", "wanted.*", "stolen.*"), chance.randint(1, 2)))
            for each in world.bureaus
            if chance.random() < 0.8
        }
        place = Place(world=world, patterns=patterns)
        for _ in range(NOTICES):
            notice = invented_notice(chance, world)
            names = KINDS[notice.kind]
            present = frozenset(name for name in names if chance.random() < 0.8) or frozenset(names[:1])
            oracle = Oracle(world, notice, patterns, present, NOW)
            found.append(Tried(oracle, decided(place, notice, present)))
    return tuple(found)


def decided(place: Place, notice: WrittenNotice, present: frozenset[str]) -> Answer:
    """What our code decides."""
    fields = notice.model_dump(exclude={"released"}, exclude_defaults=True) | {"issuer": notice.issuer}
    made = place.notice(present=tuple(present), **fields)
    decision = decide(made, place.view, NOW, released=notice.released)
    slots = made.header.compartments
    shown = {
        each.bureau: frozenset(slot.name for at, slot in enumerate(slots) if each.shown >> at & 1)
        for each in decision.recipients
    }
    return Answer(decision.state == "held", shown)


def test_the_oracle_agrees_over_random_worlds() -> None:
    for each in tried():
        asked = each.oracle
        assert asked.answer() == each.decided, f"\n{asked.world!r}\n{asked.notice!r}\n{sorted(asked.present)}"


@pytest.mark.parametrize("rule", RULES)
def test_without_any_one_rule_it_would_not(rule: str) -> None:
    without = (replace(each.oracle, without=frozenset(rule.split())).answer() != each.decided for each in tried())
    assert sum(without) >= 2


def test_what_is_tried_is_not_one_sided() -> None:
    found = Counter("held" if each.decided.held else "somebody" if each.decided.shown else "nobody" for each in tried())
    assert min(found["held"], found["somebody"], found["nobody"]) > len(tried()) // 20
