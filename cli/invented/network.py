"""Invents the Eurasian network: thieves-in-law and their keepers, firms, links, events, assets, assessments."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.invented.people import person, world

if TYPE_CHECKING:
    from random import Random

    from cli.invented.people import Person

Row = dict[str, object]
THIEVES = 44
HOMES = ("GE", "GE", "GE", "RU", "UA", "AZ", "GR")
SETTLED = ("GR", "ES", "IT", "FR", "AT", "LV", "CZ", "DE", "PT", "AE", "RU", "GE")
GRADES = (("A", 1), ("B", 2), ("B", 3), ("C", 3), ("X", 4))


def network(rng: Random, dossier: str, thieves: int = THIEVES) -> dict[str, list[Row]]:
    """Give the rows of one network dossier by table of the case database."""
    people = _distinct(rng, thieves)
    subjects = [_thief(rng, number, one) for number, one in enumerate(people, 1)]
    firms = [_firm(rng, number, name) for number, name in enumerate(world()["firms"][: max(2, thieves // 6)], 1)]
    ids = [str(row["local"]) for row in subjects]
    ties = _ties(rng, ids, [str(row["local"]) for row in firms])
    tables = {
        "subject": subjects + firms,
        "tie": [{"local": f"l{number}", **tie, **_grade(rng)} for number, tie in enumerate(ties, 1)],
        "occurrence": [_event(rng, number, ids) for number in range(1, max(4, thieves // 3))],
        "holding": [_holding(rng, number, ids, firms) for number in range(1, max(3, thieves // 4))],
    }
    tables["opinion"] = _opinions(rng, tables)
    return {table: [{"dossier": dossier, **row} for row in rows] for table, rows in tables.items()}


def _distinct(rng: Random, count: int) -> list[Person]:
    found: dict[str, Person] = {}
    while len(found) < count:
        one = person(rng, rng.choice(HOMES))
        if not one.female:
            found.setdefault(one.whole, one)
    return list(found.values())


def _thief(rng: Random, number: int, one: Person) -> Row:
    rank = "crowned" if number % 3 else "lost the title"
    return {
        "local": f"p{number}", "type": "person", "name": one.whole, "original": one.original,
        "nicknames": f"{rng.choice(world()['nicknames'])} of {one.city}",
        "fact": f"thief-in-law, {rank}, born {one.born}, lives in {rng.choice(SETTLED)}", **_grade(rng),
    }  # fmt: skip


def _firm(rng: Random, number: int, name: str) -> Row:
    return {
        "local": f"f{number}", "type": "organisation", "name": f"{name} {number}", "original": None, "nicknames": None,
        "fact": f"front company in {rng.choice(SETTLED)}", **_grade(rng),
    }  # fmt: skip


def _grade(rng: Random) -> Row:
    source, information = rng.choice(GRADES)
    return {"source_grade": source, "info_grade": information}


def _ties(rng: Random, thieves: list[str], firms: list[str]) -> list[Row]:
    """Everybody but the first is crowned by somebody older; further ties by chance, each pair and sort once."""
    found: dict[tuple[str, str, str], Row] = {}
    for place, one in enumerate(thieves[1:], 1):
        _tie(rng, found, one, thieves[rng.randrange(max(1, place // 2))], "crowned-by")
    for _ in range(len(thieves) * 2):
        one, other = rng.sample(thieves, 2)
        _tie(rng, found, one, other, rng.choice(world()["ties"][1:]))
    for firm in firms:
        _tie(rng, found, firm, rng.choice(thieves), "fronts-for")
    return list(found.values())


def _tie(rng: Random, found: dict[tuple[str, str, str], Row], one: str, other: str, nature: str) -> None:
    year = rng.randrange(1996, 2026)
    row: Row = {
        "a": one, "b": other, "nature": nature, "role": "keeper" if nature == "keeps-fund" else None,
        "since": str(year), "until": str(year + 1) if nature == "rival" else None,
        "certain": rng.choice((1, 0, None)), "source_ref": f"R-{year}-{rng.randrange(1000):03}", "remark": None,
    }  # fmt: skip
    found.setdefault((one, other, nature), row)


def _event(rng: Random, number: int, ids: list[str]) -> Row:
    state = rng.choice(SETTLED)
    what = rng.choice(world()["meetings"])
    return {
        "local": f"v{number}", "kind": "meeting", "day": f"{rng.randrange(2015, 2026)}-{rng.randrange(1, 13):02}",
        "state": state, "city": rng.choice(world()["members"][state]["cities"]), "text": what,
        "who": ",".join(rng.sample(ids, min(len(ids), rng.randrange(2, 7)))), **_grade(rng),
    }  # fmt: skip


def _holding(rng: Random, number: int, ids: list[str], firms: list[Row]) -> Row:
    return {
        "local": f"a{number}", "who": rng.choice(ids), "kind": rng.choice(("account", "real-estate", "company")),
        "identifier": f"XX{rng.randrange(10**8):08}", "text": "as a keeper said", "state": rng.choice(SETTLED),
        "holder": str(rng.choice(firms)["name"]), "value": rng.choice((0, rng.randrange(20, 900) * 1000)),
        "currency": "EUR",
    }  # fmt: skip


def _opinions(rng: Random, tables: dict[str, list[Row]]) -> list[Row]:
    found: list[Row] = []
    for number in range(1, max(3, len(tables["subject"]) // 6)):
        tie, event = rng.choice(tables["tie"]), rng.choice(tables["occurrence"])
        found.append(
            {
                "local": f"s{number}", "statement": f"{tie['a']} acts for {tie['b']} in the matter of {event['text']}.",
                "confidence": rng.choice(("low", "moderate", "high")), "day": f"2026-0{rng.randrange(1, 9)}",
                "basis": f"{tie['local']},{event['local']}",
            }
        )  # fmt: skip
    return found
