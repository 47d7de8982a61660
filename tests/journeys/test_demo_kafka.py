"""The demo on Kafka does what it does on the embedded bus, with certificates and bindings, and says nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from broker import settings
from tests.modes import open_to_others

pytestmark = [pytest.mark.slow, pytest.mark.kafka, pytest.mark.timeout(600)]
CERTIFIED = "ge.organised-crime"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo-kafka") / "home"


@pytest.fixture(scope="module")
def played(home: Path) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "cli.main",
        "demo",
        "--bus",
        "kafka",
        "--stop-kafka",
        "--home",
        str(home),
        "--json",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=540, check=False, umask=0o022)
    assert done.returncode == 0, done.stderr
    # Of the libraries not a line; that the jars are fetched, once, is told.
    assert [line for line in done.stderr.splitlines() if "fetching" not in line] == []
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def test_it_plays_the_whole_federation(played: dict[str, Any]) -> None:
    members = played["by_member"].values()
    assert (played["members"], len(members)) == (28, 28)
    assert sum(each["delivered"] for each in members) == sum(each["received"] for each in members) > played["notices"]
    assert played["trail_verified"] is True
    assert played["trail_size"] == sum(played["leaves"].values())


def test_what_may_not_be_is_rejected_each_with_its_code(played: dict[str, Any]) -> None:
    assert {"bad-signature", "stream-of-another", "too-large"} <= played["rejected_by_code"].keys()


def test_nothing_that_a_node_or_a_home_holds_is_open_to_other_accounts(played: dict[str, Any]) -> None:
    assert open_to_others(Path(played["home"])) == []


def test_a_certified_bureau_read_its_inbox_by_a_certificate_of_its_own(played: dict[str, Any], home: Path) -> None:
    member = settings.load(home / "members" / "GE")
    assert member.bus.startswith("kafka:")
    assert set(member.tls) == {"ge.adapter", CERTIFIED}
    assert played["by_member"]["GE"]["received"] > 0


def test_the_brokers_log_is_one_json_object_a_line(played: dict[str, Any], home: Path) -> None:
    lines = (home / "operator" / "broker.log").read_text(encoding="utf-8").splitlines()
    assert played["home"] == str(home)
    assert all("event" in json.loads(line) for line in lines)
