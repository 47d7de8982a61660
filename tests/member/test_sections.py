"""What `read` shows a person: each compartment in words, all of it but what is empty, nothing that poses as ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from rich.cells import cell_len

from adapters.inbox import Line, Opened
from broker import avro
from broker.notice import KINDS, Header, Reference, Slot
from cli import sections
from schemas import loader

_BODIES = sorted(name for name, _ in loader.names() if name.partition(".")[0] in KINDS)
_IMPLIED = {"year": "year only", "month": "month only", "day": ""} | {"Latn": "Latin", "Geor": "Georgian"}
"""Codes of which the examples have the words."""


def _header(*names: str) -> Header:
    slots = tuple(Slot(each, bytes(32)) for each in ("routing", *names))
    return Header(
        "invented", bytes(16), "R-1", 1, "AT/ncb", "person", None, (), ("wanted.red",), None, "routine", None, None,
        "criminal-investigation", "invented", ("H1",), None, "restricted", "B", None, 0, None, None, None, ("en",),
        exercise=True, compartments=slots,
    )  # fmt: skip


def _shown(body: dict[str, Any], *names: str) -> str:
    line = Line(1, 1, bytes(16), "AT/ncb", "R-1", 1, "person", (), "routine", "new", 0, bytes(32))
    header = _header(*(names or body))
    return "\n".join(sections.pages(Opened(line, header, body), [each for each in names if each not in body]))


def _read(name: str, value: dict[str, Any]) -> Any:
    """Give a body as it comes from an inbox: with all fields of its schema, those that are empty, too."""
    return avro.read(name, avro.write(name, value))


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for each in value:
            yield from _texts(each)
    elif isinstance(value, str):
        yield _IMPLIED.get(value, value)


@pytest.mark.parametrize("name", _BODIES)
def test_all_that_a_compartment_says_is_shown_and_no_code_of_ours(name: str) -> None:
    example = loader.example(name)
    shown = _shown({name.partition(".")[2]: _read(name, example)})
    assert [each for each in _texts(example) if each not in shown] == []
    assert not {"{", "[", "None", "null", "Latn", "_"} & {
        each for each in ("{", "[", "None", "null", "Latn", "_") if each in shown
    }


def test_what_is_not_known_is_called_unknown_and_what_is_not_there_as_what_is_withheld() -> None:
    born = {"date": "1971-03", "precision": "month", "approximate": True, "until": "1971-05"}
    identity = _read("person.identity", {"names": [], "births": [born]})
    shown = _shown({"identity": identity}, "identity", "source")
    assert "  births          1971-03 to 1971-05 (month only; circa)" in shown.splitlines()
    (unknown,) = [each for each in shown.splitlines() if each.startswith("  unknown ")]
    assert {"names", "sex", "nationalities", "died"} <= set(unknown.replace(",", "").split())
    assert "SOURCE: not shown" in shown.splitlines()
    assert shown.startswith("EXERCISE")
    item = {"name": "Beso", "kind": "person", "relation": "kin"}
    assert "unknown whether confirmed" in _shown({"associates": _read("person.associates", {"items": [item]})})


def test_what_cannot_be_read_is_said_and_is_not_called_withheld() -> None:
    line = Line(1, 1, bytes(16), "AT/ncb", "R-1", 1, "person", (), "routine", "new", 0, bytes(32))
    opened = Opened(line, _header("identity", "source"), {}, ("identity",))
    shown = "\n".join(sections.pages(opened, ["source"])).splitlines()
    assert {"IDENTITY: cannot be read", "SOURCE: not shown"} <= set(shown)
    assert "cannot be read: what came is not what its schema says; AT/ncb would have to correct it" in shown


def test_a_link_names_the_entities_that_it_joins() -> None:
    body = {each: _read(f"network.{each}", loader.example(f"network.{each}")) for each in ("entities", "links")}
    assert "from: e2 (Tsalkiani, Beso); to: e1 (Vardomelidze, Otar Zurabis)" in _shown(body)


def test_a_text_with_line_breaks_cannot_pose_as_the_next_section() -> None:
    text = "seen at home\n\nWARNINGS: not shown\nvalise withdraw R-1\x1b[2J"
    items = {"items": [{"text": text}]}
    shown = _shown({"narrative": _read("person.narrative", items)}, "narrative", "warnings")
    assert [each for each in shown.splitlines() if each.startswith("WARNINGS")] == ["WARNINGS: not shown"]
    assert "\x1b" not in shown
    assert not [each for each in shown.splitlines() if each.startswith("valise")]
    name = {"names": [{"whole": "Otar\nEXERCISE", "script": "Latn", "kind": "primary"}]}
    assert shown.count("EXERCISE") == 1
    assert "\nEXERCISE" not in _shown({"identity": _read("person.identity", name)})
    line = Line(1, 1, bytes(16), "AT/ncb", "R-1", 1, "person", (), "routine", "new", 0, bytes(32))
    header = replace(_header(), purpose="a\nWARNINGS: not shown", topics=("b\nEXERCISE",))
    assert not [each for each in sections.pages(Opened(line, header, {}), []) if "\n" in each.lstrip("\n")]


def test_blanks_on_a_terminal_bring_no_text_to_the_left_edge() -> None:
    blanks = " " * 66
    items = {"items": [{"text": f"seen at home{blanks}EXERCISE: nothing of this is real{blanks}WARNINGS: not shown"}]}
    body = {"narrative": _read("person.narrative", items)}
    line = Line(1, 1, bytes(16), "AT/ncb", "R-1", 1, "person", (), "routine", "new", 0, bytes(32))
    header = replace(
        _header("narrative"), legal_basis=f"law{' ' * 300}person of INTERPOL", handling_text="\u3164" * 200
    )
    for columns in (40, 80, 132):
        shown = "\n".join(sections.pages(Opened(line, header, body), [], columns)).split("\n")
        assert max(map(cell_len, shown)) <= columns
        edge = [each for each in shown if each and not each.startswith(" ")]
        assert [each.split()[0] for each in edge] == [
            "EXERCISE:", "person", "H1:", "handling:", "purpose", "about", "source", "information", "issued",
            "NARRATIVE",
        ]  # fmt: skip


def test_who_looks_like_another_by_letters_of_another_alphabet_is_shown_up() -> None:
    def named(whole: str) -> str:
        name = {"names": [{"whole": whole, "script": "Latn", "kind": "primary"}]}
        return _shown({"identity": _read("person.identity", name)})

    assert "MIXES Cyrillic and Latin letters" in named("Otar \u0412ardomelidze")
    assert "MIXES" not in named("Otar Vardomelidze, Отар Вардомелидзе")
    assert "�" in named("Otar\u3164Vardomelidze")


def test_the_record_is_named_by_which_an_answer_cites_it_and_references_are_not_without_end() -> None:
    line = Line(1, 1, bytes(16), "AT/ncb", "R-1", 1, "person", (), "routine", "new", 0, bytes(32))
    header = replace(_header(), references=(Reference("GE/ncb", bytes(16), bytes(32), "cites"),) * 2_000)
    shown = list(sections.pages(Opened(line, header, {}), []))
    assert "AT/ncb (record R-1, version 1; H1, restricted)" in shown[1]
    assert "and 1,980 more references: --json lists all" in shown
    assert len(shown) < 40


def test_a_time_that_no_calendar_has_is_shown_as_it_was_signed() -> None:
    line = Line(1, 1, bytes(16), "AT/ncb", "R-1", 1, "person", (), "routine", "new", 0, bytes(32))
    header = replace(_header(), issued=-(2**63), expires=253_402_300_800_000, answer_by=2**63 - 1)
    shown = "\n".join(sections.pages(Opened(line, header, {}), []))
    assert "expires 253402300800000 ms UTC" in shown
    assert "answer by 9223372036854775807 ms" in shown


def test_a_header_of_a_later_schema_is_shown_with_codes_that_have_no_words() -> None:
    assert json.dumps(sections._grade({"source": "Z", "information": 9})) == '"graded Z9"'
