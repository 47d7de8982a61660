"""Long work shows a sign of life, also where nobody is called back."""

from __future__ import annotations

from threading import Event

import pytest

from cli.progress import PROGRESS_S, progress_of


def test_work_that_calls_nobody_back_is_watched(capsys: pytest.CaptureFixture[str]) -> None:
    looks, ended = iter((3_000_000, 3_000_000, 7_500_000)), Event()

    def look() -> int:
        if (found := next(looks, None)) is None:
            ended.set()
            return 7_500_000
        return found

    with progress_of("written", 9_000_000, look):
        assert ended.wait(30 * PROGRESS_S)
    assert capsys.readouterr().err.splitlines() == ["written 3 of 9 MB", "written 7 of 9 MB"], (
        "what stands still is quiet"
    )


def test_work_that_is_done_at_once_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_of("written", 9_000_000, lambda: 1_000_000):
        pass
    assert capsys.readouterr().err == ""
