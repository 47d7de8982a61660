"""The UN list, on an invented file with its traps."""

from __future__ import annotations

from pathlib import Path

import pytest
from defusedxml import DefusedXmlException

from adapters.adapter import NO_HOME, Rejected
from adapters.un import UnSource
from tests.adapters.reading import DATA, TODAY, body, draft, drafts, encode, read, vocabulary

FILE = DATA / "un.xml"


def test_persons_and_entities_become_persons_and_organisations_for_everyone() -> None:
    found = read(UnSource(TODAY), FILE)
    assert {key: item.kind for key, item in found.items() if not isinstance(item, Rejected)} == {
        "un-9000001": "person",
        "un-9000002": "person",
        "un-9000004": "organisation",
    }
    for item in drafts(found.values()):
        encode(item)
        vocabulary(item)
        assert item.audience.everyone
        assert item.topics == ("sanctions.un", "sanctions.un.invented-list")


def test_dates_keep_their_precision() -> None:
    births = body(read(UnSource(TODAY), FILE), "un-9000001", "identity")["births"]
    assert births == [
        {"date": "1971", "precision": "year"},
        {"date": "1969", "precision": "year", "until": "1973"},
        {"date": "1970", "precision": "year", "approximate": True, "note": "Hijri 1390"},
        {"date": "1972-04-05", "precision": "day", "note": "with the name Отар Ржавый"},
    ]


def test_the_list_says_when_it_was_made() -> None:
    source = UnSource(TODAY)
    read(source, FILE)
    assert source.report.dated == 1_772_150_409_554


@pytest.mark.parametrize("said", ["", 'dateGenerated="yesterday"', 'dateGenerated="2026-02-27T00:00:09"'])
def test_a_list_that_does_not_say_so_or_without_a_zone_has_no_date(tmp_path: Path, said: str) -> None:
    (tmp_path / "consolidated.xml").write_text(f"<CONSOLIDATED_LIST {said}/>", encoding="utf-8")
    source = UnSource(TODAY)
    assert (read(source, tmp_path), source.report.dated) == ({}, None)


def test_names_carry_script_kind_and_quality() -> None:
    names = body(read(UnSource(TODAY), FILE), "un-9000001", "identity")["names"]
    assert [(name["script"], name["kind"], name.get("quality")) for name in names] == [
        ("Latn", "primary", None),
        ("Geor", "primary", None),
        ("Cyrl", "alias", "low"),
    ]
    assert names[0]["parts"] == ["OTAR", "VARDOMELIDZE"]


def test_a_state_that_no_table_knows_keeps_its_name() -> None:
    nationalities = body(read(UnSource(TODAY), FILE), "un-9000001", "identity")["nationalities"]
    assert nationalities == [{"code": "GE", "name": "Georgia"}, {"name": "Zurminia"}]


def test_what_has_no_field_stands_in_the_narrative_or_in_the_report() -> None:
    source = UnSource(TODAY)
    texts = [item["text"] for item in body(read(source, FILE), "un-9000001", "narrative")["items"]]
    assert "EXACT about fifty years old" in texts
    assert "Отар Ржавый, Batumi, Georgia" in texts
    assert source.report.skipped["INDIVIDUAL/HAT_SIZE", NO_HOME] == 1


def test_an_entry_without_a_name_is_rejected_by_field_and_the_rest_goes_on() -> None:
    source = UnSource(TODAY)
    rejected = read(source, FILE)["un-9000003"]
    assert rejected == Rejected("INDIVIDUAL 3", "INDIVIDUAL/FIRST_NAME", "missing", "un-9000003")
    assert source.report.drafts == {"person": 2, "organisation": 1}


def test_who_was_listed_a_full_age_ago_is_no_minor_even_without_a_birth_date() -> None:
    assert draft(read(UnSource(TODAY), FILE), "un-9000002").minor == "no"


@pytest.mark.parametrize(
    ("born", "alias", "listed", "minor"),
    [
        ("<YEAR>1971</YEAR>", "1972-04-05", "2020-11-01", "no"),
        ("<NOTE>about ten</NOTE>", "1972-04-05", "2020-11-01", "unknown"),
        ("<YEAR>1971</YEAR>", "as a child", "2020-11-01", "unknown"),
        ("<NOTE>about ten</NOTE>", "as a child", "2005-11-01", "no"),
        ("<NOTE>about ten</NOTE>", "as a child", "recently", "unknown"),
    ],
)
def test_a_birth_date_that_cannot_be_read_beside_others_leaves_the_age_unknown(
    tmp_path: Path, born: str, alias: str, listed: str, minor: str
) -> None:
    text = FILE.read_text(encoding="utf-8")
    pairs = (("<NOTE>about fifty years old</NOTE>", born), ("1972-04-05", alias), ("2020-11-01", listed))
    for before, after in pairs:
        assert text.count(before) == 1
        text = text.replace(before, after)
    (tmp_path / "consolidated.xml").write_text(text, encoding="utf-8")
    assert draft(read(UnSource(TODAY), tmp_path), "un-9000001").minor == minor


def test_empty_elements_give_nothing() -> None:
    found = read(UnSource(TODAY), FILE)
    assert set(draft(found, "un-9000002").compartments) == {"identity"}
    assert len(body(found, "un-9000001", "location")["addresses"]) == 1
    assert len(body(found, "un-9000001", "identity")["documents"]) == 1


def test_a_second_reading_says_the_same() -> None:
    once, again = (drafts(read(UnSource(TODAY), FILE).values()) for _ in range(2))
    assert [item.digest() for item in once] == [item.digest() for item in again]


def test_an_entity_bomb_is_refused(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE l [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><L><I><E><DATAID>&b;</DATAID></E></I></L>'
    (tmp_path / "consolidated.xml").write_text(bomb, encoding="utf-8")
    with pytest.raises(DefusedXmlException):
        list(UnSource(TODAY).drafts(tmp_path))
