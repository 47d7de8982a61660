"""The list of the US Treasury (SDN, CSV): persons, organisations, vessels and aircraft under sanctions."""

from __future__ import annotations

import csv
import re
from collections import defaultdict
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING

from adapters import ofac_remarks, terms, values
from adapters.adapter import EVERYONE, Draft, Rejected, SourceReport
from adapters.changes import RunRefusedError
from adapters.fields import FieldError, Fields

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date
    from pathlib import Path

    from adapters.ofac_remarks import Facts
    from adapters.values import Value

EMPTY = frozenset({"-0-"})
SDN = (
    "ent_num", "name", "type", "program", "title", "call_sign", "vessel_type", "tonnage", "grt", "flag", "owner",
    "remarks",
)  # fmt: skip
ALT = ("ent_num", "alt_num", "alt_type", "alt_name", "alt_remarks")
ADD = ("ent_num", "add_num", "address", "city", "country", "add_remarks")
END_OF_FILE = ["\x1a"]
THIEVES = "thieves"
EURASIAN, SANCTIONS = "organised-crime.eurasian", "sanctions.ofac"
SORTS = {None: "organisation", "individual": "person", "vessel": "vessel", "aircraft": "aircraft"}
ALIASES = {"aka": ("alias", None), "fka": ("former", None), "nka": ("alias", "now known as")}
_BORN = re.compile(r"\bDOB\b", re.IGNORECASE)
ACTION = "Block property and interests in property; report a hit."


@dataclass
class OfacSource:
    """Reads a folder with the SDN, alias and address files and, beside them, those of the thieves-in-law part.

    An entry of that part gets the topic `organised-crime.eurasian`, too; where `eurasian` is false it is not read.
    `today` decides who may be a minor. For `US/ncb`.

    Nothing in these files says how old they are: whoever fetches them knows it, and may tell `Outbox.apply` (`dated`).
    """

    today: date
    eurasian: bool = True
    report: SourceReport = field(default_factory=SourceReport)

    def drafts(self, path: Path) -> Iterator[Draft | Rejected]:
        """Give a draft for every entry; one that stands in both parts is given once.

        Raises OSError, csv.Error, and RunRefusedError where a file is lacking, cut off or there more than once: without
        the end of the alias file thousands of entries would be corrected to fewer names.
        """
        main, part = _rows(path, "sdn", thieves=False), self._part(path, "sdn")
        if self.eurasian and not part:
            raise RunRefusedError(f"the thieves-in-law part of {path} is lacking or empty")
        eurasian = {row[0] for row in part}
        aliases, addresses = self._grouped(path, "alt", ALT), self._grouped(path, "add", ADD)
        standing: set[str] = set()
        for rows in (main, part):
            given: dict[str, list[str]] = {}
            for row in rows:
                if row[0] in standing or given.get(row[0]) == row:
                    self.report.skip("entry", "stands in the main list already")
                    continue
                entry, twice = _Entry(row, aliases, addresses, self.report), row[0] in given
                given.setdefault(row[0], row)
                yield self.report.count(entry.twice() if twice else self._judge(entry, row, eurasian))
            standing |= given.keys()
        for left in (aliases, addresses):
            self._orphans(left)

    def _judge(self, entry: _Entry, row: list[str], eurasian: set[str]) -> Draft | Rejected:
        if len(row) != len(SDN):
            return Rejected(f"entry {entry.number}", "row", f"{len(row)} columns, not {len(SDN)}", entry.record)
        try:
            draft = self._draft(entry, eurasian)
            entry.close()
        except FieldError as error:
            return Rejected(f"entry {entry.number}", error.field, error.reason, entry.record)
        return draft

    def _draft(self, entry: _Entry, eurasian: set[str]) -> Draft:
        sort = SORTS.get(entry.top.take("type"))
        if sort is None:
            raise FieldError("sdn.type", "not a type that we know")
        facts = ofac_remarks.read(entry.top.take("remarks") or "", sort, self.report)
        name, programmes = entry.top.need("name"), (entry.top.take("program") or "not stated").replace("] [", ", ")
        bodies = _BODIES[sort](entry, name, facts)
        return Draft(
            record=entry.record,
            kind="object" if sort in ("vessel", "aircraft") else sort,
            topics=(EURASIAN, SANCTIONS) if entry.number in eurasian else (SANCTIONS,),
            purpose="sanctions",
            legal_basis=f"US Treasury, list of Specially Designated Nationals, programmes: {programmes}",
            audience=EVERYONE,
            action_sought=ACTION,
            confidentiality="open",
            subject_categories=("other",),
            minor=_minor(facts, self.today) if sort == "person" else "no",
            compartments=values.compartments(**bodies),
        )

    def _grouped(self, path: Path, part: str, columns: tuple[str, ...]) -> dict[str, list[Fields]]:
        found: dict[str, list[Fields]] = defaultdict(list)
        seen: set[tuple[str, ...]] = set()
        for row in (*_rows(path, part, thieves=False), *self._part(path, part)):
            if len(row) < len(columns):
                raise RunRefusedError(f"a row of the {part} file has {len(row)} columns, not {len(columns)}")
            if tuple(row) in seen:
                self.report.skip(f"{part} row", "stands in the main list already")
                continue
            seen.add(tuple(row))
            found[row[0]].append(self._watched(row, columns, part))
        return found

    def _part(self, path: Path, part: str) -> list[list[str]]:
        return _rows(path, part, thieves=True) if self.eurasian else []

    def _watched(self, row: list[str], columns: tuple[str, ...], part: str) -> Fields:
        named: dict[str, str] = dict(zip(columns, row, strict=False))
        named |= {f"column {number}": value for number, value in enumerate(row[len(columns) :], len(columns) + 1)}
        fields = Fields(named, self.report, f"{part}.", EMPTY)
        for key in columns[:2]:
            fields.skip(key, "a key of the list's own tables")
        return fields

    def _orphans(self, left: dict[str, list[Fields]]) -> None:
        for rows in left.values():
            for row in rows:
                row.skip_all("its entry is not in the list")


def _rows(path: Path, part: str, *, thieves: bool) -> list[list[str]]:
    """Give the rows of one file. Raises OSError, csv.Error, RunRefusedError."""
    found = [file for file in sorted(path.glob(f"*{part}*.csv")) if (THIEVES in file.name) == thieves]
    if len(found) > 1:
        names = ", ".join(file.name for file in found)
        raise RunRefusedError(f"{names} in {path} all pass for the {part} file: leave one of them there")
    if not found:
        if thieves:
            return []
        raise RunRefusedError(f"no *{part}*.csv in {path}")
    text = found[0].read_bytes().decode("utf-8-sig")  # all at once: the end that is looked at is that of what is read
    # The Treasury ends its files with this byte; what was cut out of them for a part ends with a line.
    if not (text.endswith("\n") if thieves else text.rstrip("\r\n").endswith(END_OF_FILE[0])):
        raise RunRefusedError(f"{found[0].name} is cut off: its end is not that of such a file")
    rows = csv.reader(StringIO(text, newline=""), strict=True)
    read = [[value.strip() for value in row] for row in rows if row and row != END_OF_FILE]
    if not read and not thieves:
        raise RunRefusedError(f"{found[0].name} is empty")
    return read


class _Entry:
    """One entry with its aliases and addresses, each watched."""

    def __init__(
        self, row: list[str], aliases: dict[str, list[Fields]], addresses: dict[str, list[Fields]], report: SourceReport
    ) -> None:
        self.number = row[0]
        self.record = f"ofac-{self.number}"
        self.top = Fields(dict(zip(SDN, row, strict=False)), report, "sdn.", EMPTY)
        self.top.take("ent_num")
        self.aliases, self.addresses = aliases.pop(self.number, []), addresses.pop(self.number, [])

    def twice(self) -> Rejected:
        """Reject a row that says something else under a number that another row has."""
        return Rejected(f"entry {self.number}", "sdn.ent_num", "another row has the same number", self.record)

    def close(self) -> None:
        """Report what is left over. Raises FieldError if that would restrict."""
        for part in (self.top, *self.aliases, *self.addresses):
            part.close()

    def names(self) -> list[tuple[str, str, str | None]]:
        """Give name, kind and note of each alias."""
        return [_alias(part) for part in self.aliases if "alt_name" in part]

    def places(self) -> list[Value]:
        """Give the addresses that say where."""
        made = [
            values.place(
                part.take("country"), city=part.take("city"), street=part.take("address"),
                note=part.take("add_remarks"),
            )
            for part in self.addresses
        ]  # fmt: skip
        return [{"place": place} for place in made if place]


def _alias(part: Fields) -> tuple[str, str, str | None]:
    kind, note = ALIASES.get(part.take("alt_type") or "aka", ("alias", None))
    return part.need("alt_name"), kind, part.take("alt_remarks") or note


def _person(entry: _Entry, name: str, facts: Facts) -> dict[str, Value | None]:
    names = [_split(name)]
    names += [_split(alias, kind, note=note) for alias, kind, note in entry.names()]
    # the list calls the aliases of its remarks weak: nicknames and names too common to search for
    names += [_split(alias, kind, "low", note) for alias, kind, note in facts.aliases]
    titles = entry.top.take("title")
    facts.texts += [f"Established {day['date']}" for day in facts.founded]
    identity = values.tidy(
        names=names, births=facts.births, sex=facts.sex, birthplaces=facts.birthplaces,
        nationalities=facts.nationalities, documents=facts.documents, roles=titles.split("; ") if titles else [],
    )  # fmt: skip
    assets = [values.text(f"{one['currency']} {one['identifier']}", "Digital Currency Address") for one in facts.assets]
    return {"identity": identity, **_around(entry, facts, assets)}


def _organisation(entry: _Entry, name: str, facts: Facts) -> dict[str, Value | None]:
    identity = values.tidy(
        names=_names(entry, name, facts), founded=facts.founded, states=facts.nationalities, identifiers=facts.documents
    )
    return {"identity": identity, "assets": values.items(facts.assets), **_around(entry, facts, [])}


def _vessel(entry: _Entry, name: str, facts: Facts) -> dict[str, Value | None]:
    identity = values.tidy(
        names=_names(entry, name, facts), category="vessel", type=entry.top.take("vessel_type"), built=facts.built,
        state=values.state(entry.top.take("flag")), former_states=facts.flags, call_sign=entry.top.take("call_sign"),
        identifiers=facts.documents, model=facts.model, registration=facts.tail, status="sanctioned",
    )  # fmt: skip
    tons = {"deadweight_tons": _tons(entry.top, "tonnage"), "gross_tons": _tons(entry.top, "grt")}
    owner = entry.top.take("owner")
    facts.owners += [("owner", owner)] if owner else []
    return {"identity": identity, "description": values.tidy(**tons), **_object(entry, facts)}


def _aircraft(entry: _Entry, name: str, facts: Facts) -> dict[str, Value | None]:
    identity = values.tidy(
        names=_names(entry, name, facts), category="aircraft", type=entry.top.take("vessel_type"), built=facts.built,
        state=values.state(entry.top.take("flag")), call_sign=entry.top.take("call_sign"), model=facts.model,
        registration=facts.tail, identifiers=facts.documents, status="sanctioned",
    )  # fmt: skip
    owner = entry.top.take("owner")
    facts.owners += [("owner", owner)] if owner else []
    return {"identity": identity, **_object(entry, facts)}


def _object(entry: _Entry, facts: Facts) -> dict[str, Value | None]:
    return {"assets": values.items(facts.assets), **_around(entry, facts, [])}


def _around(entry: _Entry, facts: Facts, texts: list[Value]) -> dict[str, Value | None]:
    """Build location, associates and narrative, which all kinds have."""
    associates = [{"name": name, "relation": relation} for relation, name in facts.owners]
    associates += [{"name": name, "relation": "linked-to"} for name in facts.linked]
    texts = texts + [values.text(words, "Title") for words in entry.top.take_all("title")]
    texts += [values.text(words, "Remarks", "en") for words in facts.texts]
    location = values.tidy(addresses=entry.places(), channels=facts.channels)
    return {"location": location, "associates": values.items(associates), "narrative": values.items(texts)}


_BODIES = {"person": _person, "organisation": _organisation, "vessel": _vessel, "aircraft": _aircraft}


def _names(entry: _Entry, name: str, facts: Facts) -> list[Value]:
    made = [values.other_name(name)]
    made += [values.other_name(alias, kind, note=note) for alias, kind, note in entry.names()]
    return made + [values.other_name(alias, kind, "low", note) for alias, kind, note in facts.aliases]


def _minor(facts: Facts, today: date) -> str:
    # A date that nobody here can read may be that of a minor, whatever the others say.
    return values.minor([] if any(map(_BORN.search, facts.texts)) else facts.births, today)


def _split(name: str, kind: str = "primary", quality: str | None = None, note: str | None = None) -> Value:
    family, comma, given = name.partition(", ")
    if not comma:
        return values.person_name(whole=name, kind=kind, quality=quality, note=note)
    return values.person_name(family=family, given=given, kind=kind, quality=quality, note=note)


def _tons(top: Fields, name: str) -> int | None:
    """Read `318,000`; 0 means unknown in such lists. Raises FieldError."""
    digits = (top.peek(name) or "").replace(",", "")
    if digits.isdecimal() and (number := terms.in_bounds(f"sdn.{name}", digits)):
        top.take(name)
        return number
    top.skip(name, "not a number of tons")
    return None
