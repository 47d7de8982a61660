"""How Hypothesis finds its cases; the order of the files where several processes share them (`make test`)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import pytest

FIRST = Path(__file__).parent / "journeys"
"""What takes longest, much of it waiting for nodes and processes: it should neither come last nor run alone."""

# The same cases in every run, on a machine however slow: no test fails by chance. `--hypothesis-profile default` tries
# others.
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put FIRST in front; all else stays as it was found."""
    items.sort(key=lambda each: not each.path.is_relative_to(FIRST))
