"""A JSON file of the form of INTERPOL's public notices: red (wanted) and yellow (missing) persons, in full."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from adapters import terms, values
from adapters.adapter import EVERYONE, Draft, Rejected, SourceReport
from adapters.fields import NOT_READ, FieldError, Fields, restricts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date
    from pathlib import Path

    from adapters.values import Value
    from broker.notice import Audience

SEXES = {"M": "male", "F": "female"}
EYES = {"BRO": "brown", "BLU": "blue", "GRE": "grey", "GRN": "green", "BLA": "black", "HAZ": "hazel"}
HAIR = {"BRO": "brown", "BLA": "black", "BLD": "blond", "GRY": "grey", "RED": "red", "HBL": "bald"}
COLOURS = {
    "red": ("wanted.red", "extradition", "Locate and arrest with a view to extradition.", "suspect"),
    "yellow": ("missing.yellow", "missing-persons", "Locate; do not tell third parties.", "other"),
}
EMPTY = frozenset({"-"})


@dataclass
class InterpolJson:
    """Reads one file or all `*.json` of a folder; the form names no audience, so the settings do.

    A query never gives more than 160 notices: a file that holds fewer than its `total` is reported as cut off, with no
    record named, so that nobody takes the rest for withdrawn; so is an empty one, and one of `files` that is not there.
    A notice, or a file, that names restrictions of its own is rejected: the form has no place for them.
    """

    member: str
    today: date
    audience: Audience = EVERYONE
    files: tuple[str, ...] = ()
    report: SourceReport = field(default_factory=SourceReport)

    def drafts(self, path: Path) -> Iterator[Draft | Rejected]:
        """Give a draft for every notice. Raises OSError; a file that is no JSON of the form is one Rejected."""
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        for name in sorted(set(self.files).difference(file.name for file in found)):
            yield self.report.count(Rejected(name, "file", "lacking"))
        for file in found:
            yield from (self.report.count(made) for made in self._file(file))

    def _file(self, file: Path) -> Iterator[Draft | Rejected]:
        try:
            page = json.loads(file.read_text(encoding="utf-8"), parse_int=_whole)
            notices, total = list(page.pop("_embedded")["notices"]), int(page.pop("total"))
            _refuse_restrictions(page, "page")
        except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError):
            yield Rejected(file.name, "file", "not of the INTERPOL form")
            return
        except FieldError as error:
            yield Rejected(file.name, error.field, error.reason)
            return
        if not notices:
            yield Rejected(file.name, "total", "empty")
        if total != len(notices):
            yield Rejected(file.name, "total", f"cut off: {len(notices)} of {total} notices")
        for number, notice in enumerate(notices, 1):
            yield self._judge(notice, f"{file.name} notice {number}")

    def _judge(self, notice: Any, where: str) -> Draft | Rejected:
        record = None
        try:
            flat = _flat(notice)
            fields = Fields(flat, self.report, "notice.", EMPTY)
            record = f"{self.member.lower()}-{fields.need('entity_id').replace('/', '-')}"
            _refuse_restrictions(notice, "notice")
            draft = self._draft(fields, record, _colour(fields), _warrants(notice, self.report))
            fields.close()
        except FieldError as error:
            return Rejected(where, error.field, error.reason, record)
        return draft

    def _draft(self, row: Fields, record: str, colour: str, warrants: list[Value]) -> Draft:
        topic, purpose, action, category = COLOURS[colour]
        said = row.take("date_of_birth")
        born = values.partial_date(said.replace("/", "-") if said else None)
        births = [born] if born else []
        narrative = [values.text(said, "Born, as the notice has it")] if said and not born else []
        return Draft(
            record=record,
            kind="person",
            topics=(topic,),
            purpose=purpose,
            legal_basis=f"{colour} notice at the request of {self.member}",
            audience=self.audience,
            action_sought=action,
            subject_categories=(category,),
            minor=values.minor(births, self.today),
            compartments=values.compartments(
                identity=_identity(row, births),
                description=_description(row),
                warrants=values.items(warrants),
                narrative=values.items(narrative),
            ),
        )


def _whole(digits: str) -> int | str:
    """Leave a number that is too long as it is written: its record is refused by its field, and the others are read."""
    return int(digits) if len(digits) <= terms.DIGITS else digits


def _flat(notice: Any) -> dict[str, list[str]]:
    """Make every value a list of strings; arrest warrants are read on their own."""
    if not isinstance(notice, dict):
        raise FieldError("notice", "not an object")
    found: dict[str, list[str]] = {}
    for name, value in notice.items():
        if name == "arrest_warrants" or value is None:
            continue
        many = value if isinstance(value, list) else [value]
        found[name] = [json.dumps(one) if isinstance(one, dict) else str(one) for one in many if one is not None]
    return found


def _refuse_restrictions(value: Any, place: str) -> None:
    """Refuse what says at any depth whom it may reach. Raises FieldError."""
    if any(map(restricts, _names(value))):
        raise FieldError(place, NOT_READ)


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (name for name, held in value.items() if held)
    for held in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _names(held)


def _colour(row: Fields) -> str:
    links = row.peek("_links") or ""
    row.skip("_links", "addresses of the source's own pages")
    for colour in COLOURS:
        if f"/{colour}/" in links:
            return colour
    raise FieldError("notice._links", "names neither a red nor a yellow notice")


def _identity(row: Fields, births: list[Value]) -> Value:
    home = values.place(row.take("country_of_birth_id"), city=row.take("place_of_birth"))
    return values.tidy(
        names=[values.person_name(family=row.need("name"), given=row.take("forename"))],
        births=births,
        sex=_coded(row, "sex_id", SEXES, one=True),
        birthplaces=[home] if home else [],
        nationalities=[values.state(code) for code in row.take_all("nationalities")],
        languages=row.take_all("languages_spoken_ids"),
    )


def _description(row: Fields) -> Value:
    return values.tidy(
        height_cm=_centimetres(row),
        weight_kg=terms.whole_number(row, "weight"),
        eyes=_coded(row, "eyes_colors_id", EYES),
        hair=_coded(row, "hairs_id", HAIR),
        marks=[{"picture": words} for words in row.take_all("distinguishing_marks")],
    )


def _coded(row: Fields, name: str, table: dict[str, str], *, one: bool = False) -> Any:
    """Translate codes; one that is not in the table is carried as written."""
    found = [table.get(code, code) for code in row.take_all(name)]
    return (found[0] if found else None) if one else found


def _centimetres(row: Fields) -> int | None:
    """Read metres (`1.78`); 0 means unknown."""
    said = row.peek("height")
    try:
        metres = float(said or 0)
    except ValueError:
        row.skip("height", "not a number")
        return None
    if not 0 < metres < 3:
        row.skip("height", "0 means unknown" if metres == 0 else "not in metres")
        return None
    row.take("height")
    return round(metres * 100)


def _warrants(notice: dict[str, Any], report: SourceReport) -> list[Value]:
    found = []
    given_warrants = notice.get("arrest_warrants") or []
    if not isinstance(given_warrants, list) or not all(isinstance(given, dict) for given in given_warrants):
        raise FieldError("notice.arrest_warrants", "not a list of objects")
    for given in given_warrants:
        text = {name: str(value) for name, value in given.items() if value is not None}
        row = Fields(text, report, "notice.arrest_warrants.", EMPTY)
        country = values.state(row.take("issuing_country_id"))
        found.append(
            values.tidy(charge=row.take("charge"), country=country, translation=row.take("charge_translation"))
        )
        row.close()
    return [warrant for warrant in found if warrant]
