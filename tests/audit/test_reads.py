"""Who read what, when, for which case: `audit reads`, and the case numbers that a bureau tells its auditor."""

from __future__ import annotations

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.audit.homes import BASIS, Homes, standing

REASON = "DPO 2026/7"


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Homes]:
    with standing(tmp_path_factory.mktemp("reads") / "home") as homes:
        yield homes


@pytest.fixture(scope="module")
def notice(homes: Homes) -> str:
    """A notice of AT's that LV read for case K-1, and that an auditor looked at."""
    name, _ = homes.published("r-1")
    homes.read(name)
    assert homes.audit("show", name, "--content", "--reason", REASON, "--wait", "60").code == 0
    return name


@pytest.fixture(scope="module")
def cases(homes: Homes, notice: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What LV told its auditor."""
    assert notice
    file = tmp_path_factory.mktemp("cases") / "lv.json"
    said = homes.valise("cases", "--bureau", "LV/ncb", "--to", str(file))
    assert said.code == 0, said
    assert file.stat().st_mode & 0o077 == 0
    return file


def test_case_numbers_are_written_over_nothing_and_through_no_link(homes: Homes, cases: Path, tmp_path: Path) -> None:
    before, link = cases.read_bytes(), tmp_path / "link"
    link.symlink_to(tmp_path / "elsewhere")
    for file in (cases, link):
        assert homes.valise("cases", "--bureau", "LV/ncb", "--to", str(file)).code == 1
    assert (cases.read_bytes(), list(tmp_path.iterdir())) == (before, [link])


def test_on_record_is_who_read_what_and_when_and_a_digest_of_the_case(homes: Homes, notice: str) -> None:
    look, read = homes.audit("reads", notice, "--json").value
    assert (look["who"], look["what"], look["case"]) == ("auditor-1", "look", REASON)
    assert (read["who"], read["what"], read["notice"], read["issuer"]) == ("LV/ncb", "read", notice, "AT/ncb")
    assert read["legal_basis"] == BASIS
    assert "narrative" in read["shown"]
    assert read["case"] is None
    assert len(read["case_digest"]) == 64


def test_the_case_number_is_open_once_the_bureau_told_it(homes: Homes, notice: str, cases: Path) -> None:
    said = homes.audit("reads", notice, "--bureau", "LV/ncb", "--cases", str(cases), "--json")
    assert [each["case"] for each in said.value] == ["K-1"]
    told = homes.audit("show", notice, "--cases", str(cases)).out
    assert "case         K-1" in told
    assert "K-1" not in homes.audit("show", notice).out


def test_a_colleague_opens_the_case_numbers_of_a_bundle(homes: Homes, notice: str, cases: Path, tmp_path: Path) -> None:
    file = tmp_path / "bundle.json"
    assert homes.audit("export", notice, "--to", str(file), "--digests-only").code == 0
    said = homes.audit("verify", str(file), "--vkey", homes.vkey, "--cases", str(cases))
    assert said.code == 0
    assert "LV/ncb read, case K-1" in said.out


def test_a_bureau_tells_another_case_than_it_read_for(homes: Homes, notice: str, cases: Path, tmp_path: Path) -> None:
    told = json.loads(cases.read_bytes())
    told["cases"][0]["case"] = "K-2"
    file = tmp_path / "other.json"
    file.write_text(json.dumps(told))
    assert homes.audit("reads", notice, "--cases", str(file)).code == 4
    told["cases"][0]["digest"] = sha256(bytes.fromhex(told["cases"][0]["salt"]) + b"K-2").hexdigest()
    file.write_text(json.dumps(told))
    (read,) = homes.audit("reads", notice, "--bureau", "LV/ncb", "--cases", str(file), "--json").value
    assert read["case"] is None


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", '{"format":"valise/cases/1","cases":[{"case":"x","digest":"zz","salt":"zz"}]}']
)
def test_what_holds_no_case_numbers_is_refused(homes: Homes, notice: str, tmp_path: Path, content: str) -> None:
    file = tmp_path / "cases.json"
    file.write_text(content)
    said = homes.audit("reads", notice, "--cases", str(file))
    assert said.code == 1
    assert "holds no case numbers" in said.err


def test_reads_are_found_by_who_and_when(homes: Homes, notice: str) -> None:
    assert notice
    assert homes.audit("reads", "--bureau", "GE/ncb", "--json").value == []
    assert len(homes.audit("reads", "--bureau", "LV/ncb", "--since", "2020-01-01", "--json").value) == 1
    assert homes.audit("reads", "--until", "2020-01-01", "--json").value == []
    whole = homes.audit("reads", "--json")
    assert (len(whole.value), whole.err) == (2, "")
    cut = homes.audit("reads", "--limit", "1", "--json")
    assert (len(cut.value), json.loads(cut.err.splitlines()[-1])) == (1, {"more": 1})
    assert homes.audit("reads", "01a2231b-0000-7000-8000-000000000000").code == 1
