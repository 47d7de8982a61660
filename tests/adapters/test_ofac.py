"""The OFAC list, on invented files with its traps."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import pytest

from adapters.adapter import Draft, Rejected
from adapters.changes import RunRefusedError
from adapters.ofac import OfacSource
from tests.adapters.reading import DATA, TODAY, body, draft, drafts, encode, read, vocabulary

FOLDER = DATA / "ofac"


def test_entries_become_persons_organisations_and_objects() -> None:
    found = read(OfacSource(TODAY), FOLDER)
    kinds = {item.record: item.kind for item in drafts(found.values())}
    assert kinds == {
        "ofac-1": "organisation",
        "ofac-2": "person",
        "ofac-3": "object",
        "ofac-4": "object",
        "ofac-7": "person",
    }
    for item in drafts(found.values()):
        encode(item)
        vocabulary(item)


def test_the_eurasian_part_gets_its_topic_and_is_given_once() -> None:
    found = read(OfacSource(TODAY), FOLDER)
    assert draft(found, "ofac-2").topics == ("organised-crime.eurasian", "sanctions.ofac")
    assert draft(found, "ofac-7").topics == ("organised-crime.eurasian", "sanctions.ofac")
    assert draft(found, "ofac-1").topics == ("sanctions.ofac",)


def test_remarks_are_read_into_fields() -> None:
    identity = body(read(OfacSource(TODAY), FOLDER), "ofac-2", "identity")
    assert identity["births"] == [
        {"date": "1971-08-03", "precision": "day"},
        {"date": "1970", "precision": "year"},
        {"date": "1969", "precision": "year", "approximate": True},
        {"date": "1968", "precision": "year", "until": "1972"},
        {"date": "1970-02", "precision": "month"},
    ]
    georgia = {"code": "GE", "name": "Georgia"}
    assert identity["nationalities"] == [georgia]
    assert identity["birthplaces"] == [
        {"state": georgia, "region": "Imereti", "city": "Kutaisi"},
        {"note": "near the sea"},
    ]
    assert identity["documents"][0] == {
        "kind": "passport",
        "number": "X0000001",
        "state": georgia,
        "issued": {"date": "1999-06-23", "precision": "day"},
        "expires": {"date": "2004-02-05", "precision": "day"},
    }
    assert identity["documents"][1] == {"kind": "Cedula No.", "number": "123-4"}


def test_aliases_come_from_their_own_file_and_from_the_remarks() -> None:
    names = body(read(OfacSource(TODAY), FOLDER), "ofac-2", "identity")["names"]
    assert [(name["script"], name["kind"], name.get("quality")) for name in names] == [
        ("Latn", "primary", None),
        ("Cyrl", "alias", None),
        ("Latn", "former", None),
        ("Latn", "alias", "low"),
    ]
    assert names[-1]["whole"] == "OTO; THE RUSTY"


def test_a_phrase_that_is_not_understood_becomes_text() -> None:
    found = read(OfacSource(TODAY), FOLDER)
    assert [item["text"] for item in body(found, "ofac-2", "narrative")["items"]] == ["DOB unknown", "likes chess"]
    assert [item["text"] for item in body(found, "ofac-1", "narrative")["items"]] == ["all offices worldwide"]


def test_unknown_is_left_out_and_never_0() -> None:
    found = read(OfacSource(TODAY), FOLDER)
    assert body(found, "ofac-3", "description") == {"deadweight_tons": 3200}
    assert "location" not in draft(found, "ofac-1").compartments


def test_vessels_and_aircraft_keep_flag_numbers_and_owner() -> None:
    found = read(OfacSource(TODAY), FOLDER)
    vessel, aircraft = (body(found, f"ofac-{number}", "identity") for number in (3, 4))
    assert vessel["state"]["code"] == "LV"
    assert [state["code"] for state in vessel["former_states"]] == ["MT", "TV"]
    assert body(found, "ofac-3", "associates")["items"] == [{"name": "Kelbata Transit", "relation": "owner"}]
    assert aircraft["model"] == "B747-3B3"
    assert aircraft["built"] == [{"date": "1992", "precision": "year"}]


def test_a_row_that_cannot_be_read_is_rejected_and_the_rest_goes_on() -> None:
    source = OfacSource(TODAY)
    found = read(source, FOLDER)
    assert found["ofac-5"] == Rejected("entry 5", "sdn.type", "not a type that we know", "ofac-5")
    assert found["ofac-6"] == Rejected("entry 6", "row", "3 columns, not 12", "ofac-6")
    assert "ofac-7" in found


def test_an_alias_of_nobody_is_named_in_the_report() -> None:
    source = OfacSource(TODAY)
    read(source, FOLDER)
    assert source.report.skipped["alt.alt_name", "its entry is not in the list"] == 1


def test_without_a_birth_date_whether_a_person_is_a_minor_is_unknown() -> None:
    found = read(OfacSource(TODAY), FOLDER)
    assert draft(found, "ofac-7").minor == "unknown"


@pytest.mark.parametrize(
    ("phrase", "minor"),
    [
        ("likes chess", "no"),
        ("DOB unknown", "unknown"),
        ("alt. DOB 31 Feb 2010", "unknown"),
        ("born alt. dob ?", "unknown"),
    ],
)
def test_a_birth_date_that_cannot_be_read_beside_others_leaves_the_age_unknown(
    folder: Path, phrase: str, minor: str
) -> None:
    for part in folder.glob("*sdn*.csv"):
        text = part.read_text(encoding="utf-8")
        part.write_text(text.replace("DOB unknown", phrase), encoding="utf-8", newline="")
    found = draft(read(OfacSource(TODAY), folder), "ofac-2")
    assert (found.minor, len(found.compartments["identity"]["births"])) == (minor, 5)


@pytest.mark.parametrize("digits", [19, 4_301])
def test_a_number_that_no_field_holds_rejects_its_entry_alone(folder: Path, digits: int) -> None:
    before = read(OfacSource(TODAY), FOLDER)
    (main,) = (part for part in folder.glob("*sdn*.csv") if "thieves" not in part.name)
    text = main.read_text(encoding="utf-8")
    main.write_text(text.replace('"3,200"', f'"{"9" * digits}"'), encoding="utf-8", newline="")
    found = read(OfacSource(TODAY), folder)
    assert found == before | {"ofac-3": Rejected("entry 3", "sdn.tonnage", "a number of more than 18 digits", "ofac-3")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(FOLDER, tmp_path / "ofac"))


def refused(folder: Path, words: str) -> None:
    with pytest.raises(RunRefusedError, match=words):
        list(OfacSource(TODAY).drafts(folder))


@pytest.mark.parametrize("part", ["sdn", "alt", "add"])
def test_without_one_of_its_files_nothing_of_the_list_is_read(part: str, folder: Path) -> None:
    (folder / f"{part}.csv").unlink()
    refused(folder, rf"no \*{part}\*.csv")


@pytest.mark.parametrize("part", ["sdn", "alt", "add"])
@pytest.mark.parametrize("keep", [0, 1, 40])
def test_of_a_file_that_was_cut_off_nothing_is_read(part: str, keep: int, folder: Path) -> None:
    file = folder / f"{part}.csv"
    file.write_bytes(file.read_bytes()[:keep])
    refused(folder, f"{part}.csv is cut off")


@pytest.mark.parametrize("part", ["sdn", "alt", "add"])
def test_of_a_list_with_an_empty_file_nothing_is_read(part: str, folder: Path) -> None:
    (folder / f"{part}.csv").write_bytes(b"\x1a")
    refused(folder, f"{part}.csv is empty")


def test_a_file_that_ends_between_two_rows_is_cut_off(folder: Path) -> None:
    file = folder / "alt.csv"
    file.write_bytes(file.read_bytes().removesuffix(b"\x1a"))
    refused(folder, "alt.csv is cut off")


def test_a_row_of_an_alias_that_is_too_short_is_not_passed_over(folder: Path) -> None:
    file = folder / "alt.csv"
    file.write_bytes(file.read_bytes().replace(b'2,11,"fka","VARDO, Otar",-0- ', b'2,11,"fka"'))
    refused(folder, "a row of the alt file has 3 columns, not 5")


def test_two_snapshots_in_one_folder_are_named(folder: Path) -> None:
    shutil.copy(folder / "sdn.csv", folder / "sdn_comments.csv")
    refused(folder, "sdn.csv, sdn_comments.csv in .* leave one of them there")


def test_the_thieves_in_law_part_is_there_or_the_settings_say_that_it_is_not(folder: Path) -> None:
    file = folder / "thieves_in_law_sdn.csv"
    file.write_bytes(b"\n")
    refused(folder, "the thieves-in-law part of .* is lacking or empty")
    file.unlink()
    refused(folder, "the thieves-in-law part of .* is lacking or empty")
    found = drafts(OfacSource(TODAY, eurasian=False).drafts(folder))
    assert {item.topics for item in found} == {("sanctions.ofac",)}


def test_a_stray_quote_swallows_no_entries(folder: Path) -> None:
    file = folder / "sdn.csv"
    file.write_bytes(file.read_bytes().replace(b'2,"VARDOMELIDZE, Otar",', b'2,"VARDOMELIDZE, "Otar",'))
    with pytest.raises(csv.Error):
        list(OfacSource(TODAY).drafts(folder))


def test_another_row_under_a_number_that_is_taken_is_rejected_and_not_called_known(folder: Path) -> None:
    file = folder / "sdn.csv"
    other = b'2,"SOMEBODY, Else",individual,"INVENTED",-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- ,-0- \n'
    file.write_bytes(file.read_bytes().replace(b'3,"ZURMINA"', other + b'3,"ZURMINA"'))
    found = list(OfacSource(TODAY).drafts(folder))
    assert Rejected("entry 2", "sdn.ent_num", "another row has the same number", "ofac-2") in found
    assert sum(isinstance(item, Draft) and item.record == "ofac-2" for item in found) == 1


def test_the_same_row_twice_is_one_entry(folder: Path) -> None:
    file = folder / "sdn.csv"
    row = next(line for line in file.read_bytes().splitlines(keepends=True) if line.startswith(b"2,"))
    file.write_bytes(row + file.read_bytes())
    found = list(OfacSource(TODAY).drafts(folder))
    assert [item.record for item in found if item.record == "ofac-2"] == ["ofac-2"]
    assert isinstance(read(OfacSource(TODAY), folder)["ofac-2"], Draft)
