"""Dates, ages, scripts and states as the sources write them."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from adapters import values
from adapters.countries import code_of


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ("1971", {"date": "1971", "precision": "year"}),
        ("1971-03", {"date": "1971-03", "precision": "month"}),
        ("1971-03-05", {"date": "1971-03-05", "precision": "day"}),
        ("5 Mar 1971", {"date": "1971-03-05", "precision": "day"}),
        ("Nov. 1973", {"date": "1973-11", "precision": "month"}),
        ("circa 1951", {"date": "1951", "precision": "year", "approximate": True}),
        ("1950 to 1955", {"date": "1950", "precision": "year", "until": "1955"}),
        ("01 Jan 1950 to 1951", {"date": "1950", "precision": "year", "until": "1951"}),
        ("1971-02-30", None),
        ("1971-13", None),
        ("05/03/1971", None),
        ("9999", None),
        ("9999-12-31", None),
        ("1971 to 9999", None),
        ("0001", None),
        ("2012 to 1990", None),
        ("1799", None),
        ("2200-12-31", {"date": "2200-12-31", "precision": "day"}),
        ("١٩٧١", None),
        ("unknown", None),
        ("", None),
        (None, None),
    ],
)
def test_a_date_is_read_as_exactly_as_it_is_known(said: str | None, expected: dict[str, Any] | None) -> None:
    assert values.partial_date(said) == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (["1971"], "no"),
        (["2010-01-01"], "yes"),
        (["2008"], "unknown"),
        (["2008-11-23"], "no"),
        (["2008-11-24"], "yes"),
        (["2008-11"], "unknown"),
        (["circa 2006"], "unknown"),
        (["circa 1971"], "no"),
        (["1971", "2010"], "unknown"),
        ([], "unknown"),
    ],
)
def test_only_who_is_surely_of_age_is_no_minor(said: list[str], expected: str) -> None:
    births = [born for born in map(values.partial_date, said) if born]
    assert values.minor(births, date(2026, 11, 23)) == expected


@pytest.mark.parametrize("said", ["9999", "circa 9999", "0001", "circa 0003", "2200-12", "circa 1800", "١٩٧١"])
def test_no_date_stops_a_source(said: str) -> None:
    births = [born for born in [values.partial_date(said)] if born]
    assert values.minor(births, date(2026, 11, 23)) in ("yes", "no", "unknown")


def test_the_birthday_of_a_leap_day_decides_without_error() -> None:
    assert values.minor([{"date": "2006-02-28", "precision": "day"}], date(2024, 2, 29)) == "no"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Otar", "Latn"), ("Отар", "Cyrl"), ("ოთარ", "Geor"), ("Οτάρ", "Grek"), ("عطار", "Arab"), ("123", "Zyyy")],
)
def test_the_script_is_read_from_the_letters(text: str, expected: str) -> None:
    assert values.script(text) == expected


def test_states_are_known_by_code_and_by_the_names_of_the_lists() -> None:
    assert code_of("Iran (Islamic Republic of)") == code_of("IRAN") == "IR"
    assert code_of("Korea, North") == "KP"
    assert code_of("Zurminia") is None
    assert values.state("LV") == {"code": "LV"}
    assert values.state("Zurminia") == {"name": "Zurminia"}
