"""The life of a member's key with the commands of the README: made, entered, taken over from, stolen, revoked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.journeys.test_by_hand import DRAFT, _broker
from tests.keys.soft_token import TOKEN, configuration, new_token

pytestmark = pytest.mark.slow
LV, GE = "LV/organised-crime", "GE/organised-crime"


@dataclass
class Said:
    """What a command answered."""

    code: int
    out: str
    error: str

    @property
    def value(self) -> Any:
        """Its JSON."""
        return json.loads(self.out)


@dataclass
class Homes:
    """All homes in one folder, and the passphrase that LV's people have."""

    home: Path
    known: dict[str, str] = field(default_factory=dict)

    def valise(self, *words: str, home: Path | None = None, **environment: str) -> Said:
        """Run a command as somebody who knows the passphrase and the PIN."""
        command = [sys.executable, "-m", "cli.main", *words, "--home", str(home or self.home)]
        known = os.environ | self.known | environment
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=60, env=known, stdin=subprocess.DEVNULL
        )
        return Said(done.returncode, done.stdout, done.stderr)

    def did(self, *words: str, **more: Any) -> Said:
        """Run a command that is to succeed."""
        said = self.valise(*words, **more)
        assert said.code == 0, said.error
        return said

    def enter(self, *bureaus: str) -> None:
        """Draft the next directory, have it signed and put in force."""
        self.did("broker", "directory")
        draft = max(
            (self.home / "operator" / "drafts").glob("*.draft.json"), key=lambda each: int(each.name.split(".")[0])
        )
        for bureau in bureaus:
            self.did("directory", "sign", str(draft), "--bureau", bureau, "--yes")
        self.did("directory", "activate", str(draft))

    def notice(self, record: str) -> str:
        """Write a draft; give its path."""
        path = self.home.parent / f"{record}.json"
        path.write_text(json.dumps(DRAFT | {"record": record}), encoding="utf-8")
        return str(path)

    def keys(self, bureau: str) -> dict[str, dict[str, Any]]:
        """Give a member's keys by file."""
        return {Path(each["path"]).name: each for each in self.did("key", "list", "--bureau", bureau, "--json").value}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("secrets")
    passphrase = folder / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("correct horse battery staple\n")
    added = configuration(folder)
    new_token(TOKEN, os.environ | added)
    return added | {"VALISE_PASSPHRASE_FILE": str(passphrase)}


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory, known: dict[str, str]) -> Iterator[Homes]:
    """Georgia's key is in a token, Latvia's in an encrypted file; the broker runs and Georgia has subscribed."""
    made = Homes(tmp_path_factory.mktemp("federation") / "home", known)
    made.did("broker", "init")
    made.did("key", "new", "--bureau", LV)
    made.did("key", "new", "--bureau", GE, "--pkcs11", TOKEN)
    made.enter(LV, GE)
    with _broker(made.home, **known):
        made.did("subscribe", "organised-crime.*", "--bureau", GE)
        yield made


def test_a_member_signs_with_an_encrypted_file_and_another_with_a_token(homes: Homes) -> None:
    assert homes.keys(LV)["organised-crime.pem"]["kept"] == "encrypted file"
    assert homes.keys(GE)["organised-crime.token"]["kept"] == "token"
    for bureau, record in ((LV, "lv-first"), (GE, "ge-first")):
        assert homes.did("publish", homes.notice(record), "--bureau", bureau, "--wait", "45").out.startswith("routed")


def test_without_passphrase_or_pin_nothing_is_signed_and_it_says_why(homes: Homes, tmp_path: Path) -> None:
    draft = homes.notice("never")
    locked = homes.valise("publish", draft, "--bureau", LV, VALISE_PASSPHRASE_FILE="")
    assert (locked.code, "VALISE_PASSPHRASE_FILE" in locked.error) == (1, True)
    wrong = tmp_path / "wrong"
    wrong.touch(mode=0o600)
    wrong.write_text("another passphrase altogether")
    assert "does not open" in homes.valise("publish", draft, "--bureau", LV, VALISE_PASSPHRASE_FILE=str(wrong)).error
    assert "the PIN does not open" in homes.valise("publish", draft, "--bureau", GE, VALISE_PIN_FILE=str(wrong)).error
    wrong.chmod(0o644)
    assert "chmod 600" in homes.valise("publish", draft, "--bureau", GE, VALISE_PIN_FILE=str(wrong)).error
    key = homes.home / "members" / "LV" / "keys" / "organised-crime.pem"
    key.chmod(0o640)
    assert f"chmod 600 {key}" in homes.valise("publish", draft, "--bureau", LV).error
    key.chmod(0o600)


def test_a_stolen_key_is_taken_over_from_and_revoked_and_what_the_thief_did_is_found_and_withdrawn(
    homes: Homes,
) -> None:
    # The thief has a copy of the key and writes to the bus; he numbers in a series of his own.
    thief = homes.home / "stolen" / "LV"
    shutil.copytree(homes.home / "members" / "LV", thief)
    (thief / "outbox.db").unlink()
    homes.did("publish", homes.notice("lv-honest"), "--bureau", LV, "--wait", "45")
    forged = homes.did(
        "publish", homes.notice("lv-forged"), "--bureau", LV, "--wait", "45", "--json", home=thief
    ).value["notices"][0]

    # Rotation: the next key is made, the old one signs until the directory has it.
    homes.did("key", "rotate", "--bureau", LV)
    assert "send" in homes.valise("key", "rotate", "--bureau", LV).error
    homes.did("publish", homes.notice("lv-between"), "--bureau", LV, "--wait", "45")
    homes.enter(LV)
    homes.did("publish", homes.notice("lv-after"), "--bureau", LV, "--wait", "45")
    old, new = (homes.keys(LV)[name]["key_id"] for name in ("organised-crime.pem", "organised-crime.2.pem"))

    # The operator sees who still signs with the old one.
    homes.did("publish", homes.notice("lv-late"), "--bureau", LV, "--wait", "45", home=thief)
    listed = homes.did("key", "list").out
    assert f"still signing with an old key: {LV}" in listed
    assert f"still signed with by {LV}" in homes.did("broker", "status").out

    # Revoked at once, by the new key; the thief is out.
    revoked = homes.did(
        "key", "revoke", old[:12], "--bureau", LV, "--reason", "stolen", "--compromised-since", "2026-01-01", "--yes",
        "--json", "--wait", "45",
    ).value  # fmt: skip
    assert (revoked["state"], revoked["signed_by"]) == ("revoked", new)
    late = homes.valise("publish", homes.notice("lv-too-late"), "--bureau", LV, "--wait", "45", home=thief)
    assert (late.code, f"every key of {LV} was revoked" in late.error) == (1, True)  # his copy heard of it first

    # Everybody who holds something is told what; Latvia sees what it never published.
    inbox = homes.did("inbox", "--bureau", GE, "--json").value
    assert len(inbox["in_doubt"]) == 5
    shown = homes.did("read", forged["notice"], "--case", "T-1", "--bureau", GE).out
    assert shown.startswith(f"IN DOUBT: {LV} has revoked the key that signed it (stolen)")
    (held,) = homes.did("key", "revoked", "--bureau", GE, "--json").value["keys"]
    records = {each["record"] for each in held["held"][GE]}
    assert {"lv-first", "lv-honest", "lv-forged", "lv-between", "lv-late"} == records
    (mine,) = homes.did("key", "revoked", "--bureau", LV, "--json").value["keys"]
    ours = {each["record"]: each["ours"] for each in mine["issued"]}
    assert ours == {"lv-first": True, "lv-honest": True, "lv-between": True, "lv-forged": False, "lv-late": False}
    assert all(each["reached"] == [GE] for each in mine["issued"])
    (operators,) = homes.did("key", "revoked", "--json").value["keys"]
    assert {each["record"] for each in operators["issued"]} == set(ours)
    assert all(each["holders"] == [GE] for each in operators["issued"])

    # It withdraws the one and confirms the other by publishing it again, signed with the new key.
    assert homes.did("withdraw", forged["notice"], "--bureau", LV, "--wait", "45", "--yes").out.startswith(
        "routed to 1"
    )
    assert homes.did("publish", homes.notice("lv-honest"), "--bureau", LV, "--wait", "45").out.startswith("routed to 1")
    (mine,) = homes.did("key", "revoked", "--bureau", LV, "--json").value["keys"]
    assert {each["record"] for each in mine["issued"]} == {"lv-first", "lv-between", "lv-late"}
    inbox = homes.did("inbox", "--bureau", GE, "--json").value
    states = {(each["record"], each["version"]): each["state"] for each in inbox["notices"]}
    assert states["lv-forged", 1] == "erased"
    assert (states["lv-honest", 1], states["lv-honest", 2]) == ("replaced", "new")


def test_a_lost_key_is_replaced_by_answering_the_operators_challenge(homes: Homes) -> None:
    for path in (homes.home / "members" / "GE" / "keys").glob("organised-crime.*"):
        path.unlink()
    homes.did("key", "new", "--bureau", GE)
    refused = homes.valise("broker", "directory")
    assert f"valise key challenge {GE}" in refused.error
    challenge = homes.did("key", "challenge", GE, "--json").value["challenge"]
    assert "does not answer" in homes.valise("broker", "directory").error
    for path in (homes.home / "members" / "GE" / "keys").glob("organised-crime.*"):
        path.unlink()
    homes.did("key", "new", "--bureau", GE, "--challenge", challenge)
    homes.enter(GE, LV)  # what was revoked above ends in the same directory, and that is LV's to sign
    assert homes.keys(GE)["organised-crime.pem"]["state"] in ("in force", "not in the directory")
    assert homes.did("publish", homes.notice("ge-again"), "--bureau", GE, "--wait", "45").out.startswith("routed")
