"""An auditor's key is made by whoever holds it, and asked into the directory with a proof of possession."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker import members
from broker.errors import ConfigurationError
from broker.signing import SigningKey
from cli import seed
from cli.audit import audit
from cli.auditor import enrolled
from cli.composing import compose_next
from cli.operator_home import operator_home
from cli.seed import Clause, Federation, Order
from cli.stage import agree, set_up
from tests import federation as world
from tests.making import NOW

BUREAUS = ("AT/ncb", "LV/ncb")
FEDERATION = "test-federation"


def federation() -> Federation:
    """The first federation, cut down to two bureaus."""
    whole = seed.seed()
    return whole.model_copy(
        update={
            "order": Order(bureaus=BUREAUS),
            "bureau": {},
            "members": tuple(each for each in whole.members if each.id in ("AT", "LV")),
            "agreements": (),
            "transfers": (Clause(between=("AT", "LV"), basis="legal-area", reference="invented"),),
            "annex": seed.Annex(),
            "reviewers": (),
            "authorities": (),
        }
    )


def test_an_enrolled_key_is_in_the_next_directory_and_stays(tmp_path: Path) -> None:
    stage = asyncio.run(set_up(tmp_path / "home", federation(), "sqlite", BUREAUS, lambda _: None))
    said = CliRunner().invoke(audit, ["enrol", "auditor-2", "--home", str(stage.home), "--json"])
    assert said.exit_code == 0, said.output
    asyncio.run(agree(stage))
    home = operator_home(stage.home)
    folder = home.folder / "auditors"
    key_id = bytes.fromhex(json.loads(said.stdout)["key_id"])
    assert home.versions.newest().auditors[key_id].bureau == "auditor-2"
    for request in (home.folder / "auditors").glob("*.auditor.json"):
        request.unlink()
    _, kept = json.loads(asyncio.run(compose_next(home, federation(), [], print)).plain)["auditors"]
    assert kept["key_id"] == key_id.hex()
    assert enrolled.auditor(folder, folder / "auditor-2.pem", home.versions.newest()).id == "auditor-2"
    with pytest.raises(ConfigurationError, match="there are 2 keys"):
        enrolled.auditor(folder, None, home.versions.newest())


@pytest.mark.parametrize("name", ["", "AT", "Anna", "anna maria", "../anna", "1", "a/b"])
def test_an_auditor_has_a_pseudonym_that_is_no_bureau_s(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match="no auditor's id"):
        enrolled.make_key(tmp_path, name, FEDERATION)
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path, _ = enrolled.make_key(tmp_path, "auditor-1", FEDERATION)
    before = path.read_bytes()
    with pytest.raises(ConfigurationError, match="has a key already"):
        enrolled.make_key(tmp_path, "auditor-1", FEDERATION)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"auditor": "auditor-2"},
        {"public": SigningKey.from_seed(bytes(32)).public.raw.hex()},
        {"proof": "00" * 64},
        {"federation": "another"},
        {"public": "00" * 32},
        {"auditor": 7},
    ],
)
def test_a_request_that_its_key_did_not_sign_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    _, request = enrolled.make_key(tmp_path, "auditor-1", FEDERATION)
    asked = json.loads(request.read_text(encoding="utf-8"))
    request.write_text(json.dumps(asked | change), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="auditor's request"):
        enrolled.written(tmp_path, (), FEDERATION, 0)


def test_a_request_for_another_federation_is_refused(tmp_path: Path) -> None:
    enrolled.make_key(tmp_path, "auditor-1", "another")
    with pytest.raises(ConfigurationError, match="another federation"):
        enrolled.written(tmp_path, (), FEDERATION, 0)


def test_a_key_that_waits_for_the_directory_is_not_in_the_way(tmp_path: Path) -> None:
    folder = tmp_path / "auditors"
    enrolled.make_key(folder, "inspector", FEDERATION)
    asked = enrolled.written(folder, (), FEDERATION, NOW)
    enrolled.make_key(folder, "newcomer", FEDERATION)
    directory = members.parse(members.canonical(world.directory(auditors=asked)))
    assert enrolled.auditor(folder, None, directory).id == "inspector"
    with pytest.raises(ConfigurationError, match="does not name the key"):
        enrolled.auditor(folder, folder / "newcomer.pem", directory)
