"""A drop folder of CSV files with semicolons: wanted and missing persons, stolen objects, expert contacts.

What was half written restricts less than it should: without its last columns a row denies nobody. So the columns of a
row must be those of the header, the header must have those that restrict, and a file ends with a line break.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, field
from io import StringIO
from typing import TYPE_CHECKING, Any, Literal

from adapters import terms, values
from adapters.adapter import Draft, Rejected, SourceReport
from adapters.fields import FieldError, Fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from datetime import date
    from pathlib import Path

    from adapters.values import Value

ENCODING = "utf-8-sig"
LIST = "|"
DELIMITER = ";"
MORE = "more columns"
EMPTY = "lacking or empty"
Part = Literal["persons", "objects", "contacts"]
PARTS: tuple[Part, ...] = ("persons", "objects", "contacts")
STATUSES = {
    "wanted": ("wanted.red", "extradition", "Locate and arrest with a view to extradition.", "suspect"),
    "convicted": ("wanted.red", "extradition", "Locate and arrest with a view to extradition.", "convicted"),
    "missing": ("missing.yellow", "missing-persons", "Locate; do not tell third parties.", "other"),
    "dangerous": ("warning.green", "threat-prevention", "Note the warning.", "convicted"),
    "victim": ("warning.protected", "criminal-investigation", "Protect; ask before any contact.", "victim"),
}


@dataclass
class CsvFolder:
    """Reads persons.csv, objects.csv and contacts.csv; `member` prefixes the record ids.

    `parts` names those that this system writes. One that is lacking or empty is reported, with no record named, so that
    nobody takes what stood in it for withdrawn.
    """

    member: str
    today: date
    language: str = "en"
    parts: tuple[Part, ...] = PARTS
    report: SourceReport = field(default_factory=SourceReport)

    def drafts(self, path: Path) -> Iterator[Draft | Rejected]:
        """Give a draft for every line. Raises OSError, UnicodeDecodeError."""
        makers = {"persons": self._person, "objects": self._object, "contacts": self._contact}
        for name, make in makers.items():
            file = path / f"{name}.csv"
            if name in self.parts:
                yield from (self.report.count(made) for made in self._lines(file, name, make))
            elif file.exists():
                self.report.skip(file.name, "not among the parts that the settings name")

    def _lines(self, file: Path, name: str, make: Callable[[Fields, str], Draft]) -> Iterator[Draft | Rejected]:
        # All at once: what is looked at is what is read.
        text = file.read_bytes().decode(ENCODING) if file.exists() else ""
        # Strict: a stray quote would otherwise take in whatever follows it, rows and all
        rows = csv.DictReader(StringIO(text, newline=""), delimiter=DELIMITER, restkey=MORE, strict=True)
        number = 1
        try:
            if wrong := _unsound(text, rows.fieldnames or ()):
                yield Rejected(file.name, "file", wrong)
                return
            for number, row in enumerate(rows, 2):
                yield self._line(row, name, f"{file.name} line {number}", make)
        except csv.Error:
            yield Rejected(file.name, "file", f"a stray quote or a cell too long at line {rows.reader.line_num}")
        else:
            if number == 1:
                yield Rejected(file.name, "file", EMPTY)

    def _line(
        self, row: dict[str, Any], name: str, where: str, make: Callable[[Fields, str], Draft]
    ) -> Draft | Rejected:
        if MORE in row or None in row.values():
            return Rejected(where, "row", "not as many columns as the header")  # nor is its id to be believed
        if any(DELIMITER in cell and ("\n" in cell or "\r" in cell) for cell in row.values()):
            return Rejected(where, "row", "a line break and a semicolon in one cell: quotes that swallow rows")
        fields = Fields(row, self.report, f"{name}.")
        record = None
        try:
            record = f"{self.member.lower()}-{fields.need('id')}"
            draft = make(fields, record)
            fields.close()
        except FieldError as error:
            return Rejected(where, error.field, error.reason, record)
        return draft

    def _person(self, row: Fields, record: str) -> Draft:
        status = row.need("status")
        if status not in STATUSES:
            raise FieldError("persons.status", "not a status that we know")
        topic, purpose, action, category = STATUSES[status]
        identity, said = _identity(row)
        births = identity.get("births", [])
        facts = [values.text(words, "Facts", self.language) for words in row.take_all("facts")]
        facts += [values.text(said, "Born, as the file has it")] if said else []
        return Draft(
            record=record, kind="person", topics=(topic, *terms.listed(row, "topics")), purpose=purpose,
            action_sought=action, subject_categories=(category,), minor=values.minor(births, self.today),
            urgency=row.take("urgency") or "routine", **self._terms(row),
            compartments=values.compartments(
                identity=identity, warnings=_warnings(row), description=_description(row),
                warrants=self._warrants(row), location=_location(row), narrative=values.items(facts),
                source=_source(row),
            ),
        )  # fmt: skip

    def _object(self, row: Fields, record: str) -> Draft:
        category = row.need("category")
        numbers = [{"kind": "chassis-or-hull", "number": number} for number in terms.listed(row, "chassis", LIST)]
        identity = values.tidy(
            names=[values.other_name(name) for name in row.take_all("name")], category=category,
            make=row.take("make"), model=row.take("model"), registration=row.take("registration"),
            state=values.state(row.take("state")), identifiers=numbers, status=row.take("status"),
            built=[day for day in [values.partial_date(row.take("built"))] if day],
        )  # fmt: skip
        description = values.tidy(colour=row.take("colour"), length_cm=terms.whole_number(row, "length_cm"))
        facts = [values.text(words, "Facts", self.language) for words in row.take_all("facts")]
        return Draft(
            record=record, kind="object", topics=(f"stolen.{category}",), purpose="border-control", minor="no",
            action_sought="Seize and report.", **self._terms(row),
            compartments=values.compartments(
                identity=identity, description=description, narrative=values.items(facts)
            ),
        )  # fmt: skip

    def _contact(self, row: Fields, record: str) -> Draft:
        expertise = values.tidy(
            title=row.need("title"), crime_areas=list(terms.listed(row, "areas", LIST)),
            regions=[values.state(code) for code in terms.listed(row, "regions", LIST)],
            languages=list(terms.listed(row, "languages", LIST)), methods=list(terms.listed(row, "methods", LIST)),
        )  # fmt: skip
        desk = values.tidy(
            desk=row.need("desk"), bureau=row.take("bureau"), hours=row.take("hours"),
            channels=[{"kind": "e-mail", "value": address} for address in row.take_all("mail")],
        )  # fmt: skip
        return Draft(
            record=record, kind="contact", topics=("experts.eurasian",), purpose="criminal-analysis", minor="no",
            **self._terms(row), compartments={"expertise": expertise, "desk": desk},
        )  # fmt: skip

    def _warrants(self, row: Fields) -> Value | None:
        court = row.take("court")
        warrant = values.tidy(
            authority=court, country=values.state(self.member) if court else None, reference=row.take("warrant"),
            date=values.partial_date(row.take("warrant_date")), offences=list(terms.listed(row, "offences", LIST)),
            charge=row.take("charge"), translation=row.take("charge_en"), sentence=row.take("sentence"),
        )  # fmt: skip
        if "charge" in warrant:
            warrant["language"] = self.language
        return values.items([warrant] if warrant else [])

    def _terms(self, row: Fields) -> dict[str, Any]:
        return {
            "legal_basis": row.need("basis"),
            "audience": terms.audience(row, "audience"),
            "deny": terms.denied(row, "deny"),
            "origins": terms.origins(row, "origins"),
            "handling": terms.handling(row, "handling"),
            "languages": (self.language, "en"),
        }


def _unsound(text: str, columns: Sequence[str]) -> str | None:
    """Say why nothing in a file can be believed; None if that is not so."""
    if not text.strip():
        return EMPTY
    if lacking := terms.COLUMNS.difference(columns):
        return f"no column {', '.join(sorted(lacking))}"
    if len(set(columns)) != len(columns):
        return "two columns have one name"
    return None if text.endswith("\n") else "cut off: it does not end with a line break"


def _identity(row: Fields) -> tuple[Value, str | None]:
    """Give the identity and, where the birth date cannot be read, its words."""
    said = row.take("born")
    born = values.partial_date(said)
    names = [values.person_name(family=row.need("family"), given=row.take("given"), patronymic=row.take("patronymic"))]
    names += [values.person_name(whole=name) for name in row.take_all("name_original")]
    names += [values.person_name(whole=name, kind="nickname") for name in terms.listed(row, "nicknames", LIST)]
    number, kind = row.take("document"), row.take("document_kind")
    issuer = values.state(row.take("document_state"))
    document = values.tidy(kind=kind or "not stated", number=number, state=issuer)
    home = values.place(row.take("born_state"), city=row.take("born_city"))
    return values.tidy(
        names=names, births=[born] if born else [], sex=row.take("sex"), birthplaces=[home] if home else [],
        nationalities=[values.state(code) for code in terms.listed(row, "nationality", LIST)],
        documents=[document] if number or kind else [],
    ), (None if born else said)  # fmt: skip


def _warnings(row: Fields) -> Value | None:
    return values.items([{"code": code} for code in terms.listed(row, "warnings", LIST)])


def _description(row: Fields) -> Value:
    marks = [values.tidy(kind="tattoo", picture=mark) for mark in terms.listed(row, "tattoos", LIST)]
    return values.tidy(
        height_cm=terms.whole_number(row, "height"), weight_kg=terms.whole_number(row, "weight"),
        eyes=row.take_all("eyes"), hair=row.take_all("hair"), marks=marks,
    )  # fmt: skip


def _location(row: Fields) -> Value:
    city, street, country = row.take("city"), row.take("street"), row.take("city_state")
    home = values.place(country, city=city, street=street)
    car = values.tidy(registration=row.take("car"))
    phones = [{"kind": "phone", "value": number} for number in row.take_all("phone")]
    return values.tidy(
        addresses=[{"place": home}] if home else [], channels=phones, vehicles=[{"kind": "car", **car}] if car else []
    )


def _source(row: Fields) -> Value | None:
    reference = row.take("source")
    return values.items([{"kind": "record", "reference": reference}] if reference else [])
