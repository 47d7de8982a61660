"""What tests of witnesses share."""

from __future__ import annotations

import pytest

from broker import submit


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a start wait for witnesses as long as an honest one may take on a busy machine."""
    monkeypatch.setattr(submit, "START_S", 60.0)
