"""The invented national systems: four makes, all kinds, nothing dropped in silence."""

from __future__ import annotations

import csv
import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from adapters.adapter import NO_HOME, Draft, Rejected
from adapters.case_database import CaseDatabase
from adapters.changes import Corrected, Guard, RunRefusedError, changes
from adapters.csv_folder import CsvFolder
from adapters.interpol_json import InterpolJson
from adapters.xml_export import XmlExport
from broker.notice import KINDS, SIZE_LIMIT
from cli.invented.sites import Site, invent
from cli.invented.systems import PERSON_COLUMNS
from tests.adapters.reading import TODAY, body, draft, drafts, encode, read, vocabulary

ALL_BUT_COMMANDS = set(KINDS) - {"withdrawal", "restriction", "approval"}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> list[Site]:
    return invent(tmp_path_factory.mktemp("invented"))


@pytest.fixture
def home(sites: list[Site], tmp_path: Path) -> Path:
    """Copies that a test may spoil, by member."""
    for site in sites:
        shutil.copytree(site.path, tmp_path / site.member)
    return tmp_path


def everything(sites: list[Site]) -> list[Draft]:
    return [item for site in sites for item in drafts(site.source(TODAY).drafts(site.path))]


@pytest.mark.parametrize("seed", range(5))
def test_every_draft_of_any_invented_world_fits_its_schemas(seed: int, tmp_path: Path) -> None:
    for site in invent(tmp_path, seed):
        source = site.source(TODAY)
        for item in source.drafts(site.path):
            assert isinstance(item, Draft), item
            assert encode(item) < SIZE_LIMIT // 2
            vocabulary(item)


@pytest.mark.parametrize("make", ["csv", "xml", "json"])
def test_on_the_eighteenth_birthday_a_run_corrects_the_notice_though_the_source_has_not_changed(
    make: str, sites: list[Site]
) -> None:
    site, record, birthday = next(
        (site, item.record, date.fromisoformat(born["date"]))
        for site in sites
        for item in drafts(site.source(TODAY).drafts(site.path))
        for born in [*item.compartments.get("identity", {}).get("births", []), {"date": ""}][:1]
        if site.make == make and len(born["date"]) == 10 and not born["date"].endswith("02-29")
    )
    of_age = birthday.replace(year=birthday.year + 18)
    eve, day = (
        {each.record: each for each in drafts(site.source(today).drafts(site.path))}
        for today in (of_age - timedelta(days=1), of_age)
    )
    assert (eve[record].minor, day[record].minor) == ("yes", "no")
    found = changes({name: each.digest() for name, each in eve.items()}, list(day.values()))
    assert Corrected(day[record], day[record].digest()) in list(found)


def test_all_members_publish_and_there_are_notices_of_all_kinds(sites: list[Site]) -> None:
    found = everything(sites)
    assert len({site.member for site in sites}) == 28
    assert {site.make for site in sites} == {"csv", "database", "xml", "json"}
    assert {item.kind for item in found} == ALL_BUT_COMMANDS
    assert 300 <= len(found) <= 400
    assert len({item.record for item in found}) == len(found)


def test_the_same_seed_invents_the_same_world(tmp_path: Path) -> None:
    one, other = (everything(invent(tmp_path / name, 7)) for name in ("one", "other"))
    assert [item.digest() for item in one] == [item.digest() for item in other]
    assert [item.digest() for item in one] != [item.digest() for item in everything(invent(tmp_path / "third", 8))]


def test_the_eurasian_network_has_forty_thieves_and_links_of_all_sorts(sites: list[Site]) -> None:
    (site,) = [site for site in sites if site.member == "GE"]
    found = read(site.source(TODAY), site.path)
    entities, links = (body(found, "ge-n0001", part)["items"] for part in ("entities", "links"))
    ids = {entity["local_id"] for entity in entities}
    assert sum(entity["type"] == "person" for entity in entities) >= 40
    assert {link["from"] for link in links} | {link["to"] for link in links} <= ids
    assert {"crowned-by", "sponsors", "oversees", "keeps-fund", "rival", "kin", "meets", "fronts-for"} == {
        link["type"] for link in links
    }
    scripts = {name["script"] for entity in entities for name in entity["names"]}
    assert {"Latn", "Geor", "Cyrl"} <= scripts
    assert {link.get("confirmed") for link in links} == {True, False, None}


def test_a_report_cites_the_links_that_its_findings_rest_on(sites: list[Site]) -> None:
    (site,) = [site for site in sites if site.member == "GE"]
    found = read(site.source(TODAY), site.path)
    links = {link["local_id"] for link in body(found, "ge-n0001", "links")["items"]}
    report = draft(found, "ge-r0001")
    assert [(pointer.record, pointer.relation) for pointer in report.pointers] == [("ge-n0001", "cites")]
    for finding in report.compartments["findings"]["items"]:
        (basis,) = finding["basis"]
        assert basis["local_id"] in links


def test_every_answer_points_to_a_request_that_was_published_before(sites: list[Site]) -> None:
    found = everything(sites)
    asked = {item.record: place for place, item in enumerate(found) if item.kind == "request"}
    answers = [(place, item) for place, item in enumerate(found) if item.kind == "answer"]
    assert answers
    for place, item in answers:
        (pointer,) = item.pointers
        assert pointer.relation == "answers"
        assert asked[pointer.record] < place
        assert item.conversation == found[asked[pointer.record]].conversation
        assert pointer.issuer in item.audience.to


def test_what_has_no_home_is_named(sites: list[Site]) -> None:
    left: Counter[str] = Counter()
    for site in sites:
        source = site.source(TODAY)
        list(source.drafts(site.path))
        left.update(name for name, reason in source.report.skipped if reason == NO_HOME)
    assert left["persons.clerk"] == 8
    assert left["dossier.clerk"] == 6
    assert left["Person/Sachbearbeiter"] == 8


# The CSV drop folder.


def spoil_line(file: Path, line: int, **fields: str) -> None:
    with file.open(encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.DictReader(lines, delimiter=";"))
    rows[line] |= fields
    with file.open("w", encoding="utf-8-sig", newline="") as out:
        writer = csv.DictWriter(out, list(rows[0]), delimiter=";")
        writer.writeheader()
        writer.writerows(rows)


def test_an_empty_audience_is_nobody_and_rejects_the_line(home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 0, audience="")
    source = CsvFolder("LV", TODAY, "lv")
    found = read(source, home / "LV")
    assert found["lv-p0001"] == Rejected("persons.csv line 2", "persons.audience", "missing", "lv-p0001")
    assert source.report.drafts == {"person": 7, "object": 3, "contact": 1}


@pytest.mark.parametrize("words", ["everyone agreement:x", "AT", "to:", "nobody"])
def test_an_audience_in_other_words_is_rejected(home: Path, words: str) -> None:
    spoil_line(home / "LV" / "persons.csv", 0, audience=words)
    assert isinstance(read(CsvFolder("LV", TODAY), home / "LV")["lv-p0001"], Rejected)


def test_0_centimetres_is_unknown_and_reported(home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 0, height="0", weight="85")
    source = CsvFolder("LV", TODAY, "lv")
    description = body(read(source, home / "LV"), "lv-p0001", "description")
    assert "height_cm" not in description
    assert description["weight_kg"] == 85
    assert source.report.skipped["persons.height", "0 means unknown"] >= 1


TOO_LONG = "a number of more than 18 digits"
DIGITS = pytest.mark.parametrize("digits", [19, 4_301])
"""More than a field of ours holds, and more than int() reads."""


def only_this(before: dict[str, Draft | Rejected], found: dict[str, Draft | Rejected], record: str) -> tuple[str, str]:
    """Of all records one is rejected: for which field, and why."""
    rejected = found[record]
    assert isinstance(rejected, Rejected)
    assert found == before | {record: rejected}
    return rejected.field, rejected.reason


@DIGITS
def test_a_number_of_a_line_that_no_field_holds_rejects_that_line_alone(digits: int, home: Path) -> None:
    before = read(CsvFolder("LV", TODAY), home / "LV")
    spoil_line(home / "LV" / "persons.csv", 0, height="9" * digits)
    assert only_this(before, read(CsvFolder("LV", TODAY), home / "LV"), "lv-p0001") == ("height", TOO_LONG)


def test_a_birth_date_that_cannot_be_read_is_kept_in_words_and_the_age_is_unknown(home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 0, born="about fifty")
    found = read(CsvFolder("LV", TODAY, "lv"), home / "LV")
    assert draft(found, "lv-p0001").minor == "unknown"
    assert {"heading": "Born, as the file has it", "text": "about fifty"} in body(found, "lv-p0001", "narrative")[
        "items"
    ]


def test_denials_and_origins_are_carried(home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 0, deny="RU AE/border", origins="US:AT,DE ?")
    item = draft(read(CsvFolder("LV", TODAY, "lv"), home / "LV"), "lv-p0001")
    assert item.deny == ("RU", "AE/border")
    assert [(origin.owner, origin.releasable_to) for origin in item.origins] == [("US", ("AT", "DE")), (None, ())]


def rewrite(file: Path, *pairs: tuple[str, str]) -> None:
    """Replace text of a file, each piece once."""
    text = file.read_bytes().decode()
    for before, after in pairs:
        assert text.count(before) >= 1, before
        text = text.replace(before, after, 1)
    file.write_bytes(text.encode())


def persons(home: Path) -> list[Draft | Rejected]:
    return [
        item
        for item in CsvFolder("LV", TODAY, "lv").drafts(home / "LV")
        if (isinstance(item, Draft) and item.kind == "person")
        or (isinstance(item, Rejected) and item.place.startswith("persons.csv"))
    ]


@pytest.mark.parametrize("column", range(5, len(PERSON_COLUMNS)))
def test_a_line_that_was_half_written_is_no_notice_with_fewer_restrictions(column: int, home: Path) -> None:
    file = home / "LV" / "persons.csv"
    spoil_line(file, 1, deny="RU", origins="US", handling="H1")
    lines = file.read_bytes().decode().split("\r\n")
    lines[2] = ";".join(lines[2].split(";")[:column])
    file.write_bytes("\r\n".join(lines).encode())
    found = persons(home)
    assert found[1] == Rejected("persons.csv line 3", "row", "not as many columns as the header")
    assert sum(isinstance(item, Draft) for item in found) == 7


def test_a_line_with_more_columns_than_the_header_is_rejected(home: Path) -> None:
    rewrite(home / "LV" / "persons.csv", ("\r\np0002;", "\r\np0002;;"))
    assert persons(home)[1] == Rejected("persons.csv line 3", "row", "not as many columns as the header")


def test_a_file_that_does_not_end_with_a_line_break_gives_nothing(home: Path) -> None:
    file = home / "LV" / "persons.csv"
    file.write_bytes(file.read_bytes().rstrip())
    assert persons(home) == [Rejected("persons.csv", "file", "cut off: it does not end with a line break")]


@pytest.mark.parametrize("column", ["audience", "deny", "origins", "handling"])
def test_a_file_without_a_column_that_restricts_gives_nothing(column: str, home: Path) -> None:
    rewrite(home / "LV" / "persons.csv", (f";{column};", f";{column}s;"))
    assert persons(home) == [Rejected("persons.csv", "file", f"no column {column}")]


def test_a_column_that_comes_twice_does_not_empty_the_first(home: Path) -> None:
    rewrite(home / "LV" / "persons.csv", (";clerk", ";deny"))
    assert persons(home) == [Rejected("persons.csv", "file", "two columns have one name")]


def test_no_handling_does_not_mean_that_anything_goes(home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 0, handling="")
    assert persons(home)[0] == Rejected("persons.csv line 2", "persons.handling", "missing", "lv-p0001")


@pytest.mark.parametrize("words", ["RU,UA", "RU;", "ru", "everyone"])
def test_a_denial_in_words_that_mean_nobody_is_rejected(words: str, home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 0, deny=words)
    rejected = persons(home)[0]
    assert isinstance(rejected, Rejected)
    assert (rejected.field, rejected.record) == ("deny", "lv-p0001")


SWALLOWED = Rejected("persons.csv line 6", "row", "a line break and a semicolon in one cell: quotes that swallow rows")


def test_two_stray_quotes_do_not_swallow_the_lines_between_them(home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 4, facts="MARK")
    spoil_line(home / "LV" / "persons.csv", 6, facts="MARK")
    rewrite(home / "LV" / "persons.csv", (";MARK;", ';"seen;'), (";MARK;", ';seen";'))
    found = persons(home)
    assert found[4] == SWALLOWED
    assert sum(isinstance(item, Draft) for item in found) == 5
    before = {item.record: item.digest() for item in everything(invent(home / "sound")) if item.record[:2] == "lv"}
    with pytest.raises(RunRefusedError):
        changes(before, CsvFolder("LV", TODAY, "lv").drafts(home / "LV"), Guard(rejects=1.0))


def test_a_stray_quote_in_the_header_is_told(home: Path) -> None:
    rewrite(home / "LV" / "persons.csv", (";family;", ';"family" name;'))
    assert persons(home) == [Rejected("persons.csv", "file", "a stray quote or a cell too long at line 1")]


@pytest.mark.parametrize("cell", ['"seen', '"seen" again'])
def test_a_stray_quote_ends_the_file_where_it_stands(cell: str, home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 1, facts="MARK")
    rewrite(home / "LV" / "persons.csv", (";MARK;", f";{cell};"))
    first, rejected = persons(home)
    assert isinstance(first, Draft)
    assert isinstance(rejected, Rejected)
    assert (rejected.field, rejected.record) == ("file", None)


def test_a_cell_may_hold_a_line_break_or_a_semicolon(home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 0, facts="One.\nTwo.", charge="this; that")
    assert sum(isinstance(item, Draft) for item in persons(home)) == 8


@pytest.mark.parametrize("part", ["persons", "objects", "contacts"])
@pytest.mark.parametrize("left", [None, "", "\ufeff\r\n", "header"])
def test_a_part_that_is_lacking_or_empty_withdraws_nothing(part: str, left: str | None, home: Path) -> None:
    before = {item.record: item.digest() for item in drafts(CsvFolder("LV", TODAY, "lv").drafts(home / "LV"))}
    file = home / "LV" / f"{part}.csv"
    header = file.read_bytes().partition(b"\n")
    file.unlink()
    if left is not None:
        file.write_bytes(header[0] + header[1] if left == "header" else left.encode())
    found = list(CsvFolder("LV", TODAY, "lv").drafts(home / "LV"))
    assert Rejected(f"{part}.csv", "file", "lacking or empty") in found
    with pytest.raises(RunRefusedError, match="without an id"):
        changes(before, found, Guard(rejects=1.0))


def test_a_system_that_writes_persons_only_says_so(home: Path) -> None:
    (home / "LV" / "objects.csv").unlink()
    source = CsvFolder("LV", TODAY, "lv", parts=("persons",))
    assert {item.kind for item in drafts(source.drafts(home / "LV"))} == {"person"}
    assert source.report.rejected == []
    assert source.report.skipped == {("contacts.csv", "not among the parts that the settings name"): 1} | {
        key: count for key, count in source.report.skipped.items() if key[0].startswith("persons.")
    }


# The SQLite case database.


def test_a_finding_without_a_source_rejects_the_report(home: Path) -> None:
    with closing(sqlite3.connect(home / "GE" / "cases.db")) as database, database:
        database.execute("UPDATE finding SET cites = NULL WHERE local = 'f2'")
    found = read(CaseDatabase("GE/organised-crime"), home / "GE")
    assert found["ge-r0001"] == Rejected("dossier r0001", "finding.cites", "a finding has no source", "ge-r0001")


@DIGITS
def test_a_number_of_a_dossier_that_no_field_holds_rejects_that_dossier_alone(digits: int, home: Path) -> None:
    with closing(sqlite3.connect(home / "GE" / "cases.db")) as database, database:
        database.execute("ALTER TABLE dossier DROP COLUMN info_grade")
        database.execute("ALTER TABLE dossier ADD COLUMN info_grade TEXT")
        database.commit()
        before = read(CaseDatabase("GE/organised-crime"), home / "GE")
        database.execute("UPDATE dossier SET info_grade = ? WHERE id = 'n0001'", ("9" * digits,))
    found = read(CaseDatabase("GE/organised-crime"), home / "GE")
    assert only_this(before, found, "ge-n0001") == ("info_grade", TOO_LONG)


@pytest.mark.parametrize(("said", "minor"), [("'no'", "no"), ("'yes'", "yes"), ("NULL", "unknown")])
def test_whether_a_dossier_is_about_minors_stands_in_the_database_or_is_unknown(
    said: str, minor: str, home: Path
) -> None:
    with closing(sqlite3.connect(home / "GE" / "cases.db")) as database, database:
        database.execute(f"UPDATE dossier SET minors = {said}")
    found = read(CaseDatabase("GE/organised-crime"), home / "GE")
    assert {item.minor for item in found.values() if isinstance(item, Draft)} == {minor}


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE dossier SET minors = 'few'",
        "ALTER TABLE subject ADD COLUMN deny TEXT DEFAULT 'RU'",
        "CREATE TABLE deny AS SELECT 'n0001' AS dossier, 'RU' AS member",
        "CREATE VIEW restriction AS SELECT 'n0001' AS dossier, 'RU' AS deny",
        "UPDATE dossier SET handling = NULL",
        "UPDATE dossier SET deny = 'RU,UA'",
    ],
)
def test_a_restriction_of_a_dossier_that_is_not_understood_rejects_it(change: str, home: Path) -> None:
    with closing(sqlite3.connect(home / "GE" / "cases.db")) as database, database:
        database.execute(change)
    assert isinstance(read(CaseDatabase("GE/organised-crime"), home / "GE")["ge-n0001"], Rejected)


@pytest.mark.parametrize("column", ["audience", "deny", "origins", "handling"])
def test_a_database_without_a_column_that_restricts_gives_nothing(column: str, home: Path) -> None:
    with closing(sqlite3.connect(home / "GE" / "cases.db")) as database, database:
        database.execute(f"ALTER TABLE dossier DROP COLUMN {column}")
    found = list(CaseDatabase("GE/organised-crime").drafts(home / "GE"))
    assert found == [Rejected("cases.db", "dossier", f"no column {column}")]


def test_a_table_that_we_do_not_know_is_told(home: Path) -> None:
    with closing(sqlite3.connect(home / "GE" / "cases.db")) as database, database:
        database.execute("CREATE TABLE weather AS SELECT 'n0001' AS dossier, 'rain' AS sky")
    source = CaseDatabase("GE/organised-crime")
    assert isinstance(read(source, home / "GE")["ge-n0001"], Draft)
    assert source.report.skipped["weather.sky", NO_HOME] == 1


def test_the_case_database_is_read_and_never_written(home: Path) -> None:
    file = home / "GE" / "cases.db"
    file.chmod(0o444)
    assert len(read(CaseDatabase("GE/organised-crime"), home / "GE")) == 7
    assert [path.name for path in (home / "GE").iterdir()] == ["cases.db"]


# The XML export.


def test_an_unknown_entry_and_a_field_too_many_are_named(home: Path) -> None:
    file = home / "AT" / "export.xml"
    tree = ET.parse(file)
    ET.SubElement(tree.getroot(), "Wetter", ID="w1")
    ET.SubElement(tree.getroot()[0], "Lieblingsfarbe").text = "invented"
    tree.write(file, encoding="utf-8")
    source = XmlExport("AT", TODAY)
    found = read(source, home / "AT")
    assert found["at-w1"] == Rejected("Wetter 11", "Wetter", "not an entry that we know", "at-w1")
    assert source.report.skipped["Person/Lieblingsfarbe", NO_HOME] == 1


@pytest.mark.parametrize("name", ["Ausgenommen", "Herkunft", "Behandlung", "Verteiler", "ausgenommen"])
@pytest.mark.parametrize("shape", ["attribute", "child", "its own attribute", "in a group", "on a value", "deep"])
def test_a_restriction_in_another_shape_rejects_the_entry(name: str, shape: str, home: Path) -> None:
    file = home / "AT" / "export.xml"
    tree = ET.parse(file)
    entry = tree.getroot()[0]
    if shape == "attribute":
        entry.set(name, "RU")
    elif shape == "child":
        ET.SubElement(ET.SubElement(entry, name), "Land").text = "RU"
    elif shape == "its own attribute":
        ET.SubElement(entry, name, Land="RU")
    elif shape == "in a group":
        ET.SubElement(entry[0], name).text = "RU"
    elif shape == "on a value":
        entry[0][0].set(name, "RU")
    else:
        ET.SubElement(ET.SubElement(ET.SubElement(entry, "Steuerung"), name), "Land").text = "RU"
    tree.write(file, encoding="utf-8")
    rejected = read(XmlExport("AT", TODAY), home / "AT")["at-p0001"]
    assert isinstance(rejected, Rejected)
    assert rejected.reason == "restricts, and stands where we do not read it"


def test_an_export_that_restricts_all_of_its_entries_at_once_gives_none(home: Path) -> None:
    file = home / "AT" / "export.xml"
    tree = ET.parse(file)
    tree.getroot().set("Ausgenommen", "RU")
    tree.write(file, encoding="utf-8")
    (rejected,) = XmlExport("AT", TODAY).drafts(file)
    assert isinstance(rejected, Rejected)


def test_every_denial_of_several_elements_is_carried(home: Path) -> None:
    file = home / "AT" / "export.xml"
    tree = ET.parse(file)
    for each in ("RU", "UA/border"):
        ET.SubElement(tree.getroot()[0], "Ausgenommen").text = each
    tree.write(file, encoding="utf-8")
    assert draft(read(XmlExport("AT", TODAY), home / "AT"), "at-p0001").deny == ("RU", "UA/border")


def test_an_entry_without_handling_is_not_taken_for_free(home: Path) -> None:
    file = home / "AT" / "export.xml"
    tree = ET.parse(file)
    (handling,) = (each for each in tree.getroot()[0] if each.tag == "Behandlung")
    handling.text = " "
    tree.write(file, encoding="utf-8")
    found = read(XmlExport("AT", TODAY), home / "AT")["at-p0001"]
    assert found == Rejected("Person 1", "Person/Behandlung", "missing", "at-p0001")


def born_on(home: Path, *said: str) -> dict[str, Draft | Rejected]:
    """The export of AT, its first person born on these dates."""
    file = home / "AT" / "export.xml"
    tree = ET.parse(file)
    entry = tree.getroot()[0]
    for each in entry.findall("Geburtsdatum"):
        entry.remove(each)
    for words in said:
        ET.SubElement(entry, "Geburtsdatum").text = words
    tree.write(file, encoding="utf-8")
    return read(XmlExport("AT", TODAY), file)


def asked_about(home: Path, *subjects: dict[str, str] | str) -> Draft:
    """The request, made to be about these: children and attributes (`@…`), or text only."""
    file = home / "AT" / "export.xml"
    tree = ET.parse(file)
    (entry,) = tree.getroot().iter("Anfrage")
    for each in entry.findall("Betroffen"):
        entry.remove(each)
    for fields in subjects:
        made = ET.SubElement(entry, "Betroffen")
        made.text = fields if isinstance(fields, str) else None
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if name.startswith("@"):
                made.set(name[1:], value)
            else:
                ET.SubElement(made, name).text = value
    tree.write(file, encoding="utf-8")
    return draft(read(XmlExport("AT", TODAY), home / "AT"), "at-q0001")


ADULT = {"@Art": "person", "Familienname": "Testov", "Geburtsdatum": "05.03.1971"}
CHILD = ADULT | {"Geburtsdatum": "05.03.2015"}


@pytest.mark.parametrize(
    ("subjects", "minor"),
    [
        ((), "no"),
        ((ADULT, ADULT), "no"),
        ((ADULT, {"@Art": "organisation", "Firma": "Testov Transit"}), "no"),
        ((CHILD,), "yes"),
        ((ADULT, CHILD), "yes"),
        ((ADULT, ADULT | {"Geburtsdatum": ""}), "unknown"),
        ((ADULT | {"Geburtsdatum": "about ten"},), "unknown"),
        ((ADULT, {"Familienname": "Testov"}), "unknown"),
        (({"@Art": "Kind", "Familienname": "Testov"},), "unknown"),
        ((ADULT, "Otar Testov"), "unknown"),
    ],
)
def test_a_request_about_a_child_says_so(subjects: tuple[dict[str, str] | str, ...], minor: str, home: Path) -> None:
    item = asked_about(home, *subjects)
    assert item.minor == minor
    assert len(item.compartments.get("identity", {"subjects": []})["subjects"]) == len(subjects)
    encode(item)


def test_an_answer_about_a_child_says_so(home: Path) -> None:
    file = next(each for each in sorted(home.glob("*/export.xml")) if "<Antwort" in each.read_text("utf-8"))
    tree = ET.parse(file)
    (entry,) = tree.getroot().iter("Antwort")
    subject = ET.SubElement(entry, "Betroffen")
    ET.SubElement(subject, "Familienname").text = "Testov"
    ET.SubElement(subject, "Geburtsdatum").text = "05.03.2015"
    tree.write(file, encoding="utf-8")
    member = file.parent.name
    found = read(XmlExport(member, TODAY), file)
    assert draft(found, f"{member.lower()}-a0001").minor == "yes"


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("00.00.1971", "1971"),
        ("00.03.1971", "1971-03"),
        ("05.03.1971", "1971-03-05"),
        ("5.3.1971", "1971-03-05"),
        ("5. 3. 1971", "1971-03-05"),
        ("05.00.1971", "1971"),
        ("3.1971", "1971-03"),
        ("1971", "1971"),
    ],
)
def test_a_german_date_with_unknown_parts_keeps_what_is_known(said: str, expected: str, home: Path) -> None:
    (born,) = body(born_on(home, said), "at-p0001", "identity")["births"]
    assert born["date"] == expected


@pytest.mark.parametrize("said", ["5.3.12", "31.02.1971", "00.00.0000", "01.01.9999", "etwa zehn", "1.5.3.1971"])
def test_a_german_date_that_cannot_be_read_is_kept_in_words_and_the_age_is_unknown(said: str, home: Path) -> None:
    found = born_on(home, said)
    assert "births" not in body(found, "at-p0001", "identity")
    assert draft(found, "at-p0001").minor == "unknown"
    texts = {item["heading"]: item["text"] for item in body(found, "at-p0001", "narrative")["items"]}
    assert texts["Geburtsdatum, as given"] == said


def test_one_date_that_can_be_read_does_not_answer_for_another(home: Path) -> None:
    assert draft(born_on(home, "05.03.1971", "etwa zehn"), "at-p0001").minor == "unknown"


def test_other_dates_that_cannot_be_read_are_kept_in_words(home: Path) -> None:
    file = home / "AT" / "export.xml"
    tree = ET.parse(file)
    person, firm = (next(tree.getroot().iter(tag)) for tag in ("Person", "Organisation"))
    for entry, path in ((person, "Haftbefehl/Datum"), (firm, "Gruendung")):
        found = entry.find(path)
        assert found is not None
        found.text = "damals"
    ET.SubElement(next(person.iter("Ausweis")), "Ablauf").text = "bald"
    tree.write(file, encoding="utf-8")
    read_ = read(XmlExport("AT", TODAY), home / "AT")
    for record in ("at-p0001", "at-f0001"):
        assert "damals" in [item["text"] for item in body(read_, record, "narrative")["items"]]
    (document,) = body(read_, "at-p0001", "identity")["documents"]
    assert document["note"] == "Ablauf: bald"
    encode(draft(read_, "at-p0001"))


def test_the_words_of_a_subjects_birth_date_go_with_it(home: Path) -> None:
    (subject,) = asked_about(home, ADULT | {"Geburtsdatum": "etwa zehn"}).compartments["identity"]["subjects"]
    assert subject["text"] == "Geburtsdatum: etwa zehn"


# The INTERPOL form.


def spoil_page(home: Path, number: int, **fields: Any) -> Path:
    file = home / "UA" / "notices.json"
    page = json.loads(file.read_text(encoding="utf-8"))
    page["_embedded"]["notices"][number] |= fields
    file.write_text(json.dumps(page), encoding="utf-8")
    return file


def test_the_traps_of_the_interpol_form_are_unknown_not_values(home: Path) -> None:
    file = spoil_page(home, 0, forename="-", height=0, weight=0, date_of_birth="1971", arrest_warrants=None)
    found = read(InterpolJson("UA", TODAY), file)
    identity = body(found, "ua-2026-00001", "identity")
    assert "given" not in identity["names"][0]
    assert identity["births"] == [{"date": "1971", "precision": "year"}]
    assert body(found, "ua-2026-00001", "description").keys() <= {"eyes", "hair", "marks"}
    assert "warrants" not in draft(found, "ua-2026-00001").compartments


@DIGITS
def test_a_number_of_a_notice_that_no_field_holds_rejects_that_notice_alone(digits: int, home: Path) -> None:
    before = read(InterpolJson("UA", TODAY), home / "UA")
    file = spoil_page(home, 0, weight="LONG")
    rewrite(file, ('"LONG"', "9" * digits))
    assert only_this(before, read(InterpolJson("UA", TODAY), file), "ua-2026-00001") == ("weight", TOO_LONG)


@pytest.mark.parametrize("fields", [{"deny": "RU"}, {"terms": [{"Deny": ["RU"]}]}, {"sex_id": {"handling": "H3"}}])
def test_a_notice_that_names_restrictions_is_rejected(fields: dict[str, Any], home: Path) -> None:
    file = spoil_page(home, 0, **fields)
    found = read(InterpolJson("UA", TODAY), file)["ua-2026-00001"]
    assert isinstance(found, Rejected)
    assert (found.field, found.record) == ("notice", "ua-2026-00001")


def test_a_page_that_names_restrictions_gives_nothing(home: Path) -> None:
    file = home / "UA" / "notices.json"
    page = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(page | {"query": {"deny": "RU"}}), encoding="utf-8")
    (rejected,) = InterpolJson("UA", TODAY).drafts(file)
    assert isinstance(rejected, Rejected)
    assert (rejected.field, rejected.record) == ("page", None)


@pytest.mark.parametrize("warrants", ["x", ["x"], 7])
def test_warrants_of_another_form_reject_the_notice(home: Path, warrants: object) -> None:
    file = spoil_page(home, 0, arrest_warrants=warrants)
    rejected = read(InterpolJson("UA", TODAY), file)["ua-2026-00001"]
    assert isinstance(rejected, Rejected)
    assert rejected.field == "notice.arrest_warrants"


def test_metres_become_centimetres_and_codes_words(home: Path) -> None:
    file = spoil_page(home, 0, height=1.78, eyes_colors_id=["BRO", "XXX"], hairs_id=None)
    description = body(read(InterpolJson("UA", TODAY), file), "ua-2026-00001", "description")
    assert description["height_cm"] == 178
    assert description["eyes"] == ["brown", "XXX"]


def test_a_page_that_was_cut_off_withdraws_nothing(home: Path) -> None:
    file = home / "UA" / "notices.json"
    before = {item.record: item.digest() for item in drafts(InterpolJson("UA", TODAY).drafts(file))}
    page = json.loads(file.read_text(encoding="utf-8"))
    page["_embedded"]["notices"].pop()
    file.write_text(json.dumps(page), encoding="utf-8")
    with pytest.raises(RunRefusedError):
        changes(before, InterpolJson("UA", TODAY).drafts(file))


def test_a_page_that_came_back_empty_or_is_not_there_withdraws_nothing(home: Path) -> None:
    folder = home / "UA"
    (folder / "yellow.json").write_text('{"total": 0, "_embedded": {"notices": []}}', encoding="utf-8")
    source = InterpolJson("UA", TODAY, files=("notices.json", "red.json", "yellow.json"))
    found = read(source, folder)
    assert source.report.rejected == [
        Rejected("red.json", "file", "lacking"),
        Rejected("yellow.json", "total", "empty"),
    ]
    assert len(drafts(found.values())) == 20


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"total": "x", "_embedded": {"notices": []}}',
        '{"total": 1e999, "_embedded": {"notices": []}}',
        "\x00",
        "[" * 100_000,
    ],
)
def test_a_file_of_another_form_is_one_reject(tmp_path: Path, text: str) -> None:
    (tmp_path / "notices.json").write_text(text, encoding="utf-8")
    assert list(InterpolJson("UA", TODAY).drafts(tmp_path)) == [
        Rejected("notices.json", "file", "not of the INTERPOL form")
    ]


def test_a_notice_that_is_no_object_is_rejected_alone(tmp_path: Path) -> None:
    page = {"total": 2, "_embedded": {"notices": ["x", {"entity_id": "1/2"}]}}
    (tmp_path / "notices.json").write_text(json.dumps(page), encoding="utf-8")
    found = list(InterpolJson("UA", TODAY).drafts(tmp_path))
    assert [(item.field, item.record) for item in found if isinstance(item, Rejected)] == [
        ("notice", None),
        ("notice._links", "ua-1-2"),
    ]


def test_the_report_is_a_table_and_json(home: Path) -> None:
    spoil_line(home / "LV" / "persons.csv", 0, status="")
    source = CsvFolder("LV", TODAY, "lv")
    read(source, home / "LV")
    table = source.report.table()
    assert "drafts: 1 contact, 3 object, 7 person; rejected: 1" in table
    assert "persons.csv line 2: persons.status: missing" in table
    assert json.loads(json.dumps(source.report.as_json()))["drafts"] == {"contact": 1, "object": 3, "person": 7}
