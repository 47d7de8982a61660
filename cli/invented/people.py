"""Invents persons: names in their scripts, birth dates, looks; nobody of them exists."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from random import Random

YEAR = 2026
MINOR_BORN = YEAR - 9


@dataclass(frozen=True, slots=True)
class Person:
    """One invented person; `original` is the name in its own script, or None if that is Latin."""

    family: str
    given: str
    patronymic: str | None
    original: str | None
    female: bool
    born: str
    member: str
    city: str
    document: str
    height: int
    weight: int

    @property
    def whole(self) -> str:
        """Given and family name."""
        return f"{self.given} {self.family}"


@cache
def world() -> dict[str, Any]:
    """Give the words that everything is made of."""
    text = (files("cli.invented") / "world.json").read_text(encoding="utf-8")
    words: dict[str, Any] = json.loads(text)
    return words


def person(rng: Random, member: str, culture: str | None = None, *, child: bool = False) -> Person:
    """Invent one person of a member; height and weight 0 mean unknown, as in many national systems."""
    home = world()["members"][member]
    words = world()["cultures"][culture or home["culture"]]
    female = rng.random() < 0.2
    family = rng.choice(words["stems"]) + rng.choice(words["female_end" if female else "male_end"])
    given = rng.choice(words["female" if female else "male"])
    patronymic = rng.choice(words["patronymic"]) if words.get("patronymic") and not female else None
    return Person(
        family=family,
        given=given,
        patronymic=patronymic,
        original=_original(f"{given} {family}", words.get("script")),
        female=female,
        born=_born(rng, child=child),
        member=member,
        city=rng.choice(home["cities"]),
        document=f"X{rng.randrange(10**7):07}",
        height=rng.choice((0, rng.randrange(158, 199))),
        weight=rng.choice((0, rng.randrange(52, 120))),
    )


def _born(rng: Random, *, child: bool) -> str:
    year = MINOR_BORN + rng.randrange(4) if child else rng.randrange(1952, 2004)
    exact = f"{year}-{rng.randrange(1, 13):02}-{rng.randrange(1, 29):02}"
    return exact if child else rng.choice((exact, exact, exact, str(year), exact[:7]))


def _original(name: str, script: str | None) -> str | None:
    """Write a name in the letters of another script; long letters first."""
    if script is None:
        return None
    out, rest = "", name.lower()
    while rest:
        source, target = next((pair for pair in world()["letters"][script] if rest.startswith(pair[0])), (rest[0],) * 2)
        out += target
        rest = rest[len(source) :]
    return out if script == "Geor" else out.title()
