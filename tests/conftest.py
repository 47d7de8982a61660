"""The order of the tests where several processes share them, file by file (`make test`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

FIRST = Path(__file__).parent / "journeys"
"""What takes longest, much of it waiting for nodes and processes: it should neither come last nor run alone."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put FIRST in front; all else stays as it was found."""
    items.sort(key=lambda each: not each.path.is_relative_to(FIRST))
