"""Only what ends the children that judge it is never judged by us; what says nothing of the record does not count."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from broker.bus import Record
from broker.errors import CouldNotBeJudgedError, UnavailableError
from broker.marker import Marker, Trial

LIMIT_S = 60.0
ARRIVED = Record("notices.at", 0, 17, 0, b"", b"value")
OTHER = Record("notices.at", 0, 18, 0, b"", b"value")


def dies(_: Record) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def fails(_: Record) -> None:
    raise MemoryError


def lives(_: Record) -> None:
    return


@pytest.fixture
def marker(tmp_path: Path) -> Marker:
    before = Marker(tmp_path / "judging")
    with before.around(ARRIVED, 1):
        return Marker(tmp_path / "judging")


def test_what_ends_two_children_is_not_judged(marker: Marker) -> None:
    marker.try_out(ARRIVED, dies, LIMIT_S)
    assert marker.doubts([OTHER, ARRIVED])
    with pytest.raises(CouldNotBeJudgedError):
        marker.check(ARRIVED)
    marker.check(OTHER)


@pytest.mark.parametrize("trial", [lives, fails])
def test_what_leaves_a_child_alive_is_judged(marker: Marker, trial: Trial) -> None:
    marker.try_out(ARRIVED, trial, LIMIT_S)
    assert not marker.doubts([ARRIVED])
    marker.check(ARRIVED)


def test_where_no_child_can_be_had_the_record_stays_under_suspicion(
    marker: Marker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(_: object) -> None:
        raise OSError(24, "too many open files")

    with monkeypatch.context() as patch:
        patch.setattr("multiprocessing.context.SpawnProcess.start", none)
        with pytest.raises(UnavailableError):
            marker.try_out(ARRIVED, lives, LIMIT_S)
    assert marker.doubts([ARRIVED])
    marker.try_out(ARRIVED, lives, LIMIT_S)
    assert not marker.doubts([ARRIVED])


def test_where_the_end_of_a_child_cannot_be_known_the_record_stays_under_suspicion(marker: Marker) -> None:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with pytest.raises(UnavailableError):
            marker.try_out(ARRIVED, lives, LIMIT_S)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert marker.doubts([ARRIVED])


def test_a_mark_of_another_record_casts_no_doubt(marker: Marker) -> None:
    assert not marker.doubts([OTHER])


def test_its_file_has_its_place_on_disk_before_anything_is_marked(tmp_path: Path) -> None:
    """On a full disk the first mark would otherwise end the process, by a signal that says nothing."""
    Marker(tmp_path / "judging").close()
    assert (tmp_path / "judging").stat().st_blocks > 0
