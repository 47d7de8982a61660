"""An operator sees that a disk fills before the bus can write no more."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner

from broker import certificates, node
from cli import broker, disks, kafka, operator_home, seed


def left(share: float) -> disks.Usage:
    return lambda _: (10**12, round((1 - share) * 10**11), round(share * 10**11))


@pytest.mark.parametrize(("share", "scarce"), [(0.5, False), (0.101, False), (0.099, True), (0.0, True)])
def test_a_disk_with_less_than_a_tenth_free_is_red(tmp_path: Path, share: float, scarce: bool) -> None:
    """Of what is ours to write: the system keeps some of a disk for itself."""
    found = disks.look(tmp_path, left(share))
    assert (found.total, found.scarce) == (10**11, scarce)


def test_each_disk_is_told_once_with_where_the_nodes_store(tmp_path: Path) -> None:
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    cluster = node.load(made.folder / "kafka", certificates.pki_of(made.folder))
    (cluster.folder(1) / "data").mkdir(parents=True)
    looked: list[Path] = []

    def usage(folder: Path) -> tuple[int, int, int]:
        looked.append(folder)
        return 100, 95, 5

    (found,) = disks.of_home(made.folder, made.settings, usage)
    assert looked == [made.folder]
    assert disks.said(found) == f"0.0 of 0.0 GB are free where {made.folder} lies"


def test_status_says_red_where_a_disk_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    monkeypatch.setattr(disks, "SCARCE", 1.1)
    shown = CliRunner().invoke(kafka.kafka, ["status", "--home", str(tmp_path)])
    assert re.search(rf"RED [0-9.,]+ of [0-9.,]+ GB are free where {re.escape(str(made.folder))}", shown.output)
    told = json.loads(CliRunner().invoke(kafka.kafka, ["status", "--json", "--home", str(tmp_path)]).output)
    assert told["nodes"][0]["scarce"] is True


def test_a_node_with_a_disk_of_its_own_is_told_by_that(tmp_path: Path) -> None:
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    status = ["status", "--json", "--home", str(tmp_path)]
    assert str(made.folder / "kafka") in json.loads(CliRunner().invoke(kafka.kafka, status).output)["nodes"][0]["disk"]
    (data := made.folder / "kafka" / "node-1" / "data").mkdir(parents=True)
    assert str(data) in json.loads(CliRunner().invoke(kafka.kafka, status).output)["nodes"][0]["disk"]


def test_who_starts_nodes_is_told_first_which_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They end with a fault in an unsafe memory access, which names no disk."""
    made = operator_home.make(tmp_path, seed.seed(), "kafka")
    monkeypatch.setattr(disks, "SCARCE", 1.1)
    (made.folder / "kafka" / node.CONFIG).write_text("no cluster", encoding="utf-8")  # nothing starts in a test
    ended = CliRunner().invoke(kafka.kafka, ["up", "--home", str(tmp_path)])
    assert ended.exit_code != 0
    assert f"GB are free where {made.folder} lies; make room" in ended.stderr


def test_broker_status_says_red_where_a_disk_is_nearly_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CliRunner().invoke(broker.broker, ["init", "--home", str(tmp_path)])
    monkeypatch.setattr(disks, "SCARCE", 0.0)  # however full the disk is that the tests run on
    assert "RED" not in CliRunner().invoke(broker.broker, ["status", "--home", str(tmp_path)]).output
    monkeypatch.setattr(disks, "SCARCE", 1.1)
    shown = CliRunner().invoke(broker.broker, ["status", "--home", str(tmp_path)])
    assert "GB are free where" in shown.output
    assert "RED" in shown.output
