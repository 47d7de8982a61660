"""An XML export with German tags: persons, organisations, requests and answers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from defusedxml import ElementTree

from adapters import terms, values
from adapters.adapter import Draft, Pointer, Rejected, SourceReport
from adapters.fields import NOT_READ, FieldError, restricts
from adapters.xml_entry import XmlEntry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import date
    from pathlib import Path

    from adapters.fields import Fields
    from adapters.values import Value

SEXES = {"m": "male", "w": "female", "d": "other"}
NAME_KINDS = {"Haupt": "primary", "Alias": "alias", "Spitz": "nickname", "Missbraucht": "misused"}
WARNINGS = {"bewaffnet": "armed", "gewalttätig": "violent", "Ausbrecher": "escaped", "Freitodgefahr": "suicide-risk"}
RESULTS = {"Treffer": "hit", "kein Treffer": "no-trace", "teilweise": "partial", "abgelehnt": "refused"}
DAY_FIRST = "."
PERSON, THINGS = "person", ("organisation", "object")
"""Kinds of those whom a request is about; whatever else it says may be a person."""


@dataclass
class XmlExport:
    """Reads one export file; `member` prefixes the record ids."""

    member: str
    today: date
    language: str = "de"
    report: SourceReport = field(default_factory=SourceReport)

    def drafts(self, path: Path) -> Iterator[Draft | Rejected]:
        """Give a draft for every entry. Raises what defusedxml raises if the file is not sound XML."""
        root = ElementTree.parse(path / "export.xml" if path.is_dir() else path, forbid_dtd=True).getroot()
        assert root is not None
        if any(map(restricts, root.attrib)):
            yield self.report.count(Rejected("export.xml", root.tag, NOT_READ))
            return
        for number, element in enumerate(root, 1):
            entry = XmlEntry(element, self.report)
            yield self.report.count(self._judge(entry, element.tag, f"{element.tag} {number}"))

    def _judge(self, entry: XmlEntry, tag: str, where: str) -> Draft | Rejected:
        record = None
        try:
            record = f"{self.member.lower()}-{entry.top.need('@ID')}"
            draft = self._maker(tag)(entry, record)
            entry.close()
        except FieldError as error:
            return Rejected(where, error.field, error.reason, record)
        return draft

    def _maker(self, tag: str) -> Callable[[XmlEntry, str], Draft]:
        makers = {
            "Person": self._person,
            "Organisation": self._organisation,
            "Anfrage": self._request,
            "Antwort": self._answer,
        }
        if tag not in makers:
            raise FieldError(tag, "not an entry that we know")
        return makers[tag]

    def _person(self, entry: XmlEntry, record: str) -> Draft:
        births = [day for day in map(_day, entry.top.take_all("Geburtsdatum")) if day]
        identity = values.tidy(
            names=_names(entry), births=births, sex=SEXES.get((entry.top.take("Geschlecht") or "").lower()),
            nationalities=[values.state(code) for code in entry.top.take_all("Staatsangehoerigkeit")],
            documents=[_document(group) for group in entry.each("Ausweis")],
        )  # fmt: skip
        warnings = [{"code": WARNINGS.get(word, "other"), "text": word} for word in entry.top.take_all("Warnung")]
        return self._draft(
            entry, record, "person", "criminal-investigation", minor=values.minor(births, self.today),
            identity=identity, warnings=values.items(warnings), location=_location(entry),
            warrants=values.items([self._warrant(group) for group in entry.each("Haftbefehl")]),
        )  # fmt: skip

    def _organisation(self, entry: XmlEntry, record: str) -> Draft:
        register = entry.top.take("Firmenbuch")
        identity = values.tidy(
            names=[values.other_name(name) for name in entry.top.take_all("Name")], form=entry.top.take("Form"),
            founded=[day for day in map(_day, entry.top.take_all("Gruendung")) if day],
            states=[values.state(code) for code in entry.top.take_all("Sitzstaat")],
            identifiers=[{"kind": "registration-number", "number": register}] if register else [],
        )  # fmt: skip
        activities = entry.top.take_all("Taetigkeit")
        return self._draft(
            entry, record, "organisation", "criminal-investigation", minor="no", identity=identity,
            description=values.tidy(activities=activities), location=_location(entry),
        )  # fmt: skip

    def _request(self, entry: XmlEntry, record: str) -> Draft:
        top = entry.top
        question = values.tidy(
            text=top.need("Frage"), language=self.language, wanted=top.take_all("Gesucht"), reason=top.take("Anlass")
        )
        subjects, minor = self._subjects(entry)
        return self._draft(
            entry, record, "request", "criminal-investigation", minor=minor,
            question=question, identity=subjects, desk=_desk(entry),
        )  # fmt: skip

    def _answer(self, entry: XmlEntry, record: str) -> Draft:
        result = RESULTS.get(entry.top.need("Ergebnis"))
        if result is None:
            raise FieldError("Antwort/Ergebnis", "not a result that we know")
        reply = values.tidy(result=result, text=entry.top.need("Text"), language=self.language)
        group = next(iter(entry.each("Bezug")), None)
        if group is None:
            raise FieldError("Antwort/Bezug", "missing")
        pointer = Pointer(group.need("Stelle"), group.need("Zahl"), "answers")
        subjects, minor = self._subjects(entry)
        return self._draft(
            entry, record, "answer", "criminal-investigation", minor=minor, pointers=(pointer,),
            reply=reply, identity=subjects, desk=_desk(entry),
        )  # fmt: skip

    def _subjects(self, entry: XmlEntry) -> tuple[Value | None, str]:
        """Give whom it is about, and whether a minor is among them."""
        found: list[Value] = [
            {"kind": PERSON, "names": [values.person_name(whole=name)]} for name in entry.top.take_all("Betroffen")
        ]
        ages = ["unknown" for _ in found]
        for group in entry.each("Betroffen"):
            kind, births = (
                group.take("@Art") or PERSON,
                [day for day in map(_day, group.take_all("Geburtsdatum")) if day],
            )
            name = values.person_name(
                family=group.take("Familienname"), given=group.take("Vorname"), whole=group.take("Firma")
            )
            found.append(values.tidy(kind=kind, names=[name], births=births))
            ages += [] if kind in THINGS else [values.minor(births, self.today)]
        return {"subjects": found} if found else None, values.minor_of_any(ages)

    def _draft(
        self, entry: XmlEntry, record: str, kind: str, purpose: str, minor: str,
        pointers: tuple[Pointer, ...] = (), **bodies: Value | None,
    ) -> Draft:  # fmt: skip
        top = entry.top
        texts = values.items(
            [values.text(words, "Sachverhalt", self.language) for words in top.take_all("Sachverhalt")]
        )
        more: dict[str, Any] = {"narrative": texts} if kind in ("person", "organisation") else {}
        return Draft(
            record=record, kind=kind, topics=tuple(top.take_all("Thema")) or (kind,), purpose=purpose,
            legal_basis=top.need("Rechtsgrundlage"), audience=terms.audience(top, "Verteiler"),
            deny=terms.denied(top, "Ausgenommen"), origins=terms.origins(top, "Herkunft"),
            handling=terms.handling(top, "Behandlung"), urgency=top.take("Dringlichkeit") or "routine",
            subject_categories=tuple(top.take_all("Eigenschaft")), minor=minor, pointers=pointers,
            conversation=top.take("Vorgang"), languages=(self.language,),
            compartments=values.compartments(**bodies, **more),
        )  # fmt: skip

    def _warrant(self, group: Fields) -> Value:
        return values.tidy(
            authority=group.take("Gericht"), country=values.state(self.member), reference=group.take("Zahl"),
            date=_day(group.take("Datum")), charge=group.take("Vorwurf"), language=self.language,
            translation=group.take("Uebersetzung"),
        )  # fmt: skip


def _names(entry: XmlEntry) -> list[Value]:
    found = []
    for group in entry.each("Name"):
        kind = NAME_KINDS.get(group.take("@Art") or "Haupt", "alias")
        family, given, whole = group.take("Familienname"), group.take("Vorname"), group.take(".")
        found.append(values.person_name(family=family, given=given, whole=whole, kind=kind))
    if not found:
        raise FieldError("Person/Name", "missing")
    return found


def _document(group: Fields) -> Value:
    kind, forged = group.take("@Art") or "not stated", group.take("Gefaelscht")
    return values.tidy(
        kind=kind, number=group.take("Nummer"), state=values.state(group.take("Staat")),
        expires=_day(group.take("Ablauf")), authenticity={"ja": "forged", "nein": "genuine"}.get(forged or ""),
    )  # fmt: skip


def _location(entry: XmlEntry) -> Value:
    found = []
    for group in entry.each("Adresse"):
        where = values.place(
            group.take("Staat"), city=group.take("Ort"), street=group.take("Strasse"), postal_code=group.take("PLZ")
        )
        found += [{"place": where}] if where else []
    phones = [{"kind": "phone", "value": number} for number in entry.top.take_all("Telefon")]
    return values.tidy(addresses=found, channels=phones)


def _desk(entry: XmlEntry) -> Value:
    return values.tidy(desk=entry.top.need("Dienststelle"), reference=entry.top.take("Aktenzeichen"))


def _day(said: str | None) -> Value | None:
    """Read `05.03.1971`, `03.1971`, `1971`; 00 for an unknown day or month."""
    parts = (said or "").split(DAY_FIRST)
    known = [part for part in reversed(parts) if part.strip("0")]
    return values.partial_date("-".join(known)) if said else None
