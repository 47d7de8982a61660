"""Invents federations and notices around the tricky points of the rules, as a person writes them.

A notice begins with little against it; then come a scene, in which several facts meet on purpose, and odd facts by
chance. What verify refuses (an empty audience, grants without H2, words nobody knows) is never made up.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from broker.cases import World, WrittenNotice
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

NOW = 1_000_000
ASKS_RULES = sorted(set(KINDS) - {"withdrawal", "restriction", "approval"})
TOPICS = ("case", "case.red", "cases.red", "wanted.red", "archive.wanted", "warning", "stolen.car")
PATTERNS = ("*", "case", "case.*", "wanted.*", "stolen.*", "archive.wanted")
LANGUAGES = ("en", "fr", "ka")
MOMENTS = (NOW - 1, NOW, NOW + 1)
Fields = dict[str, object]
Holders = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Tricky:
    """A notice, the compartments that carry something, and who holds what it changes."""

    notice: WrittenNotice
    present: frozenset[str]
    holders: Holders


def world(chance: random.Random) -> World:
    """A federation of three to six members: some suspended, some bureaus without a mandate or a language."""
    names = [f"M{letter}" for letter in "ABCDEF"[: chance.randint(3, 6)]]
    bureaus = {
        f"{name}/b{place}": chance.sample(PURPOSES, chance.choice((0, 4, 6, 7, 7, 7)))
        for name in names
        for place in range(chance.randint(1, 3))
    }
    circles = {f"c{place}": chance.sample(names, chance.randint(1, len(names))) for place in range(4)}
    return World(
        bureaus=bureaus,
        suspended=chance.choice(([], [], names[-1:], names[-2:])),
        agreements={each: circles[each] for each in ("c0", "c1", "c2")},
        suspended_agreements={"c3": circles["c3"]},
        own_terms=["c0", "c3"],
        transfers=_transfers(chance, names, circles),
        clearances={each: chance.choice(CONFIDENTIALITIES) for each in bureaus if chance.random() < 0.5},
        supervision=chance.sample(names, chance.choice((0, 0, 0, 1, 2))),
        reviewers=chance.sample(sorted(bureaus), chance.randint(0, 3)),
        languages={each: chance.sample(LANGUAGES, chance.choice((0, 1, 1, 2))) for each in bureaus if _rarely(chance)},
    )


def _rarely(chance: random.Random) -> bool:
    return chance.random() < 0.6


def _transfers(chance: random.Random, names: list[str], circles: Mapping[str, list[str]]) -> list[str]:
    """Most pairs have a basis, some several; one that rests on an agreement binds two who are in it."""
    found = []
    for pair in [(a, b) for a in names for b in names if a != b]:
        ways = [f" under {name}" for name, circle in circles.items() if set(pair) <= set(circle)]
        plain = [""] if chance.random() < 0.7 else []
        rests = chance.sample(ways, chance.randint(0, min(2, len(ways)))) if ways and chance.random() < 0.5 else []
        found += [f"{pair[0]}>{pair[1]}{way}" for way in (*plain, *rests)]
    return found


def patterns(chance: random.Random, made: World) -> dict[str, tuple[str, ...]]:
    """Who has subscribed to what."""
    return {
        each: tuple(chance.sample(PATTERNS, chance.randint(1, 2))) for each in made.bureaus if chance.random() < 0.85
    }


@dataclass(frozen=True)
class Author:
    """Writes notices in one federation."""

    chance: random.Random
    world: World

    @property
    def bureaus(self) -> list[str]:
        return sorted(self.world.bureaus)

    @property
    def members(self) -> list[str]:
        return sorted({each.partition("/")[0] for each in self.bureaus})

    def some(self, most: int, least: int = 0) -> list[str]:
        """Bureaus, and some members."""
        return self.chance.sample([*self.bureaus, *self.members], self.chance.randint(least, most))

    def tricky(self) -> Tricky:
        """One notice, perhaps a correction, a withdrawal or a restriction of what somebody holds."""
        chance = self.chance
        issuer = chance.choice([each for each in self.bureaus if each.partition("/")[0] not in self.world.suspended])
        kind = chance.choice(ASKS_RULES)
        made = self._plain(issuer, kind) | chance.choice(SCENES)(self, kind)
        odd = self._odd()
        made |= {name: odd[name] for name in chance.sample(sorted(odd), chance.choice((0, 0, 1, 1, 2)))}
        follows = "withdrawal" if chance.random() < 0.03 else "restriction" if chance.random() < 0.02 else None
        made = made if follows is None else made | {"kind": follows, "grants": []}
        notice = WrittenNotice.model_validate(made)
        names = KINDS[notice.kind]
        present = frozenset(name for name in names if chance.random() < 0.85) or frozenset(names[:1])
        return Tricky(notice, present, self._holders(issuer) if follows or notice.corrects else {})

    def _holders(self, issuer: str) -> Holders:
        others = [each for each in self.bureaus if each != issuer]
        found = self.chance.sample(others, self.chance.randint(0, min(3, len(others))))
        return {each: tuple(range(1, self.chance.randint(2, 3))) for each in found}

    def _plain(self, issuer: str, kind: str) -> Fields:
        chance = self.chance
        return {
            "issuer": issuer,
            "kind": kind,
            "purpose": chance.choice(PURPOSES),
            "confidentiality": chance.choice(("open", "restricted", "restricted", "restricted", *CONFIDENTIALITIES)),
            **self._audience(),
        }

    def _audience(self) -> Fields:
        if self.chance.random() < 0.4:
            return {"everyone": True}
        to = self.some(4)
        circles = self.chance.sample(["c0", "c1", "c2", "c3"], self.chance.randint(0 if to else 1, 2))
        return {"to": to, "agreements": circles}

    def _odd(self) -> Fields:
        chance = self.chance
        return {
            "deny": self.some(3, 1),
            "origins": [self.origin()],
            "subject_categories": chance.sample(SUBJECT_CATEGORIES, chance.randint(0, 3)),
            "minor": chance.choice(MINOR),
            "special_categories": chance.sample(SPECIAL_CATEGORIES, chance.randint(1, 3)),
            "protected_from": self.some(2, 1),
            "retain_until": chance.choice(MOMENTS),
            "review_due": chance.choice(MOMENTS),
            "urgency": chance.choice(URGENCIES),
            "topics": chance.sample(TOPICS, chance.randint(1, 3)),
            "languages": chance.sample(LANGUAGES, chance.randint(0, 2)),
            "derogation": "threat-to-life",
            "corrects": True,
            "purpose": chance.choice(("missing-persons", "extradition")),
            "released": True,
        }

    def origin(self) -> tuple[str, list[str]]:
        """Somebody's facts and to whom they may go; now and then nobody knows whose."""
        owner = self.chance.choice([*self.members, *self.members, *self.bureaus, "?", "XX"])
        return owner, self.chance.choice(([], ["everyone"], self.some(3, 1), self.some(3, 1)))

    def grant(self, kind: str, bureaus: list[str]) -> tuple[str, list[str], int]:
        """What one of these bureaus may have, until about now."""
        chance = self.chance
        return chance.choice(bureaus), chance.sample(KINDS[kind], chance.randint(1, 2)), chance.choice(MOMENTS)


# --- scenes -----------------------------------------------------------------------------------------------------------


def nothing_special(_: Author, __: str) -> Fields:
    return {}


def review(author: Author, _: str) -> Fields:
    """What waits for a review, with something that stands in the way of the reviewers, too."""
    chance = author.chance
    made: Fields = {"topics": chance.sample(TOPICS, 2), "released": chance.random() < 0.3}
    ways: Fields = {
        "deny": author.some(2, 1),
        "protected_from": author.some(1, 1),
        "issuer": chance.choice([*author.world.reviewers, *author.bureaus]),
        "retain_until": chance.choice(MOMENTS),
        "review_due": chance.choice(MOMENTS),
        "confidentiality": chance.choice(CONFIDENTIALITIES),
        "origins": [author.origin()],
        "special_categories": chance.sample(SPECIAL_CATEGORIES, 2),
        "corrects": True,
    }
    if str(ways["issuer"]).partition("/")[0] in author.world.suspended:
        del ways["issuer"]
    return made | {name: ways[name] for name in chance.sample(sorted(ways), chance.randint(0, 2))}


def codes(author: Author, kind: str) -> Fields:
    """Handling codes in any company."""
    chance = author.chance
    handling = chance.sample(HANDLING_CODES, chance.randint(1, 3))
    made: Fields = {"handling": handling, "languages": chance.sample(LANGUAGES, chance.randint(0, 3))}
    if chance.random() < 0.6:
        made |= {"everyone": False, "agreements": [], "to": chance.sample(author.bureaus, 3) + author.some(1)}
    if "H2" in handling:
        made["grants"] = [author.grant(kind, author.bureaus) for _ in range(chance.randint(0, 4))]
    return made | ({"purpose": "extradition"} if chance.random() < 0.4 else {})


def grants(author: Author, kind: str) -> Fields:
    """H2 with several grants to few bureaus, some of them named, denied or outside the audience as well."""
    chance = author.chance
    few = chance.sample(author.bureaus, 2)
    deny = chance.sample([*few, few[0].partition("/")[0]], 1) if chance.random() < 0.4 else []
    found = [author.grant(kind, few) for _ in range(chance.randint(1, 4))]
    return {"handling": ["H2"], "confidentiality": "open", "grants": found, "deny": deny}


def origins(author: Author, _: str) -> Fields:
    """Facts of several others, of the issuer's own with terms, of nobody known; the glass broken or not."""
    chance = author.chance
    derogation = chance.choice((None, "threat-to-life"))
    return {"origins": [author.origin() for _ in range(chance.randint(1, 3))], "derogation": derogation}


def vulnerable(author: Author, _: str) -> Fields:
    """Minors, victims, witnesses; many of them missing, some in networks."""
    chance = author.chance
    made: Fields = {
        "minor": chance.choice(MINOR),
        "subject_categories": chance.sample(SUBJECT_CATEGORIES, chance.randint(0, 3)),
        "kind": chance.choice(("person", "person", "organisation", "object", "network", "request", "answer")),
    }
    return made | ({"purpose": "missing-persons"} if chance.random() < 0.4 else {})


def agreements(author: Author, _: str) -> Fields:
    """Circles in force and suspended, with and without terms of their own, some addressed besides; many corrections."""
    chance = author.chance
    circles = chance.sample(["c0", "c1", "c2", "c3", "c3"], chance.randint(1, 3))
    flash = {"urgency": "flash"} if chance.random() < 0.4 else {}
    made: Fields = {"everyone": False, "agreements": sorted(set(circles)), "to": author.some(1), **flash}
    return made | ({"corrects": True, "released": chance.random() < 0.4} if chance.random() < 0.6 else {})


SCENES: tuple[Callable[[Author, str], Fields], ...] = (
    nothing_special, review, codes, grants, origins, vulnerable, agreements,
)  # fmt: skip
