"""Writes the files of the invented national systems, each in its own make."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

from cli.invented.network import THIEVES, network
from cli.invented.people import person, world

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from random import Random


CIRCLE = "agreement:project-millennium"
YEAR = "2026"
LAW = "Act on international police cooperation of the invented member, section {section}"
PERSON_COLUMNS = (
    "id", "status", "family", "given", "patronymic", "name_original", "nicknames", "born", "born_city", "born_state",
    "sex", "nationality", "document_kind", "document", "document_state", "height", "weight", "eyes", "hair", "tattoos",
    "warnings", "court", "warrant", "warrant_date", "offences", "charge", "charge_en", "sentence", "city_state", "city",
    "street", "phone", "car", "facts", "source", "basis", "audience", "deny", "origins", "handling", "topics",
    "urgency", "clerk",
)  # fmt: skip
OBJECT_COLUMNS = (
    "id", "category", "name", "make", "model", "built", "registration", "state", "chassis", "colour", "length_cm",
    "status", "facts", "basis", "audience", "deny", "origins", "handling",
)  # fmt: skip
CONTACT_COLUMNS = (
    "id", "title", "areas", "regions", "languages", "methods", "desk", "bureau", "hours", "mail", "basis", "audience",
    "deny", "origins", "handling",
)  # fmt: skip
TABLES = {
    "dossier": "id TEXT PRIMARY KEY, kind TEXT, title TEXT, topics TEXT, purpose TEXT, basis TEXT, audience TEXT, "
    "deny TEXT, origins TEXT, handling TEXT, confidentiality TEXT, source_grade TEXT, info_grade INTEGER, "
    "languages TEXT, cites TEXT, reference TEXT, minors TEXT, clerk TEXT",
    "subject": "dossier TEXT, local TEXT, type TEXT, name TEXT, original TEXT, nicknames TEXT, fact TEXT, "
    "source_grade TEXT, info_grade INTEGER",
    "tie": "dossier TEXT, local TEXT, a TEXT, b TEXT, nature TEXT, role TEXT, since TEXT, until TEXT, certain INTEGER, "
    "source_grade TEXT, info_grade INTEGER, source_ref TEXT, remark TEXT",
    "occurrence": "dossier TEXT, local TEXT, kind TEXT, day TEXT, state TEXT, city TEXT, who TEXT, text TEXT, "
    "source_grade TEXT, info_grade INTEGER",
    "holding": "dossier TEXT, local TEXT, who TEXT, kind TEXT, identifier TEXT, text TEXT, state TEXT, holder TEXT, "
    "value INTEGER, currency TEXT",
    "opinion": "dossier TEXT, local TEXT, statement TEXT, confidence TEXT, basis TEXT, day TEXT",
    "finding": "dossier TEXT, local TEXT, statement TEXT, nature TEXT, confidence TEXT, cites TEXT",
    "passage": "dossier TEXT, part TEXT, text TEXT",
    "company": "dossier TEXT, name TEXT, name_original TEXT, form TEXT, founded TEXT, state TEXT, number TEXT, "
    "seat_state TEXT, city TEXT, street TEXT, activity TEXT",
}
Row = dict[str, Any]


def csv_folder(rng: Random, member: str, folder: Path) -> None:
    """Write persons, objects and contacts as CSV with semicolons, with a byte order mark."""
    kinds = ("wanted", "wanted", "wanted", "convicted", "missing", "missing", "dangerous", "victim")
    people = [_csv_person(rng, member, number, status) for number, status in enumerate(kinds, 1)]
    _csv(folder / "persons.csv", PERSON_COLUMNS, people)
    _csv(folder / "objects.csv", OBJECT_COLUMNS, [_csv_object(rng, member, number) for number in range(1, 4)])
    _csv(folder / "contacts.csv", CONTACT_COLUMNS, [_csv_contact(rng, member)])


def _csv(file: Path, columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, columns, delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def _csv_person(rng: Random, member: str, number: int, status: str) -> Row:
    one = person(rng, member, "georgian" if status == "convicted" else None, child=status == "missing" and number == 5)
    code, charge = rng.choice(world()["offences"])
    make, model = rng.choice(world()["vehicles"])
    row = {
        "id": f"p{number:04}", "status": status, "family": one.family, "given": one.given,
        "patronymic": one.patronymic, "name_original": one.original, "born": one.born, "born_city": one.city,
        "born_state": member, "sex": "female" if one.female else "male", "nationality": member,
        "document_kind": "passport", "document": one.document, "document_state": member, "height": one.height,
        "weight": one.weight, "eyes": rng.choice(("brown", "grey", "")), "hair": rng.choice(("black", "fair", "")),
        "city_state": member, "city": one.city, "street": f"Invented street {rng.randrange(1, 90)}",
        "facts": rng.choice(world()["facts"]), "source": f"{member}-{YEAR}-{number:04}",
        "basis": LAW.format(section=4),
        "audience": "everyone", "deny": "RU" if member == "LV" and number % 2 else "", "handling": "H0",
        "clerk": f"clerk {rng.randrange(9)}",
    }  # fmt: skip
    if status in ("wanted", "convicted"):
        row |= {
            "court": f"District court of {one.city}", "warrant": f"K-{rng.randrange(9999):04}/26",
            "warrant_date": f"2026-0{rng.randrange(1, 9)}-{rng.randrange(1, 28):02}", "offences": code,
            "charge": charge, "charge_en": charge, "sentence": "up to 10 years",
            "nicknames": rng.choice(world()["nicknames"]), "warnings": rng.choice(("armed", "violent|armed", "")),
            "tattoos": rng.choice(world()["tattoos"]) if status == "convicted" else "",
            "car": f"{make} {model} XX-{rng.randrange(9999):04}",
            "topics": "organised-crime.eurasian" if status == "convicted" else "",
        }  # fmt: skip
    if status == "victim":
        row |= {"audience": f"to:{rng.choice(_others(member))}", "handling": "H1"}
    if status == "dangerous":
        row |= {"warnings": "violent", "audience": CIRCLE + " to:INTERPOL"}
    return row


def _others(member: str) -> list[str]:
    return [f"{other}/ncb" for other in world()["members"] if other not in (member, "RU")]


def _csv_object(rng: Random, member: str, number: int) -> Row:
    make, model = rng.choice(world()["vehicles"])
    vessel = number == 3
    return {
        "id": f"o{number:04}", "category": "vessel" if vessel else "vehicle",
        "name": f"Zurmina {rng.randrange(9)}" if vessel else "", "make": "invented yard" if vessel else make,
        "model": "" if vessel else model, "built": str(rng.randrange(1999, 2026)),
        "registration": f"XX-{rng.randrange(9999):04}", "state": member, "chassis": f"XXX{rng.randrange(10**9):09}",
        "colour": rng.choice(("black", "white", "blue")), "length_cm": 0 if not vessel else rng.randrange(700, 4000),
        "status": "stolen", "facts": "Stolen to order, as the way of entry suggests.", "basis": LAW.format(section=9),
        "audience": "everyone", "handling": "H0",
    }  # fmt: skip


def _csv_contact(rng: Random, member: str) -> Row:
    home = world()["members"][member]
    return {
        "id": "c0001", "title": rng.choice(world()["experts"]), "areas": "organised-crime.eurasian",
        "regions": f"{member}|GE", "languages": f"{home['language']}|en", "methods": "interviews|tattoo reading",
        "desk": "Experts' desk", "bureau": f"{member}/ncb", "hours": "weekdays 8 to 16 local time",
        "mail": f"experts@{member.lower()}.example", "basis": LAW.format(section=12), "audience": CIRCLE,
        "handling": "H0",
    }  # fmt: skip


def interpol_json(rng: Random, member: str, folder: Path) -> None:
    """Write one page of notices of the INTERPOL form, with its traps."""
    notices = [_notice(rng, member, number) for number in range(1, 21)]
    query = {"page": 1, "resultPerPage": 160}
    page = {"total": len(notices), "query": query, "_embedded": {"notices": notices}}
    (folder / "notices.json").write_text(json.dumps(page, ensure_ascii=False, indent=1), encoding="utf-8")


def _notice(rng: Random, member: str, number: int) -> Row:
    red = number % 5 != 0
    state = member if len(member) == 2 else rng.choice([one for one in world()["members"] if len(one) == 2])
    one = person(rng, state, child=not red and number == 5)
    code = f"{YEAR}/{number:05}"
    charge = rng.choice(world()["offences"])[1]
    warrants = [{"charge": charge, "issuing_country_id": state, "charge_translation": None}]
    link = f"https://notices.example/v1/{'red' if red else 'yellow'}/{code.replace('/', '-')}"
    return {
        "entity_id": code, "name": one.family.upper(), "forename": one.given if number % 9 else rng.choice((None, "-")),
        "date_of_birth": one.born.replace("-", "/"), "nationalities": [state],
        "_links": {"self": {"href": link}}, "sex_id": "F" if one.female else "M", "place_of_birth": one.city,
        "country_of_birth_id": state, "languages_spoken_ids": ["ENG"], "height": one.height / 100,
        "weight": one.weight, "eyes_colors_id": [rng.choice(("BRO", "BLU"))], "hairs_id": [rng.choice(("BLA", "HBL"))],
        "distinguishing_marks": rng.choice((None, *world()["tattoos"])),
        "arrest_warrants": warrants if red else None,
    }  # fmt: skip


def case_database(rng: Random, member: str, folder: Path) -> None:
    """Write an SQLite case database with firms, a network and a report on it."""
    tables: dict[str, list[Row]] = {name: [] for name in TABLES}
    for number in range(1, 6):
        _firm(rng, member, number, tables)
    _network(rng, member, tables)
    _report(rng, member, tables)
    file = folder / "cases.db"
    file.unlink(missing_ok=True)
    with closing(sqlite3.connect(file)) as database, database:
        for name, columns in TABLES.items():
            database.execute(f"CREATE TABLE {name}({columns})")
            for row in tables[name]:
                marks = ",".join("?" * len(row))
                database.execute(f"INSERT INTO {name}({','.join(row)}) VALUES({marks})", list(row.values()))


def _dossier(member: str, number: str, kind: str, **more: object) -> Row:
    return {
        "id": number, "kind": kind, "basis": LAW.format(section=7), "audience": CIRCLE, "handling": "H1",
        "languages": "en", "reference": f"{member}-{number}", "minors": "no", "clerk": "clerk 1", "source_grade": "B",
        "info_grade": 2, **more,
    }  # fmt: skip


def _firm(rng: Random, member: str, number: int, tables: dict[str, list[Row]]) -> None:
    home = world()["members"][member]
    key, name = f"c{number:04}", rng.choice(world()["firms"])
    owner = person(rng, member, "georgian")
    city = rng.choice(home["cities"])
    purpose = "criminal-investigation"
    tables["dossier"].append(
        _dossier(member, key, "organisation", topics="organised-crime.fronts", purpose=purpose, audience="everyone")
    )
    state = member if len(member) == 2 else "LV"
    tables["company"].append(
        {
            "dossier": key, "name": f"{name} {world()['forms'][member]}", "form": "company",
            "founded": str(rng.randrange(2005, 2025)), "state": state, "number": f"{rng.randrange(10**9):09}",
            "seat_state": state, "city": city, "street": f"Invented street {number}", "activity": "freight and storage",
        }
    )  # fmt: skip
    tables["subject"].append({"dossier": key, "local": "p1", "type": "person", "name": owner.whole, "fact": "owner"})
    tables["passage"].append({"dossier": key, "part": "narrative", "text": rng.choice(world()["facts"])})


def _network(rng: Random, member: str, tables: dict[str, list[Row]]) -> None:
    home = member == "GE"
    tables["dossier"].append(
        _dossier(
            member, "n0001", "network", topics="organised-crime.eurasian", title="Thieves-in-law and their keepers",
            confidentiality="confidential" if home else "restricted", deny="RU",
        )
    )  # fmt: skip
    for table, rows in network(rng, "n0001", THIEVES if home else 7).items():
        tables[table] += rows


def _report(rng: Random, member: str, tables: dict[str, list[Row]]) -> None:
    tables["dossier"].append(
        _dossier(
            member, "r0001", "report", topics="organised-crime.eurasian", deny="RU", cites="n0001",
            title=f"The common fund as seen from {member}",
        )
    )  # fmt: skip
    ties = [row for row in tables["tie"] if row["dossier"] == "n0001"]
    for number, tie in enumerate(rng.sample(ties, 3), 1):
        tables["finding"].append(
            {
                "dossier": "r0001", "local": f"f{number}", "nature": rng.choice(("fact", "assessment")),
                "statement": f"{tie['a']} {tie['nature']} {tie['b']}.", "confidence": "moderate",
                "cites": f"n0001/links/{tie['local']}",
            }
        )  # fmt: skip
    texts = {
        "summary": "One fund, several keepers; the keepers change after each arrest.",
        "sanitised": "A fund is kept in several states.",
        "method": "Comparison of dossiers with travel records.",
        "gap": "Nothing is known of the time before 2015.",
    }
    tables["passage"] += [{"dossier": "r0001", "part": part, "text": words} for part, words in texts.items()]


def xml_export(rng: Random, member: str, folder: Path, asked: str) -> None:
    """Write an XML export; its requests go to the bureau `asked`, and its answer is to the one that asked it."""
    root = ET.Element("Export")
    for number in range(1, 6):
        _xml_person(rng, member, number, ET.SubElement(root, "Person", ID=f"p{number:04}"))
    for number in range(1, 4):
        _xml_firm(rng, member, number, ET.SubElement(root, "Organisation", ID=f"f{number:04}"))
    _xml_request(rng, member, asked, ET.SubElement(root, "Anfrage", ID="q0001"))
    tree = ET.ElementTree(root)
    ET.indent(tree)
    tree.write(folder / "export.xml", encoding="utf-8", xml_declaration=True)


def xml_answers(rng: Random, member: str, folder: Path, asker: str) -> None:
    """Add to the export of `member` its answer to the request of the member `asker`."""
    tree = ET.parse(folder / "export.xml")  # noqa: S314 - our own file
    entry = ET.SubElement(tree.getroot(), "Antwort", ID="a0001")
    hit = rng.random() < 0.5
    text = "Ein Eintrag, siehe Vorgang." if hit else "Kein Eintrag in den Registern."
    _tags(
        entry, Thema="request.ownership", Rechtsgrundlage=LAW.format(section=14), Verteiler=f"to:{asker}/ncb",
        Behandlung="H0", Vorgang=f"{asker.lower()}-2026-1", Ergebnis="Treffer" if hit else "kein Treffer", Text=text,
        Dienststelle="Auskunft", Aktenzeichen=f"{member}-A-1",
    )  # fmt: skip
    reference = ET.SubElement(entry, "Bezug")
    _tags(reference, Stelle=f"{asker}/ncb", Zahl=f"{asker.lower()}-q0001")
    ET.indent(tree)
    tree.write(folder / "export.xml", encoding="utf-8", xml_declaration=True)


def _tags(entry: ET.Element, **values: str | None) -> None:
    for tag, value in values.items():
        ET.SubElement(entry, tag).text = value


def _german(born: str) -> str:
    parts = [*born.split("-"), "00", "00"][:3]
    return ".".join(reversed(parts))


def _xml_person(rng: Random, member: str, number: int, entry: ET.Element) -> None:
    one = person(rng, member, "georgian" if number == 1 else None)
    state = member if len(member) == 2 else "FR"
    primary = ET.SubElement(entry, "Name", Art="Haupt")
    _tags(primary, Familienname=one.family, Vorname=one.given)
    if one.original:
        ET.SubElement(entry, "Name", Art="Alias").text = one.original
    ET.SubElement(entry, "Name", Art="Spitz").text = rng.choice(world()["nicknames"])
    topic = "organised-crime.eurasian" if number == 1 else "crime.burglary"
    origin = {"AT": "US:AT,DE,IT"}.get(member) if number == 2 else None
    _tags(
        entry, Geburtsdatum=_german(one.born), Geschlecht="w" if one.female else "m", Staatsangehoerigkeit=state,
        Warnung=rng.choice((None, "bewaffnet", "gewalttätig")), Thema=topic, Eigenschaft="suspect",
        Sachverhalt=rng.choice(world()["facts"]), Rechtsgrundlage=LAW.format(section=4), Herkunft=origin,
        Verteiler="everyone" if number > 2 else CIRCLE, Behandlung="H1" if number == 1 else "H0",
        Dringlichkeit="urgent" if number == 3 else None, Sachbearbeiter="7",
    )  # fmt: skip
    document = ET.SubElement(entry, "Ausweis", Art="passport")
    _tags(document, Nummer=one.document, Staat=state, Gefaelscht=rng.choice(("ja", None)))
    address = ET.SubElement(entry, "Adresse")
    _tags(address, Staat=state, Ort=one.city, Strasse=f"Invented street {number}", PLZ=None)
    warrant = ET.SubElement(entry, "Haftbefehl")
    charge = rng.choice(world()["offences"])[1]
    _tags(warrant, Gericht=f"Court of {one.city}", Zahl=f"{number} Hv {number}/26", Datum="01.03.2026", Vorwurf=charge)


def _xml_firm(rng: Random, member: str, number: int, entry: ET.Element) -> None:
    _tags(
        entry, Name=f"{rng.choice(world()['firms'])} {number}", Form="company", Gruendung=f"00.00.{2010 + number}",
        Sitzstaat=member, Firmenbuch=f"FN {rng.randrange(99999)}x", Taetigkeit="freight",
        Thema="organised-crime.fronts", Eigenschaft="suspect", Rechtsgrundlage=LAW.format(section=7), Verteiler=CIRCLE,
        Behandlung="H0", Sachverhalt=rng.choice(world()["facts"]),
    )  # fmt: skip


def _xml_request(rng: Random, member: str, asked: str, entry: ET.Element) -> None:
    one = person(rng, member)
    _tags(
        entry, Frage=rng.choice(world()["questions"]), Gesucht="ownership", Anlass="pending investigation",
        Thema="request.ownership", Rechtsgrundlage=LAW.format(section=13), Verteiler=f"to:{asked}/ncb",
        Behandlung="H0", Vorgang=f"{member.lower()}-2026-1", Dienststelle="Ermittlung", Aktenzeichen=f"{member}-Q-1",
    )  # fmt: skip
    subject = ET.SubElement(entry, "Betroffen", Art="person")
    _tags(subject, Familienname=one.family, Vorname=one.given, Geburtsdatum=_german(one.born))
