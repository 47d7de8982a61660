"""The adapter that an integrator copies (docs/own_adapter.py) runs, and does what the README says of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from cli import drafts
from tests.journeys.member_homes import make

HEADER = "id,name,registration,facts,audience,deny,handling,clerk"
PROGRAM = Path(__file__).parents[2] / "docs" / "own_adapter.py"


def started(home: Path, file: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Run it once."""
    return subprocess.run(
        [sys.executable, str(PROGRAM), str(file), "AT/ncb", *more],
        env=os.environ | {"VALISE_HOME": str(home), "PYTHONPATH": str(PROGRAM.parents[1])},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def run(home: Path, file: Path) -> tuple[int, list[tuple[str, ...]], str]:
    """Run it once; give its exit code, what it published, and all that it said."""
    done = started(home, file)
    published = re.findall(r"published: (\w+) .* \(record (\S+), version (\d+)\)", done.stdout)
    return done.returncode, published, done.stdout + done.stderr


def test_the_adapter_to_copy_publishes_changes_only_and_a_bad_line_stops_no_other(tmp_path: Path) -> None:
    make(tmp_path)
    file = tmp_path / "boats.csv"

    def write(*lines: str) -> None:
        file.write_text("\n".join((HEADER, *lines)) + "\n", encoding="utf-8")

    boats = [f"{number},Boat {number},XX-{number},Stolen,everyone,,H0,7" for number in range(40)]
    write(*boats)
    shown = started(tmp_path, file, "--drafts")
    assert [each.record for each in drafts.read(shown.stdout, "-")] == [f"boat-{number}" for number in range(40)]
    assert (shown.returncode, "drafts: 40 object; rejected: 0" in shown.stderr) == (0, True)
    first = run(tmp_path, file)
    assert (first[0], len(first[1])) == (0, 40), first[2]
    again = run(tmp_path, file)
    assert (again[0], again[1]) == (0, []), again[2]

    write("0,,XX-0,Stolen,everyone,,H0,7", "1,Boot 1,XX-1,Stolen,everyone,,H0,7", *boats[3:])
    changed = run(tmp_path, file)
    assert "line 2: name: missing" in changed[2]
    assert (changed[0], changed[1]) == (1, [("withdrawal", "boat-2", "2"), ("object", "boat-1", "2")]), changed[2]

    file.write_text("\n".join((HEADER, *boats, boats[5].replace("Boat", "Boot"))) + "\n", encoding="utf-8")
    twice = run(tmp_path, file)
    assert twice[0] == 1
    assert "boat-5: record: another record has the same id" in twice[2]

    file.write_text(HEADER + "\n1,Boot 1", encoding="utf-8")
    cut = run(tmp_path, file)
    assert (cut[0], cut[1]) == (1, [])
    assert "cut off" in cut[2]
    assert "run-refused" in cut[2]

    # Without its column nobody would be denied, and nobody told; between other marks there is one column.
    lacking, twice_named = "no column ", "two columns have one name"
    for header, said in (
        (HEADER.replace(",deny,", ",denied,"), lacking),
        (HEADER.replace(",", ";"), lacking),
        (HEADER.replace("clerk", "deny"), twice_named),
    ):
        file.write_text("\n".join((header, *boats)) + "\n", encoding="utf-8")
        unsound = run(tmp_path, file)
        assert (unsound[0], unsound[1]) == (1, [])
        assert f"boats.csv: header: {said}" in unsound[2]
