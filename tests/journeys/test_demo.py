"""The demo: one run of it as a user runs it, looked at from all sides."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker.notice import KINDS
from tests.modes import open_to_others

pytestmark = pytest.mark.slow
NOT_YET = {"restriction", "approval"}
"""Kinds that nothing may be published of before something is held or restricted (a later issue)."""
PROGRESS = re.compile(r"checked [0-9,]+ of [0-9,]+ leaves")
"""What a long look says meanwhile: on a busy machine this one may be long."""


def valise(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, umask=0o022)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "home"


@pytest.fixture(scope="module")
def played(home: Path) -> dict[str, Any]:
    done = valise("demo", "--home", str(home), "--json")
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_it_plays_the_whole_federation_and_says_so_in_one_object(played: dict[str, Any], home: Path) -> None:
    assert played["members"] == 28
    assert played["bureaus"] >= 56
    assert 200 <= played["notices"] <= 999
    assert played["deliveries"] > played["notices"]
    assert played["home"] == str(home)


def test_every_kind_of_notice_that_may_be_published_is_published(played: dict[str, Any]) -> None:
    assert set(KINDS) - set(played["kinds"]) <= NOT_YET


def test_every_delivery_that_was_made_was_verified_and_signed_for(played: dict[str, Any]) -> None:
    members = played["by_member"].values()
    assert sum(each["delivered"] for each in members) == sum(each["received"] for each in members)
    assert all(each["received"] for each in members)


def test_what_may_not_be_is_rejected_each_with_its_code(played: dict[str, Any]) -> None:
    assert played["rejected"] == sum(played["rejected_by_code"].values()) >= 7
    assert {"bad-signature", "stream-of-another", "too-large"} <= played["rejected_by_code"].keys()
    assert played["leaves"]["repeated"] == 1


def test_something_is_withheld_and_some_are_kept_out(played: dict[str, Any]) -> None:
    assert played["withheld"]["person.source"] > 0
    assert {"denied by the issuer", "transfer-basis"} <= played["kept_from"].keys()


def test_the_trail_is_verified_against_what_collectors_kept(played: dict[str, Any]) -> None:
    assert played["trail_verified"] is True
    assert played["trail_size"] == sum(played["leaves"].values())


def test_the_three_commands_work_as_they_are_printed_one_after_the_other(played: dict[str, Any]) -> None:
    assert len(played["next"]) == 3
    for command in played["next"]:
        done = subprocess.run(shlex.split(command), capture_output=True, text=True, timeout=60, check=False)
        complaints = [each for each in done.stderr.splitlines() if not PROGRESS.fullmatch(each)]
        assert (done.returncode, complaints) == (0, []), command
        assert done.stdout


def test_a_broker_can_be_started_in_the_home_that_is_left(played: dict[str, Any], home: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "broker", "up", "--home", played["home"], "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as broker:
        assert broker.stdout is not None
        assert json.loads(broker.stdout.readline())["ready"] is True
        broker.terminate()
        assert broker.wait(timeout=60) == 0
    assert valise("audit", "verify", str(home / "operator" / "trail")).returncode == 0


def test_nothing_that_a_home_holds_is_open_to_other_accounts(played: dict[str, Any]) -> None:
    """The operator's home, the members', the bus, the trail: what others are to have is copied."""
    assert open_to_others(Path(played["home"])) == []


def test_it_does_not_play_over_what_is_there(played: dict[str, Any]) -> None:
    again = valise("demo", "--home", played["home"])
    assert again.returncode == 1
    assert "another folder" in again.stderr
