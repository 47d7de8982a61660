"""A table on a terminal: ids can be copied from it, however narrow it is."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ID = "01a22bf6-1c08-79e4-b048-342832c8f3d2"
SHOWN = f"""
from cli import answer
titles = ("number", "notice", "from", "kind", "topics", "urgency", "state", "taken")
row = ("12", "{ID}", "GE/organised-crime", "person", "crime.burglary", "routine", "new", "2026-11-30 10:17:57")
answer.show("", None, as_json=False, table=answer.Table(titles, [row]))
"""


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
def test_an_id_is_never_broken_over_lines(columns: int) -> None:
    terminal = os.environ | {"COLUMNS": str(columns), "FORCE_COLOR": "1"}
    said = subprocess.run([sys.executable, "-c", SHOWN], env=terminal, capture_output=True, text=True, check=True)
    assert ID in said.stdout
    (line,) = [each for each in said.stdout.splitlines() if ID in each]
    assert len(line) <= max(columns, 80)
