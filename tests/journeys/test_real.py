"""Both lists from end to end, on invented files of their shape."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from adapters.adapter import SourceReport
from broker.errors import ConfigurationError
from cli.real import Findings, feeds

DATA = Path(__file__).parent.parent / "data"
pytestmark = pytest.mark.slow


def real(data: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.real", "--data", str(data), "--json"]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, check=False)


@pytest.fixture(scope="module")
def ran() -> dict[str, Any]:
    done = real(DATA)
    assert done.returncode == 0, done.stderr + done.stdout
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_every_entry_arrives_or_is_rejected_with_a_reason(ran: dict[str, Any]) -> None:
    for told in ran["lists"].values():
        rejected = told["fields"]["rejected"]
        assert told["published"]["new"] + len(rejected) == told["entries"]
        assert all(each["reason"] for each in rejected)
    assert ran["wrong"] == []


def test_the_thieves_in_law_part_goes_to_who_subscribes_to_eurasian_organised_crime(ran: dict[str, Any]) -> None:
    assert 0 < ran["received"]["GE/organised-crime"] < ran["received"]["CH/ncb"]


def test_a_second_run_publishes_nothing(ran: dict[str, Any]) -> None:
    assert all(results.keys() == {"unchanged"} for results in ran["second_run"].values())


def test_a_changed_copy_publishes_one_correction_and_one_withdrawal(ran: dict[str, Any]) -> None:
    for results in ran["changed_run"].values():
        assert (results["correction"], results["withdrawal"]) == (1, 1)


def test_the_trail_of_it_is_good(ran: dict[str, Any]) -> None:
    assert ran["trail"]["verified"] is True
    assert ran["trail"]["deliveries"] > 0


def test_a_withheld_compartment_is_named(ran: dict[str, Any]) -> None:
    assert "person.identity" in ran["lists"]["ofac"]["withheld"]


def test_an_entry_that_the_adapter_loses_fails_the_run(tmp_path: Path) -> None:
    shutil.copytree(DATA, tmp_path / "data")
    (un,) = (tmp_path / "data").glob("un.xml")
    text = un.read_text(encoding="utf-8")
    # In a comment: a plain count sees it, the adapter does not.
    un.write_text(text.replace("</CONSOLIDATED_LIST>", "<!-- <ENTITY></ENTITY> --></CONSOLIDATED_LIST>"), "utf-8")

    done = real(tmp_path / "data")

    assert done.returncode == 1
    assert json.loads(done.stdout)["wrong"][0].startswith("un: drafts and rejected entries")


def test_a_folder_without_the_lists_is_said_to_be_one(tmp_path: Path) -> None:
    done = real(tmp_path)
    assert done.returncode == 1
    assert "holds no un/*.xml" in done.stderr


def test_the_entries_are_counted_beside_the_adapters() -> None:
    un, ofac = feeds(DATA)
    for feed in (un, ofac):
        source = feed.source()
        assert sum(1 for _ in source.drafts(feed.path)) == feed.entries(feed.path)
        assert isinstance(source.report, SourceReport)


def test_what_differs_is_noted() -> None:
    found = Findings()
    found.expect("so many", 1, 1)
    found.expect("so many", 1, 2)
    assert found.wrong == ["so many: 1, not 2"]


def test_of_several_lists_none_is_left_out_in_silence(tmp_path: Path) -> None:
    (tmp_path / "un").mkdir()
    (tmp_path / "ofac").mkdir()
    for name in ("un/a.xml", "un/b.xml", "ofac/sdn.csv"):
        (tmp_path / name).touch()
    with pytest.raises(ConfigurationError, match="several lists of the UN"):
        feeds(tmp_path)
