"""The OFAC list, on invented files with its traps."""

from __future__ import annotations

from adapters.adapter import Rejected
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
    assert draft(found, "ofac-2").minor == "no"
