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
    from collections.abc import Callable, Iterator, Sequence
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
        births, said = _days(entry.top.take_all("Geburtsdatum"))
        texts = self._as_given("Geburtsdatum", said)
        warrants = [self._warrant(group, texts) for group in entry.each("Haftbefehl")]
        identity = values.tidy(
            names=_names(entry), births=births, sex=SEXES.get((entry.top.take("Geschlecht") or "").lower()),
            nationalities=[values.state(code) for code in entry.top.take_all("Staatsangehoerigkeit")],
            documents=[_document(group) for group in entry.each("Ausweis")],
        )  # fmt: skip
        warnings = [{"code": WARNINGS.get(word, "other"), "text": word} for word in entry.top.take_all("Warnung")]
        return self._draft(
            entry, record, "person", "criminal-investigation",
            minor="unknown" if said else values.minor(births, self.today), texts=texts,
            identity=identity, warnings=values.items(warnings), location=_location(entry),
            warrants=values.items(warrants),
        )  # fmt: skip

    def _organisation(self, entry: XmlEntry, record: str) -> Draft:
        register = entry.top.take("Firmenbuch")
        founded, said = _days(entry.top.take_all("Gruendung"))
        identity = values.tidy(
            names=[values.other_name(name) for name in entry.top.take_all("Name")], form=entry.top.take("Form"),
            founded=founded,
            states=[values.state(code) for code in entry.top.take_all("Sitzstaat")],
            identifiers=[{"kind": "registration-number", "number": register}] if register else [],
        )  # fmt: skip
        activities = entry.top.take_all("Taetigkeit")
        return self._draft(
            entry, record, "organisation", "criminal-investigation", minor="no",
            texts=self._as_given("Gruendung", said), identity=identity,
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
            kind = group.take("@Art") or PERSON
            births, said = _days(group.take_all("Geburtsdatum"))
            words = f"Geburtsdatum: {'; '.join(said)}" if said else None
            name = values.person_name(
                family=group.take("Familienname"), given=group.take("Vorname"), whole=group.take("Firma")
            )
            found.append(values.tidy(kind=kind, names=[name], births=births, text=words))
            ages += [] if kind in THINGS else ["unknown" if said else values.minor(births, self.today)]
        return {"subjects": found} if found else None, values.minor_of_any(ages)

    def _draft(
        self, entry: XmlEntry, record: str, kind: str, purpose: str, minor: str,
        pointers: tuple[Pointer, ...] = (), texts: Sequence[Value] = (), **bodies: Value | None,
    ) -> Draft:  # fmt: skip
        top = entry.top
        facts = [values.text(words, "Sachverhalt", self.language) for words in top.take_all("Sachverhalt")]
        more: dict[str, Any] = {}
        if kind in ("person", "organisation"):
            more["narrative"] = values.items([*facts, *texts])
        return Draft(
            record=record, kind=kind, topics=tuple(top.take_all("Thema")) or (kind,), purpose=purpose,
            legal_basis=top.need("Rechtsgrundlage"), audience=terms.audience(top, "Verteiler"),
            deny=terms.denied(top, "Ausgenommen"), origins=terms.origins(top, "Herkunft"),
            handling=terms.handling(top, "Behandlung"), urgency=top.take("Dringlichkeit") or "routine",
            subject_categories=tuple(top.take_all("Eigenschaft")), minor=minor, pointers=pointers,
            conversation=top.take("Vorgang"), languages=(self.language,),
            compartments=values.compartments(**bodies, **more),
        )  # fmt: skip

    def _as_given(self, heading: str, said: list[str]) -> list[Value]:
        """Keep the words of dates that we do not understand."""
        return [values.text(words, f"{heading}, as given", self.language) for words in said]

    def _warrant(self, group: Fields, texts: list[Value]) -> Value:
        days, said = _days(group.take_all("Datum"))
        texts += self._as_given("Haftbefehl", said)
        return values.tidy(
            authority=group.take("Gericht"), country=values.state(self.member), reference=group.take("Zahl"),
            date=days[0] if days else None, charge=group.take("Vorwurf"), language=self.language,
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
    days, said = _days(group.take_all("Ablauf"))
    return values.tidy(
        kind=kind, number=group.take("Nummer"), state=values.state(group.take("Staat")),
        expires=days[0] if days else None, authenticity={"ja": "forged", "nein": "genuine"}.get(forged or ""),
        note=f"Ablauf: {'; '.join(said)}" if said else None,
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


def _days(given: list[str]) -> tuple[list[Value], list[str]]:
    """Give the dates, and the words of those that we do not understand."""
    read = [(_day(words), words) for words in given]
    return [day for day, _ in read if day], [words for day, words in read if not day]


def _day(said: str) -> Value | None:
    """Read `05.03.1971`, `5.3.1971`, `03.1971`, `1971`; 00 for an unknown day or month: no month, no day."""
    year, *rest = reversed([part.strip() for part in said.split(DAY_FIRST)])
    known = [year]
    for part in rest:
        if not part.strip("0"):
            break
        known.append(part.zfill(2))
    return values.partial_date("-".join(known))
