"""The consolidated list of the UN Security Council (XML): persons and groups under sanctions."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from defusedxml import ElementTree

from adapters import values
from adapters.adapter import EVERYONE, Draft, Rejected, SourceReport
from adapters.fields import FieldError
from adapters.xml_entry import XmlEntry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date
    from pathlib import Path
    from xml.etree.ElementTree import Element

    from adapters.fields import Fields
    from adapters.values import Value

ACTION = "Freeze assets, refuse entry and transit, prevent supply of arms, as the resolution says; report a hit."
QUALITIES = {"good": ("alias", "good"), "low": ("alias", "low"), "a.k.a.": ("alias", None), "f.k.a.": ("former", None)}
SEXES = {"male": "male", "female": "female"}
BORN, BORN_WITH_ALIAS = "Date of birth", "Date of birth with an alias"
"""What stands over the words of a birth date that we do not understand."""
_NOT_SLUG = re.compile(r"[^a-z0-9]+")


@dataclass
class UnSource:
    """Reads the list; `today` decides who may be a minor. For `INTERPOL/un-notices`."""

    today: date
    report: SourceReport = field(default_factory=SourceReport)

    def drafts(self, path: Path) -> Iterator[Draft | Rejected]:
        """Give a draft for every INDIVIDUAL and ENTITY. Raises what defusedxml raises if the file is not sound XML."""
        root = _root(path)
        self.report.dated = values.moment(root.get("dateGenerated"))
        for number, entry in enumerate((entry for section in root for entry in section), 1):
            yield self.report.count(self._judge(entry, f"{entry.tag} {number}"))

    def _judge(self, entry: Element, where: str) -> Draft | Rejected:
        parts, record = XmlEntry(entry, self.report), None
        parts.top.skip("VERSIONNUM", "always 1 in this list; the record's version is ours")
        for sort in parts.each("LIST_TYPE"):
            sort.skip("VALUE", "the same in every entry")
        try:
            record = f"un-{parts.top.need('DATAID')}"
            draft = self._person(parts, record) if entry.tag == "INDIVIDUAL" else self._organisation(parts, record)
            parts.close()
        except FieldError as error:
            return Rejected(where, error.field, error.reason, record)
        return draft

    def _person(self, entry: XmlEntry, record: str) -> Draft:
        names = [_primary(entry.top), *_original(entry.top)]
        births, texts = _births(entry)
        for alias in entry.each("INDIVIDUAL_ALIAS"):
            _alias(alias, names, births, texts)
        seat, listed = _places(entry.each("INDIVIDUAL_ADDRESS")), entry.top.need("LISTED_ON")
        known = values.partial_date(listed)
        identity = values.tidy(
            names=names, births=births, sex=_sex(entry.top),
            birthplaces=_places(entry.each("INDIVIDUAL_PLACE_OF_BIRTH")),
            nationalities=[values.state(name) for name in entry.values("NATIONALITY")],
            documents=[made for made in map(_document, entry.each("INDIVIDUAL_DOCUMENT")) if made],
            titles=entry.values("TITLE"), roles=entry.values("DESIGNATION"),
        )  # fmt: skip
        day = values.end_of(known) if known else None
        # A date that nobody here can read may be that of a minor, whatever the others say.
        told = [] if any(text.get("heading") in (BORN, BORN_WITH_ALIAS) for text in texts) else births
        return self._draft(
            entry, record, "person", texts, listed, minor=values.minor(told, self.today, day),
            identity=identity, location=_location(seat),
        )  # fmt: skip

    def _organisation(self, entry: XmlEntry, record: str) -> Draft:
        names = [values.other_name(entry.top.need("FIRST_NAME"))]
        names += [values.other_name(name, "alias") for name in entry.top.take_all("NAME_ORIGINAL_SCRIPT")]
        for alias in entry.each("ENTITY_ALIAS"):
            kind, quality = _kind(alias)
            name, note = alias.take("ALIAS_NAME"), alias.take("NOTE")
            names += [values.other_name(name, kind, quality, note)] if name else []
        seat, listed = _places(entry.each("ENTITY_ADDRESS")), entry.top.need("LISTED_ON")
        return self._draft(
            entry, record, "organisation", [], listed, minor="no", identity={"names": names}, location=_location(seat)
        )

    def _draft(
        self,
        entry: XmlEntry,
        record: str,
        kind: str,
        texts: list[Value],
        listed: str,
        minor: str,
        **bodies: Value | None,
    ) -> Draft:
        part, reference = entry.top.need("UN_LIST_TYPE"), entry.top.need("REFERENCE_NUMBER")
        texts = [*texts, *(values.text(words, "Comments", "en") for words in entry.top.take_all("COMMENTS1"))]
        texts = [*texts, *(values.text(day, "Updated") for day in entry.values("LAST_DAY_UPDATED"))]
        return Draft(
            record=record,
            kind=kind,
            topics=("sanctions.un", f"sanctions.un.{_slug(part)}"),
            purpose="sanctions",
            legal_basis=f"UN Security Council sanctions, {part} list, {reference}, listed on {listed}",
            audience=EVERYONE,
            action_sought=ACTION,
            confidentiality="open",
            subject_categories=("other",),
            minor=minor,
            compartments=values.compartments(narrative=values.items(texts), **bodies),
        )


def _root(path: Path) -> Element:
    file = path / "consolidated.xml" if path.is_dir() else path
    root = ElementTree.parse(file, forbid_dtd=True).getroot()
    assert root is not None
    return root


def _primary(top: Fields) -> Value:
    given = top.need("FIRST_NAME")
    parts = [given, *(part for tag in ("SECOND_NAME", "THIRD_NAME", "FOURTH_NAME") for part in top.take_all(tag))]
    # the list numbers the parts and does not say which of them is the family name
    return values.person_name(whole=" ".join(parts), parts=parts)


def _original(top: Fields) -> list[Value]:
    return [values.person_name(whole=name) for name in top.take_all("NAME_ORIGINAL_SCRIPT")]


def _sex(top: Fields) -> str | None:
    said = top.peek("GENDER")
    if said is None or said.lower() in SEXES:
        return SEXES.get((top.take("GENDER") or "").lower())
    top.skip("GENDER", "neither male nor female")
    return None


def _kind(alias: Fields) -> tuple[str, str | None]:
    return QUALITIES.get((alias.take("QUALITY") or "").lower(), ("alias", None))


def _alias(alias: Fields, names: list[Value], births: list[Value], texts: list[Value]) -> None:
    kind, quality = _kind(alias)
    name, note = alias.take("ALIAS_NAME"), alias.take("NOTE")
    if name:
        names.append(values.person_name(whole=name, kind=kind, quality=quality, note=note))
    elif note:
        texts.append(values.text(note, "Note on an alias"))
    said = alias.take("DATE_OF_BIRTH")
    if said:
        birth = values.partial_date(said, note=f"with the name {name}" if name else None)
        births += [birth] if birth else []
        texts += [] if birth else [values.text(said, BORN_WITH_ALIAS)]
    where = values.place(alias.take("COUNTRY_OF_BIRTH"), city=alias.take("CITY_OF_BIRTH"))
    if where:
        texts.append(values.text(", ".join([name or "alias", *_words(where)]), "Place of birth with an alias"))


def _words(where: Value) -> list[str]:
    state = where.get("state", {})
    return [word for word in (where.get("city"), state.get("name") or state.get("code")) if word]


def _births(entry: XmlEntry) -> tuple[list[Value], list[Value]]:
    births: list[Value] = []
    texts: list[Value] = []
    for group in entry.each("INDIVIDUAL_DATE_OF_BIRTH"):
        sort, note = (group.take("TYPE_OF_DATE") or "").upper(), group.take("NOTE")
        exact, year = group.take("DATE"), group.take("YEAR")
        first, last = group.take("FROM_YEAR"), group.take("TO_YEAR")
        between = f"{first} to {last}" if first and last else first or last
        said = next((one for one in (exact, year, between, note) if one), None)
        if said is None:  # only the word EXACT, with no date after it
            continue
        rest = "; ".join(one for one in (year, between, note) if one and one != said)
        born = values.partial_date(("circa " if sort == "APPROXIMATELY" else "") + said, rest)
        births += [born] if born else []
        texts += [] if born else [values.text(" ".join(one for one in (sort, said, rest) if one), BORN)]
    return births, texts


def _places(groups: list[Fields]) -> list[Value]:
    found = [
        values.place(
            group.take("COUNTRY"), group.take("STATE_PROVINCE"), group.take("CITY"), group.take("STREET"),
            group.take("ZIP_CODE"), group.take("NOTE"),
        )
        for group in groups
    ]  # fmt: skip
    return [place for place in found if place]


def _location(places: list[Value]) -> Value | None:
    return {"addresses": [{"place": place} for place in places]} if places else None


def _document(group: Fields) -> Value | None:
    kinds = [*group.take_all("TYPE_OF_DOCUMENT"), *group.take_all("TYPE_OF_DOCUMENT2")]
    countries = [*group.take_all("ISSUING_COUNTRY"), *group.take_all("COUNTRY_OF_ISSUE")]
    issued, note = group.take("DATE_OF_ISSUE"), group.take("NOTE")
    day = values.partial_date(issued)
    remarks = [note, issued if issued and not day else None, *countries[1:]]
    made = values.tidy(
        number=group.take("NUMBER"), state=values.state(countries[0]) if countries else None, issued=day,
        place=group.take("CITY_OF_ISSUE"), note="; ".join(word for word in remarks if word) or None,
    )  # fmt: skip
    return {"kind": ", ".join(kinds) or "not stated", **made} if made or kinds else None


def _slug(text: str) -> str:
    return _NOT_SLUG.sub("-", text.lower()).strip("-")
