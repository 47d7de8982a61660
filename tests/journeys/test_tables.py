"""A table on a terminal: ids can be copied from it, however narrow it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from cli import narrow

ID = "01a22bf6-1c08-79e4-b048-342832c8f3d2"
SHOWN = f"""
from cli import answer
titles = ("number", "notice", "from", "kind", "topics", "urgency", "state", "taken", "record")
row = ("12", "{ID}", "GE/organised-crime", "person", "crime.burglary", "routine", "new", "2026-11-30 10:17:57", "R-1")
answer.show("", None, as_json=False, table=answer.Table(titles, [row]))
"""


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_an_id_is_never_broken_over_lines(columns: int) -> None:
    terminal = os.environ | {"COLUMNS": str(columns), "FORCE_COLOR": "1"}
    said = subprocess.run([sys.executable, "-c", SHOWN], env=terminal, capture_output=True, text=True, check=True)
    assert ID in said.stdout
    (line,) = [each for each in said.stdout.splitlines() if ID in each]
    assert len(line) <= max(columns, 80)


@pytest.mark.parametrize("columns", [40, 60, 80, 100])
def test_no_word_is_broken_into_letters_and_what_does_not_fit_goes_on_below(columns: int) -> None:
    terminal = os.environ | {"COLUMNS": str(columns), "FORCE_COLOR": "1"}
    said = subprocess.run([sys.executable, "-c", SHOWN], env=terminal, capture_output=True, text=True, check=True)
    lines = said.stdout.splitlines()
    assert max(map(len, lines)) <= columns
    for word in ("topics", "GE/organised-crime", "person", "crime.burglary", "routine", "10:17:57"):
        assert any(word in each for each in lines), word
    (first,) = [each for each in lines if ID in each]
    assert all(each.startswith("  ") for each in lines[lines.index(first) + 1 :])


def test_a_word_that_is_longer_than_a_line_is_broken_and_all_of_it_is_there() -> None:
    assert "".join(narrow.fold("a" * 95 + " b", 40)) == "a" * 95 + " b"
    assert list(narrow.lines(("record", "state"), [("r" * 50, "new")], 40)) == [
        "record", "  state", "r" * 40, "r" * 10, "  new",
    ]  # fmt: skip


def test_of_columns_that_are_empty_in_a_row_no_blank_line_is_left() -> None:
    rows = [("r" * 30, "", ""), ("s" * 30, "", "kept")]
    assert list(narrow.lines(("record", "shown-to", "withheld"), rows, 40)) == [
        "record                          shown-to", "  withheld", "r" * 30, "s" * 30, "  kept",
    ]  # fmt: skip
